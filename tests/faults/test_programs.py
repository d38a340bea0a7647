"""Every program of the repository, killed and short of disk at random moments: the same command
goes on, and what it leaves is equal to what it leaves undisturbed.

By default a few programs are killed once; CAPTIONSTEW_FAULTS=N (`./test.sh --faults N`) tries each
N times, half of the kills at a random moment and half around a call that publishes something, and
half as many times with a full disk. What was done is added to the file CAPTIONSTEW_FAULT_LOG.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytestmark = pytest.mark.slow

TRIALS = int(os.environ.get("CAPTIONSTEW_FAULTS", "0"))
STUCK_SECONDS = 400
TINY = (
    "--encoder-preset mini --downsampling-factor 1,2 --num-encoder-layers 1 --encoder-dim 16,32"
    " --encoder-unmasked-dim 16,24 --feedforward-dim 32,48 --num-heads 2 --query-head-dim 8"
    " --pos-head-dim 4 --value-head-dim 4 --pos-dim 12 --cnn-module-kernel 7"
    " --frontend-channels 2,4,8"
)
TRAIN = (
    f"--manifest-dir out/corpus {TINY} --max-duration 15 --ref-duration 1.5 --lr-batches 100"
    " --warm-step 20 --num-workers 1 --log-interval 3 --save-every-n 4 --valid-interval 8"
    " --average-period 2 --valid-clips 4 --num-epochs 3 --resume true"
)
TEXT = "--tokenizer out/tokenizer/bpe.model"
RECIPE, LIT, QA = "{egs}/captionstew", "{egs}/eval_lit", "{egs}/eval_qa"
FROZEN = "--max-duration 30 --num-workers 0 --average-period 1 --lr-batches 100 --warm-step 5"


@dataclass(frozen=True)
class Program:
    """`command` runs in the world's folder and writes out/<name>; `needs` are programs whose
    outputs it reads. `always`: tried without being asked for, too.
    """

    name: str
    command: str
    needs: tuple[str, ...] = ()
    always: bool = False


PROGRAMS = {
    program.name: program
    for program in (
        Program(
            "corpus", "{local}/split_mini.py --output-dir out/corpus --num-clips 30 --num-jobs 2"
        ),
        Program(
            "folder",
            "{local}/split_folder.py --corpus-dir recordings --output-dir out/folder --num-jobs 1",
            always=True,
        ),
        Program(
            "tokenizer",
            "mkdir -p out/tokenizer && {local}/train_bpe.py --manifest out/corpus/cuts_train.jsonl"
            " --output out/tokenizer/bpe.model --vocab-size 150",
            ("corpus",),
        ),
        Program(
            "features",
            "{local}/store_features.py --manifest out/corpus/cuts_train.jsonl"
            " --output-dir out/features --num-jobs 2",
            ("corpus",),
            always=True,
        ),
        Program(
            "contrastive",
            f"{RECIPE}/contrastive/train.py --exp-dir out/contrastive {TRAIN} {TEXT}"
            " --text-tower tiny --embedding-dim 16",
            ("corpus", "tokenizer"),
            always=True,
        ),
        Program(
            "two-processes",
            f"{RECIPE}/contrastive/train.py --exp-dir out/two-processes {TRAIN} {TEXT}"
            " --text-tower tiny --embedding-dim 16 --world-size 2 --master-port {port}",
            ("corpus", "tokenizer"),
        ),
        Program(
            "captioning",
            f"{RECIPE}/captioning/train.py --exp-dir out/captioning {TRAIN} {TEXT}"
            " --text-decoder tiny --max-caption-tokens 16 --valid-captions 2",
            ("corpus", "tokenizer"),
        ),
        Program(
            "tagging",
            f"{RECIPE}/tagging/train.py --exp-dir out/tagging {TRAIN} --mixup 0.5",
            ("corpus",),
        ),
        Program(
            "averaged",
            f"mkdir -p out/averaged && {RECIPE}/local/average_checkpoints.py"
            " --exp-dir out/contrastive --epoch 3 --avg 1 --output out/averaged/pretrained.pt",
            ("contrastive",),
        ),
        Program(
            "retrieval",
            f"{RECIPE}/contrastive/decode.py --exp-dir out/retrieval --num-workers 0"
            " --checkpoint out/averaged/pretrained.pt --manifest out/corpus/cuts_test.jsonl",
            ("averaged",),
        ),
        Program(
            "report",
            "mkdir -p out/report/results; for file in out/retrieval/results/*.json; do"
            " cp $file out/report/.$$; mv out/report/.$$ out/report/results/${{file##*/}}; done;"
            " python -m captionstew.evaluation.report --exp-dir out/report",
            ("retrieval",),
        ),
        Program(
            "probe",
            "{egs}/eval_probe/train.py --encoder logmel --tasks events --manifest-dir out/corpus"
            " --exp-dir out/probe --cache-dir out/probe/cache --num-seeds 2 --max-epochs 3"
            " --num-workers 0 && {egs}/eval_probe/decode.py --exp-dir out/probe --num-workers 0",
            ("corpus",),
        ),
        Program(
            "text-models",
            f"{LIT}/local/make_text_models.py --manifest out/corpus/cuts_train.jsonl"
            " --output-dir out/text-models --vocab-size 250 --steps 3",
            ("corpus",),
        ),
        Program(
            "lit",
            f"{LIT}/retrieval/train.py --encoder logmel --manifest-dir out/corpus --exp-dir out/lit"
            f" --cache-dir out/lit/cache --text-tower out/text-models/roberta {FROZEN}"
            " --num-epochs 2 --resume true",
            ("corpus", "text-models"),
        ),
        Program(
            "questions",
            f"{QA}/prepare.sh --corpus mini --mini-clips 30 --num-jobs 1"
            " --data-dir {place}/out/questions",
        ),
        Program(
            "llm",
            f"{QA}/local/make_tiny_llm.py --manifest out/questions/cuts_train.jsonl"
            " --output-dir out/llm --hidden-dim 32 --num-steps 5",
            ("questions",),
        ),
        Program(
            "qa",
            f"{QA}/train.py --encoder logmel --manifest-dir out/questions --exp-dir out/qa"
            " --cache-dir out/qa/cache --llm out/llm --hidden-dim 32 --max-duration 200"
            " --num-workers 0 --average-period 2 --num-epochs 2 --save-every-n 3 --resume true",
            ("questions", "llm"),
        ),
        Program(
            "judge",
            "mkdir -p out/judge && cp -r answers out/judge/ && "
            f"{QA}/score.py --exp-dir out/judge --judge-base-url {{judge}} --judge-model j"
            " --judge-send true --judge-workers 2",
        ),
        Program(
            "embed",
            "mkdir -p out/embed && captionstew embed recordings"
            " --encoder out/averaged/pretrained.pt --output out/embed/vectors.parquet"
            " --num-workers 1",
            ("averaged",),
            always=True,
        ),
        Program(
            "search",
            "mkdir -p out/search && captionstew search recordings --index out/search/a.npz"
            " --checkpoint out/averaged/pretrained.pt --query tone --num-workers 0",
            ("averaged",),
        ),
        Program(
            "export",
            "captionstew export out/averaged/pretrained.pt --output out/export",
            ("averaged",),
        ),
        Program(
            "prepare",
            f"{RECIPE}/prepare.sh --corpora corpora.mini.csv --corpora-dir {{place}}/out/prepare/in"
            " --data-dir {place}/out/prepare --mini-clips 30 --subsets all --num-jobs 1"
            " --stop-stage 5",
            always=True,
        ),
    )
}
CHOSEN = [name for name, program in PROGRAMS.items() if program.always or TRIALS]


def test_every_program_is_listed(repository):
    """The programs that are started by hand, each in at least one command."""
    commands = " ".join(program.command for program in PROGRAMS.values())
    left_out = {
        # they read and print, or other programs here call them, or they end in seconds
        "count_clips.py", "swap_held_out.py", "subset_manifest.py", "prepare_corpus.py",
        "run.py", "own.py", "train_encoder.py", "summarise.py", "choose_splits.py",
        "make_split_manifests.py", "make_question_manifests.py", "analyse.py", "check_audio.py",
        "compute_features.py", "consolidate.py", "filter_leakage.py", "gather_evaluation_keys.py",
        "list_corpora.py", "make_subset_manifests.py", "list_contents.py", "cut_expresso.py",
        "ship_keys.py",
        "fetch.py",  # killed at twenty moments in tests/captionstew/corpora/test_fetch.py
    }  # fmt: skip
    for room in ("local", "egs"):
        for path in (repository / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if '__name__ == "__main__"' in text and "/exp/" not in str(path):
                assert path.name in commands or path.name in left_out, f"{path} is not tried"


class World:
    """A folder with what the programs read, and out/, to which each adds its part once."""

    def __init__(self, place: Path, repository: Path, judge: str, port: int) -> None:
        self.place, self.repository = place, repository
        self.values = {
            "local": f"python {repository}/local",
            "egs": f"{repository}/egs",
            "place": place,
            "judge": judge,
            "port": port,
        }
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.reference: dict[str, dict[str, str]] = {}
        write_recordings(place / "recordings")
        write_answers(place / "answers")

    def make(self, name: str) -> None:
        """The undisturbed output of a program, after those that it needs."""
        if name in self.reference:
            return
        for needed in PROGRAMS[name].needs:
            self.make(needed)
        began = time.monotonic()
        process = self.start(name, "count")
        output = process.communicate(timeout=STUCK_SECONDS)[0]
        assert process.returncode == 0, output[-3000:]
        self.seconds[name] = time.monotonic() - began
        counter = self.place / "counter"
        self.calls[name] = counter.stat().st_size if counter.exists() else 0
        self.reference[name] = contents(self.place / "out" / name, self.place)
        assert self.reference[name]

    def start(self, name: str, fault: str = "") -> subprocess.Popen:
        command = PROGRAMS[name].command.format(**self.values)
        (self.place / "counter").unlink(missing_ok=True)
        faults = Path(__file__).with_name("injected")
        own = {k: v for k, v in os.environ.items() if not k.startswith("CAPTIONSTEW_")}
        own |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "a-long-secret"}
        own |= {"PATH": f"{os.path.dirname(sys.executable)}:{own['PATH']}"}
        own |= {"PYTHONPATH": f"{faults}:{self.repository}"}
        if fault:
            own |= {"FAULT": fault, "FAULT_COUNTER": str(self.place / "counter")}
        return subprocess.Popen(
            ["bash", "-c", f"set -euo pipefail\n{command}"],
            cwd=self.place,
            env=own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish_and_compare(self, name: str, what: str) -> None:
        """Runs the same command to its end; its output must equal the undisturbed one."""
        process = self.start(name)
        output = process.communicate(timeout=STUCK_SECONDS)[0]
        assert process.returncode == 0, f"{name} after {what}: {output[-3000:]}"
        found = contents(self.place / "out" / name, self.place)
        different = {key for key in found.keys() | self.reference[name].keys()
                     if found.get(key) != self.reference[name].get(key)}  # fmt: skip
        assert not different, f"{name} after {what}: {sorted(different)[:10]}"
        left = [str(path) for path in (self.place / "out" / name).rglob(".*.tmp")]
        assert not left, f"{name} after {what} left {left}"

    def set_aside(self, name: str) -> None:
        shutil.rmtree(self.place / "out" / name, ignore_errors=True)


def write_recordings(folder):
    folder.mkdir()
    rows = ["file,caption"]
    for number in range(12):
        times = np.arange(6000) / 16000
        soundfile.write(folder / f"{number}.wav", 0.3 * np.sin(1000 * number * times), 16000)
        rows.append(f"{number}.wav,tone {number}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")


def write_answers(folder):
    from captionstew.evaluation.qa.scores import Reply, write_replies
    from captionstew.hashing import sha256_of_file

    replies = [
        Reply(f"i{n}", "qa_sound", "s", f"What is {n}?", [], f"right {n}", "a clip", f"said {n}")
        for n in range(30)
    ]
    write_replies(folder / "chat.jsonl", replies)
    about = {
        "split": "chat", "system": "tiny", "encoder": {"path": "e", "sha256": "0", "preset": "p"},
        "llm": {"path": "l"}, "checkpoint": "c.pt", "weights": "file",
        "answers_sha256": sha256_of_file(folder / "chat.jsonl"), "max_answer_tokens": 8,
        "token_rate": 5.0, "trained_parameters": 1, "frozen_parameters": 2,
    }  # fmt: skip
    (folder / "chat.json").write_text(json.dumps(about))


NOT_COMPARED = {"log", "tensorboard", "flags.json", ".lock", "chat.jsonl", "results.sqlite"}
CLOCK = {"time", "audio_seconds_per_second", "data_wait_share"}
RUN = {"created", "command", "git_sha"}


def contents(folder: Path, place: Path) -> dict[str, str]:
    """Digest of each file below a folder, of what depends on neither the clock nor the machine."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not NOT_COMPARED & set(name.parts):
            found[str(name)] = hashlib.sha256(essence(path)).hexdigest()[:12]
    return found


