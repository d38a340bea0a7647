"""Filter and consolidation on the real metadata of all corpora together, against a naive recount.

Where captions or a part of a release are not public, its real clip ids stand in the form of the
release with a made-up caption: the VGGSound part of AudioSetCaps, the AudioSet and Freesound parts
of WavCaps, ParaSpeechCaps' train_base.
"""

import csv
import gzip
import importlib
import json
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captionstew.corpora.build.consolidate import consolidate
from captionstew.corpora.build.corpus_list import Entry
from captionstew.corpora.build.leakage import filter_tables
from captionstew.corpora.build.subsets import add_subset_ranks
from captionstew.corpora.captioned import run
from captionstew.data.tables.database import connect

LISTS = [
    "audiocaps:val",
    "audiocaps:test",
    "musiccaps:eval",
    "vggsound:test",
    "audioset:eval",
    "audioset_strong:eval",
    "fsd50k:dev",
    "fsd50k:eval",
    "clotho:validation",
    "clotho:evaluation",
    "urbansound8k:all",
    "paraspeechcaps:dev",
    "paraspeechcaps:holdout",
    "voxceleb2:eval",
]
TRAINING = [
    ("audiocaps", "train"),
    ("clotho", "development"),
    ("musiccaps", "train"),
    ("wavcaps", "audioset"),
    ("wavcaps", "freesound"),
    ("wavcaps", "soundbible"),
    ("audiosetcaps", "vggsound"),
    ("fusionaudio", "train"),
    ("jamendomaxcaps", "train"),
    ("paraspeechcaps", "train_base"),
    ("paraspeechcaps", "dev"),
]


def lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return f.read().splitlines()


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in lines(path)]


def make_releases(metadata: Path, releases: Path) -> None:
    """Releases that are not public as a whole, from their real ids."""
    (releases / "wavcaps").mkdir(parents=True)
    audioset, freesound = set(), set()
    for name in ("all_ac", "test_ac", "ub8k_esc50_vggsound"):
        with gzip.open(metadata / "wavcaps" / f"blacklist_exclude_{name}.json.gz", "rt") as f:
            listed = json.load(f)
        audioset.update(listed["AudioSet"])
        freesound.update(listed["FreeSound"])
    for file, ids in (("as_final", audioset), ("fsd_final", freesound)):
        data = [{"id": x, "caption": "A sound.", "duration": 10.0} for x in sorted(ids)]
        (releases / "wavcaps" / f"{file}.json").write_text(
            json.dumps({"num_captions_per_audio": 1, "data": data})
        )
    (releases / "wavcaps" / "sb_final.json").symlink_to(metadata / "wavcaps" / "sb_final.json")
    (releases / "audiosetcaps").mkdir()
    with open(
        releases / "audiosetcaps" / "VGGSound_AudioSetCaps_caption.csv", "w", newline=""
    ) as f:
        writer = csv.writer(f)
        writer.writerow(["id", "caption"])
        for part in ("train", "test"):
            for record in records(metadata / "vggsound" / f"vggsound_{part}_labels.jsonl.gz"):
                writer.writerow([record["id"], f"Sound of {record['event_label']}, and more"])
    make_paraspeechcaps(metadata / "paraspeechcaps", releases)


def make_paraspeechcaps(metadata: Path, releases: Path) -> None:
    (releases / "paraspeechcaps").mkdir()
    rows = {"train_base": records(metadata / "psc_train_base_ids.jsonl.gz")}
    for split in ("dev", "holdout"):
        rows[split] = records(metadata / f"psc_{split}_captions.jsonl.gz")
    for split, clips in rows.items():
        table = {
            "source": ["x"] * len(clips),
            "relative_audio_path": [clip["id"] for clip in clips],
            "text_description": [[clip.get("caption", " A voice.")] for clip in clips],
            "speakerid": ["x"] * len(clips),
            "duration": [clip["duration"] for clip in clips],
            "gender": ["m"] * len(clips),
            "all_tags": pa.array([None] * len(clips), pa.list_(pa.string())),
        }
        pq.write_table(
            pa.table(table), releases / "paraspeechcaps" / f"{split}-00000-of-00001.parquet"
        )
    (releases / "voxceleb").mkdir()
    vox2 = [clip["id"] for clip in rows["train_base"] if clip["id"].startswith("voxceleb2_dev")]
    names = (x.removeprefix("voxceleb2_dev_aac_") for x in vox2)
    text = "\n".join(f"{x[:7]}/{x[8:19]}/{x[20:25]}" for x in names)
    (releases / "voxceleb" / "vox2_dev_utterances.txt").write_text(text)


