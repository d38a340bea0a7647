"""A small download folder and a way to run prepare.sh, whole or killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

SOUNDS = ("dog", "bell", "rain", "flute", "engine", "voice")


def make_corpus(folder: Path, clips: int, frequency: float, test_share: int = 0) -> None:
    """A folder with audio, captions.csv and metadata.csv; every `test_share`-th clip is of the
    split `test`.
    """
    (folder / "audio").mkdir(parents=True)
    captions, metadata = ["file,caption"], ["file,split,licence"]
    for number in range(clips):
        name = f"audio/{number:03d}.wav"
        samples = 0.1 * np.sin(np.arange(4_800 + 160 * number) * frequency * (1 + number))
        soundfile.write(folder / name, samples, 16_000)
        sound = SOUNDS[number % len(SOUNDS)]
        captions += [
            f"{name},A {sound} sounds {number} times.",
            f'{name},"Somewhere, a {sound} near {folder.name}"',
        ]
        split = "test" if test_share and number % test_share == 0 else "train"
        metadata.append(f"{name},{split},CC-BY-4.0")
    (folder / "captions.csv").write_text("\n".join(captions) + "\n")
    (folder / "metadata.csv").write_text("\n".join(metadata) + "\n")


@pytest.fixture
def download(tmp_path):
    """Two corpora of one's own, alpha with a test split, and the list of them."""
    folder = tmp_path / "download"
    make_corpus(folder / "alpha", 40, 0.01, test_share=8)
    make_corpus(folder / "beta", 30, 0.02)
    (folder / "beta" / "audio" / "003.wav").write_text("not audio")
    (folder / "beta" / "audio" / "004.wav").unlink()
    corpora = folder / "corpora.csv"
    corpora.write_text(
        "name,split,role,weight\nalpha,train,pretrain,1\nbeta,*,pretrain,2\n"
        "alpha,test,evaluation,\n"
    )
    return folder


@pytest.fixture
def prepare(repository, download, tmp_path):
    """prepare(data_dir, *flags, kill=None, recipe=...) -> (exit status, output).

    `kill` is called every few milliseconds with the output so far; when it says True, prepare.sh
    and all that it started get SIGKILL.
    """

    def prepare(data_dir, *flags, kill=None, recipe=repository / "egs" / "captionstew"):
        command = [
            str(recipe / "prepare.sh"),
            "--corpora-dir",
            str(download),
            "--data-dir",
            str(data_dir),
        ]
        command += [
            "--corpora",
            str(download / "corpora.csv"),
            "--subsets",
            "40 all",
            "--num-jobs",
            "1",
            *flags,
        ]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
        log = tmp_path / "log"
        with open(log, "w") as stream:
            process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
            while process.poll() is None:
                if kill is not None and kill(log.read_text()):
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                time.sleep(0.02)
        return process.returncode, log.read_text()

    return prepare


@pytest.fixture
def make_folder_corpus():
    """make_folder_corpus(folder, clips, frequency): audio, captions.csv and metadata.csv."""
    return make_corpus
