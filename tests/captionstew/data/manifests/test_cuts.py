import json
import os
import pickle
import shutil

import numpy as np
import pytest

from captionstew.data.audio import AudioInfo
from captionstew.data.manifests.cuts import (
    audio_part,
    cut_row,
    filter_by_duration,
    make_cut,
    open_cuts,
    safe_id,
    validate_cut,
    write_cuts,
)
from captionstew.data.manifests.index import index_path
from captionstew.data.manifests.rows import ManifestError
from captionstew.files import atomic_write


def info(duration=2.0, rate=44100, channels=2):
    return AudioInfo(duration, rate, channels, round(duration * rate), "f" * 32)


def cut(name="a", seconds=2.0, folder="/data", **options):
    return make_cut(
        f"set/{name}.wav",
        f"{folder}/{name}.wav",
        info(seconds),
        [f"Caption {name}."],
        ["set"],
        **options,
    )


@pytest.fixture
def manifest(tmp_path):
    write_cuts(tmp_path / "cuts.jsonl", [cut(str(number), 1.0 + number) for number in range(20)])
    return tmp_path / "cuts.jsonl"


def test_rows_are_the_json_form_of_cuts(tmp_path):
    options = {
        "labels": {"label": "dög", "events": [[0.5, 1.0, "a"]]},
        "offset": 0.5,
        "duration": 1.0,
    }
    rows = [
        cut_row(
            f"set/{name}.wav",
            f"{tmp_path}/{name}.wav",
            info(),
            [f"Caption {name}."],
            ["set"],
            **options,
        )
        for name in "ab"
    ]
    cuts = [cut(name, folder=tmp_path, **options) for name in "ab"]
    assert json.dumps(rows) == json.dumps(
        [one.to_dict() for one in cuts]
    )  # the order of the keys too
    assert (
        write_cuts(tmp_path / "cuts.jsonl", cuts)
        == write_cuts(tmp_path / "rows.jsonl", iter(rows))
        == 2
    )
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "cuts.jsonl").read_bytes()
    assert open_cuts(tmp_path / "rows.jsonl")[1].to_dict() == cuts[1].to_dict()
    with pytest.raises(ManifestError, match="at least one caption"):
        cut_row("k", "/data/k.wav", info(), [], [])


def test_cut_carries_the_contract():
    made = cut(labels={"label": "dog", "fold": 3}, offset=0.5, duration=1.0)
    custom = made.supervisions[0].custom
    assert custom == {
        "captions": ["Caption a."], "sources": ["set"], "audio_key": "set/a.wav", "label": "dog",
        "fold": 3,
    }  # fmt: skip
    assert (
        made.start,
        made.duration,
        made.recording.sampling_rate,
        made.recording.num_channels,
    ) == (
        0.5,
        1.0,
        44100,
        2,
    )
    assert audio_part(made) == ("/data/a.wav", 0.5, 1.0)
    assert audio_part(cut()) == ("/data/a.wav", 0.0, None)


@pytest.mark.parametrize(
    ("captions", "sources", "key", "words"),
    [
        ([], [], "k", "at least one caption"),
        (["a", " "], ["s", "s"], "k", "at least one caption, none of them empty"),
        (["a", "b"], ["s"], "k", "one corpus per caption"),
        (["a"], ["s"], "", "audio_key"),
    ],
)
def test_broken_cuts_are_refused(captions, sources, key, words):
    with pytest.raises(ManifestError, match=words):
        make_cut(key, "/a.wav", info(), captions, sources, cut_id="x")


def test_validation_names_what_is_missing():
    made = cut()
    del made.supervisions[0].custom["sources"], made.supervisions[0].custom["audio_key"]
    with pytest.raises(ManifestError, match="sources, audio_key"):
        validate_cut(made)
    made = cut()
    made.supervisions = []
    with pytest.raises(ManifestError, match="exactly one supervision"):
        validate_cut(made)


