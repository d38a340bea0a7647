"""Inputs that do not fit, reproducibility, and the training state beside the state dict."""

import json

import pytest
import torch

from zipformer import (
    Zipformer,
    ZipformerConfig,
    load_training_state,
    set_batch_count,
    training_state,
)
from zipformer.regularisers import Whiten

CONFIG = ZipformerConfig(
    downsampling_factor=(1, 2),
    encoder_dim=(16, 24),
    num_encoder_layers=(1, 2),
    encoder_unmasked_dim=12,
    query_head_dim=4,
    num_heads=2,
    feedforward_dim=24,
    cnn_module_kernel=5,
    frontend_channels=(4, 4, 4),
)
LENGTHS = torch.tensor([80, 60, 33])


def features():
    return torch.randn(3, 80, 80, generator=torch.Generator().manual_seed(1)) * 3 - 6


def step(model):
    """Gradients of one training step; leaves the model without them."""
    model.zero_grad()
    frames, _ = model(features(), LENGTHS)
    (
        frames * torch.randn(frames.shape, generator=torch.Generator().manual_seed(2))
    ).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def equal(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize(
    "shape, lengths, message",
    [
        ((2, 50, 40), [50, 50], r"expected \(batch, frames, 80\)"),
        ((2, 50, 80), [50], "lengths have shape"),
        ((2, 8, 80), [8, 8], "at least 9"),
        ((2, 50, 80), [51, 50], "must lie between"),
        ((2, 50, 80), [50, 8], "must lie between 9"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(shape, lengths, message):
    with pytest.raises(ValueError, match=message):
        Zipformer(CONFIG)(torch.zeros(shape), torch.tensor(lengths))


def test_output_shape():
    frames, lengths = Zipformer(CONFIG).eval()(features(), LENGTHS)
    assert frames.shape == (3, 18, 24) and lengths.tolist() == [18, 13, 7]


def test_the_unused_parameter_takes_no_gradient():
    model = Zipformer(CONFIG)
    step(model)
    without = {key for key, p in model.named_parameters() if p.grad is None}
    assert without == {key for key, p in model.named_parameters() if not p.requires_grad}
    assert all(key.endswith("bypass_scale") for key in without) and len(without) == 3


def test_evaluation_is_deterministic():
    model = Zipformer(CONFIG).eval()
    assert equal(step(model), step(model))


def test_the_seed_fixes_training():
    def run():
        torch.manual_seed(5)
        model = Zipformer(CONFIG)
        set_batch_count(model, 100.0)
        return step(model) + step(model)

    assert equal(run(), run())


def test_training_state_resumes_exactly():
    model = Zipformer(CONFIG)
    set_batch_count(model, 100.0)
    for _ in range(3):
        step(model)
    assert any(m.prob != Whiten.max_prob for m in model.modules() if isinstance(m, Whiten))
    state = json.loads(json.dumps(training_state(model)))
    tensor_state, weights = torch.get_rng_state(), model.state_dict()
    expected = step(model) + step(model)

    resumed = Zipformer(CONFIG)
    resumed.load_state_dict(weights)
    load_training_state(resumed, state)
    torch.set_rng_state(tensor_state)
    assert equal(step(resumed) + step(resumed), expected)


def test_training_state_survives_a_checkpoint_file_and_a_wrapper(tmp_path):
    model = Zipformer(CONFIG)
    torch.save(training_state(model), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    wrapped = torch.nn.ModuleDict({"module": Zipformer(CONFIG)})
    load_training_state(wrapped, state)
    assert training_state(wrapped) == state


def test_training_state_of_another_model_is_refused():
    state = training_state(Zipformer(CONFIG))
    other = Zipformer(CONFIG.replace(num_encoder_layers=1))
    with pytest.raises(ValueError, match="another model"):
        load_training_state(other, state)
    with pytest.raises(ValueError, match="version"):
        load_training_state(Zipformer(CONFIG), {})


def test_k2_backend_agrees():
    pytest.importorskip("k2", reason="k2 is not installed; its swoosh kernels cannot be compared")
    model, other = Zipformer(CONFIG).eval(), Zipformer(CONFIG.replace(swoosh_backend="k2")).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.allclose(
            model(features(), LENGTHS)[0], other(features(), LENGTHS)[0], atol=1e-4
        )


def test_k2_backend_without_k2_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "k2", None)
    with pytest.raises(ImportError, match="use swoosh_backend 'torch'"):
        Zipformer(CONFIG.replace(swoosh_backend="k2"))(features(), LENGTHS)


@pytest.mark.parametrize("mode", [True, False])
def test_bfloat16_autocast_is_close_to_float32(mode):
    model = Zipformer(CONFIG).train(mode)
    model.encoder.feature_mask_rate.__init__((0.0, 0.0))
    for module in model.modules():
        if hasattr(module, "dropout") and hasattr(module.dropout, "function"):
            module.dropout.__init__((0.0, 0.0))
    expected, _ = model(features(), LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames, _ = model(features(), LENGTHS)
    frames.float().sum().backward()
    assert (frames - expected).abs().max() <= 0.05 * expected.abs().max()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32
        for p in model.parameters()
        if p.requires_grad
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_under_autocast(dtype):
    """Every module meets inputs of both precisions; gradients arrive in float32."""
    torch.manual_seed(0)
    encoder = Zipformer(ZipformerConfig.preset("mini", num_encoder_layers=1)).train()
    with torch.autocast("cpu", dtype=dtype):
        frames, _ = encoder(torch.randn(2, 60, 80), torch.tensor([60, 45]))
    frames.float().pow(2).sum().backward()
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert len(gradients) > 50, len(gradients)
    assert all(
        gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients
    )
