"""Reference values of the metrics."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="session")
def metric_golden(shared_dir):
    """name of a file -> its cases by name (a list where they have none), or its arrays."""

    def read(name):
        path = shared_dir / "metric_golden" / name
        if path.suffix == ".npz":
            return np.load(path)
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        return {case["name"]: case for case in cases} if "name" in cases[0] else cases

    return read
