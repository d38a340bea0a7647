"""Question answering end to end, with a language model of a hundred thousand weights that read
before it was frozen.
"""

import csv
import json
import subprocess

import numpy as np
import pytest
import soundfile
import torch

from captionstew.checkpoint import load_checkpoint
from captionstew.models.encoders.load import load_encoder
from captionstew.models.language_model import load_language_model
from captionstew.models.qa import build_adaptor
from captionstew.models.qa_prompt import encode_texts, question_text

pytestmark = pytest.mark.slow

RECIPE = "egs/eval_qa"
QUESTION = "What is this?"
COLOURS = ("red", "blue", "green", "white", "black", "brown", "grey", "pink")
THINGS = ("apple", "boat", "chair", "drum")
ANSWERS = [f"{colour} {thing}" for thing in THINGS for colour in COLOURS]
SMALL = """
    --encoder logmel --hidden-dim 128 --max-duration 2000 --num-workers 0 --base-lr 0.04
    --warm-step 20 --lr-epochs 1000
    --lr-batches 1000 --valid-interval 1000 --average-period 10 --tensorboard false --num-threads 1
"""


def write_tones(folder):
    """32 tones of different pitch and length; the same question about each, every time another
    answer.
    """
    folder.mkdir()
    rows = [(f"{n:02d}.wav", QUESTION, answer, "train") for n, answer in enumerate(ANSWERS)]
    rows += [("32.wav", QUESTION, "red boat", "valid"), ("33.wav", QUESTION, "blue boat", "valid")]
    for n, (name, *_) in enumerate(rows):
        rng = np.random.default_rng(n)
        time = np.arange(round((0.8 + 0.05 * (n % 7)) * 16000)) / 16000
        tone = 0.3 * np.sin(2 * np.pi * 120 * 2 ** (n / 6) * time) + 0.01 * rng.standard_normal(
            len(time)
        )
        soundfile.write(folder / name, tone, 16000)
    for table, columns, kept in (
        ("questions", ["file", "question", "answer"], 3),
        ("metadata", ["file", "split"], 0),
    ):
        with open(folder / f"{table}.csv", "w", newline="") as file:
            csv.writer(file).writerows(
                [columns, *(row[:3] if kept else (row[0], row[3]) for row in rows)]
            )