@pytest.fixture
def corpus(shared_dir, gather_evaluation_keys, tmp_path):
    """(tables, evaluation keys, folder) made by the readers from the metadata."""
    metadata, releases = shared_dir / "metadata", tmp_path / "releases"
    make_releases(metadata, releases)
    others = (
        "audiocaps",
        "clotho",
        "musiccaps",
        "fusionaudio",
        "jamendomaxcaps",
        "vggsound",
        "fsd50k",
    )
    for name in (*others, "urbansound8k", "audioset", "audioset_strong"):
        (releases / name).symlink_to(metadata / name)
    (releases / "clotho").unlink()
    (releases / "clotho").mkdir()
    for file in (metadata / "clotho").iterdir():
        (releases / "clotho" / file.name).symlink_to(file)
    blacklist = metadata / "wavcaps" / "blacklist_clotho.full.v2.csv.gz"
    (releases / "clotho" / blacklist.name).symlink_to(blacklist)
    for name in dict.fromkeys(name for name, _ in TRAINING):
        module = importlib.import_module(f"captionstew.corpora.{name}")
        splits = [split for other, split in TRAINING if other == name]
        flags = [
            "--corpus-dir",
            releases / name,
            "--output-dir",
            tmp_path / "tables",
            "--splits",
            *splits,
        ]
        if name == "clotho":  # its metadata is not public
            flags.append("--allow-missing-ids")
        run(module.CORPUS, module.__doc__, [str(flag) for flag in flags])
    flags = ["--corpora-dir", releases, "--output-dir", tmp_path, "--sets", *LISTS]
    flags.append("--allow-missing")  # of VoxCeleb2 the utterances of ParaSpeechCaps alone
    gather_evaluation_keys([str(flag) for flag in flags])
    return tmp_path


def naive_lists(metadata: Path, folder: Path) -> dict[str, set[str]]:
    """Every list read in the plainest way, as video ids, Freesound ids, utterance names."""

    def csv_column(path, column):
        return {row[column] for row in csv.DictReader(lines(path))}

    val_test = {}
    for split in ("val", "test"):
        with open(metadata / "audiocaps" / f"{split}.csv", newline="", encoding="utf-8") as f:
            val_test[split] = {row["youtube_id"] for row in csv.DictReader(f)}
    with gzip.open(
        metadata / "musiccaps" / "musiccaps-public.csv.gz", "rt", newline="", encoding="utf-8"
    ) as f:
        musiccaps = {row["ytid"] for row in csv.DictReader(f) if row["is_audioset_eval"] == "True"}
    strong = {x["id"][:11] for x in records(metadata / "audioset_strong" / "eval_events.jsonl.gz")}
    clotho = csv_column(metadata / "wavcaps" / "blacklist_clotho.full.v2.csv.gz", "id")
    names = {
        x: csv_column(metadata / "clotho" / f"{x}.csv.gz", "file_name") for x in ("val", "test")
    }
    psc = {
        x: {
            clip["id"]
            for clip in records(metadata / "paraspeechcaps" / f"psc_{x}_captions.jsonl.gz")
        }
        for x in ("dev", "holdout")
    }
    keys = pq.read_table(folder / "evaluation_keys.parquet").to_pylist()
    vox = {row["key"] for row in keys if row["evaluation_set"] == "voxceleb2"}
    return {
        "audiocaps:val": val_test["val"],
        "audiocaps:test": val_test["test"],
        "musiccaps:eval": musiccaps,
        "vggsound:test": {line[:11] for line in lines(metadata / "vggsound" / "test.csv.gz")},
        "audioset:eval": csv_column(
            metadata / "audioset" / "eval_segments.repacked.csv.gz", "YTID"
        ),
        "audioset_strong:eval": strong,
        "fsd50k:dev": {
            x["id"] for x in records(metadata / "fsd50k" / "fsd50k_dev_labels.jsonl.gz")
        },
        "fsd50k:eval": {
            x["id"] for x in records(metadata / "fsd50k" / "fsd50k_eval_labels.jsonl.gz")
        },
        "clotho:validation": clotho | names["val"],
        "clotho:evaluation": clotho | names["test"],
        "urbansound8k:all": csv_column(metadata / "urbansound8k" / "UrbanSound8K.csv.gz", "fsID"),
        "paraspeechcaps:dev": psc["dev"],
        "paraspeechcaps:holdout": psc["holdout"],
        "voxceleb2:eval": {key.removeprefix("vox:v2:").replace(":", "/") for key in vox},
    }


def naive_names(key: str) -> set[str]:
    """The ways in which a naive list may name the recording of a key."""
    space, _, rest = key.partition(":")
    if space == "yt":
        return {rest[:11]}
    if space == "vox":
        version, speaker, video, utterance = rest.split(":")
        trees = {
            "v1": ("voxceleb1_dev_wav", "voxceleb1_test_wav"),
            "v2": ("voxceleb2_dev_aac", "voxceleb2_test_aac"),
        }[version]
        names = {f"{tree}_{speaker}_{video}_{utterance}_voicefixer" for tree in trees}
        return names | ({f"{speaker}/{video}"} if version == "v2" else set())
    if space == "ears":
        return {f"EARS_audio_{rest.replace(':', '_')}"}
    if space == "expresso":
        pair, style = rest.split("_")[:2]
        read = f"expresso_audio_48khz_read_{pair}_{style}_base_{rest}"
        talk = f"expresso_audio_48khz_conversational_vad_segmented_{pair}_{style}_{rest}"
        return {read, talk}
    return {rest} if space in ("fs", "clotho") else set()


