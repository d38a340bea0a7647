"""The captioning recipe in small: train, resume, caption, score."""

import json

import pytest

pytestmark = pytest.mark.slow

RECIPE = "egs/captionstew/captioning"
# A batch count of 10 per step: the schedules move while a test runs.
RUN = [
    "--text-decoder", "tiny", "--max-caption-tokens", 24, "--max-duration", 15, "--ref-duration",
    1.5, "--lr-batches", 100, "--warm-step", 20, "--num-epochs", 3, "--average-period", 2,
    "--log-interval", 1, "--num-workers", 1, "--valid-captions", 6,
]  # fmt: skip


@pytest.fixture(scope="module")
def train(program, mini_data, tiny_encoder):
    """train(exp, flag, value, ...) -> a finished training."""

    def run(exp, *flags, check=True):
        places = [
            "--manifest-dir",
            mini_data,
            "--tokenizer",
            mini_data / "bpe.model",
            "--exp-dir",
            exp,
        ]
        return program(f"{RECIPE}/train.py", *places, *RUN, *tiny_encoder, *flags, check=check)

    return run


@pytest.fixture(scope="module")
def exp(train, tmp_path_factory):
    exp = tmp_path_factory.mktemp("captioning") / "captioning"
    train(exp, "--save-every-n", 4)
    return exp


def records(exp, kind):
    rows = [json.loads(line) for line in (exp / "scalars.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_both_losses_and_validation_are_logged(exp):
    train, valid = records(exp, "train"), records(exp, "valid")
    assert train and len(valid) == 3
    for row in train:
        assert row["loss"] == pytest.approx(
            0.25 * row["autoregressive"] + 0.75 * row["parallel"], rel=1e-4
        )
    names = {
        "autoregressive",
        "parallel",
        "autoregressive_per_token",
        "parallel_per_token",
        "rouge_l",
    }
    assert all(names <= set(row) for row in valid)
    assert valid[-1]["autoregressive"] < valid[0]["autoregressive"]
    samples = [json.loads(line) for line in (exp / "samples.jsonl").read_text().splitlines()]
    assert {row["step"] for row in samples} == {row["step"] for row in valid}
    assert all(row["caption"] and isinstance(row["hypothesis"], str) for row in samples)


def decode(program, exp, data, *flags):
    program(
        f"{RECIPE}/decode.py",
        "--exp-dir",
        exp,
        "--manifest",
        data / "cuts_test.jsonl",
        "--num-workers",
        1,
        *flags,
    )
    results = {path.name: json.loads(path.read_text()) for path in (exp / "results").glob("*.json")}
    return results, {path.name: path.read_text() for path in (exp / "results").glob("*.jsonl")}


def test_decode_writes_the_same_captions_whatever_the_batches(program, exp, mini_data, tmp_path):
    weights = ["--epoch", 3, "--avg", 2]
    first, captions = decode(program, exp, mini_data, *weights)
    result = first["captioning-test-greedy.json"]
    assert (
        result["task"] == "captioning"
        and result["num_clips"] == 18
        and result["system"] == "captioning"
    )
    assert (
        result["encoder"]["pretraining"] == "captioning"
        and result["settings"]["corpus"] == mini_data.name
    )
    metrics = result["metrics"]
    assert {"rouge_l", "rouge_l_coco", "rouge_l_hf", "bleu_1", "bleu_4", "cider"} <= set(metrics)
    for name in ("rouge_l", "rouge_l_random", "rouge_l_frequent"):
        assert metrics[f"{name}_interval"][0] <= metrics[name] <= metrics[f"{name}_interval"][1]
    rows = [json.loads(line) for line in captions["captioning-test-greedy.jsonl"].splitlines()]
    assert len(rows) == 18 and all(row["references"] for row in rows)

    (exp / "results" / "captioning-test-greedy.json").unlink()
    again, same_captions = decode(program, exp, mini_data, *weights, "--max-duration", 5)
    assert same_captions == captions and again["captioning-test-greedy.json"]["metrics"] == metrics
    beams, _ = decode(program, exp, mini_data, *weights, "--num-beams", 3)
    assert beams["captioning-test-beam3.json"]["settings"]["decoding"] == "beam3"


def test_a_resumed_training_draws_the_same_modes(train, exp, tmp_path):
    """Stopped at step 6 and resumed, it logs what the training logged that never stopped: modes and
    dropout too.
    """
    train(tmp_path / "exp", "--max-steps", 6, "--save-every-n", 4)
    train(tmp_path / "exp", "--max-steps", 10, "--save-every-n", 4, "--resume", "true")
    names = ("step", "loss", "autoregressive", "parallel", "gradient_norm")
    resumed = [tuple(row[name] for name in names) for row in records(tmp_path / "exp", "train")]
    expected = [tuple(row[name] for name in names) for row in records(exp, "train")]
    assert resumed == expected[:10]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--parallel-fraction", 1.5], "--parallel-fraction is a share between 0 and 1, not 1.5"),
        (
            ["--max-caption-tokens", 2],
            "--max-caption-tokens counts <s> and </s>: 2 leave no caption",
        ),
        (["--tokenizer", ""], "--tokenizer is needed"),
        (
            ["--tokenizer", "", "--init-text", "no/such"],
            "--text-decoder has no effect with --init-text no/such",
        ),
        (
            ["--tokenizer", "no/such"],
            "tokenizer no/such: not a folder here and not loadable",
        ),
    ],
)
def test_flags_that_cannot_be_end_with_one_line(train, tmp_path, flags, message):
    done = train(tmp_path / "exp", *flags, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("train.py: ")]
    assert done.returncode in (1, 2) and len(lines) == 1 and message in lines[0]
    assert "Traceback" not in done.stderr
