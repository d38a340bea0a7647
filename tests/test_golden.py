"""The reference numbers that the repository keeps are those of the full set, and small."""

import json
from pathlib import Path

import numpy as np

KEPT = Path(__file__).parent / "golden"
PRUNED = ("index.json", "captions.json", "ptb.json", "diversity.json", "psds.json")


def test_small_enough_for_a_clone():
    assert sum(path.stat().st_size for path in KEPT.rglob("*") if path.is_file()) <= 8_000_000


def test_equal_to_the_full_set(shared_dir):
    for path in (path for path in KEPT.rglob("*") if path.is_file()):
        full = shared_dir / path.relative_to(KEPT)
        if path.name == "psds_scores.npz":
            kept, arrays = np.load(path), np.load(full)
            assert all(np.array_equal(kept[name], arrays[name]) for name in kept)
        elif path.name in PRUNED:
            kept, whole = json.loads(path.read_text()), json.loads(full.read_text())
            if path.name == "index.json":
                assert kept["files"].items() <= whole["files"].items()
            else:
                assert kept["cases"] and all(case in whole["cases"] for case in kept["cases"])
        else:
            assert path.read_bytes() == full.read_bytes(), path
