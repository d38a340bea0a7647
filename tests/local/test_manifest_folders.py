"""Folders of manifests made from others: the first captions of training, validation and test
exchanged.
"""

import json
import runpy
import sys

import pytest

from captionstew.data.audio import AudioInfo
from captionstew.data.manifests.cuts import make_cut, open_cuts, write_cuts

CLIPS = {"train": 40, "valid": 5, "test": 7}


@pytest.fixture
def manifests(tmp_path):
    """Folder of manifests whose training clips have one, two or three captions."""
    folder = tmp_path / "data"
    for split, count in CLIPS.items():
        names = [f"{split}-{number}" for number in range(count)]
        info = AudioInfo(1.0, 16000, 1, 16000, "a")
        made = (
            make_cut(
                name,
                folder / f"{name}.wav",
                info,
                ["a tone"] * (1 + row % 3),
                ["tones"] * (1 + row % 3),
            )
            for row, name in enumerate(names)
        )
        folder.mkdir(exist_ok=True)
        write_cuts(folder / f"cuts_{split}.jsonl", made)
    (folder / "report.json").write_text('{"subset": "all"}')
    return folder


@pytest.fixture
def run(repository, monkeypatch):
    """run("swap_held_out", flag, value, ...) -> the program in this process."""

    def call(name, *flags):
        monkeypatch.setattr(sys, "argv", [name, *map(str, flags)])
        runpy.run_path(str(repository / "local" / f"{name}.py"))["main"]()

    return call


def ids(folder, split):
    return [cut.id for cut in open_cuts(folder / f"cuts_{split}.jsonl")]


def captions_of(folder):
    return sum(
        len(cut.supervisions[0].custom["captions"])
        for cut in open_cuts(folder / "cuts_train.jsonl")
    )


def test_subsets_are_nested_whole_clips_of_at_most_that_many_captions(run, manifests, tmp_path):
    for captions in (10, 30):
        run(
            "subset_manifest",
            "--manifest-dir",
            manifests,
            "--captions",
            captions,
            "--output-dir",
            tmp_path / str(captions),
        )
        assert captions - 3 < captions_of(tmp_path / str(captions)) <= captions
    small, large = set(ids(tmp_path / "10", "train")), set(ids(tmp_path / "30", "train"))
    assert small < large < set(ids(manifests, "train"))
    for split in ("valid", "test"):
        assert ids(tmp_path / "10", split) == ids(manifests, split)
    assert json.loads((tmp_path / "10" / "report.json").read_text())["subset"] == "10"
    for cut in open_cuts(tmp_path / "10" / "cuts_train.jsonl"):
        assert cut.supervisions[0].custom["captions"] and cut.recording.sources[
            0
        ].source.startswith(str(manifests))


def test_another_seed_draws_other_clips_and_all_captions_are_all_clips(run, manifests, tmp_path):
    for seed in (1, 2):
        flags = ["--captions", 10, "--seed", seed, "--output-dir", tmp_path / str(seed)]
        run("subset_manifest", "--manifest-dir", manifests, *flags)
    assert ids(tmp_path / "1", "train") != ids(tmp_path / "2", "train")
    run(
        "subset_manifest",
        "--manifest-dir",
        manifests,
        "--captions",
        10_000,
        "--output-dir",
        tmp_path / "all",
    )
    assert ids(tmp_path / "all", "train") == ids(manifests, "train")


def test_a_subset_without_a_clip_is_refused(run, manifests, tmp_path):
    with pytest.raises(ValueError, match="--captions 0"):
        run(
            "subset_manifest",
            "--manifest-dir",
            manifests,
            "--captions",
            0,
            "--output-dir",
            tmp_path / "none",
        )


def test_a_subset_of_nothing_is_refused(run, tmp_path):
    (tmp_path / "cuts_train.jsonl").touch()
    with pytest.raises(ValueError, match="cuts_train.jsonl"):
        run(
            "subset_manifest",
            "--manifest-dir",
            tmp_path,
            "--captions",
            10,
            "--output-dir",
            tmp_path / "none",
        )


@pytest.mark.parametrize(
    "name, flags", [("subset_manifest", ["--captions", 10]), ("swap_held_out", [])]
)
def test_the_list_of_classes_goes_along(run, manifests, tmp_path, name, flags):
    (manifests / "classes.json").write_text('["a", "b"]')
    run(name, "--manifest-dir", manifests, "--output-dir", tmp_path / "other", *flags)
    assert json.loads((tmp_path / "other" / "classes.json").read_text()) == ["a", "b"]


def test_validation_and_test_are_exchanged(run, manifests, tmp_path):
    run("swap_held_out", "--manifest-dir", manifests, "--output-dir", manifests / "swapped")
    assert ids(manifests / "swapped", "train") == ids(manifests, "train")
    assert ids(manifests / "swapped", "valid") == ids(manifests, "test")
    assert ids(manifests / "swapped", "test") == ids(manifests, "valid")


@pytest.mark.parametrize("name", ["subset_manifest", "swap_held_out"])
def test_no_program_writes_over_what_it_reads(run, manifests, name):
    before = ids(manifests, "train"), ids(manifests, "valid")
    more = ["--captions", 10] if name == "subset_manifest" else []
    with pytest.raises(ValueError, match="is --manifest-dir"):
        run(
            name,
            "--manifest-dir",
            manifests,
            "--output-dir",
            manifests / ".." / manifests.name,
            *more,
        )
    assert (ids(manifests, "train"), ids(manifests, "valid")) == before