@pytest.mark.slow
def test_no_evaluation_clip_survives_and_the_report_counts_right(corpus, shared_dir):
    lists = naive_lists(shared_dir / "metadata", corpus)
    entries = [Entry(name, split, "pretrain", 1.0) for name, split in TRAINING]
    with connect(corpus / "scratch", memory_gb=1) as connection:
        report = filter_tables(
            connection,
            entries,
            corpus / "tables",
            corpus / "evaluation_keys.parquet",
            corpus / "filtered",
        )
        tables = sorted((corpus / "filtered").glob("*.parquet"))
        clips = consolidate(
            connection, tables, corpus / "audioset_starts.parquet", corpus / "clips.parquet"
        )

    naive, kept = defaultdict(lambda: defaultdict(set)), defaultdict(set)
    listed = defaultdict(set)
    for table in (corpus / "tables").glob("*.parquet"):
        rows = pq.read_table(table, columns=["audio_key", "source"]).to_pylist()
        for key, source in {(row["audio_key"], row["source"]) for row in rows}:
            listed[source].add(key)
            hit = [name for name, ids in lists.items() if naive_names(key) & ids]
            for name in hit:
                naive[source][name].add(key)
            if not hit:
                kept[source].add(key)
    for source, counts in report["sources"].items():
        assert counts["clips"] == len(listed[source]) and counts["kept_clips"] == len(
            kept[source]
        ), source
        assert counts["by_list"] == {name: len(keys) for name, keys in naive[source].items()}, (
            source
        )
    assert set(report["sources"]) == set(listed)

    survivors = pq.read_table(corpus / "clips.parquet").to_pylist()
    assert len(survivors) == clips
    for clip in survivors:
        for name, ids in lists.items():
            assert not naive_names(clip["audio_key"]) & ids, (clip, name)
    sources = {x for clip in survivors for names in clip["sources"] for x in names.split("+")}
    assert sources == {source for source in kept if kept[source]}
    strata = add_subset_ranks(corpus / "clips.parquet", corpus / "ranked.parquet")
    assert sum(counts["clips"] for counts in strata.values()) == clips

    # Overlaps that were measured by hand on the same files.
    assert report["sources"]["audiosetcaps_vggsound"]["by_list"]["audiocaps:test"] >= 146
    assert report["sources"]["wavcaps_audioset"]["by_list"]["audioset_strong:eval"] >= 5_931
    assert report["sources"]["audiocaps"]["by_list"] == {"vggsound:test": 15}
    assert (
        report["sources"]["wavcaps_freesound"]["by_list"]["urbansound8k:all"] >= 1_050
    )  # of one blacklist
    assert report["sources"]["paraspeechcaps_base"]["by_list"]["paraspeechcaps:dev"] == 11_967


@pytest.mark.slow
def test_overlaps_between_the_lists(shared_dir, tmp_path, gather_evaluation_keys):
    """`corpora.md`, E2: what the lists share, counted on our keys."""
    metadata = shared_dir / "metadata"
    sets = [x for x in LISTS if x.split(":")[0] not in ("voxceleb2", "clotho")]
    gather_evaluation_keys(
        ["--corpora-dir", str(metadata), "--output-dir", str(tmp_path), "--sets", *sets]
    )
    keys = defaultdict(set)
    for row in pq.read_table(tmp_path / "evaluation_keys.parquet").to_pylist():
        keys[f"{row['evaluation_set']}:{row['split']}"].add(row["key"])
    assert len(keys["audiocaps:val"] | keys["audiocaps:test"]) == 1_470
    assert len(keys["musiccaps:eval"] & keys["vggsound:test"]) == 740
    assert len(keys["musiccaps:eval"] & keys["audioset_strong:eval"]) == 2_742
    assert len(keys["vggsound:test"] & keys["audioset:eval"]) == 6_958
    assert keys["musiccaps:eval"] <= keys["audioset:eval"] >= keys["audioset_strong:eval"]
    assert len(keys["urbansound8k:all"] & keys["fsd50k:eval"]) == 105
    assert len(keys["urbansound8k:all"] & keys["fsd50k:dev"]) == 334
    clotho = {
        "fs:" + str(int(row["id"]))
        for row in csv.DictReader(lines(metadata / "wavcaps" / "blacklist_clotho.full.v2.csv.gz"))
        if row["id"].isdigit()
    }
    assert len(clotho & keys["fsd50k:eval"]) == 302 and len(clotho & keys["fsd50k:dev"]) == 527
    videos = {
        record["id"][:11]
        for record in records(metadata / "vggsound" / "vggsound_train_labels.jsonl.gz")
    }
    videos = {f"yt:{video}" for video in videos}
    assert (
        len(videos & keys["audioset_strong:eval"]) == 413
        and len(videos & keys["musiccaps:eval"]) == 42
    )
    assert len(videos & keys["vggsound:test"]) == 6
