"""The keys that come with the code protect where a list is not there, and agree where it is."""

import json
import runpy
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest

from captionstew.corpora.build import shipped_keys
from captionstew.corpora.build.corpus_list import Entry
from captionstew.corpora.build.evaluation_keys import gather_list, shipped
from captionstew.corpora.build.leakage import filter_tables
from captionstew.corpora.build.shipped_keys import (
    FILE,
    HASH_SQL,
    disagreement,
    key_hashes,
    shipped_hashes,
    write_shipped,
)

A, B, C = "yt:-aaaaaaaaaa", "yt:Ybbbbbbbbbb", "fs:77"


def test_the_database_computes_the_same_hash(connection):
    for key in (A, "clotho:café, ü.wav", "vox:v2:id00012:21Uxsk56VDQ"):
        query = f"select {HASH_SQL.format(key='?')}"
        assert connection.execute(query, [key]).fetchone()[0] == key_hashes([key])[0]


def test_lists_share_their_keys(tmp_path):
    path = tmp_path / "keys.npz"
    assert write_shipped(path, {"a:test": [A, B, B], "b:val": [B, C]}, whole=["a:test"]) == 3
    for name, keys in (("a:test", [A, B]), ("b:val", [B, C]), ("c:test", [])):
        assert np.array_equal(np.sort(shipped_hashes(name, path)), key_hashes(keys))
    assert shipped_keys.is_whole("a:test", path)
    assert not shipped_keys.is_whole("b:val", path) and not shipped_keys.is_whole("c:x", path)
    assert len(shipped_hashes("a:test", tmp_path / "none.npz")) == 0


@pytest.mark.parametrize("mode", ["strict", "test-only"])
def test_hashes_drop_what_keys_would(make_table, make_keys, connection, tmp_path, mode):
    rows = [(f"{A}:30", "a"), (f"{B}:0", "b"), (C, "c"), ("fs:78", "d"), ("fs:79", "e")]
    make_table("mine", rows)
    lists = {"one:test": [A, C], "two:val": [B], "three:test": ["fs:79"]}
    hashes = [
        {"list": name, "hash": int(value)}
        for name, keys in lists.items()
        for value in key_hashes(keys)
    ]
    import pyarrow as pa

    pq.write_table(
        pa.Table.from_pylist(hashes, pa.schema([("list", pa.string()), ("hash", pa.uint64())])),
        tmp_path / "hashes.parquet",
    )
    report = filter_tables(
        connection,
        [Entry("mine", "*", "pretrain", 1.0)],
        tmp_path / "tables",
        make_keys([("three", "test", "fs:79")]),
        tmp_path / "filtered",
        mode,
        shipped=tmp_path / "hashes.parquet",
    )
    kept = pq.read_table(tmp_path / "filtered" / "mine.parquet")["audio_key"].to_pylist()
    dropped = {"one:test": 2, "three:test": 1}
    assert kept == (["fs:78"] if mode == "strict" else [f"{B}:0", "fs:78"])
    assert report["sources"]["mine"]["by_list"] == (
        dropped | {"two:val": 1} if mode == "strict" else dropped
    )


def test_a_list_that_lacks_keys_is_noticed(monkeypatch, tmp_path):
    folder = tmp_path / "urbansound8k"
    folder.mkdir()
    text = "slice_file_name,fsID,fold,class\n"
    slices = [f"{n % 50}-0-0-{n}.wav,{n % 50},1,hum\n" for n in range(8_732)]
    (folder / "UrbanSound8K.csv").write_text(text + "".join(slices))
    write_shipped(tmp_path / "keys.npz", {"urbansound8k:all": ["fs:1", "fs:999"]}, [])
    monkeypatch.setattr(shipped_keys, "FILE", tmp_path / "keys.npz")
    problem = gather_list(tmp_path, "urbansound8k", "all").problem
    assert "UrbanSound8K.csv: 1 of the 2 keys that come with CaptionStew are not in it" in problem
    write_shipped(tmp_path / "keys2.npz", {"urbansound8k:all": ["fs:1", "fs:49"]}, [])
    monkeypatch.setattr(shipped_keys, "FILE", tmp_path / "keys2.npz")
    assert gather_list(tmp_path, "urbansound8k", "all").problem is None


