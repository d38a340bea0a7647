"""Consolidation: which clips are one, what a clip keeps, and bytes that repeat."""

import math
import random

import pyarrow.parquet as pq
import pytest

from captionstew.corpora.build.consolidate import (
    apply_duration_rule,
    consolidate,
    consolidate_short,
)
from captionstew.data.tables.caption_table import write_table
from captionstew.data.tables.database import connect

V, W, X, Y = "-aaaaaaaaaa", "Ybbbbbbbbbb", "cc_ccccc_cc", "ddddddddddd"


@pytest.fixture
def clips_of(connection, make_starts, tmp_path):
    def clips_of(*tables, starts=None):
        output = tmp_path / "clips.parquet"
        count = consolidate(connection, tables, make_starts(starts or {}), output)
        clips = pq.read_table(output).to_pylist()
        assert len(clips) == count
        assert [clip["audio_key"] for clip in clips] == sorted(clip["audio_key"] for clip in clips)
        return {clip["audio_key"]: clip for clip in clips}

    return clips_of


def test_all_captions_of_a_clip_meet(clips_of, make_table):
    clips = clips_of(
        make_table(
            "audiocaps", [(f"yt:{V}:30", "A dog barks"), (f"yt:{V}:30", "Dogs")], license="MIT"
        ),
        make_table(
            "fusionaudio",
            [(f"yt:{V}:30", "Birds sing"), (f"yt:{W}:0", "Wind")],
            license="CC-BY-NC-4.0",
        ),
    )
    clip = clips[f"yt:{V}:30"]
    assert dict(zip(clip["captions"], clip["sources"], strict=True)) == {
        "A dog barks": "audiocaps",
        "Birds sing": "fusionaudio",
        "Dogs": "audiocaps",
    }
    assert clip["licenses"] == ["MIT", "CC-BY-NC-4.0", "MIT"] and clip["num_captions"] == 3
    assert [file["source"] for file in clip["files"]] == ["audiocaps", "fusionaudio"]
    assert clips[f"yt:{W}:0"]["captions"] == ["Wind"] and len(clips) == 2


def test_captions_that_differ_in_case_are_one_and_keep_both_sources(clips_of, make_table):
    clips = clips_of(
        make_table("audiocaps", [("fs:1", "A Dog barks"), ("fs:1", "a dog barks")], license="MIT"),
        make_table("wavcaps_bbc", [("fs:1", "A DOG BARKS"), ("fs:1", "other")], license="academic"),
    )
    assert clips["fs:1"]["captions"] == ["A Dog barks", "other"]
    assert clips["fs:1"]["sources"] == ["audiocaps+wavcaps_bbc", "wavcaps_bbc"]
    assert clips["fs:1"]["licenses"] == ["MIT + academic", "academic"]


def test_best_quality_first(clips_of, make_table):
    clips = clips_of(
        make_table("wavcaps_freesound", [("fs:1", "a")], duration=70.0),
        make_table("clotho", [("fs:1", "b")]),
    )
    assert [file["source"] for file in clips["fs:1"]["files"]] == ["clotho", "wavcaps_freesound"]
    assert clips["fs:1"]["duration"] == 10.0


def test_starts_are_anchored_on_the_audioset_segment(clips_of, make_table):
    clips = clips_of(
        make_table("audiocaps", [(f"yt:{V}:29", "a"), (f"yt:{W}:5", "far away")]),
        make_table("fusionaudio", [(f"yt:{V}:30", "b")]),
        make_table("audiosetcaps_vggsound", [(f"yt:{V}:31", "c"), (f"yt:{V}:32", "another part")]),
        starts={V: 30, W: 100},
    )
    assert clips[f"yt:{V}:30"]["num_captions"] == 3
    assert set(clips) == {f"yt:{V}:30", f"yt:{V}:32", f"yt:{W}:5"}


