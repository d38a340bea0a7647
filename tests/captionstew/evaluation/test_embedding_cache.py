"""Cached vectors: computed once, and again when anything that decides them changes."""

import numpy as np
import pytest

from captionstew.evaluation.embedding_cache import cached_vectors

SETTINGS = {"encoder": "12ab", "manifest": "34cd", "pooling": "mean"}


class Counter:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return np.full((2, 3), self.calls, dtype=np.float32)


def test_the_second_call_does_not_compute(tmp_path):
    compute = Counter()
    first = cached_vectors(tmp_path / "new", SETTINGS, compute)
    again = cached_vectors(tmp_path / "new", dict(reversed(SETTINGS.items())), compute)
    assert compute.calls == 1 and np.array_equal(first, again) and again.dtype == np.float32


@pytest.mark.parametrize("name", SETTINGS)
def test_changed_settings_compute_again(tmp_path, name):
    compute = Counter()
    cached_vectors(tmp_path, SETTINGS, compute)
    assert cached_vectors(tmp_path, SETTINGS | {name: "other"}, compute)[0, 0] == 2.0
    assert cached_vectors(tmp_path, SETTINGS, compute)[0, 0] == 1.0


def test_a_failed_computation_leaves_nothing(tmp_path):
    def fail():
        raise RuntimeError("broken clip")

    with pytest.raises(RuntimeError, match="broken clip"):
        cached_vectors(tmp_path, SETTINGS, fail)
    assert list(tmp_path.iterdir()) == []
