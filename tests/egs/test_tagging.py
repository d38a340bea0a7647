"""Tagging in small, and what starts from it: train, resume, decode; --init-encoder and --init-text
of both recipes.
"""

import csv
import json
import shutil

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
)

from captionstew.checkpoint import load_checkpoint
from captionstew.data.manifests.cuts import open_cuts

pytestmark = pytest.mark.slow

RECIPES = "egs/captionstew"
# A batch count of 10 per step: the schedules move while a test runs.
RUN = [
    "--max-duration", 15, "--ref-duration", 1.5, "--lr-batches", 100, "--warm-step", 20,
    "--average-period", 2, "--log-interval", 1, "--num-workers", 1, "--preflight", "false",
    "--tensorboard", "false",
]  # fmt: skip


@pytest.fixture(scope="module")
def train(program, mini_data, tiny_encoder):
    """train("tagging", exp, flag, value, ...) -> a finished training of the mini corpus."""

    def run(objective, exp, *flags, check=True):
        places = ["--manifest-dir", mini_data, "--exp-dir", exp]
        return program(
            f"{RECIPES}/{objective}/train.py", *places, *RUN, *tiny_encoder, *flags, check=check
        )

    return run


@pytest.fixture(scope="module")
def options(mini_data):
    """Everything random that the tagger has."""
    noise = ["--enable-musan", "true", "--musan-dir", mini_data / "corpus"]
    return ["--num-epochs", 2, "--weighted-sampler", "true", "--mixup", 0.5, *noise]


@pytest.fixture(scope="module")
def exp(train, options, tmp_path_factory):
    """An experiment folder after two epochs of tagging."""
    exp = tmp_path_factory.mktemp("tagging") / "tagging"
    train("tagging", exp, *options)
    return exp


def decode(program, objective, exp, data, *flags, check=True):
    """Result files of a decoding by name."""
    manifest = ["--manifest", data / "cuts_test.jsonl"]
    done = program(
        f"{RECIPES}/{objective}/decode.py",
        "--exp-dir",
        exp,
        *manifest,
        "--num-workers",
        0,
        *flags,
        check=check,
    )
    return done, {
        path.name: json.loads(path.read_text()) for path in (exp / "results").glob("*.json")
    }


def test_decode_writes_the_same_numbers_for_any_batching(program, exp, mini_data, tmp_path):
    _, found = decode(
        program, "tagging", exp, mini_data, "--epoch", 2, "--avg", 1, "--corpus", "mini"
    )
    result = found["tagging_mini-test.json"]
    labels = [
        cut.supervisions[0].custom["labels"] for cut in open_cuts(mini_data / "cuts_test.jsonl")
    ]
    metrics = result["metrics"]
    assert (
        result["num_clips"] == len(labels) == 18 and result["encoder"]["pretraining"] == "tagging"
    )
    assert metrics["num_classes"] == len({label for names in labels for label in names})
    low, high = metrics["map_interval"]
    assert 0 <= low < metrics["map"] < high <= 1 and 0 < metrics["map_chance"] < 1
    with open(exp / "results" / "tagging_mini-test-classes.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    values = [float(row["average_precision"]) for row in rows if row["average_precision"]]
    assert metrics["map"] == pytest.approx(sum(values) / len(values), abs=1e-6)
    assert sum(int(row["positives"]) for row in rows) == sum(map(len, labels))
    pick = ["--checkpoint", exp / "epoch-2.pt", "--max-duration", 40, "--corpus", "mini"]
    shutil.copytree(exp, tmp_path / "other", ignore=lambda *_: ["results"])
    _, last = decode(program, "tagging", tmp_path / "other", mini_data, *pick)
    _, again = decode(
        program, "tagging", tmp_path / "other", mini_data, *pick[:2], "--corpus", "again"
    )
    one, two = (
        last["tagging_mini-test.json"]["metrics"],
        again["tagging_again-test.json"]["metrics"],
    )
    assert one["map"] == pytest.approx(two["map"], abs=1e-12) and one["map"] != metrics["map"]


def test_the_class_list_travels_in_the_checkpoint(exp, mini_data):
    config = load_checkpoint(exp / "epoch-2.pt")["config"]
    train = open_cuts(mini_data / "cuts_train.jsonl")
    assert config["classes"] == sorted(
        {name for cut in train for name in cut.supervisions[0].custom["labels"]}
    )
    assert config["task"] == "tagging" and config["label_field"] == "labels"


def test_noise_and_mixup_continue_as_they_would_have(train, options, exp, scalars, tmp_path):
    train("tagging", tmp_path / "exp", *options, "--max-steps", 5, "--save-every-n", 4)
    (tmp_path / "exp" / "checkpoint-5.pt").unlink()
    train("tagging", tmp_path / "exp", *options, "--resume", "true")
    found, expected = (
        [(row["step"], row["loss"], row["gradient_norm"]) for row in scalars(folder)]
        for folder in (tmp_path / "exp", exp)
    )
    assert found == expected


def test_a_single_label_and_a_class_list(train, mini_data, tmp_path):
    """--label-field names an entry with one class; a list restricts and orders the classes."""
    (tmp_path / "classes.json").write_text('["siren", "happy", "bell", "no such class"]')
    flags = ["--label-field", "label", "--class-list", tmp_path / "classes.json", "--max-steps", 2]
    shown = train("tagging", tmp_path / "exp", *flags).stderr
    labels = [
        cut.supervisions[0].custom["label"] for cut in open_cuts(mini_data / "cuts_train.jsonl")
    ]
    known = sum(label in ("siren", "happy", "bell") for label in labels)
    assert f"{len(labels) - known} labels are not among the 4 classes and left out" in shown
    assert f"{known} of {len(labels)} cuts have labels, of 4 classes" in shown
    config = load_checkpoint(tmp_path / "exp" / "checkpoint-2.pt")["config"]
    assert config["classes"] == ["siren", "happy", "bell", "no such class"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--label-field", "colour"], "no cut has a known label in its 'colour'"),
        (["--enable-musan", "true"], "--enable-musan needs --musan-dir"),
        (["--num-samples", 10], "--num-samples has no effect with --weighted-sampler false"),
        (["--mixup", 2], "--mixup lies between 0 and 1"),
    ],
)
def test_flags_that_cannot_be_end_with_one_line(train, tmp_path, flags, message):
    done = train("tagging", tmp_path / "exp", *flags, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("train.py: ")]
    assert (
        done.returncode in (1, 2)
        and len(lines) == 1
        and message in lines[0]
        and "Traceback" not in done.stderr
    )