def test_missing_starts_join_only_inside_the_family(clips_of, make_table):
    clips = clips_of(
        make_table(
            "wavcaps_audioset", [(f"yt:{V}:*", "listed"), (f"yt:{W}:*", "w1"), (f"yt:{X}:*", "x1")]
        ),
        make_table("audiosetcaps_audioset", [(f"yt:{X}:*", "x2"), (f"yt:{Y}:*", "y1")]),
        make_table("audiocaps", [(f"yt:{W}:7", "w2")]),  # gives the segment of W, which no list has
        make_table("audiosetcaps_vggsound", [(f"yt:{V}:30", "v2"), (f"yt:{X}:0", "x3")]),
        make_table("mine", [(f"yt:{Y}:*", "not of AudioSet")]),
        starts={V: 30},
    )
    assert {key: clip["num_captions"] for key, clip in clips.items()} == {
        f"yt:{V}:30": 2,  # completed from the list, so it meets VGGSound's clip
        f"yt:{W}:7": 2,
        f"yt:{X}:*": 2,
        f"yt:{X}:0": 1,
        f"yt:{Y}:*": 1,
        f"yt:{Y}:*mine": 1,
    }


def test_a_family_that_disagrees_gives_no_anchor(clips_of, make_table):
    clips = clips_of(
        make_table("audiocaps", [(f"yt:{V}:10", "a")]),
        make_table("fusionaudio", [(f"yt:{V}:50", "b")]),
        make_table("wavcaps_audioset", [(f"yt:{V}:*", "c")]),
    )
    assert set(clips) == {f"yt:{V}:10", f"yt:{V}:50", f"yt:{V}:*"}


def test_neighbouring_starts_join_in_pairs_never_in_chains(clips_of, make_table):
    starts = [10, 11, 12, 13, 14, 20, 22, 23]
    clips = clips_of(
        make_table(
            "audiosetcaps_youtube8m", [(f"yt:{V}:{start}", f"at {start}") for start in starts]
        )
    )
    joined = {int(key.split(":")[2]): clip["captions"] for key, clip in clips.items()}
    assert joined == {
        10: ["at 10", "at 11"],
        12: ["at 12", "at 13"],
        14: ["at 14"],
        20: ["at 20"],
        22: ["at 22", "at 23"],
    }


def greedy(starts, anchor=None):
    """The rule in words: the anchor takes its neighbours; of the others, the earliest takes the one
    1 s later.
    """
    result, first = {}, None
    for start in sorted(set(starts)):
        if anchor is not None and abs(start - anchor) <= 1:
            result[start] = anchor
            continue
        if first is None or start - first > 1:
            first = start
        result[start] = first
    return result


def test_starts_against_the_rule_in_words(clips_of, make_table):
    draw = random.Random(0)
    rows, anchors, wanted = [], {}, {}
    for number in range(300):
        video = f"{number:011d}"
        starts = [draw.randrange(25) for _ in range(draw.randrange(1, 9))]
        if draw.random() < 0.5:
            anchors[video] = draw.randrange(25)
        rows += [(f"yt:{video}:{start}", f"{video} {start}") for start in starts]
        for start, first in greedy(starts, anchors.get(video)).items():
            wanted.setdefault(f"yt:{video}:{first}", set()).add(f"{video} {start}")
    clips = clips_of(make_table("audiosetcaps_youtube8m", rows), starts=anchors)
    assert {key: set(clip["captions"]) for key, clip in clips.items()} == wanted


def naive_merge(rows):
    """One clip from its rows, in plain words."""
    captions, sources, licenses, files = {}, {}, {}, {}
    for row in sorted(
        rows,
        key=lambda row: (row["caption"].lower(), row["source"], row["caption"], row["license"],
                         row["audio_path"], row["offset"], row["duration"] or math.inf),
    ):  # fmt: skip
        folded = row["caption"].lower()
        captions.setdefault(folded, row["caption"])
        for found, value in ((sources, row["source"]), (licenses, row["license"])):
            if value not in found.setdefault(folded, []):
                found[folded].append(value)
        rate = {"clotho": 44_100, "audiocaps": 44_100, "wavcaps_freesound": 32_000}
        place = (-rate.get(row["source"], 0), row["source"], row["audio_path"], row["offset"])
        files[place] = {
            "source": row["source"], "path": row["audio_path"], "offset": row["offset"],
            "duration": row["duration"],
        }  # fmt: skip
    best = [files[place] for place in sorted(files)]
    return {
        "audio_key": rows[0]["audio_key"],
        "captions": list(captions.values()),
        "sources": ["+".join(names) for names in sources.values()],
        "licenses": [" + ".join(names) for names in licenses.values()],
        "files": best,
        "duration": best[0]["duration"],
        "num_captions": len(captions),
    }


