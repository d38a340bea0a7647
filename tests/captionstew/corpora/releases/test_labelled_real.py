"""The programs of the probing tasks on the real lists, in the releases' own form: the counts that
are known.
"""

import csv
import gzip
import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from captionstew.corpora.keys import group_key
from captionstew.corpora.magnatagatune import MAGNATAGATUNE_TAGS


@pytest.fixture
def metadata(shared_dir):
    return shared_dir / "metadata"


def lines(path):
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else open(path, encoding="utf-8")
    ) as file:
        return file.read().splitlines()


def records(path):
    return map(json.loads, lines(path))


def write_csv(path, rows, delimiter=",", quoting=csv.QUOTE_MINIMAL):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=quoting).writerows(rows)


@pytest.fixture
def listed(prepare_labelled):
    """listed("nsynth", folder) -> (classes, split -> rows of the lists with their labels
    parsed).
    """

    def read(name, folder, *flags):
        output = prepare_labelled(name, folder, "--lists-only", *flags)
        rows = pq.read_table(output / "listed.parquet").to_pylist()
        assert len({row["audio_key"] for row in rows}) == len(rows)
        splits = {split: [] for split in ("train", "valid", "test")}
        for row in rows:
            splits[row["split"]].append({**row, "labels": json.loads(row["labels"])})
        return json.loads((output / "classes.json").read_text()), splits

    return read


def assert_recordings_disjoint(splits):
    groups = {
        split: {group_key(row["audio_key"]) for row in rows} for split, rows in splits.items()
    }
    for a in groups:
        for b in groups:
            assert a == b or not groups[a] & groups[b], (a, b)


@pytest.mark.slow
def test_fsd50k(listed, metadata, tmp_path):
    """dev.csv and eval.csv of the release, from the real ids and labels; train and val by counts
    alone.
    """
    vocabulary = [
        row[:3]
        for row in csv.reader(lines(metadata / "fsd50k/ltu_class_labels_indices_fsd50k.csv")[1:])
    ]
    ground_truth = tmp_path / "release" / "FSD50K.ground_truth"
    write_csv(
        ground_truth / "vocabulary.csv", [[index, name, mid] for index, mid, name in vocabulary]
    )
    for part in ("dev", "eval"):
        rows = [["fname", "labels", "mids"] + ["split"] * (part == "dev")]
        for number, record in enumerate(
            records(metadata / f"fsd50k/fsd50k_{part}_labels.jsonl.gz")
        ):
            labels = (
                record["audio_events"].replace(", ", "_and_").replace("; ", ",").replace(" ", "_")
            )
            split = ["train" if number < 36_796 else "val"] * (part == "dev")
            rows.append([record["id"], labels, "", *split])
        write_csv(ground_truth / f"{part}.csv", rows)
    classes, splits = listed("fsd50k", tmp_path / "release")
    assert len(classes) == 200 and classes[0] == "Accelerating_and_revving_and_vroom"
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 36_796,
        "valid": 4_170,
        "test": 10_231,
    }
    assert {label for row in splits["test"] for label in row["labels"]["labels"]} == set(classes)
    assert splits["train"][0]["audio_key"] == "fs:64760"
    assert splits["train"][0]["files"][0]["path"].endswith("release/FSD50K.dev_audio/64760.wav")


@pytest.mark.slow
def test_vggsound(listed, metadata, tmp_path):
    rows = []
    for part in ("train", "test"):
        for record in records(metadata / f"vggsound/vggsound_{part}_labels.jsonl.gz"):
            rows.append([record["id"][:11], int(record["id"][12:18]), record["event_label"], part])
    assert len(rows) == 183_631 + 15_463
    write_csv(tmp_path / "vggsound.csv", rows)
    (tmp_path / "test.csv").write_text("\n".join(lines(metadata / "vggsound/test.csv.gz")))
    (tmp_path / "stat.csv").write_bytes((metadata / "vggsound/stat.csv").read_bytes())
    classes, splits = listed("vggsound", tmp_path)
    assert len(classes) == 309 and len(splits["test"]) == 15_446
    test_videos = {line[:11] for line in lines(metadata / "vggsound/test.csv.gz")}
    training = [
        row
        for row in rows
        if row[3] == "train" and row[2] != "extending ladders" and row[0] not in test_videos
    ]
    assert (
        len(splits["train"]) + len(splits["valid"]) == len(training) == 183_449 - 7
    )  # clips of 6 videos
    assert 0.04 < len(splits["valid"]) / len(training) < 0.06
    assert_recordings_disjoint(splits)
    for rows in splits.values():
        assert {row["labels"]["label"] for row in rows} == set(classes)


@pytest.mark.slow
def test_voxceleb2(listed, metadata, tmp_path):
    """The 62,520 dev utterances that ParaSpeechCaps knows, as the list in the tree's place."""
    names = (x["id"] for x in records(metadata / "paraspeechcaps/psc_train_base_ids.jsonl.gz"))
    vox2 = [x.removeprefix("voxceleb2_dev_aac_") for x in names if x.startswith("voxceleb2_dev")]
    listed_names = "\n".join(f"{x[:7]}/{x[8:19]}/{x[20:25]}" for x in vox2)
    (tmp_path / "vox2_dev_utterances.txt").write_text(listed_names)
    (tmp_path / "vox2_meta.csv").write_text(
        "\n".join(lines(metadata / "voxceleb/vox2_meta.csv.gz"))
    )
    classes, splits = listed("voxceleb2", tmp_path)
    assert len(classes) == 5_994 and classes[0] == "id00012"
    assert sum(map(len, splits.values())) == 62_520
    assert_recordings_disjoint(splits)
    speakers = {row["labels"]["label"] for rows in splits.values() for row in rows}
    assert {row["labels"]["label"] for row in splits["train"]} == speakers
    for split in ("valid", "test"):
        assert 0.017 < len(splits[split]) / 62_520 < 0.051
    assert splits["test"][0]["files"][0]["path"].startswith(str(tmp_path / "voxceleb2/dev/aac/id"))