@pytest.fixture(scope="module")
def world(tmp_path_factory, program):
    """Folder with data/ (manifests), llm/ (a small language model trained on text) and places for
    experiments.
    """
    folder = tmp_path_factory.mktemp("qa")
    write_tones(folder / "tones")
    program(
        "local/prepare_corpus.py",
        "ownqa",
        "--corpus-dir",
        folder / "tones",
        "--output-dir",
        folder / "data" / "tables",
    )
    program(
        f"{RECIPE}/local/make_question_manifests.py", "--tables",
        folder / "data" / "tables" / "ownqa.parquet", "--num-jobs", 1, "--output-dir",
        folder / "data",
    )  # fmt: skip
    program(
        f"{RECIPE}/local/make_tiny_llm.py", "--manifest", folder / "data" / "cuts_train.jsonl",
        "--output-dir", folder / "llm", "--hidden-dim", 64, "--num-steps", 400,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def train(world, program):
    def run(exp, *flags, check=True):
        places = [
            "--manifest-dir",
            world / "data",
            "--exp-dir",
            world / exp,
            "--cache-dir",
            world / "frames",
        ]
        return program(
            f"{RECIPE}/train.py",
            *places,
            *SMALL.split(),
            "--llm",
            world / "llm",
            *flags,
            check=check,
        )

    return run


@pytest.fixture(scope="module")
def decode(world, program):
    def run(exp, *flags, check=True):
        places = [
            "--manifest",
            world / "data" / "cuts_train.jsonl",
            "--cache-dir",
            world / "frames",
            "--allow-trained-clips",
            "true",
        ]
        where = ["--exp-dir", world / exp, "--num-workers", 0, "--max-answer-tokens", 12]
        return program(f"{RECIPE}/decode.py", *where, *places, *flags, check=check)

    return run


def test_prepare_makes_the_mini_corpus_once(repository, tmp_path):
    command = [
        repository / RECIPE / "prepare.sh",
        "--corpus",
        "mini",
        "--mini-clips",
        "30",
        "--num-jobs",
        "1",
    ]
    command += ["--data-dir", tmp_path / "data"]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    report = json.loads((tmp_path / "data" / "report.json").read_text())
    assert {split: counts["clips"] for split, counts in report["splits"].items()} == {
        "train": 18,
        "valid": 6,
        "test": 6,
    }
    assert set(report["splits"]["test"]["tasks"]) <= {
        "qa_sound",
        "qa_music",
        "qa_emotion",
        "qa_gender",
    }
    manifests = {path.name: path.read_bytes() for path in (tmp_path / "data").glob("cuts_*.jsonl")}
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("done before") == 3
    assert manifests == {
        path.name: path.read_bytes() for path in (tmp_path / "data").glob("cuts_*.jsonl")
    }


def test_32_answers_are_reproduced_and_silence_changes_them(world, train, decode, program):
    shown = train("exp", "--num-epochs", 120, "--save-every-epochs", 120)
    assert "parameters learn" in shown.stderr + shown.stdout
    decode("exp", "--epoch", 120, "--use-averaged-model", "false")
    lines = (world / "exp" / "answers" / "train.jsonl").read_text().splitlines()
    replies = [json.loads(line) for line in lines]
    assert len(replies) == 32 and {reply["question"] for reply in replies} == {QUESTION}
    assert [reply["reply"] for reply in replies] == [reply["answer"] for reply in replies]

    program(f"{RECIPE}/score.py", "--exp-dir", world / "exp")
    result = json.loads((world / "exp" / "results" / "qa_sound-train-offline.json").read_text())
    assert result["metrics"]["exact_match"] == 1.0 and result["settings"]["scoring"] == "offline"
    assert result["encoder"]["path"] == "logmel" and result["settings"]["llm"]["sha256"]
    trained = result["trained_clips"]
    assert trained["trained"] == trained["by_audio"] == trained["clips"] > 0
    weights = ("--epoch", 120, "--use-averaged-model", "false")
    refused = decode("exp", *weights, "--allow-trained-clips", "false", check=False)
    assert f"was trained on {trained['clips']} of {trained['clips']} clips" in refused.stderr

    content = load_checkpoint(world / "exp" / "epoch-120.pt")
    assert set(content["model"]) == {
        "mean", "deviation", "hidden.weight", "hidden.bias", "output.weight", "output.bias",
    }  # fmt: skip
    assert result["trained_parameters"] == sum(
        value.numel()
        for name, value in content["model"].items()
        if name not in ("mean", "deviation")
    )
    assert silent_replies(world, content) == {}


def silent_replies(world, content):
    """Clip -> reply, of those that the silent clips still get right (beyond the one that silence
    may happen to say).
    """
    encoder = load_encoder("logmel")
    llm = load_language_model(str(world / "llm"), torch.device("cpu"))
    adaptor = build_adaptor(content["config"], 1.0).eval()
    adaptor.load_state_dict(content["model"])
    counts = torch.tensor([round((0.8 + 0.05 * (n % 7)) * 16000) for n in range(32)])
    with torch.inference_mode():
        frames, lengths = encoder(torch.zeros(32, int(counts.max())), counts)
        questions = encode_texts(llm.tokenizer, [question_text(QUESTION, [])] * 32)
        replies = llm.generate(*adaptor(frames, lengths), questions, 12)
    right = {n: reply for n, reply in enumerate(replies) if reply == ANSWERS[n]}
    assert len(set(replies)) <= 7  # nothing but the length is heard
    return right if len(right) > 4 else {}


def test_a_resumed_run_equals_one_that_was_never_stopped(world, train):
    steps = ["--max-duration", 120, "--save-every-n", 4, "--log-interval", 2, "--num-epochs", 10]
    train("whole", *steps, "--max-steps", 10)
    train("parts", *steps, "--max-steps", 4)
    train("parts", *steps, "--max-steps", 10, "--resume", "true")
    one, other = (load_checkpoint(world / exp / "checkpoint-10.pt") for exp in ("whole", "parts"))
    assert one["step"] == other["step"] == 10 and one["position"] == other["position"]
    for name, value in one["model"].items():
        assert torch.equal(value, other["model"][name]), name


def test_another_model_or_encoder_is_refused_in_one_line(world, train, decode, program):
    train("refused", "--max-steps", 1, "--num-epochs", 1)
    other = world / "other_llm"
    other.mkdir()
    for path in (world / "llm").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(settings | {"rms_norm_eps": 1e-5}))
    checkpoint = ["--checkpoint", world / "refused" / "checkpoint-1.pt"]
    for flags, what in (
        (["--llm", other], "another language model"),
        (["--encoder", "random:mini"], "another encoder"),
    ):
        done = decode("refused", *checkpoint, *flags, check=False)
        assert done.returncode == 1 and what in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    done = train("nowhere", "--llm", "nobody/no-such-model", check=False)
    assert done.returncode == 1 and "is not on this machine" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