def test_clips_against_the_rule_in_plain_words(connection, make_starts, tmp_path, monkeypatch):
    monkeypatch.setattr("captionstew.data.tables.database.ROWS_PER_GROUP", 50)
    draw = random.Random(0)
    rows = [
        {
            "audio_key": f"fs:{draw.randrange(90)}",
            "caption": draw.choice(["A dog", "a dog", "A DOG", "Ünder water", "rain", "wind"]),
            "source": draw.choice(["mine", "audiocaps", "wavcaps_freesound", "clotho"]),
            "audio_path": draw.choice(["a.wav", "b.wav"]),
            "offset": draw.choice([0.0, 10.0]),
            "duration": draw.choice([10.0, 30.0, None]),
            "split": "train",
            "license": draw.choice(["MIT", "CC0", "academic"]),
        }
        for _ in range(400)
    ]
    write_table(tmp_path / "rows.parquet", rows)
    clips = tmp_path / "clips.parquet"
    consolidate(connection, [tmp_path / "rows.parquet"], make_starts({}), clips)
    by_key = {}
    for row in rows:
        by_key.setdefault(row["audio_key"], []).append(row)
    assert pq.read_table(clips).to_pylist() == [naive_merge(by_key[key]) for key in sorted(by_key)]


def test_in_one_pass_with_the_duration_rule(connection, make_table, make_starts, tmp_path):
    tables = [
        make_table("wavcaps_freesound", [("fs:1", "a"), ("fs:2", "b")], duration=60.1),
        make_table("clotho", [("fs:1", "c")], duration=60.0),
    ]
    starts = make_starts({})
    clips = consolidate(connection, tables, starts, tmp_path / "clips.parquet")
    report = apply_duration_rule(tmp_path / "clips.parquet", tmp_path / "two.parquet")
    at_once = consolidate_short(connection, tables, starts, tmp_path / "one.parquet")
    assert at_once == {"clips": clips, **report}
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_batch_borders_do_not_cut_clips(connection, make_table, make_starts, tmp_path, monkeypatch):
    monkeypatch.setattr("captionstew.data.tables.database.ROWS_PER_GROUP", 7)
    table = make_table(
        "clotho", [(f"fs:{i // 5}", f"caption {i % 5} of {i // 5}") for i in range(500)]
    )
    assert consolidate(connection, [table], make_starts({}), tmp_path / "clips.parquet") == 100
    clips = pq.read_table(tmp_path / "clips.parquet").to_pylist()
    for clip in clips:
        assert clip["captions"] == [f"caption {i} of {clip['audio_key'][3:]}" for i in range(5)]


@pytest.mark.slow
def test_bytes_do_not_depend_on_threads_or_order_of_tables(make_table, make_starts, tmp_path):
    a = make_table(
        "audiocaps", [(f"fs:{i * 7919 % 50_021}", f"caption {i}") for i in range(60_000)]
    )
    b = make_table("clotho", [(f"fs:{i}", f"text {i % 3}") for i in range(30_000)])
    contents = []
    for threads, tables in ((1, (a, b)), (2, (b, a)), (3, (a, b))):
        output = tmp_path / f"clips{threads}.parquet"
        with connect(tmp_path / "scratch", memory_gb=1, threads=threads) as connection:
            consolidate(connection, tables, make_starts({}), output)
        contents.append(output.read_bytes())
    assert contents[0] == contents[1] == contents[2]


def test_duration_rule(connection, make_table, make_starts, tmp_path):
    tables = [
        make_table("wavcaps_freesound", [("fs:1", "a"), ("fs:2", "b")], duration=60.1),
        make_table("clotho", [("fs:1", "c")], duration=60.0),
        make_table("mine", [("mine:x", "d")], duration=None),
    ]
    consolidate(connection, tables, make_starts({}), tmp_path / "clips.parquet")
    report = apply_duration_rule(tmp_path / "clips.parquet", tmp_path / "short.parquet")
    assert report == {"kept": 2, "dropped": {"wavcaps_freesound": 1}}
    clips = {
        clip["audio_key"]: clip for clip in pq.read_table(tmp_path / "short.parquet").to_pylist()
    }
    assert set(clips) == {"fs:1", "mine:x"}
    assert clips["fs:1"]["num_captions"] == 2 and clips["fs:1"]["duration"] == 60.0
    assert [file["source"] for file in clips["fs:1"]["files"]] == ["clotho"]
    assert clips["mine:x"]["duration"] is None