def test_ids_are_safe_and_keep_similar_names_apart():
    names = [
        "a/x y.wav",
        "a/x-y.wav",
        "a/xéy.wav",
        "a/xèy.wav",
        "-rf",
        "b/../x",
        "é",
        "x" * 300,
        "日本",
    ]
    ids = [safe_id(name) for name in names]
    assert len(set(ids)) == len(ids)
    assert all(
        set(value) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        for value in ids
    )
    assert all(value[0] not in "-." and len(value) < 100 for value in ids)
    assert safe_id("a/b.wav") == safe_id("a/b.wav")


def test_random_access(manifest):
    cuts = open_cuts(manifest)
    assert len(cuts) == 20 and cuts[7].id == safe_id("set/7.wav") and cuts[-1].id == cuts[19].id
    np.testing.assert_array_equal(cuts.durations, np.arange(1.0, 21.0))
    assert cuts.total_duration == 210.0
    assert [one.id for one in cuts] == [safe_id(f"set/{number}.wav") for number in range(20)]
    assert cuts[3].to_dict() == cut("3", 4.0).to_dict()
    with pytest.raises(IndexError):
        cuts[20]


def test_selection_is_a_view_with_its_own_checksum(manifest):
    cuts = open_cuts(manifest)
    part = cuts.select([5, 2, 9]).select([2, 0])
    assert [one.duration for one in part] == [10.0, 6.0] and part.durations.tolist() == [10.0, 6.0]
    assert part.sha256 not in (cuts.sha256, cuts.select([5, 9]).sha256)
    copy = pickle.loads(pickle.dumps(part))
    assert copy.sha256 == part.sha256 and copy[0].id == part[0].id


def test_same_cuts_give_the_same_bytes(manifest, tmp_path):
    write_cuts(tmp_path / "again.jsonl", open_cuts(manifest))
    assert (tmp_path / "again.jsonl").read_bytes() == manifest.read_bytes()
    assert open_cuts(tmp_path / "again.jsonl").sha256 == open_cuts(manifest).sha256


def test_failing_write_leaves_the_old_manifest(manifest):
    before = manifest.read_bytes()

    def cuts():
        yield cut("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cuts(manifest, cuts())
    assert manifest.read_bytes() == before
    assert sorted(path.name for path in manifest.parent.iterdir()) == [
        "cuts.jsonl",
        "cuts.jsonl.index",
    ]
    with pytest.raises(ManifestError, match="cut 2"):
        bad = cut("b")
        bad.supervisions[0].custom["captions"] = []
        write_cuts(manifest, [cut("a"), bad])
    assert manifest.read_bytes() == before


def test_double_ids_are_refused_with_both_lines(manifest, tmp_path):
    with pytest.raises(ManifestError, match="lines 1 and 3"):
        write_cuts(tmp_path / "double.jsonl", [cut("a"), cut("b"), cut("a")])
    assert not (tmp_path / "double.jsonl").exists()
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join([*lines, lines[4]]))
    with pytest.raises(ManifestError, match=r"cuts\.jsonl: lines 5 and 21"):
        open_cuts(manifest)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"id": "x", "dura\n', "is not JSON.*cut off"),
        (b"[1]\n", "not a MonoCut"),
        (b"\n", "is not JSON"),
        (b"\xff\xfe\n", "is not JSON"),
    ],
)
def test_broken_lines_are_named(manifest, line, words):
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join([*lines[:3], line, *lines[4:]]))
    with pytest.raises(ManifestError, match=rf"cuts\.jsonl: line 4:? ?{words}"):
        open_cuts(manifest)


@pytest.mark.parametrize(
    ("field", "value"), [("custom", None), ("custom", {"captions": ["a"]}), ("custom", {})]
)
def test_rows_without_captions_are_named(manifest, field, value):
    lines = manifest.read_text().splitlines()
    row = json.loads(lines[9])
    row["supervisions"][0][field] = value
    lines[9] = json.dumps(row)
    manifest.write_text("\n".join(lines) + "\n")
    with pytest.raises(ManifestError, match="line 10: the supervision's custom lacks"):
        open_cuts(manifest)


