"""The plain baseline computes what the original computes, so that comparing its speed is fair."""

import importlib.util
import json
import random
import sys

import pytest
import torch
from safetensors.torch import load_file

from zipformer import ZipformerConfig, set_batch_count
from zipformer.schedules import zero_rates


@pytest.fixture
def plain_zipformer(repository, monkeypatch):
    """The module, loaded as `python benchmarks/encoder.py` would: beside its sibling."""
    for name in ("plain_modules", "plain_zipformer"):
        spec = importlib.util.spec_from_file_location(
            name, repository / "benchmarks" / f"{name}.py"
        )
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(plain_zipformer, shared_dir):
    folder = shared_dir / "zipformer_golden"
    values = json.loads((folder / "index.json").read_text())["files"]["model_a.state.safetensors"][
        "config"
    ]
    values.pop("num_events")
    state = load_file(folder / "model_a.state.safetensors")
    encoder = plain_zipformer.PlainZipformer(ZipformerConfig(**values))
    encoder.load_state_dict(
        {key: value for key, value in state.items() if not key.startswith("classifier.")}
    )
    return encoder


def golden(shared_dir, name: str) -> dict:
    return load_file(shared_dir / "zipformer_golden" / f"model_a.{name}.safetensors")


def assert_close(actual, expected, tol, atol=0.0, name=""):
    error = (actual - expected).abs().max().item()
    assert error <= tol * expected.abs().max().item() + atol, f"{name}: {error:.3g}"


@pytest.mark.parametrize("kind", ["eval", "eval_short", "eval_one_long"])
def test_evaluation_equals_the_original(model, shared_dir, kind):
    file = golden(shared_dir, kind)
    with torch.no_grad():
        frames, lengths = model.eval()(file["in.features"], file["in.lens"])
    assert_close(frames, file["out.encoder"], 1e-5)
    assert torch.equal(lengths, file["out.encoder_lens"])


@pytest.mark.parametrize("kind, draw", [("train_plain", 1.0), ("train_modified", 0.0)])
def test_training_equals_the_original(model, shared_dir, monkeypatch, kind, draw):
    file, inputs = golden(shared_dir, kind), golden(shared_dir, "eval")
    monkeypatch.setattr(random, "random", lambda: draw)
    model.train()
    set_batch_count(model, 3000.0)
    zero_rates(model)
    monkeypatch.setattr(torch, "rand", lambda shape, device=None: torch.ones(shape))
    frames, lengths = model(inputs["in.features"], inputs["in.lens"])
    assert_close(frames.detach(), file["out.encoder"], 1e-5)

    loss = (frames * file["in.loss_weight_encoder"]).sum()
    loss = (
        loss + (tagging_logits(shared_dir, frames, lengths) * file["in.loss_weight_logits"]).sum()
    )
    loss.backward()
    for name, parameter in model.named_parameters():
        if f"grad.param.{name}" in file:
            assert_close(parameter.grad, file[f"grad.param.{name}"], 1e-4, 1e-5, name)


def tagging_logits(shared_dir, frames, lengths):
    """The golden loss includes a tagging head, which the encoder does not have."""
    state = golden(shared_dir, "state")
    logits = frames @ state["classifier.1.weight"].T + state["classifier.1.bias"]
    valid = torch.arange(frames.shape[1]) < lengths[:, None]
    return (logits * valid[..., None]).sum(dim=1) / lengths[:, None]
