"""The first five losses of every recipe's training are what they were: no number changes silently.

Everything random follows the seed, and every step runs on one thread. Other processors sum in
another order, which a loss of five steps feels in its fifth digit.
"""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXPECTED = json.loads(Path(__file__).with_name("first_losses.json").read_text())
STEPS = """
    --max-steps 5 --num-epochs 9 --max-duration 15 --warm-step 20 --average-period 2 --seed 7
    --log-interval 1 --num-workers 0 --num-threads 1 --preflight false --tensorboard false
"""
EPOCHS = STEPS.replace("--max-steps 5 --num-epochs 9", "--num-epochs 1")
ENCODER = "--ref-duration 1.5 --lr-batches 100"
FROZEN = "--encoder logmel --cache none --lr-batches 100"


@pytest.fixture(scope="module")
def text_models(program, mini_data, tmp_path_factory):
    """Small text models for the evaluation recipes."""
    folder = tmp_path_factory.mktemp("text")
    train = mini_data / "cuts_train.jsonl"
    program(
        "egs/eval_lit/local/make_text_models.py", "--manifest", train, "--output-dir", folder,
        "--vocab-size", 400, "--steps", 20,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def questions(program, mini_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    program(
        "local/prepare_corpus.py", "ownqa", "--corpus-dir", mini_data / "corpus", "--output-dir",
        folder,
    )  # fmt: skip
    program(
        "egs/eval_qa/local/make_question_manifests.py", "--tables", folder / "ownqa.parquet",
        "--output-dir", folder, "--num-jobs", 1,
    )  # fmt: skip
    program(
        "egs/eval_qa/local/make_tiny_llm.py", "--manifest", folder / "cuts_train.jsonl",
        "--output-dir", folder / "llm", "--hidden-dim", 64, "--num-steps", 40,
    )  # fmt: skip
    return folder


def losses(exp):
    rows = [json.loads(line) for line in (exp / "scalars.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"][:5]


def check(name, exp):
    assert losses(exp) == pytest.approx(EXPECTED[name], rel=1e-4), name


@pytest.mark.parametrize(
    "name, program_of, flags",
    [
        (
            "contrastive",
            "contrastive",
            "--tokenizer {data}/bpe.model --text-tower tiny --embedding-dim 16",
        ),
        (
            "captioning",
            "captioning",
            "--tokenizer {data}/bpe.model --text-decoder tiny --max-caption-tokens 40",
        ),
        ("tagging", "tagging", "--weighted-sampler true --mixup 0.5"),
    ],
)
def test_pretraining(program, mini_data, tiny_encoder, tmp_path, name, program_of, flags):
    program(
        f"egs/captionstew/{program_of}/train.py", "--manifest-dir", mini_data, "--exp-dir",
        tmp_path, *STEPS.split(), *ENCODER.split(), *tiny_encoder,
        *flags.format(data=mini_data).split(),
    )  # fmt: skip
    check(name, tmp_path)


@pytest.mark.parametrize(
    "name, flags",
    [
        ("lit_retrieval", "--text-tower {text}/roberta --embedding-dim 16"),
        ("lit_captioning", "--text-decoder {text}/bart --max-caption-tokens 40 --valid-captions 2"),
    ],
)
def test_alignment(program, mini_data, text_models, tmp_path, name, flags):
    program(
        f"egs/eval_lit/{name.removeprefix('lit_')}/train.py", "--manifest-dir", mini_data,
        "--exp-dir", tmp_path, *STEPS.split(), *FROZEN.split(),
        *flags.format(text=text_models).split(),
    )  # fmt: skip
    check(name, tmp_path)


def test_question_answering(program, questions, tmp_path):
    program(
        "egs/eval_qa/train.py", "--manifest-dir", questions, "--exp-dir", tmp_path, *STEPS.split(),
        "--encoder", "logmel", "--cache-dir", tmp_path / "frames", "--lr-batches", 100, "--llm",
        questions / "llm", "--hidden-dim", 32, "--valid-answers", 2, "--max-duration", 60,
    )  # fmt: skip
    check("qa", tmp_path)


def test_supervised_encoder(program, mini_data, tiny_encoder, tmp_path):
    program(
        "egs/eval_probe/train_encoder.py", "--tasks", "events", "--manifest-dir", mini_data,
        "--exp-dir", tmp_path, *EPOCHS.split(), *ENCODER.split(), *tiny_encoder,
    )  # fmt: skip
    check("supervised", tmp_path / "probe-events")