@pytest.mark.parametrize("duration", [0, -1.0, None, float("inf"), "2", True])
def test_durations_must_be_positive_numbers(manifest, duration):
    row = json.loads(manifest.read_text().splitlines()[0]) | {"duration": duration}
    manifest.write_text(json.dumps(row) + "\n")
    with pytest.raises(ManifestError, match="line 1: duration"):
        open_cuts(manifest)


def test_missing_and_empty_manifests(tmp_path):
    with pytest.raises(ManifestError, match="does not exist"):
        open_cuts(tmp_path / "none.jsonl")
    write_cuts(tmp_path / "empty.jsonl", [])
    cuts = open_cuts(tmp_path / "empty.jsonl")
    assert len(cuts) == 0 and list(cuts) == [] and cuts.total_duration == 0


def test_index_is_used_when_it_fits_and_rebuilt_when_not(manifest):
    index = index_path(manifest)
    stamp = index.stat().st_mtime_ns
    expected = open_cuts(manifest).sha256
    assert index.stat().st_mtime_ns == stamp
    os.utime(manifest)  # copied: another time stamp, the same content
    assert open_cuts(manifest).sha256 == expected
    index.write_bytes(index.read_bytes()[:-5])
    assert len(open_cuts(manifest)) == 20
    index.write_bytes(b"not an index")
    assert len(open_cuts(manifest)) == 20
    index.unlink()
    assert open_cuts(manifest).sha256 == expected and index.exists()


def test_same_size_and_other_content_is_noticed(manifest):
    open_cuts(manifest)
    content = manifest.read_bytes().replace(b"Caption 7.", b"Caption 8.")
    manifest.write_bytes(content)
    os.utime(manifest, ns=(1, 1))
    cuts = open_cuts(manifest)
    assert cuts[7].supervisions[0].custom["captions"] == ["Caption 8."]


def test_audio_below_the_manifest_moves_with_it(tmp_path):
    folder = tmp_path / "data"
    write_cuts(
        folder / "cuts.jsonl", [cut("in", folder=folder / "audio"), cut("out", folder="/elsewhere")]
    )
    stored = [json.loads(line) for line in (folder / "cuts.jsonl").read_text().splitlines()]
    assert [row["recording"]["sources"][0]["source"] for row in stored] == [
        "audio/in.wav",
        "/elsewhere/out.wav",
    ]
    shutil.move(folder, tmp_path / "moved")
    cuts = open_cuts(tmp_path / "moved" / "cuts.jsonl")
    assert audio_part(cuts[0])[0] == str(tmp_path / "moved" / "audio" / "in.wav")
    assert audio_part(cuts[1])[0] == "/elsewhere/out.wav"


def test_non_ascii_captions_stay_readable(tmp_path):
    made = make_cut("k", "/a é.wav", info(), ["Ein Hund läuft. 犬"], ["s"])
    write_cuts(tmp_path / "cuts.jsonl", [made])
    assert "läuft. 犬" in (tmp_path / "cuts.jsonl").read_text(encoding="utf-8")
    assert open_cuts(tmp_path / "cuts.jsonl")[0].to_dict() == made.to_dict()


def test_filter_prints_what_it_leaves_out(manifest, capsys):
    cuts = filter_by_duration(open_cuts(manifest), min_duration=3.0, max_duration=15.0)
    assert cuts.durations.tolist() == [float(seconds) for seconds in range(3, 16)]
    assert (
        "13 of 20 cuts kept; left out: 5 longer than 15.0 s, 2 shorter than 3.0 s"
        in capsys.readouterr().out
    )
    filter_by_duration(open_cuts(manifest))
    assert capsys.readouterr().out == ""


def test_atomic_write_of_text(tmp_path):
    with pytest.raises(ValueError), atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("half")
        raise ValueError
    assert list(tmp_path.iterdir()) == []
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
