"""Validation is held out by recording; a corpus's weight reaches its sources."""

import pyarrow.parquet as pq
import pytest

from captionstew.corpora.build.corpus_list import Entry
from captionstew.corpora.build.subset_manifests import cuts_of, hold_out, source_weights
from captionstew.corpora.keys import group_key
from captionstew.data.manifests.cuts import open_cuts, write_cuts
from captionstew.data.tables.audio_check import CHECKED_SCHEMA
from captionstew.data.tables.caption_table import write_rows


def checked_clip(key):
    return dict.fromkeys(CHECKED_SCHEMA.names) | {
        "audio_key": key,
        "captions": ["a", "b"],
        "sources": ["x", "y+z"],
        "licenses": ["free", "free"],
        "files": [],
        "num_captions": 2,
        "status": "found",
        "path": "/audio/x.wav",
        "offset": 30.0,
        "clip_duration": 10.0,
        "file_duration": 60.0,
        "sampling_rate": 44_100,
        "channels": 2,
        "num_samples": 60 * 44_100,
        "fingerprint": "0",
    }


@pytest.fixture
def table(tmp_path):
    """4,000 clips of 1,000 videos."""
    rows = (
        checked_clip(f"yt:{video:011d}:{start * 10}")
        for video in range(1_000)
        for start in range(4)
    )
    write_rows(tmp_path / "checked.parquet", CHECKED_SCHEMA, rows)
    return tmp_path / "checked.parquet"


def keys(path):
    return pq.read_table(path)["audio_key"].to_pylist()


def test_no_video_is_in_both_parts(table, tmp_path):
    training, validation = tmp_path / "training.parquet", tmp_path / "validation.parquet"
    counts = hold_out(table, training, validation, share=0.05, seed=0)
    assert sum(counts) == 4_000 and 100 < counts[1] < 300
    assert not {group_key(key) for key in keys(training)} & {
        group_key(key) for key in keys(validation)
    }
    first = keys(validation)
    hold_out(table, training, validation, share=0.05, seed=0)
    assert keys(validation) == first
    hold_out(table, training, validation, share=0.05, seed=1)
    assert keys(validation) != first


def test_a_small_corpus_has_something_to_validate_on(tmp_path):
    rows = [checked_clip(f"mine:{number}") for number in range(3)]
    write_rows(tmp_path / "checked.parquet", CHECKED_SCHEMA, rows)
    for seed in range(10):
        counts = hold_out(
            tmp_path / "checked.parquet", tmp_path / "t.parquet", tmp_path / "v.parquet", 0.0, seed
        )
        assert counts[0] >= 1 and counts[1] >= 1
    write_rows(tmp_path / "checked.parquet", CHECKED_SCHEMA, rows[:1])
    with pytest.raises(ValueError, match="1 clips with audio are too few"):
        hold_out(
            tmp_path / "checked.parquet", tmp_path / "t.parquet", tmp_path / "v.parquet", 0.0, 0
        )


def test_cuts_are_parts_of_their_files(table, tmp_path):
    write_cuts(tmp_path / "cuts.jsonl", cuts_of(table))
    cut = open_cuts(tmp_path / "cuts.jsonl")[0]
    assert (cut.start, cut.duration, cut.recording.duration) == (30.0, 10.0, 60.0)
    assert cut.supervisions[0].custom["sources"] == ["x", "y+z"]
    assert cut.supervisions[0].custom["licenses"] == ["free", "free"]


def test_weights(make_table):
    table = make_table("wavcaps", [("bbc:1", "a")], source="wavcaps_bbc", split="bbc")
    entries = [
        Entry("wavcaps", "bbc", "pretrain", 3.0),
        Entry("wavcaps", "freesound", "pretrain", 2.0),
    ]
    assert source_weights(entries, table.parent) == {"wavcaps_bbc": 3.0}
    assert source_weights([Entry("wavcaps", "*", "pretrain", 0.5)], table.parent) == {
        "wavcaps_bbc": 0.5
    }
