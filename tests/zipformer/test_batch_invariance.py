"""batch_invariant: a clip gets the frames that it would get alone, whatever it is batched with."""

import pytest
import torch

from zipformer import Zipformer, ZipformerConfig
from zipformer.randomness import share_randomness
from zipformer.schedules import zero_rates

SMALL = {
    "encoder_dim": (24, 32, 40, 48, 40, 32),
    "num_encoder_layers": (1, 2, 1, 1, 1, 1),
    "encoder_unmasked_dim": 24,
    "feedforward_dim": 48,
    "query_head_dim": 8,
    "batch_invariant": True,
}
CONFIGS = {
    "captionstew": ZipformerConfig.preset("captionstew", **SMALL),
    "mini": ZipformerConfig.preset("mini", batch_invariant=True),
    "odd": ZipformerConfig.preset(
        "captionstew", **SMALL | {"downsampling_factor": (2, 1, 3, 5, 7, 1)}
    ),
    "causal": ZipformerConfig.preset("captionstew", **SMALL, causal=True),
    "chunks": ZipformerConfig.preset(
        "captionstew", **SMALL, causal=True, chunk_size=128, left_context_frames=128
    ),
}
# Feature frames at 100 Hz: 1 to 30 s, ends at every remainder of the downsampling factors, and the
# shortest possible.
RAGGED = [100, 3000, 1733, 457, 2222]
NEIGHBOURS = [*range(393, 410), 9, 25]


def build(name):
    """A model moved away from its initial values, so that every module matters."""
    model = Zipformer(CONFIGS[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def ragged_batch(lengths, extra_padding=0, padding=-15.942385):
    lengths = torch.tensor(lengths)
    features = torch.randn(len(lengths), int(lengths.max()) + extra_padding, 80) * 3 - 6
    for item, length in zip(features, lengths):
        item[length:] = padding
    return features, lengths


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "lengths", [pytest.param(RAGGED, marks=pytest.mark.slow), NEIGHBOURS], ids=["ragged", "near"]
)
def test_every_clip_equals_the_same_clip_alone(name, lengths):
    model = build(name).eval()
    features, lengths = ragged_batch(lengths)
    check_against_alone(model, features, lengths)


@pytest.mark.parametrize("name", ["captionstew", "causal"])
def test_more_padding_than_needed_and_other_padding_values(name):
    features, lengths = ragged_batch([300, 171, 64, 9], extra_padding=53, padding=100.0)
    check_against_alone(build(name).eval(), features, lengths)


def test_without_it_padding_reaches_the_last_frames():
    model = build("captionstew").eval()
    model.batch_invariant = False
    features, lengths = ragged_batch([300, 171, 64, 9])
    with pytest.raises(AssertionError):
        check_against_alone(model, features, lengths)


def test_lengths_on_the_device_give_the_same(monkeypatch):
    """Where lengths are on a GPU, masks are always built; the numbers must not depend on that."""
    model = build("captionstew").eval()
    features, lengths = ragged_batch([120, 120])
    with torch.no_grad():
        expected, _ = model(features, lengths)

        def always(lengths, num_frames, device):
            return torch.arange(num_frames) >= lengths[:, None]

        monkeypatch.setattr("zipformer.model.padding_mask", always)
        monkeypatch.setattr("zipformer.encoder.padding_mask", always)
        actual, _ = model(features, lengths)
    assert torch.allclose(actual, expected, atol=1e-6)


def test_gradients_in_training_equal_those_of_the_clips_alone(fixed_randomness):
    model = build("captionstew").train()
    zero_rates(model)
    share_randomness(model, fixed_randomness(decision=1.0))
    features, lengths = ragged_batch([101, 64, 9])

    def gradients(batches):
        model.zero_grad()
        for features, lengths in batches:
            frames, frame_lengths = model(features, lengths)
            for clip, length in zip(frames, frame_lengths):
                clip[:length].square().mean().backward(retain_graph=True)
        return {key: p.grad for key, p in model.named_parameters() if p.grad is not None}

    together = gradients([(features, lengths)])
    alone = gradients(
        [(features[i : i + 1, :n], lengths[i : i + 1]) for i, n in enumerate(lengths)]
    )
    assert together.keys() == alone.keys()
    for key, value in together.items():
        assert (value - alone[key]).abs().max() <= 1e-4 * alone[key].abs().max() + 1e-5, key


def check_against_alone(model, features, lengths):
    with torch.no_grad():
        frames, frame_lengths = model(features, lengths)
        for item, length in enumerate(lengths.tolist()):
            alone, alone_length = model(
                features[item : item + 1, :length], lengths[item : item + 1]
            )
            assert frame_lengths[item] == alone_length[0] == alone.shape[1]
            error = (frames[item, : alone.shape[1]] - alone[0]).abs().max() / alone.abs().max()
            assert error <= 1e-5, f"item {item} of {length} frames: {error:.2g}"