def essence(path: Path) -> bytes:
    if path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        parts = [content.get("model", {}), content.get("model_avg", {}), content.get("probe", {})]
        tensors = [
            (name, value.numpy().tobytes())
            for part in parts
            for name, value in part.items()
            if isinstance(value, torch.Tensor)
        ]
        return repr((content.get("step"), content.get("epoch"), tensors)).encode()
    if path.suffix == ".json" and path.parent.name == "results":
        content = json.loads(path.read_text())
        return json.dumps({k: v for k, v in content.items() if k not in RUN}).encode()
    if path.suffix == ".index":  # holds its manifest's time of change, and follows from it
        return b""
    if path.name == "scalars.jsonl":
        records = map(json.loads, path.read_text().splitlines())
        return repr([{k: v for k, v in one.items() if k not in CLOCK} for one in records]).encode()
    return path.read_bytes()


class Judge(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.02)
        answer = {"choices": [{"message": {"content": "7 8"}}]}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture(scope="module")
def world(tmp_path_factory, repository, free_port):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = tmp_path_factory.mktemp("faults")
    judge = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield World(place, repository, judge, free_port())
    server.shutdown()


@pytest.fixture
def note(request):
    """note(kind, what, outcome) -> a line of the log of faults."""

    def write(kind, name, what):
        if path := os.environ.get("CAPTIONSTEW_FAULT_LOG"):
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{kind}\t{name}\t{what}\n")

    return write


