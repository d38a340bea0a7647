"""The main job in a folder whose name has a blank and a quote, with recordings in another."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.slow
TRIALS = int(os.environ.get("CAPTIONSTEW_FAULTS", "0")) // 5
ROOMS = ("zipformer", "captionstew", "local", "egs", "shared")
FILES = "requirements.txt pyproject.toml shared/environment.sh"


@pytest.fixture
def checkout(repository, tmp_path):
    """A copy of the repository in `a b'c`, its environment the one that runs the tests."""
    copy = tmp_path / "a b'c"
    for room in ROOMS:
        no_outputs = shutil.ignore_patterns("__pycache__", *(["exp", "data"] * (room == "egs")))
        shutil.copytree(repository / room, copy / room, symlinks=True, ignore=no_outputs)
    for file in repository.iterdir():
        if file.suffix in (".sh", ".toml", ".txt"):
            shutil.copy(file, copy)
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / "bin" / "activate").write_text(
        f'export PATH="{os.path.dirname(sys.executable)}:$PATH"\n'
        f'export PYTHONPATH="{copy}" HF_HUB_OFFLINE=1\n'
    )
    wanted = subprocess.run(
        ["bash", "-c", f"cat {FILES} | cksum"], cwd=copy, capture_output=True, check=True
    )
    (copy / ".venv" / ".installed").write_bytes(wanted.stdout.strip())
    return copy


@pytest.fixture
def recordings(tmp_path):
    """30 tones of half a second, five of them to validate on and five to test."""
    folder = tmp_path / "my 'rec ord"
    folder.mkdir()
    captions, splits = ["file,caption"], ["file,split"]
    for number in range(30):
        times = np.arange(8000) / 16000
        tone = 0.3 * np.sin(2 * np.pi * (200 + 20 * number) * times)
        soundfile.write(folder / f"tone '{number}'.wav", tone, 16000)
        captions.append(f"tone '{number}'.wav,a steady tone number {number}")
        split = ("valid", "test")[number % 2] if number < 10 else "train"
        splits.append(f"tone '{number}'.wav,{split}")
    (folder / "captions.csv").write_text("\n".join(captions) + "\n")
    (folder / "metadata.csv").write_text("\n".join(splits) + "\n")
    return folder


def begin(checkout, program, *arguments):
    own = {k: v for k, v in os.environ.items() if not k.startswith(("CAPTIONSTEW_", "PYTHONPATH"))}
    return subprocess.Popen(
        ["bash", checkout / program, *map(str, arguments)],
        cwd=checkout.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=own,
        start_new_session=True,
    )


def kill_group(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def job(checkout, program, *arguments):
    process = begin(checkout, program, *arguments)
    output = process.communicate()[0]
    assert process.returncode == 0, output[-4000:]
    return output


def test_the_main_job(checkout, recordings):
    job(
        checkout, "run.sh", "--corpus", recordings.name, "--num-epochs", 1, "--vocab-size", 60,
        "--num-workers", 0, "--num-jobs", 1,
    )  # fmt: skip
    exp = checkout / "exp" / recordings.name
    (result,) = (exp / "contrastive" / "results").glob("*.json")
    assert json.loads(result.read_text())["num_clips"] == 5
    assert (exp / "report" / "index.html").is_file()
    assert not list(checkout.rglob("*.tmp"))


def outcome(exp):
    """Results and logged numbers, without the clock's."""
    found = {}
    for path in sorted(exp.rglob("results/*.json")):
        content = json.loads(path.read_text())
        found[str(path)] = {k: v for k, v in content.items() if k not in ("created", "command")}
    lines = (exp / "contrastive" / "scalars.jsonl").read_text().splitlines()
    clock = ("time", "audio_seconds_per_second", "data_wait_share")
    found["scalars"] = [{k: v for k, v in json.loads(x).items() if k not in clock} for x in lines]
    return found


@pytest.mark.skipif(not TRIALS, reason="asked for with ./test.sh --faults N")
def test_the_main_job_killed_at_random_moments(checkout, recordings):
    """SIGKILL to the shell and all that it started; the same command goes on."""
    arguments = ["--corpus", recordings.name, "--num-epochs", 2, "--vocab-size", 60]
    arguments += ["--num-workers", 0, "--num-jobs", 1]
    exp, data = (checkout / name / recordings.name for name in ("exp", "data"))
    began = time.monotonic()
    job(checkout, "run.sh", *arguments)
    seconds, expected = time.monotonic() - began, outcome(exp)
    for trial in range(TRIALS):
        for folder in (exp, data):
            shutil.rmtree(folder)
        process = begin(checkout, "run.sh", *arguments)
        moment = random.Random(trial).uniform(0.02, 0.7) * seconds
        threading.Timer(moment, kill_group, [process]).start()
        process.communicate()
        killed = process.returncode != 0
        job(checkout, "run.sh", *arguments)
        assert outcome(exp) == expected
        if killed and (path := os.environ.get("CAPTIONSTEW_FAULT_LOG")):
            with open(path, "a") as file:
                file.write("kill\trun.sh\n")


def test_other_preparations(checkout, recordings):
    job(checkout, "egs/eval_lit/prepare.sh", "--corpus", recordings, "--data-dir", "da ta/lit")
    assert (checkout.parent / "da ta" / "lit" / "cuts_test.jsonl").is_file()


def test_a_plan_knows_its_folder(checkout):
    plan = {
        "variables": {},
        "sets": {},
        "steps": [
            {
                "name": "one",
                "command": ["mkdir -p {root}/exp/out && pwd > {root}/exp/out/done"],
                "makes": ["exp/out/done"],
            }
        ],
    }
    (checkout / "exp").mkdir()
    (checkout / "exp" / "plan.json").write_text(json.dumps(plan))
    job(checkout, "run.sh", "--study", checkout / "exp" / "plan.json")
    assert (checkout / "exp" / "out" / "done").read_text() == f"{checkout}\n"