def test_cremad(listed, metadata, tmp_path):
    with gzip.open(metadata / "cremad/SentenceFilenames.csv.gz") as file:
        (tmp_path / "SentenceFilenames.csv").write_bytes(file.read())
    classes, splits = listed("cremad", tmp_path)
    assert classes == ["anger", "disgust", "fear", "happy", "neutral", "sad"]
    actors = {split: {row["labels"]["speaker"] for row in rows} for split, rows in splits.items()}
    assert {split: len(found) for split, found in actors.items()} == {
        "train": 63,
        "valid": 9,
        "test": 19,
    }
    assert (
        not actors["train"] & actors["valid"]
        and not (actors["train"] | actors["valid"]) & actors["test"]
    )
    emotions = Counter(row["labels"]["label"] for rows in splits.values() for row in rows)
    assert emotions.pop("neutral") == 1_087 and set(emotions.values()) == {1_271}
    assert (
        Counter(row["labels"]["level"] for rows in splits.values() for row in rows)["XX"] == 6_077
    )


def test_magnatagatune(listed, metadata, tmp_path):
    listed_tags = lines(
        metadata / "magnatagatune/top50_tags.txt"
    )  # `noVocals` is the release's `no vocals`
    assert [tag.replace(" ", "") for tag in MAGNATAGATUNE_TAGS] == [
        tag.lower() for tag in listed_tags
    ]
    paths = dict(
        line.split("\t") for line in lines(metadata / "magnatagatune/musicnn_index_mtt.tsv.gz")
    )
    assert len(paths) == 25_863
    rows = [["clip_id", "singer", *MAGNATAGATUNE_TAGS, "mp3_path"]]
    for part in ("val", "test"):
        for line in lines(metadata / f"magnatagatune/musicnn_{part}_gt_mtt.tsv.gz"):
            clip, values = line.split("\t")
            rows.append([clip, "0", *(f"{value:.0f}" for value in json.loads(values)), paths[clip]])
    write_csv(tmp_path / "annotations_final.csv", rows, "\t", csv.QUOTE_ALL)
    classes, splits = listed("magnatagatune", tmp_path)
    assert len(classes) == 50 and {split: len(x) for split, x in splits.items()} == {
        "train": 0,
        "valid": 1_529,
        "test": 4_332,
    }
    for split in ("valid", "test"):
        official = set(lines(metadata / f"magnatagatune/mtat_split_{split}.txt.gz"))
        prefix = f"{tmp_path}/"
        assert {row["files"][0]["path"].removeprefix(prefix) for row in splits[split]} == official
    training = lines(metadata / "magnatagatune/mtat_split_train.txt.gz")
    assert {path[0] for path in training} == set("0123456789ab")


def test_nsynth(listed, metadata, tmp_path):
    for split in ("valid", "test"):
        notes = {
            x["id"]: {"note_str": x["id"]}
            for x in records(metadata / f"nsynth/nsynth_{split}.jsonl.gz")
        }
        (tmp_path / f"nsynth-{split}").mkdir()
        (tmp_path / f"nsynth-{split}" / "examples.json").write_text(json.dumps(notes))
    classes, splits = listed("nsynth", tmp_path, "--splits", "valid", "test")
    assert len(classes) == 11 and len(splits["valid"]) == 12_678 and len(splits["test"]) == 4_096
    assert {row["labels"]["label"] for row in splits["test"]} == set(classes) - {"synth_lead"}


@pytest.mark.slow
def test_audioset_strong(listed, metadata, tmp_path, capsys):
    """The TSVs of the release, from the real eval events and, with made-up times, the real train
    classes.
    """
    strong = metadata / "audioset_strong"
    mids = {
        name: mid for mid, name in csv.reader(lines(strong / "class_labels_indices_strong.csv"))
    }
    header = ["segment_id", "start_time_seconds", "end_time_seconds", "label"]
    evaluation, training = [header], [header]
    for record in records(strong / "eval_events.jsonl.gz"):
        for line in record["events"].splitlines():
            times, name = line.lstrip("[").split("] ", 1)
            evaluation.append([record["id"], *times.split("-"), mids[name]])
    for record in records(strong / "train_clip_events_no_times.jsonl.gz"):
        training += [[record["id"], 1, 2, mids[name]] for name in record["events_list"]]
    write_csv(tmp_path / "audioset_eval_strong.tsv", evaluation, "\t")
    write_csv(tmp_path / "audioset_train_strong.tsv", training, "\t")
    classes, splits = listed("audioset_strong", tmp_path)
    assert len(classes) == 456 and set(classes) == set(mids.values())
    assert "447 classes to train on, 416 to test, 407 in both" in capsys.readouterr().out
    assert len(splits["train"]) + len(splits["valid"]) == 101_791
    assert 0.04 < len(splits["valid"]) / 101_791 < 0.06
    assert_recordings_disjoint(splits)
    events = [event for row in splits["test"] for event in row["labels"]["events"]]
    assert all(0 <= onset < offset for onset, offset, _ in events)
    without_length = sum(row[1] == row[2] for row in evaluation[1:])
    assert without_length == 27 and len(splits["test"]) > 16_650 and len(events) < 137_007 - 27