@pytest.mark.parametrize("trial", range(max(TRIALS, 1)))
@pytest.mark.parametrize("name", CHOSEN)
def test_killed_and_run_again(world, note, name, trial):
    """SIGKILL to the whole process group."""
    world.make(name)
    world.set_aside(name)
    drawn = random.Random(f"{name} {trial}")
    if trial % 2 == 0 and world.calls[name]:
        side, point = drawn.choice(["before", "after"]), drawn.randint(1, world.calls[name])
        what = f"kill {side} call {point} of {world.calls[name]}"
        process = world.start(name, f"kill-{side} {point}")
    else:
        moment = drawn.uniform(0.1, 1.0) * world.seconds[name]
        what = f"kill after {moment:.2f} of {world.seconds[name]:.2f} s"
        process = world.start(name)
        threading.Timer(moment, kill_group, [process]).start()
    process.communicate(timeout=STUCK_SECONDS)
    killed = process.returncode != 0
    world.finish_and_compare(name, what)
    note("kill" if killed else "too late", name, what)


def kill_group(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("trial", range(TRIALS // 2))
@pytest.mark.parametrize("name", CHOSEN)
def test_a_full_disk(world, note, name, trial):
    """One line that ends the program, nothing half done, and the same command goes on."""
    world.make(name)
    if not world.calls[name]:
        pytest.skip("publishes nothing by itself")
    world.set_aside(name)
    point = random.Random(f"{name} {trial} full").randint(1, world.calls[name])
    process = world.start(name, f"full {point}")
    output = process.communicate(timeout=STUCK_SECONDS)[0]
    what = f"full disk at call {point} of {world.calls[name]}"
    assert "Traceback" not in output, f"{name}, {what}: {output[-3000:]}"
    if process.returncode != 0:
        assert "No space left on device" in output, output[-3000:]
    world.finish_and_compare(name, what)
    note("full disk" if process.returncode else "harmless", name, what)


@pytest.mark.parametrize("name", [name for name in CHOSEN if TRIALS or name == "features"])
def test_two_that_start_together(world, note, name):
    """One works, the other waits for it or ends with one line."""
    world.make(name)
    world.set_aside(name)
    both = [world.start(name), world.start(name)]
    outputs = [process.communicate(timeout=STUCK_SECONDS)[0] for process in both]
    statuses = [process.returncode for process in both]
    assert 0 in statuses, outputs
    for status, output in zip(statuses, outputs):
        assert "Traceback" not in output, output[-3000:]
        if status != 0:
            assert "in use by process" in output, output[-3000:]
    world.finish_and_compare(name, "two that started together")
    note("two writers", name, str(sorted(statuses)))
