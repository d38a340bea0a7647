"""A small mini corpus and a way to run the repository's programs."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY_ENCODER = """
    --encoder-preset mini --downsampling-factor 1,2 --num-encoder-layers 1 --encoder-dim 16,32
    --encoder-unmasked-dim 16,24 --feedforward-dim 32,48 --num-heads 2 --query-head-dim 8
    --pos-head-dim 4
    --value-head-dim 4 --pos-dim 12 --cnn-module-kernel 7 --frontend-channels 2,4,8
"""
# A batch count of 10 per step: the schedules move while a test runs.
SMALL_RUN = """
    --text-tower tiny --embedding-dim 16 --max-duration 15 --ref-duration 1.5 --lr-batches 100
    --warm-step 20
"""


@pytest.fixture(scope="session")
def program(repository):
    """program("egs/.../train.py", flag, value, ...) -> a finished process with its output."""

    def run(path, *arguments, check=True):
        command = [sys.executable, str(repository / path), *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def mini_data(tmp_path_factory, program):
    """Manifests of 90 synthetic clips (54, 18 and 18) and a tokenizer of their captions."""
    folder = tmp_path_factory.mktemp("mini")
    program("local/split_mini.py", "--output-dir", folder, "--num-clips", 90, "--num-jobs", 1)
    train = folder / "cuts_train.jsonl"
    program(
        "local/train_bpe.py",
        "--manifest",
        train,
        "--output",
        folder / "bpe.model",
        "--vocab-size",
        300,
    )
    return folder


@pytest.fixture(scope="session")
def tiny_encoder():
    """Flags of an encoder of a few thousand weights."""
    return TINY_ENCODER.split()


@pytest.fixture(scope="session")
def train_command(repository):
    """train_command(data, exp, flag, value, ...) -> command line of a small contrastive
    training.
    """

    def command(data, exp, *flags):
        train = repository / "egs" / "captionstew" / "contrastive" / "train.py"
        places = ["--manifest-dir", data, "--tokenizer", data / "bpe.model", "--exp-dir", exp]
        return [
            sys.executable,
            *map(str, [train, *places, *SMALL_RUN.split(), *TINY_ENCODER.split(), *flags]),
        ]

    return command


@pytest.fixture(scope="session")
def scalars():
    """scalars(exp dir) -> records of training in order of writing; half a last line is left out."""

    def read(exp):
        path = exp / "scalars.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return [record for record in records if record["kind"] == "train"]

    return read


@pytest.fixture(scope="session")
def mini_release(request, tmp_path_factory):
    """mini_release("fsd50k", broken_test_clips=1) -> folder of a miniature release in the real
    one's form.

    Its parent folder holds the others too and serves as --corpora-dir. Do not change them. With the
    reference data, rows and sounds are real; without, or with real=False, they are made up.
    """
    spec = importlib.util.spec_from_file_location(
        "mini_releases", Path(__file__).with_name("mini_releases.py")
    )
    releases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(releases)
    try:
        shared = request.getfixturevalue("shared_dir")
    except pytest.skip.Exception:
        shared = None
    folders = {}

    def make(task, broken_test_clips=0, real=True):
        kind = (broken_test_clips, real)
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp("releases")
        folder = folders[kind] / releases.FOLDERS.get(task, task)
        if not folder.is_dir():
            releases.make_release(task, folder, shared if real else None, broken_test_clips)
        return folder

    return make
