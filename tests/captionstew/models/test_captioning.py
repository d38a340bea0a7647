"""The captioning model and its loss, alone and inside batches."""

import dataclasses

import pytest
import torch

from captionstew.checkpoint import CheckpointError
from captionstew.models.captioning import (
    CaptioningModel,
    captioning_losses,
    draw_parallel,
    load_captioning,
    token_losses,
)
from captionstew.models.text_decoder import build_text_decoder
from zipformer import Zipformer

MAX_TOKENS = 24


@pytest.fixture
def config(tiny_config, tokenizer):
    """What a checkpoint's config says of a tiny captioning model."""
    return {
        "encoder": tiny_config.to_dict(),
        "text_decoder": build_text_decoder("tiny", tokenizer, MAX_TOKENS - 1).to_dict(),
    }


@pytest.fixture
def model(config, tiny_config, tokenizer):
    """Weights moved away from their initial values; loaded as evaluations do, with a
    batch-invariant encoder.
    """
    torch.manual_seed(0)
    model = CaptioningModel(
        Zipformer(tiny_config), build_text_decoder("tiny", tokenizer, MAX_TOKENS - 1)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return load_captioning(config, model.state_dict(), "a.pt")


@torch.no_grad()
def losses_and_captions(model, tokenizer, features, lengths, texts, parallel, num_beams):
    memory, memory_lengths = model.encode_audio(features, lengths)
    ids, id_lengths = tokenizer.encode(texts, MAX_TOKENS)
    losses = token_losses(model(features, lengths, ids, id_lengths, parallel), ids, id_lengths)
    return losses, tokenizer.decode(
        model.decoder.generate(memory, memory_lengths, num_beams, MAX_TOKENS)
    )


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_clip_is_the_same_alone_and_in_any_batch(model, tokenizer, make_batch, num_beams):
    """Loss in either mode and caption, with neighbours of other lengths and more padding than
    needed.
    """
    batch = make_batch(0, 6, longest=120)
    features, lengths = batch["features"], batch["feature_lengths"]
    texts = [text[: 10 + 5 * row] for row, text in enumerate(batch["captions"])]
    padded = torch.nn.functional.pad(features, (0, 0, 0, 37), value=50.0)
    modes = torch.tensor([True, False, False, True, True, False])
    together, captions = losses_and_captions(
        model, tokenizer, padded, lengths, texts, modes, num_beams
    )
    assert len(set(captions)) > 1
    for rows in ([0], [1], [2], [3], [5, 4], [3, 1, 0]):
        longest = int(lengths[rows].max())
        alone, captions_alone = losses_and_captions(
            model, tokenizer, features[rows, :longest], lengths[rows], [texts[row] for row in rows],
            modes[rows], num_beams,
        )  # fmt: skip
        assert torch.allclose(alone, together[rows], rtol=1e-5)
        assert captions_alone == [captions[row] for row in rows]


def test_without_batch_invariance_padding_reaches_the_loss(model, tokenizer, make_batch):
    """Else the test above would prove nothing."""
    model.encoder.batch_invariant = False
    batch = make_batch(0, 2, longest=120)
    modes = torch.tensor([False, True])
    features, lengths = batch["features"], batch["feature_lengths"]
    together, _ = losses_and_captions(
        model, tokenizer, features, lengths, batch["captions"], modes, 1
    )
    longest = int(lengths[1])
    alone, _ = losses_and_captions(
        model, tokenizer, features[1:, :longest], lengths[1:], batch["captions"][1:], modes[1:], 1
    )
    assert not torch.allclose(alone, together[1:], rtol=1e-5)


def test_token_losses_equal_the_formula():
    """Equations 2 and 3 with loops: the sum over the tokens after <s>, the end among them, padding
    not.
    """
    logits = torch.randn(3, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[0, 3, 4, 5, 2], [0, 6, 2, 1, 1], [0, 2, 1, 1, 1]])
    lengths = torch.tensor([5, 3, 2])
    expected = []
    for row in range(3):
        terms = [
            logits[row, t - 1, ids[row, t]] - torch.logsumexp(logits[row, t - 1], 0)
            for t in range(1, lengths[row])
        ]
        expected.append(-sum(terms))
    assert torch.allclose(
        token_losses(logits, ids, lengths).double(), torch.stack(expected), rtol=1e-5
    )


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_terms_add_up_to_the_loss_and_each_clip_counts_once(model, tokenizer, make_batch, fraction):
    batch = make_batch(3, 5)
    torch.manual_seed(7)
    losses = captioning_losses(model, batch, tokenizer, MAX_TOKENS, fraction, torch.device("cpu"))
    torch.manual_seed(7)
    parallel = draw_parallel(5, fraction)
    ids, lengths = tokenizer.encode(batch["captions"], MAX_TOKENS)
    per_clip = token_losses(
        model(batch["features"], batch["feature_lengths"], ids, lengths, parallel), ids, lengths
    )
    assert losses.total.item() == pytest.approx(per_clip.sum().item(), rel=1e-6)
    assert losses.terms["loss"] is losses.total
    expected = {
        "autoregressive": (per_clip[~parallel], 1 - fraction),
        "parallel": (per_clip[parallel], fraction),
    }
    for name, (values, share) in expected.items():
        if share == 0.0:
            assert name not in losses.terms
        else:
            assert losses.terms[name].item() == pytest.approx(values.sum().item() / share, rel=1e-5)


