import pytest
import torch
from torch import nn

from zipformer.parameter_groups import get_parameter_groups
from zipformer.scaled_adam import ScaledAdam


def model() -> nn.Module:
    root = nn.Module()
    root.encoder = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, bias=False))
    root.head = nn.Linear(3, 2)
    root.encoder.lr_scale = 0.5
    root.encoder[1].lr_scale = 0.5
    return root


def names(groups: list[dict]) -> list[tuple[float, list[str]]]:
    return [(group["lr"], [name for name, _ in group["named_params"]]) for group in groups]


def test_rates_multiply_along_the_path():
    groups = get_parameter_groups(model(), lr=0.04)
    assert names(groups) == [
        (0.02, ["encoder.0.weight", "encoder.0.bias"]),
        (0.01, ["encoder.1.weight"]),
        (0.04, ["head.weight", "head.bias"]),
    ]


def test_scale_of_the_root_counts_and_equal_rates_join():
    root = model()
    root.lr_scale = 2.0
    root.head.lr_scale = 0.5
    groups = get_parameter_groups(root, lr=0.04)
    assert [rate for rate, _ in names(groups)] == [0.04, 0.02]
    assert names(groups)[0][1] == ["encoder.0.weight", "encoder.0.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_frozen_modules_are_left_out(wrapped):
    root = model()
    prefix = "module." if wrapped else ""
    if wrapped:
        wrapper = nn.Module()
        wrapper.module, root = root, wrapper
    groups = get_parameter_groups(root, lr=0.04, freeze=["encoder"])
    assert names(groups) == [(0.04, [prefix + "head.weight", prefix + "head.bias"])]


def test_parameters_without_gradient_are_left_out():
    root = model()
    root.encoder.requires_grad_(False)
    assert names(get_parameter_groups(root, lr=0.04)) == [(0.04, ["head.weight", "head.bias"])]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="encodr.*encoder"):
        get_parameter_groups(model(), lr=0.1, freeze=["encodr"])
    with pytest.raises(ValueError, match="left to train"):
        get_parameter_groups(model(), lr=0.1, freeze=["encoder", "head"])


def test_the_optimizer_takes_the_groups():
    optimizer = ScaledAdam(get_parameter_groups(model(), lr=0.04), clipping_scale=2.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.01, 0.04]
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.step()
    assert "encoder.1.weight" in optimizer.last_step.nan_parameters
