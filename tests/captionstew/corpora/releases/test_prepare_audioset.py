"""AudioSet's lists: the real ones, and small ones with every form that rows and file names have."""

import json
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from captionstew.corpora.release import ReleaseError
from captionstew.data.manifests.cuts import open_cuts

CLASSES = "class_labels_indices.csv"


def test_the_real_lists(prepare_labelled, shared_dir, tmp_path, capsys):
    release = tmp_path / "audioset"
    release.mkdir()
    metadata = shared_dir / "metadata" / "audioset"
    shutil.copy(metadata / CLASSES, release)
    shutil.copy(metadata / "balanced_train_segments.csv.gz", release)
    shutil.copy(metadata / "eval_segments.repacked.csv.gz", release / "eval_segments.csv.gz")
    output = prepare_labelled("audioset", release, "--lists-only")
    assert "unbalanced_train_segments.csv is not there" in capsys.readouterr().out
    classes = json.loads((output / "classes.json").read_text())
    assert len(classes) == 527 and classes[0] == "Speech" and classes[526] == "Field recording"
    rows = pq.read_table(output / "listed.parquet").to_pylist()
    splits = Counter(row["split"] for row in rows)
    assert splits["test"] == 20_371 and splits["train"] + splits["valid"] == 22_160
    assert 0.003 < splits["valid"] / 22_160 < 0.008
    labels = {row["audio_key"]: json.loads(row["labels"])["labels"] for row in rows}
    assert labels["yt:--PJHxphWEs:30"] == ["Speech", "Gush"]
    assert (
        sum(len(names) for row, names in zip(rows, labels.values()) if row["split"] != "test")
        == 52_882
    )
    for row in rows:
        if row["split"] != "test":
            assert set(labels[row["audio_key"]]) <= set(classes)


ROWS = {  # video, start, end, labels
    "eval": ["A_-bcdefgh1, 30.000, 40.000, \"/m/09x0r,/m/05zppz\"",
    "Abcdefghi_2, 0.000, 10.000, \"/m/05zppz\""],
    "balanced_train": ["Ybcdefghij3, 210.000, 219.000, \"/m/09x0r\"",
    "missing0004, 0.500, 10.500, \"/m/09x0r\""],
    "unbalanced_train": ["A_-bcdefgh1, 90.000, 100.000, \"/m/09x0r\"",
    "bbbbbbbbbb5, 5.000, 15.000, \"/m/09x0r\""],
}  # fmt: skip
# Names in use; ids hold "_", and the third begins with "Y" itself.
SOUNDS = ("YA_-bcdefgh1.wav", "Abcdefghi_2_0.wav", "YYbcdefghij3.wav", "bbbbbbbbbb5_5_15.wav")


@pytest.fixture
def release(tmp_path):
    folder = tmp_path / "release"
    (folder / "audio").mkdir(parents=True)
    (folder / CLASSES).write_text(
        'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'
    )
    for part, rows in ROWS.items():
        header = [
            "# Segments csv created",
            "# num_ytids=2",
            "# YTID, start_seconds, end_seconds, positive_labels",
        ]
        if part == "eval":  # a repackaged list: a header row, and no blanks
            header, rows = (
                ["YTID,start_seconds,end_seconds,positive_labels"],
                [row.replace(", ", ",") for row in rows],
            )
        (folder / f"{part}_segments.csv").write_text("\n".join([*header, *rows]) + "\n")
    for number, name in enumerate(SOUNDS):
        soundfile.write(
            folder / "audio" / name, 0.1 * np.sin(np.arange(32_000) * (0.1 + 0.1 * number)), 16_000
        )
    return folder


def test_manifests(prepare_labelled, release):
    output = prepare_labelled("audioset", release)
    test = {
        cut.supervisions[0].custom["audio_key"]: cut
        for cut in open_cuts(output / "cuts_test.jsonl")
    }
    assert set(test) == {"yt:A_-bcdefgh1:30", "yt:Abcdefghi_2:0"}
    both = test["yt:A_-bcdefgh1:30"].supervisions[0].custom
    assert both["labels"] == ["Speech", "Male speech, man speaking"] and both["sources"] == [
        "audioset"
    ]
    train = [
        cut for split in ("train", "valid") for cut in open_cuts(output / f"cuts_{split}.jsonl")
    ]
    assert {cut.supervisions[0].custom["audio_key"] for cut in train} == {
        "yt:Ybcdefghij3:210",
        "yt:bbbbbbbbbb5:5",
    }
    assert [cut.duration for cut in train] == [
        2.0,
        2.0,
    ]  # what the file holds, not what the list announces
    missing = "".join((output / f"missing_{split}.txt").read_text() for split in ("train", "valid"))
    assert "yt:missing0004:0" in missing
    report = json.loads((output / "report.json").read_text())
    assert (
        report["dropped"]["clip of unbalanced_train whose video is in an earlier list"]["rows"] == 1
    )


def test_unknown_classes_and_missing_lists(prepare_labelled, release):
    (release / "balanced_train_segments.csv").write_text(
        'cccccccccc6, 0.000, 10.000, "/m/unknown"\n'
    )
    with pytest.raises(
        ReleaseError, match="balanced_train_segments.csv: cccccccccc6 has the label '/m/unknown'"
    ):
        prepare_labelled("audioset", release)
    (release / "eval_segments.csv").unlink()
    with pytest.raises(
        ReleaseError, match="eval_segments.csv is missing; get eval_segments.csv from https"
    ):
        prepare_labelled("audioset", release)
