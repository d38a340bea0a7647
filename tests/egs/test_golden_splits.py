"""Who trains, validates and tests, and what a subset holds, are what they were."""

import hashlib
import json
import os
import subprocess

import pytest

from captionstew.corpora.own.prepare import prepare_folder

pytestmark = pytest.mark.slow

SPLITS = ("train", "valid", "test")
MINI = [(54, "7d5b71e4dba44675"), (18, "241970f230929a8d"), (18, "6379040c12a4d6bc")]
RECORDINGS = [(1560, "628ae6749a15a621"), (402, "2d723359042b80dd"), (383, "94f786102feb354d")]
SUBSETS = {
    "40": [(24, "6c2d80063e479f38"), (3, "e408f6ec5b15aef2")],
    "80": [(51, "0949569acacf40c6"), (3, "e408f6ec5b15aef2")],
}


def digests(folder, splits):
    """(clips, hash of their ids) of each manifest."""
    found = []
    for split in splits:
        lines = (folder / f"cuts_{split}.jsonl").read_text(encoding="utf-8").splitlines()
        ids = sorted(json.loads(line)["id"] for line in lines)
        found.append((len(ids), hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]))
    return found


def test_splits_of_the_mini_corpus(mini_data):
    assert digests(mini_data, SPLITS) == MINI


def test_splits_of_real_recordings(shared_dir, tmp_path):
    prepare_folder(shared_dir / "realaudio", tmp_path, num_jobs=2)
    assert digests(tmp_path, SPLITS) == RECORDINGS


def test_subsets_of_the_mini_corpus(repository, tmp_path):
    command = [repository / "egs" / "captionstew" / "prepare.sh", "--corpora", "corpora.mini.csv"]
    flags = ["--corpora-dir", tmp_path / "download", "--data-dir", tmp_path / "data"]
    sizes = ["--mini-clips", "90", "--subsets", "40 80", "--valid-share", "0.1"]
    done = subprocess.run(
        [*command, *flags, *sizes, "--stop-stage", "5"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name, expected in SUBSETS.items():
        assert digests(tmp_path / "data" / name, ("train", "valid")) == expected, name
