"""The preparation programs on the real metadata: the counts that the releases are known to have."""

import csv
import gzip
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def metadata(shared_dir):
    return shared_dir / "metadata"


@pytest.mark.parametrize("version", ["1", "2"])
def test_audiocaps(prepare, metadata, version):
    splits = ["val", "test"] if version == "2" else ["train", "val", "test"]
    rows = prepare("audiocaps", metadata / "audiocaps", "--version", version, "--splits", *splits)
    clips = {
        split: Counter(r["audio_key"] for r in rows if r["split"] == split) for split in splits
    }
    if version == "1":
        assert len(clips["train"]) == sum(clips["train"].values()) == 49_838
        assert (
            sum(row["audio_key"].startswith("yt:-") for row in rows if row["split"] == "train")
            == 2_406
        )
    assert len(clips["val"]) == 495 and len(clips["test"]) == 975
    assert set(clips["val"].values()) == set(clips["test"].values()) == {5}
    for a in splits:
        for b in splits:
            assert a == b or not clips[a].keys() & clips[b].keys()


def test_audiocaps_corrected_train(prepare, metadata):
    rows = prepare("audiocaps", metadata / "audiocaps", "--splits", "train_fixed")
    assert len(rows) == 49_810 and {row["split"] for row in rows} == {"train"}


def test_musiccaps_in_spite_of_line_feeds(prepare, metadata):
    rows = prepare("musiccaps", metadata / "musiccaps")
    assert len(rows) == len({row["audio_key"] for row in rows}) == 5_521
    assert Counter(row["split"] for row in rows) == {"eval": 2_858, "train": 2_663}
    assert not any("\n" in row["caption"] for row in rows)
    with gzip.open(
        metadata / "musiccaps" / "musiccaps-public.csv.gz", "rt", encoding="utf-8", newline=""
    ) as f:
        multi_line = {row["ytid"] for row in csv.DictReader(f) if "\n" in row["caption"]}
    assert len(multi_line) == 5 and multi_line < {row["audio_key"][3:14] for row in rows}
    ids = [row["audio_key"][3:14] for row in rows]
    assert sum(x.startswith("-") for x in ids) == 107 and sum("_" in x for x in ids) == 760
    first = next(row for row in rows if row["audio_key"] == "yt:-0Gj8-vB1q4:30")
    assert first["duration"] == 10.0 and first["aspects"][:2] == [
        "low quality",
        "sustained strings melody",
    ]


def test_clotho(prepare, metadata):
    rows = prepare("clotho", metadata / "clotho", "--allow-missing-ids")
    clips = Counter((row["split"], row["audio_key"]) for row in rows)
    assert Counter(split for split, _ in clips) == {
        "development": 3_839,
        "validation": 1_045,
        "evaluation": 1_045,
    }
    assert set(clips.values()) == {5}


def test_wavcaps_soundbible(prepare, metadata):
    rows = prepare("wavcaps", metadata / "wavcaps", "--splits", "soundbible")
    assert len(rows) == len({row["audio_key"] for row in rows}) == 1_232
    assert rows[0]["audio_key"] == "soundbible:2219" and rows[0]["duration"] == pytest.approx(
        14.1424375
    )
    assert (
        rows[0]["audio_path"].endswith("SoundBible/2219.flac")
        and rows[0]["caption"] == "An airplane is landing."
    )


def test_fusionaudio_sample(prepare, metadata):
    rows = prepare("fusionaudio", metadata / "fusionaudio")
    assert len(rows) == len({row["audio_key"] for row in rows}) == 10_000
    assert rows[0]["audio_key"] == "yt:--0fim4-6Ig:30"


def test_jamendomaxcaps_sample(prepare, metadata):
    rows = prepare("jamendomaxcaps", metadata / "jamendomaxcaps")
    assert len(rows) == 5_000 and all(row["audio_key"].endswith(":full") for row in rows)
    assert rows[0]["audio_key"] == "jamendo:132648:full" and rows[0]["duration"] == pytest.approx(
        146.682125
    )


def test_paraspeechcaps(prepare, metadata):
    rows = prepare("paraspeechcaps", metadata / "paraspeechcaps", "--splits", "dev", "holdout")
    assert Counter(row["split"] for row in rows) == {"dev": 11_967, "holdout": 14_756}
    assert len({row["audio_key"] for row in rows}) == 26_723
    assert not any(
        row["caption"][0].isspace() for row in rows
    )  # every one of them does in the release


@pytest.mark.slow
def test_paraspeechcaps_train_base_as_released(prepare, metadata, tmp_path):
    """The release is Parquet with paths, one or two descriptions and nulls; here with the real
    clips.
    """
    with gzip.open(metadata / "paraspeechcaps" / "psc_train_base_ids.jsonl.gz", "rt") as f:
        ids = [json.loads(line) for line in f]
    table = {
        "source": ["voxceleb"] * len(ids),
        "relative_audio_path": [record["id"] for record in ids],
        "text_description": [[" A male speaker talks."]] * (len(ids) - 1) + [[" One.", "Two."]],
        "speakerid": [None] * len(ids),
        "duration": [record["duration"] for record in ids],
        "gender": ["m"] * len(ids),
        "all_tags": [None] * len(ids),
    }
    (tmp_path / "release" / "data").mkdir(parents=True)
    types = {"speakerid": pa.string(), "all_tags": pa.list_(pa.string())}
    columns = {name: pa.array(values, types.get(name)) for name, values in table.items()}
    pq.write_table(
        pa.table(columns), tmp_path / "release" / "data" / "train_base-00000-of-00001.parquet"
    )
    rows = prepare("paraspeechcaps", tmp_path / "release", "--splits", "train_base")
    assert len(rows) == 116_517
    keys = {row["audio_key"] for row in rows}
    assert len(keys) == 116_516
    spaces = Counter(":".join(key.split(":")[: 2 if key.startswith("vox") else 1]) for key in keys)
    assert spaces == {"vox:v2": 66_845, "vox:v1": 23_243, "ears": 14_159, "expresso": 12_269}
    assert [row["caption"] for row in rows[-2:]] == ["One.", "Two."]


def test_speakers_of_ears(metadata):
    assert len(json.loads((metadata / "ears" / "speaker_statistics.json").read_text())) == 107
