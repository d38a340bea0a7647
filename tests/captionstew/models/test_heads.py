"""Heads in stacks: each copy as if alone, every clip as if alone, attention as torch's own."""

import pytest
import torch
import torch.nn.functional as F

from captionstew.evaluation.probing.clips import FrameClips, VectorClips
from captionstew.evaluation.probing.fit import (
    Heads,
    Probe,
    ProbeSettings,
    cross_entropy_per_head,
    train_probe,
)
from captionstew.evaluation.probing.head_metrics import AccuracyPerHead
from captionstew.models.heads import (
    AttentionHead,
    FrameHead,
    LinearHead,
    head_from_dict,
    head_to_dict,
)
from captionstew.models.pooling import attention_pool

HEADS = [LinearHead(8, 3), FrameHead(8, 3), AttentionHead(8, 3, 2)]


def stacked(head, seeds):
    copies = [head.initial(torch.Generator().manual_seed(seed)) for seed in seeds]
    return {name: torch.stack([one[name] for one in copies]) for name in copies[0]}


def inputs_of(head, clips=5, frames=7):
    if type(head) is LinearHead:
        return (torch.randn(clips, 8),)
    return torch.randn(clips, frames, 8), torch.tensor([frames, 1, 3, frames - 1, 2][:clips])


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_a_copy_scores_as_if_it_were_alone(head):
    weights, inputs = stacked(head, [0, 1, 2]), inputs_of(head)
    scores = head.scores(weights, *inputs)
    assert scores.shape[:2] == (3, 5) and scores.shape[-1] == 3
    for number in range(3):
        alone = head.scores(
            {name: value[number : number + 1] for name, value in weights.items()}, *inputs
        )
        torch.testing.assert_close(scores[number], alone[0])
    assert head_from_dict(head_to_dict(head)) == head


