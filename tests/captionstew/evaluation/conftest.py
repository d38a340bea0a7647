"""Reference values of the metrics, and result files."""

import json

import numpy as np
import pytest

from captionstew.evaluation.results import write_result


class Cases(dict):
    """Cases by name; those whose texts may not be passed on are in the full set alone."""

    def __missing__(self, name):
        pytest.skip(f"reference data not found: {name} is in the full set alone")


@pytest.fixture(scope="session")
def metric_golden(golden_dir):
    """name of a file -> its cases by name (a list where they have none), or its arrays."""

    def read(name):
        path = golden_dir("metric_golden") / name
        if path.suffix == ".npz":
            return np.load(path)
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        return Cases((case["name"], case) for case in cases) if "name" in cases[0] else cases

    return read


@pytest.fixture(scope="session")
def result():
    """result(folder, **changes) -> the path of a result file, of a probe unless told otherwise."""

    def write(folder, **changes):
        values = {
            "task": "probe_esc10",
            "split": "test",
            "system": "ours",
            "encoder": {
                "path": "a.pt",
                "sha256": "12",
                "preset": "mini",
                "pretraining": "contrastive",
            },
            "metrics": {
                "accuracy": 0.75,
                "accuracy_deviation": 0.01,
                "accuracy_interval": (0.7, 0.8),
            },
            "num_clips": 100,
            "settings": {"metric": "accuracy"},
            "trained_clips": {
                "trained": 0,
                "by_key": 0,
                "by_audio": 0,
                "clips": 100,
                "complete": True,
            },
        }
        return write_result(folder, **(values | changes))

    return write


@pytest.fixture(scope="session")
def retrieval_metrics():
    """retrieval_metrics(value) -> metrics of both directions, all recalls alike."""

    def make(value):
        metrics = {}
        for direction in ("text_to_audio", "audio_to_text"):
            for name in ("r1", "r5", "r10", "map10"):
                key = f"{direction}_{name}"
                metrics |= {
                    key: value,
                    f"{key}_interval": (value - 0.1, value + 0.1),
                    f"{key}_chance": value / 5,
                }
        return metrics

    return make
