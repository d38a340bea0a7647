"""Piecewise-linear functions, scheduled floats, and every schedule and modifier setting of a
model.
"""

import pytest
from torch import nn

from zipformer import AudioTagger, set_batch_count
from zipformer.norm import BiasNorm
from zipformer.regularisers import Balancer, ScaleGrad, Whiten
from zipformer.resampling import Bypass
from zipformer.schedules import (
    PiecewiseLinear,
    Rate,
    ScheduledFloat,
    get_batch_count,
    named_schedules,
    zero_rates,
)

TOL = 1e-9


def close(a, b):
    return abs(a - b) <= TOL


def scheduled(golden, name):
    entry = golden.json("schedules.json")["scheduled"][name]
    return ScheduledFloat(*entry["pairs"], default=entry["default"])


def check_scheduled(golden, schedule, entry):
    assert all(close(a, b) for a, b in zip(flat(schedule.function.points), flat(entry["pairs"])))
    assert len(schedule.function.points) == len(entry["pairs"]) and close(
        schedule.default, entry["default"]
    )
    assert close(schedule.value, entry.get("no_count", entry["default"]))
    for count, value in zip(golden.json("schedules.json")["counts"], entry["values"]):
        schedule.set(batch_count=count)
        assert close(float(schedule), value)
    schedule.set(training=False)
    assert close(float(schedule), entry.get("eval", entry["default"]))


def flat(points):
    return [number for point in points for number in point]


def test_scheduled_floats(golden):
    file = golden.json("schedules.json")["scheduled"]
    for name, entry in file.items():
        left, *rest = name.split()
        schedule = scheduled(golden, left)
        if rest:
            operator, right = rest
            other = scheduled(golden, right) if right in file else float(right)
            schedule = schedule + other if operator == "+" else schedule.max(other)
        check_scheduled(golden, schedule, entry)


def test_piecewise_linear(golden):
    file = golden.json("schedules.json")["piecewise"]
    p, q = (PiecewiseLinear(*file[name]["pairs"]) for name in "pq")
    results = {
        "p": p,
        "q": q,
        "p*3": p * 3,
        "p+q": p + q,
        "p.max(q)": p.max(q),
        "p.min(q)": p.min(q),
    }
    results |= {"p.max(4.5)": p.max(4.5), "p.min(4.5)": p.min(4.5)}
    names = set(file) - {"xs"}
    for name in names - set(results):
        results[name] = eval(
            name, {"p": p, "q": q}
        )  # names of our own reference data, such as "p+2"
    for name in names:
        entry, function = file[name], results[name]
        assert len(function.points) == len(entry["pairs"]), name
        assert all(close(a, b) for a, b in zip(flat(function.points), flat(entry["pairs"]))), name
        assert all(close(function(x), y) for x, y in zip(file["xs"], entry["values"])), name


def test_equality_compares_points():
    assert PiecewiseLinear((0, 1), (2, 3)) == PiecewiseLinear((0.0, 1.0), (2.0, 3.0))
    assert PiecewiseLinear((0, 1), (2, 3)) != PiecewiseLinear((0, 1), (2, 4))


@pytest.mark.parametrize("points", [[], [(0.0, 1.0), (0.0, 2.0)], [(1.0, 1.0), (0.0, 2.0)]])
def test_bad_points_are_refused(points):
    with pytest.raises(ValueError):
        PiecewiseLinear(*points)


def test_every_schedule_of_a_model(golden):
    file = golden.json("schedules.json")
    config, classes = golden.config("model_a")
    model = AudioTagger(config, classes)
    schedules = named_schedules(model)
    for path, entry in file["model"].items():
        # The original's dropout argument of its downsampling has no effect; ours does not exist.
        if path.endswith("downsample.dropout") or path == "encoder.downsample_output.dropout":
            continue
        check_scheduled(golden, schedules[path], entry)


def test_every_modifier_of_a_model(golden):
    file = golden.json("modifiers.json")
    config, classes = golden.config("model_a")
    model = AudioTagger(config, classes)
    ours = {
        Balancer: "Balancer",
        Whiten: "Whiten",
        BiasNorm: "BiasNorm",
        Bypass: "BypassModule",
        ScaleGrad: "ScaleGrad",
    }
    modules = {path: module for path, module in model.named_modules() if type(module) in ours}
    assert {path: ours[type(module)] for path, module in modules.items()} == {
        path: entry["kind"] for path, entry in file["modules"].items()
    }
    for index, count in enumerate(file["counts"]):
        set_batch_count(model, count)
        for path, entry in file["modules"].items():
            for name, value in settings(modules[path]).items():
                expected = entry[name][index] if isinstance(entry[name], list) else entry[name]
                assert close(value, expected), f"{path}.{name} at {count}"


def settings(module):
    """Current settings of a modifier under the golden file's names."""
    names = {
        Balancer: [
            "num_channels",
            "min_positive",
            "max_positive",
            "min_abs",
            "max_abs",
            "grad_scale",
            "prob",
        ],
        Whiten: ["num_groups", "min_prob", "max_prob", "whitening_limit", "grad_scale"],
        Bypass: ["skip_rate", "scale_min", "scale_max"],
    }
    if isinstance(module, ScaleGrad):
        return {"alpha": module.factor}
    if isinstance(module, BiasNorm):
        return dict(zip(("log_scale_min", "log_scale_max"), module.limits))
    values = {name: float(getattr(module, name)) for name in names[type(module)]}
    return values | ({"first_prob": module.prob} if isinstance(module, Whiten) else {})


def test_schedules_follow_mode_and_count(golden):
    config, classes = golden.config("model_b")
    model = nn.Sequential(AudioTagger(config, classes))
    assert get_batch_count(model) is None
    set_batch_count(model, 20000.0)
    assert get_batch_count(model) == 20000.0
    frontend = model[0].encoder_embed
    assert frontend.dropout.p.value == pytest.approx(0.1)
    model.eval()
    assert frontend.dropout.p.value == 0.0
    model.train()
    assert frontend.dropout.p.value == pytest.approx(0.1)


def test_zero_rates(golden):
    config, classes = golden.config("model_b")
    model = AudioTagger(config, classes)
    zero_rates(model)
    for count in (0.0, 5000.0):
        set_batch_count(model, count)
        rates = [s for s in named_schedules(model).values() if isinstance(s, Rate)]
        assert rates and all(rate.value == 0.0 for rate in rates)
