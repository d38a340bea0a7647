"""The index of a feature store is mapped, and a store that would be too large is refused."""

import json
import pickle
import tracemalloc

import numpy as np
import pytest

from captionstew.data.features.fbank import FbankConfig
from captionstew.data.features.places import NAME, Places
from captionstew.data.features.shards import build_feature_store_in_shares
from captionstew.data.features.store import FeatureStore, build_feature_store
from captionstew.data.manifests.cuts import open_cuts


def write_index(folder, rows):
    lines = (json.dumps(row) + "\n" for row in rows)
    (folder / "index.jsonl").write_text("".join(lines), encoding="utf-8")


def test_every_row_is_found_and_nothing_else(tmp_path):
    rows = [
        {"id": f"clip-é-{n}", "speed": speed, "start": 100 * n, "frames": n}
        for n in range(200)
        for speed in (0.9, 1.0)
    ]
    failed = {"id": "broken", "path": "a.wav", "reason": "file is empty"}
    write_index(tmp_path, [*rows[:50], failed, *rows[50:]])
    for _ in range(2):  # made, then mapped
        places = Places(tmp_path)
        for row in rows:
            assert places.find(row["id"], row["speed"]) == (row["start"], row["frames"])
            assert places.failure(row["id"]) is None
        assert places.failure("broken") == ("a.wav", "file is empty")
        assert places.find("broken", 1.0) is None and places.find("clip-é-1", 1.1) is None
        assert places.num_stored == 400
    assert isinstance(np.load(tmp_path / NAME, mmap_mode="r"), np.memmap)


def test_an_empty_index_and_a_doubled_row(tmp_path):
    write_index(tmp_path, [])
    assert Places(tmp_path).find("x", 1.0) is None
    (tmp_path / NAME).unlink()
    write_index(tmp_path, [{"id": "x", "speed": 1.0, "start": 0, "frames": 1}] * 2)
    with pytest.raises(ValueError, match="two rows have the same cut and speed"):
        Places(tmp_path)


def test_a_process_holds_no_copy_of_a_large_index(tmp_path):
    rows = ({"id": f"clip-{n}", "speed": 1.0, "start": n, "frames": 1} for n in range(50_000))
    write_index(tmp_path, rows)
    Places(tmp_path)
    tracemalloc.start()
    places = Places(tmp_path)
    assert places.find("clip-31415", 1.0) == (31_415, 1)
    assert tracemalloc.get_traced_memory()[1] < 300_000  # a dictionary takes 16 MB
    tracemalloc.stop()


def test_a_store_that_was_made_before_is_opened(mini_manifest, tmp_path):
    cuts = open_cuts(mini_manifest).select(range(3))
    store = build_feature_store(tmp_path, cuts, FbankConfig(), progress=False)
    before = store.load(cuts[1].id)
    (store.folder / NAME).unlink()
    again = pickle.loads(pickle.dumps(FeatureStore(store.folder)))
    assert np.array_equal(again.load(cuts[1].id), before) and len(again) == 3


@pytest.mark.parametrize("build", [build_feature_store, build_feature_store_in_shares])
def test_a_store_that_would_be_too_large_is_refused_before_it_begins(
    build, mini_manifest, tmp_path
):
    cuts = open_cuts(mini_manifest).select(range(3))
    size = cuts.durations.sum() * 100 * 80 * 4 / 1e9
    with pytest.raises(ValueError, match="GB of one joined store: compute them on the fly"):
        build(tmp_path, cuts, FbankConfig(), max_gb=0.99 * size)
    assert not list(tmp_path.iterdir())
    assert len(build(tmp_path, cuts, FbankConfig(), max_gb=1.01 * size)) == 3