def test_modes_are_drawn_clip_by_clip_from_torchs_generator():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    drawn = draw_parallel(20_000, 0.75)
    assert drawn.dtype == torch.bool and abs(drawn.float().mean().item() - 0.75) < 0.01
    assert not torch.equal(draw_parallel(20_000, 0.75), drawn)
    torch.set_rng_state(state)
    assert torch.equal(draw_parallel(20_000, 0.75), drawn)
    assert not draw_parallel(1000, 0.0).any() and draw_parallel(1000, 1.0).all()


def test_bridge_and_decoder_learn_with_the_encoder(tiny_config, tokenizer, make_batch):
    torch.manual_seed(0)
    model = CaptioningModel(
        Zipformer(tiny_config), build_text_decoder("tiny", tokenizer, MAX_TOKENS - 1)
    )
    captioning_losses(
        model, make_batch(0, 6), tokenizer, MAX_TOKENS, 0.5, torch.device("cpu")
    ).total.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all(name.startswith("encoder.encoder.") for name in without), (
        without
    )  # it leaves parts out at random
    assert all(parameter.grad.any() for parameter in model.encoder.encoder_embed.parameters())


def test_frames_of_the_decoders_width_need_no_bridge(tiny_config, tokenizer):
    encoder = Zipformer(dataclasses.replace(tiny_config, encoder_dim=(16, 128)))
    assert encoder.output_dim == 128
    model = CaptioningModel(encoder, build_text_decoder("tiny", tokenizer))
    assert isinstance(model.bridge, torch.nn.Identity)


def test_weights_of_another_model_are_refused(model, config):
    weights = {
        name: value for name, value in model.state_dict().items() if not name.startswith("bridge")
    }
    with pytest.raises(CheckpointError, match="bridge.weight"):
        load_captioning(config, weights, "a.pt")


@pytest.mark.slow
def test_it_learns_to_caption(tiny_config, tokenizer, make_batch):
    """Eight clips by heart, and the captions are those of the clips, not of the language alone."""
    torch.manual_seed(0)
    encoder = Zipformer(dataclasses.replace(tiny_config, batch_invariant=True))
    model = CaptioningModel(encoder, build_text_decoder("tiny", tokenizer, MAX_TOKENS - 1))
    batch = make_batch(0, 8)
    batch["features"] += 4.0 * torch.arange(8)[:, None, None]  # a loudness of its own for each clip
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(120):
        loss = captioning_losses(
            model, batch, tokenizer, MAX_TOKENS, 0.5, torch.device("cpu")
        ).total
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        memory, lengths = model.encode_audio(batch["features"], batch["feature_lengths"])
        captions = tokenizer.decode(model.decoder.generate(memory, lengths, 1, MAX_TOKENS))
    right = sum(caption == expected for caption, expected in zip(captions, batch["captions"]))
    assert right >= 6, list(zip(captions, batch["captions"]))
