"""ScaledAdam against trajectories of the original, its resume, and what it does with bad
gradients.
"""

import copy
import json
import math

import pytest
import torch
from safetensors.torch import load_file

from zipformer.eden import Eden
from zipformer.scaled_adam import ScaledAdam

TRAJECTORIES = ["plain", "clip", "long", "periods"]
PARAMETER_TOLERANCE = 2e-5
STATE_TOLERANCE = 1e-4
CLIP_TOLERANCE = 1e-6


def relative_error(value: torch.Tensor, golden: torch.Tensor) -> float:
    """Largest difference over the largest finite value; infinite values must be at the same
    places.
    """
    finite = golden.isfinite()
    assert torch.equal(value.isfinite(), finite)
    return float((value - golden)[finite].abs().max() / golden[finite].abs().max().clamp(min=1e-30))


def toy_parameters(seed: int = 0) -> list[tuple[str, torch.nn.Parameter]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, 6), (6,), (), (4, 6), (1,), (3, 1, 5), (6,), ()]
    return [
        (f"p{i}", torch.nn.Parameter(torch.randn(shape, generator=generator)))
        for i, shape in enumerate(shapes)
    ]


def set_gradients(parameters, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def values(parameters) -> list[torch.Tensor]:
    return [parameter.detach().clone() for _, parameter in parameters]


def snapshot(optimizer: ScaledAdam) -> dict:
    return copy.deepcopy(optimizer.state_dict())


def assert_same(a, b) -> None:
    """Equal to the last bit, through lists and dictionaries."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        a, b = list(a.values()), [b[key] for key in a]
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for one, other in zip(a, b):
            assert_same(one, other)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


@pytest.fixture
def golden_case(golden_dir):
    folder = golden_dir("zipformer_golden")
    index = json.loads((folder / "index.json").read_text())["files"]
    return lambda name: (
        index[f"optim.{name}.safetensors"],
        load_file(folder / f"optim.{name}.safetensors"),
    )


def golden_optimizer(about: dict, tensors: dict):
    names = about["parameter_order"]
    named = [(name, torch.nn.Parameter(tensors[f"init.{name}"].clone())) for name in names]
    if about["groups"] == "one":
        groups = [{"named_params": named, "lr": about["lr"]}]
    else:
        groups = [
            {"named_params": named[:6], "lr": about["lr"]},
            {"named_params": named[6:], "lr": 0.5 * about["lr"]},
        ]
    return dict(named), ScaledAdam(groups, **about["options"])


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_trajectory_equals_the_original(golden_case, name):
    about, tensors = golden_case(name)
    parameters, optimizer = golden_optimizer(about, tensors)
    for step in range(about["steps"]):
        for group, lr in zip(optimizer.param_groups, tensors["lr"][step].tolist()):
            group["lr"] = lr
        for key, parameter in parameters.items():
            gradient = tensors.get(f"grads.{key}")
            parameter.grad = None if gradient is None else gradient[step].clone()
        optimizer.step()
        for key, parameter in parameters.items():
            assert (
                relative_error(parameter.detach(), tensors[f"after.{key}"][step])
                <= PARAMETER_TOLERANCE
            ), (
                key,
                step,
            )
        for factor, golden in zip(optimizer.last_step.clip_factors, tensors["clip"][step].tolist()):
            assert factor == pytest.approx(golden, rel=CLIP_TOLERANCE, abs=CLIP_TOLERANCE), step

    for leader, entries in about["final_state"].items():
        state = optimizer.state[parameters[leader]]
        assert set(state) == set(entries)
        for entry, value in entries.items():
            if entry == "model_norm_threshold":
                assert state[entry] == pytest.approx(value, rel=CLIP_TOLERANCE)
            elif isinstance(value, list):
                golden = tensors[f"state.{leader}.{entry}"]
                assert state[entry].shape == golden.shape
                assert relative_error(state[entry], golden) <= STATE_TOLERANCE, (leader, entry)
            else:
                assert state[entry] == value, (leader, entry)


def test_golden_clip_rates_come_from_eden(golden_case):
    about, tensors = golden_case("clip")
    _, optimizer = golden_optimizer(about, tensors)
    scheduler = Eden(optimizer, lr_batches=50, lr_epochs=3, warmup_batches=20, warmup_start=0.5)
    rates = tensors["lr"][:, 0].tolist()
    scheduler.step_epoch(0)
    for golden in rates[:20]:
        assert scheduler.last_lr()[0] == pytest.approx(golden, rel=1e-9)
        scheduler.step_batch()


@pytest.mark.parametrize("stop", [3, 9, 17, 101])
def test_resume_is_exact(tmp_path, stop):
    steps = stop + 25
    whole = toy_parameters()
    optimizer = ScaledAdam(whole, clipping_scale=2.0)
    for step in range(steps):
        set_gradients(whole, step)
        optimizer.step()
        if step == stop - 1:
            torch.save(
                {"model": values(whole), "optimizer": optimizer.state_dict()},
                tmp_path / "checkpoint.pt",
            )

    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    resumed = toy_parameters(seed=1)
    for (_, parameter), value in zip(resumed, checkpoint["model"]):
        parameter.data.copy_(value)
    second = ScaledAdam(resumed, lr=0.1, clipping_scale=2.0)
    second.load_state_dict(checkpoint["optimizer"])
    for step in range(stop, steps):
        set_gradients(resumed, step)
        second.step()
    assert_same(values(resumed), values(whole))
    assert_same(snapshot(second), snapshot(optimizer))


def test_state_of_other_parameters_is_refused():
    parameters = toy_parameters()
    optimizer = ScaledAdam(parameters)
    set_gradients(parameters, 0)
    optimizer.step()
    with pytest.raises(ValueError, match="another order"):
        ScaledAdam(parameters[1:] + parameters[:1]).load_state_dict(snapshot(optimizer))


def test_nan_gradient_skips_the_whole_step():
    parameters = toy_parameters()
    optimizer = ScaledAdam(
        [{"named_params": parameters[:4]}, {"named_params": parameters[4:]}], clipping_scale=2.0
    )
    for step in range(5):
        set_gradients(parameters, step)
        optimizer.step()
    before, state = values(parameters), snapshot(optimizer)
    parameters[5][1].grad[0, 0, 2] = math.nan
    optimizer.step()
    assert optimizer.last_step.skipped
    assert optimizer.last_step.nan_parameters == ("p5",)
    assert_same(values(parameters), before)
    assert_same(snapshot(optimizer), state)
    set_gradients(parameters, 5)
    optimizer.step()
    assert not optimizer.last_step.skipped
    assert not torch.equal(parameters[0][1], before[0])


@pytest.mark.parametrize("step", [0, 4, 15])
def test_infinite_gradient_counts_as_zero(step):
    parameters = toy_parameters()
    optimizer = ScaledAdam(parameters, clipping_scale=2.0)
    for i in range(step):
        set_gradients(parameters, i)
        optimizer.step()
    set_gradients(parameters, step)
    parameters[0][1].grad[0, 0] = math.inf
    optimizer.step()
    assert optimizer.last_step.clip_factors == (0.0,)
    assert not optimizer.last_step.skipped
    assert all(parameter.isfinite().all() for _, parameter in parameters)


def test_median_of_infinite_norms_stops_training():
    parameters = toy_parameters()
    optimizer = ScaledAdam(parameters, clipping_scale=2.0)
    with pytest.raises(RuntimeError, match="diverged"):
        for step in range(11):
            set_gradients(parameters, step)
            parameters[0][1].grad.fill_(math.inf)
            optimizer.step()


def test_share_clipped_counts_since_the_last_threshold():
    parameters = toy_parameters()
    optimizer = ScaledAdam(parameters, clipping_scale=2.0, clipping_update_period=30)
    shares = []
    for step in range(34):
        set_gradients(parameters, step)
        for _, parameter in parameters:
            parameter.grad *= 100.0 if step in (11, 31, 32) else 1.0
        optimizer.step()
        shares.append(optimizer.last_step.share_clipped[0])
    assert shares[9:13] == [0.0, 0.0, 1 / 2, 1 / 3]
    assert shares[20] == 0.0
    assert shares[30:34] == [0.0, 1 / 2, 2 / 3, 2 / 4]


def test_stacking_changes_no_number():
    together, apart = toy_parameters(), toy_parameters()
    optimizers = [ScaledAdam(together)] + [ScaledAdam([named]) for named in apart]
    for step in range(12):
        set_gradients(together, step)
        set_gradients(apart, step)
        for optimizer in optimizers:
            optimizer.step()
    for (_, a), (_, b) in zip(together, apart):
        assert relative_error(a.detach(), b.detach()) <= 1e-6


def test_gradients_are_not_modified():
    parameters = toy_parameters()
    optimizer = ScaledAdam(parameters, clipping_scale=2.0)
    for step in range(12):
        set_gradients(parameters, step)
        if step == 11:
            parameters[5][1].grad *= 1000
        gradients = [parameter.grad.clone() for _, parameter in parameters]
        optimizer.step()
        assert_same([parameter.grad for _, parameter in parameters], gradients)
    assert optimizer.last_step.clip_factors[0] < 1


def test_copy_of_the_optimizer_works():
    parameters = toy_parameters()
    optimizer = copy.deepcopy(ScaledAdam(parameters, clipping_scale=2.0))
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert not torch.equal(optimizer.param_groups[0]["params"][0], parameters[0][1])


def test_half_precision_parameters_are_refused():
    with pytest.raises(ValueError, match="autocast"):
        ScaledAdam([torch.nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))])


def test_closure_is_called():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = ScaledAdam([parameter])

    def closure():
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
    assert (parameter < 1).all()
