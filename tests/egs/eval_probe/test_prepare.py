"""prepare.sh of the probing tasks on miniature releases: all seven, a second run, killed, and its
errors.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from captionstew.corpora.keys import group_key
from captionstew.corpora.labelled import class_names_of
from captionstew.data.manifests.cuts import open_cuts

TASKS = ("fsd50k", "vggsound", "voxceleb2", "cremad", "magnatagatune", "nsynth", "audioset_strong")
CLASSES = {
    "voxceleb2": 4,
    "cremad": 6,
}  # of the miniature's training clips; elsewhere the six it was made of, or more
FIELDS = {"fsd50k": "labels", "magnatagatune": "labels", "audioset_strong": "events"}


DIE = """
import fnmatch, os, signal
replace = os.replace
def replace_and_die(source, target, **options):
    replace(source, target, **options)
    if fnmatch.fnmatch(str(target), os.environ["KILL_AFTER"]):
        os.killpg(0, signal.SIGKILL)
os.replace = replace_and_die
"""


@pytest.fixture
def prepare(repository, tmp_path):
    """prepare(flag, value, ..., kill_after=None) -> (exit status, output).

    prepare.sh and all that it started get SIGKILL as soon as a file that matches `kill_after` is
    complete.
    """
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DIE)

    def prepare(*flags, kill_after=None):
        command = [
            str(repository / "egs" / "eval_probe" / "prepare.sh"),
            "--num-jobs",
            "1",
            *map(str, flags),
        ]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
        if kill_after is not None:
            environment |= {"PYTHONPATH": str(tmp_path / "site"), "KILL_AFTER": str(kill_after)}
        log = tmp_path / "log"
        with open(log, "w") as stream:
            status = subprocess.call(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                cwd=tmp_path,
            )
        return status, log.read_text()

    return prepare


def custom_of(manifest):
    return [cut.supervisions[0].custom for cut in open_cuts(manifest)]


def contents(folder):
    """Relative path -> bytes; an index holds the time stamp of its manifest."""
    files = (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {".done", ".lock"} & set(path.parts)
    )
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.suffix != ".index"
    }


@pytest.mark.slow
@pytest.mark.parametrize("real", [True, False])
def test_all_tasks_from_their_releases(prepare, mini_release, tmp_path, real):
    corpora = [mini_release(task, broken_test_clips=1, real=real).parent for task in TASKS][0]
    data = tmp_path / "data"
    status, output = prepare("--corpora-dir", corpora, "--data-dir", data)
    assert status == 0, output
    for task in TASKS:
        custom = {
            split: custom_of(data / task / f"cuts_{split}.jsonl")
            for split in ("train", "valid", "test")
        }
        broken = [
            json.loads(line)
            for line in (data / task / "broken_test.jsonl").read_text().splitlines()
        ]
        report = json.loads((data / task / "report.json").read_text())["splits"]
        for split, rows in custom.items():
            assert report[split]["found"] == len(rows) > 0 and report[split]["missing"] == 0
            assert all(row["sources"] == [task] and row[FIELDS.get(task, "label")] for row in rows)
        assert len(broken) == 1 and report["test"]["listed"] == len(custom["test"]) + 1
        custom["test"].append(broken[0]["custom"])
        groups = [{group_key(row["audio_key"]) for row in rows} for rows in custom.values()]
        assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
        classes = {
            split: {name for row in rows for name in class_names_of(row)}
            for split, rows in custom.items()
        }
        assert classes["test"] <= classes["train"] and classes["valid"] <= classes["train"], task
        assert classes["train"] <= set(json.loads((data / task / "classes.json").read_text()))
        assert len(classes["train"]) >= CLASSES.get(task, 6)
    assert (data / "coverage.md").read_text().count("\n") == 4 + 3 * len(TASKS)
    before = contents(data)
    status, output = prepare("--corpora-dir", corpora, "--data-dir", data)
    assert (
        status == 0 and output.count("done before") == 2 * len(TASKS) and contents(data) == before
    )


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bytes(prepare, mini_release, tmp_path):
    flags = ("--corpora-dir", mini_release("nsynth").parent, "--tasks", "nsynth", "--data-dir")
    reference, killed = tmp_path / "reference", tmp_path / "killed"
    assert prepare(*flags, reference)[0] == 0
    moments = ("listed.parquet", "shares-*/*.parquet", "cuts_train.jsonl")
    for moment in moments:
        status, output = prepare(*flags, killed, kill_after=killed / "nsynth" / moment)
        assert status == -9, output
    status, output = prepare(*flags, killed)
    assert status == 0, output
    leftovers = {
        name
        for name in contents(killed).keys() - contents(reference).keys()
        if not name.endswith(".tmp")
    }
    assert not leftovers
    for name, expected in contents(reference).items():
        assert contents(killed)[name] == expected, name


def test_errors_are_one_clear_line(prepare, tmp_path):
    status, output = prepare("--tasks", "nsynth,fsd51k")
    assert status == 2 and output.startswith(
        "prepare.sh: --tasks: fsd51k is none of fsd50k vggsound"
    )
    status, output = prepare("--corpora-dir", tmp_path, "--tasks", "vggsound")
    assert status == 1 and output.splitlines()[-1].startswith("prepare_corpus.py: ")
    assert (
        "vggsound is not a folder; get the release from https://github.com/hche11/VGGSound"
        in output
    )


@pytest.mark.slow
def test_a_folder_of_ones_own(prepare, program, tmp_path):
    program(
        "local/split_mini.py", "--output-dir", tmp_path / "mini", "--num-clips", 30, "--num-jobs", 1
    )
    status, output = prepare(
        "--corpus", tmp_path / "mini" / "corpus", "--data-dir", tmp_path / "data"
    )
    assert status == 0, output
    assert custom_of(tmp_path / "data" / "cuts_train.jsonl")[0]["label"]