def test_what_comes_with_the_code():
    sizes = {
        "audiocaps:val": 495, "audiocaps:test": 975, "musiccaps:eval": 2_858,
        "vggsound:test": 14_851, "audioset:eval": 20_371, "fsd50k:dev": 40_966,
        "fsd50k:eval": 10_231, "clotho:validation": 1_045, "clotho:evaluation": 1_045,
        "clotho:ids": 7_941, "urbansound8k:all": 1_297, "paraspeechcaps:dev": 11_967,
        "paraspeechcaps:holdout": 14_756, "audioset_strong:eval": 16_678,
    }  # fmt: skip
    assert {name: len(shipped_hashes(name)) for name in sizes} == sizes
    assert FILE.stat().st_size < 1_100_000
    assert shipped_keys.is_whole("audioset:eval")
    assert not shipped_keys.is_whole("audioset_strong:eval")  # 318 clips were not at hand
    assert len(shipped("clotho", "validation")[0]) == 1_045 + 7_941


def test_without_any_list_the_same_clips_go(
    make_table, repository, shared_dir, connection, tmp_path, monkeypatch
):
    """A naive recount: the videos of AudioSet's evaluation and the sounds of FSD50K's."""
    import csv
    import gzip

    path = shared_dir / "metadata" / "audioset" / "eval_segments.repacked.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        videos = [row["YTID"] for row in csv.DictReader(file)]
    path = shared_dir / "metadata" / "fsd50k" / "fsd50k_eval_labels.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        sounds = [json.loads(line)["id"] for line in file]
    free = [("yt:ccccccccccc:30", "free"), ("fs:999999999", "free")]
    make_table(
        "mine", [(f"yt:{x}:7", "x") for x in videos] + [(f"fs:{x}", "x") for x in sounds] + free
    )
    gather = runpy.run_path(repository / "egs/captionstew/local/gather_evaluation_keys.py")["main"]
    sets = ["audioset:eval", "fsd50k:eval", "voxceleb2:eval"]
    flags = ["--corpora-dir", tmp_path / "none", "--output-dir", tmp_path, "--sets", *sets]
    gather([*map(str, flags), "--allow-missing"])
    lists = json.loads((tmp_path / "evaluation_lists.json").read_text())
    assert lists["shipped"] == {
        "audioset:eval": [20_371, True],
        "fsd50k:eval": [10_231, True],
        "voxceleb2:eval": [0, False],
    }
    assert set(lists["missing"]) == set(sets)
    report = filter_tables(
        connection,
        [Entry("mine", "*", "pretrain", 1.0)],
        tmp_path / "tables",
        tmp_path / "evaluation_keys.parquet",
        tmp_path / "filtered",
        lists=lists["sets"],
        shipped=tmp_path / "evaluation_hashes.parquet",
    )
    kept = pq.read_table(tmp_path / "filtered" / "mine.parquet")["audio_key"].to_pylist()
    assert kept == [key for key, _ in free]
    counts = defaultdict(int, report["sources"]["mine"]["by_list"])
    assert counts["audioset:eval"] == 20_371 and counts["fsd50k:eval"] == 10_231
    assert report["lists"] == dict.fromkeys(sets, 0)


def test_agreement_of_the_real_lists(shared_dir):
    metadata = shared_dir / "metadata"
    for name, split in (("audiocaps", "test"), ("fsd50k", "eval"), ("vggsound", "test")):
        assert gather_list(metadata, name, split).problem is None
    assert disagreement("audiocaps:test", [A]) == (
        "975 of the 975 keys that come with CaptionStew are not in it"
    )