def test_a_clips_scores_do_not_depend_on_its_batch():
    head = HEADS[2]
    weights, (frames, lengths) = stacked(head, [0, 1]), inputs_of(head)
    scores = head.scores(weights, frames, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = head.scores(weights, frames[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(scores[:, row], alone[:, 0])
    for row, length in enumerate(lengths.tolist()):
        frames[row, length:] = float("nan")
    torch.testing.assert_close(head.scores(weights, frames, lengths), scores)


def test_attention_is_multihead_attention_with_one_learned_query():
    """The product of query and key projections, as one vector per attention head, in torch's own
    module.
    """
    dim, heads, frames = 8, 2, torch.randn(3, 6, 8, dtype=torch.float64)
    module = torch.nn.MultiheadAttention(dim, heads, bias=False, batch_first=True).double()
    seed = torch.randn(1, 1, dim, dtype=torch.float64)
    with torch.no_grad():
        module.out_proj.weight.copy_(torch.eye(dim))
        query, key, value = module.in_proj_weight.chunk(3)
        size = dim // heads
        q, keys = (query @ seed[0, 0]).view(heads, size), key.view(heads, size, dim)
        vectors = torch.einsum("hk,hkd->hd", q, keys) / size**0.5
        lengths = torch.tensor([6, 2, 4])
        pooled = attention_pool(frames, lengths, vectors)
        ours = torch.einsum("bhd,hkd->bhk", pooled, value.view(heads, size, dim)).flatten(1)
        padding = torch.arange(6) >= lengths[:, None]
        expected, _ = module(seed.expand(3, 1, dim), frames, frames, key_padding_mask=padding)
    torch.testing.assert_close(ours, expected[:, 0])


def test_an_attention_head_that_cannot_be_is_refused():
    with pytest.raises(
        ValueError, match="3 attention heads do not divide the encoder's 8 channels"
    ):
        AttentionHead(8, 3, 3)


def test_heads_that_go_on_alone_train_as_they_would_have():
    x, labels = torch.randn(32, 8), torch.arange(32) % 3
    all_of_them, fewer = (Heads(LinearHead(8, 3), [1e-3, 1e-2, 3e-2], [0, 1, 2]) for _ in range(2))
    for step in range(20):
        if step == 7:
            fewer.keep(torch.tensor([0, 2]))
        for heads in (all_of_them, fewer):
            heads.optimizer.zero_grad()
            cross_entropy_per_head(heads.scores(x), labels).sum().backward()
            heads.optimizer.step()
    assert len(fewer) == 2
    for name, value in all_of_them.weights().items():
        torch.testing.assert_close(fewer.weights()[name], value[[0, 2]], rtol=1e-4, atol=1e-6)


def burst(count, seed, frames=12):
    """The class is which of three channels is loud, in one frame of twelve: the mean hardly shows
    it.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    x = torch.randn(count, frames, 8, generator=generator)
    where = torch.randint(frames, (count,), generator=generator)
    x[torch.arange(count), where] = 0.0
    x[torch.arange(count), where, labels] = 4.0
    x[torch.arange(count), where, 7] = 6.0  # what attention can look for
    return x, labels


def frame_clips(x, labels):
    def source(ids):
        rows = [int(name) for name in ids]
        return x[rows], torch.full((len(rows),), x.size(1))

    return FrameClips(source, [str(row) for row in range(len(x))], labels)


@pytest.mark.slow
def test_attention_learns_where_to_look_and_the_mean_does_not():
    settings = ProbeSettings(
        learning_rates=(3e-3, 1e-2), seeds=(0, 1), max_epochs=40, batch_size=32
    )
    train, valid = burst(300, 1), burst(90, 2)
    loss, metric = cross_entropy_per_head, AccuracyPerHead
    attention = train_probe(
        AttentionHead(8, 3, 2), frame_clips(*train), frame_clips(*valid), loss, metric, settings
    )
    vectors = [VectorClips(x.mean(1), labels) for x, labels in (train, valid)]
    mean = train_probe(LinearHead(8, 3), *vectors, loss, metric, settings)
    assert min(attention.valid_metric) > 0.95 and max(mean.valid_metric) < 0.85
    again = Probe.from_dict(attention.to_dict())
    x, lengths = burst(9, 3)[0], torch.full((9,), 12)
    assert torch.equal(again.scores(x, lengths), attention.scores(x, lengths))
    assert torch.equal(attention.scores(x, lengths, seed=1)[0], attention.scores(x, lengths)[1])
    sizes = {"query": 16, "seed": 8, "value": 72, "norms": 32, "feedforward": 72, "linear": 27}
    assert attention.num_parameters == sum(sizes.values())


def test_large_batches_in_pieces_give_the_same_probe(monkeypatch):
    settings = ProbeSettings(learning_rates=(1e-2,), seeds=(0,), max_epochs=3, batch_size=16)
    train, valid = (frame_clips(*burst(count, count)) for count in (48, 12))
    results = []
    for most in (1 << 26, 3 * 5):
        monkeypatch.setattr("captionstew.evaluation.probing.fit.MAX_SCORES", most)
        results.append(
            train_probe(
                AttentionHead(8, 3, 2),
                train,
                valid,
                cross_entropy_per_head,
                AccuracyPerHead,
                settings,
            )
        )
    for name, value in results[0].weights.items():
        torch.testing.assert_close(results[1].weights[name], value, rtol=1e-3, atol=1e-5)


def test_validation_every_few_epochs_and_at_the_end():
    calls = []

    class Counted(AccuracyPerHead):
        def values(self):
            calls.append(1)
            return super().values()

    x = torch.randn(12, 8)
    clips = VectorClips(x, torch.arange(12) % 3)
    settings = ProbeSettings(learning_rates=(1e-2,), seeds=(0,), max_epochs=8, valid_every=3)
    train_probe(LinearHead(8, 3), clips, clips, cross_entropy_per_head, Counted, settings)
    assert len(calls) == 3  # after epochs 3, 6 and 8


def test_the_loss_of_a_class_no_head_knows_is_zero():
    logits = torch.randn(2, 3, 4)
    loss = cross_entropy_per_head(logits, torch.tensor([1, -1, 2]))
    known = F.cross_entropy(logits[0, [0, 2]], torch.tensor([1, 2]), reduction="sum") / 3
    torch.testing.assert_close(loss[0], known)
