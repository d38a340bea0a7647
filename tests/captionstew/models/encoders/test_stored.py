"""Files of vectors that were computed elsewhere."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captionstew.models.encoders.stored import load_embeddings, save_embeddings

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)
IDS = ["a", "b", "c", "d"]


@pytest.mark.parametrize("suffix", ["npz", "parquet", "npy"])
def test_round_trip_and_order(tmp_path, suffix):
    path = tmp_path / f"asc-clap.{suffix}"
    save_embeddings(path, IDS, VECTORS)
    stored = load_embeddings(path)
    assert (
        stored.dim == 3
        and stored.description["preset"] == "asc-clap"
        and stored.description["dim"] == 3
    )
    np.testing.assert_array_equal(stored.select(["d", "a"]), VECTORS[[3, 0]])
    assert stored.select(["d"]).dtype == np.float32
    with pytest.raises(
        ValueError, match=rf"asc-clap\.{suffix}: no vector for 2 of 3 clips \(x, y\)"
    ):
        stored.select(["a", "x", "y"])


def test_lists_of_doubles_are_read_as_well(tmp_path):
    pq.write_table(
        pa.table({"id": IDS, "vector": VECTORS.astype(np.float64).tolist(), "more": IDS}),
        tmp_path / "a.parquet",
    )
    np.testing.assert_array_equal(load_embeddings(tmp_path / "a.parquet").vectors, VECTORS)


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (IDS, np.where(VECTORS == 5, np.nan, VECTORS), "1 vectors hold NaN"),
        (["a", "b", "a", "c"], VECTORS, "id 'a' occurs more than once"),
        (IDS[:3], VECTORS, r"3 ids, vectors of shape \(4, 3\)"),
        (IDS, VECTORS[:, 0], r"vectors of shape \(4,\)"),
    ],
)
def test_values_that_cannot_be_used(tmp_path, ids, vectors, message):
    np.savez(tmp_path / "a.npz", ids=np.array(ids), vectors=vectors)
    with pytest.raises(ValueError, match=rf"a\.npz: .*{message}"):
        load_embeddings(tmp_path / "a.npz")


def test_files_of_another_kind(tmp_path):
    for name in ("a.npz", "a.parquet"):
        (tmp_path / name).write_text("no such file")
        with pytest.raises(ValueError, match=rf"{name}: not a"):
            load_embeddings(tmp_path / name)
    np.savez(tmp_path / "b.npz", ids=np.array([{"pickled": 1}], dtype=object), vectors=VECTORS)
    with pytest.raises(ValueError, match=r"b\.npz: not an \.npz with arrays `ids`"):
        load_embeddings(tmp_path / "b.npz")
    pq.write_table(
        pa.table({"id": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}), tmp_path / "c.parquet"
    )
    with pytest.raises(ValueError, match="different lengths"):
        load_embeddings(tmp_path / "c.parquet")
    with pytest.raises(ValueError, match=r"\.parquet, \.npz or \.npy"):
        save_embeddings(tmp_path / "d.csv", IDS, VECTORS)