CONTRASTIVE = ["--text-tower", "tiny", "--embedding-dim", 16, "--max-steps", 6]


def test_contrastive_from_a_tagger(program, train, exp, mini_data, tmp_path):
    start = ["--tokenizer", mini_data / "bpe.model", "--init-encoder", exp / "epoch-2.pt"]
    shown = train("contrastive", tmp_path / "exp", *CONTRASTIVE, *start).stderr
    line = next(line for line in shown.splitlines() if "loaded: " in line)
    assert f"from {exp / 'epoch-2.pt'}; new: text_tower (" in line and "loaded: encoder (" in line
    content = load_checkpoint(tmp_path / "exp" / "checkpoint-6.pt")
    assert content["ranks"][0]["encoder"]["batch_count"] >= 100_000  # its schedules have ended
    _, results = decode(
        program,
        "contrastive",
        tmp_path / "exp",
        mini_data,
        "--checkpoint",
        tmp_path / "exp" / "checkpoint-6.pt",
    )
    assert results["retrieval-test-strict.json"]["num_clips"] == 18
    other = ["--encoder-dim", "16,48"]
    refused = train("contrastive", tmp_path / "b", *CONTRASTIVE, *start, *other, check=False)
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("train.py: ")]
    assert (
        refused.returncode == 1
        and "32 channels out, this run's 48" in line
        and "Traceback" not in refused.stderr
    )


@pytest.fixture(scope="module")
def save_text_model(mini_data):
    """save_text_model(folder, model): a text checkpoint with its own tokenizer, as transformers
    saves both.
    """

    def save(folder, model):
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        captions = [
            cut.supervisions[0].custom["captions"][0]
            for cut in open_cuts(mini_data / "cuts_train.jsonl")
        ]
        tokenizer.train_from_iterator(
            captions, trainers.BpeTrainer(vocab_size=300, special_tokens=names)
        )
        special = dict(
            zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), names)
        )
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
        wrapped.save_pretrained(folder)
        model(len(wrapped)).save_pretrained(folder)
        return folder

    return save


def bert(vocab_size):
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    return BertModel(BertConfig(vocab_size=vocab_size, pad_token_id=1, **sizes))


def bart(vocab_size):
    sizes = {"d_model": 32, "max_position_embeddings": 64, "vocab_size": vocab_size}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 1, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 48}
    return BartForConditionalGeneration(
        BartConfig(
            bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, **sizes
        )
    )


@pytest.mark.parametrize(
    "objective, model, flags, part, result",
    [
        ("contrastive", bert, ["--embedding-dim", 16], "text_tower", "retrieval-test-strict.json"),
        (
            "captioning",
            bart,
            ["--max-caption-tokens", 24],
            "decoder",
            "captioning-test-greedy.json",
        ),
    ],
)
def test_text_side_from_a_checkpoint(
    program, train, exp, mini_data, save_text_model, tmp_path, objective, model, flags, part, result
):
    """Its tokenizer comes with it, and decoding needs the folder no more."""
    folder = save_text_model(tmp_path / "text", model)
    run, start = tmp_path / "exp", ["--init-encoder", exp / "epoch-2.pt", "--init-text", folder]
    shown = train(objective, run, *flags, *start, "--max-steps", 4).stderr
    line = next(line for line in shown.splitlines() if "loaded: " in line)
    assert f"{part} (" in line and f"from {folder}" in line and f"from {exp / 'epoch-2.pt'}" in line
    tokenizer = ["--tokenizer", mini_data / "bpe.model"]
    refused = train(objective, tmp_path / "b", *flags, *start, *tokenizer, check=False)
    assert refused.returncode == 2 and "--init-text brings its own tokenizer" in refused.stderr
    shutil.rmtree(folder)
    _, results = decode(program, objective, run, mini_data, "--checkpoint", run / "checkpoint-4.pt")
    assert results[result]["num_clips"] == 18
