"""The main job in small: train, average, decode, probe, report; and a folder of broken
recordings.
"""

import csv
import json
import shutil

import pytest

from captionstew.data.manifests.cuts import open_cuts

pytestmark = pytest.mark.slow

RECIPE = "egs/captionstew/contrastive"
PROBE = "egs/eval_probe"
FIELDS = {
    "task", "split", "system", "encoder", "metrics", "num_clips", "num_captions", "trained_clips",
    "settings", "trained_parameters", "frozen_parameters", "checkpoint", "config_hash", "command",
    "git_sha", "created",
}  # fmt: skip
RUN = ["--num-epochs", 2, "--average-period", 2, "--log-interval", 5, "--num-workers", 1]


@pytest.fixture(scope="module")
def exp(mini_data, train_command, program, tmp_path_factory):
    """An experiment folder after two epochs of pretraining and the averaging of both."""
    exp = tmp_path_factory.mktemp("exp")
    program(*train_command(mini_data, exp / "contrastive", *RUN)[1:])
    program(
        "egs/captionstew/local/average_checkpoints.py", "--exp-dir", exp / "contrastive", "--epoch",
        2, "--avg", 1, "--output", exp / "contrastive" / "pretrained.pt",
    )  # fmt: skip
    return exp


def decode(program, exp, data, out, *flags):
    program(
        f"{RECIPE}/decode.py", "--exp-dir", out, "--checkpoint",
        exp / "contrastive" / "pretrained.pt", "--manifest", data / "cuts_test.jsonl",
        "--num-workers", 1, *flags,
    )  # fmt: skip
    return {path.name: json.loads(path.read_text()) for path in (out / "results").glob("*.json")}


def test_decode_writes_the_same_numbers_twice(program, exp, mini_data, tmp_path):
    first = decode(program, exp, mini_data, exp / "contrastive", "--duplicate-captions", "match")
    again = decode(
        program,
        exp,
        mini_data,
        tmp_path / "b",
        "--duplicate-captions",
        "match",
        "--max-duration",
        40,
    )
    assert set(first) == set(again) and "retrieval-test-match.json" in first
    for result in first.values():
        assert set(result) == FIELDS
        assert (
            result["encoder"]["pretraining"] == "contrastive"
            and len(result["encoder"]["sha256"]) == 64
        )
    one, two = first["retrieval-test-match.json"], again["retrieval-test-match.json"]
    assert one["num_clips"] == 18 and one["num_captions"] >= 18
    for name, value in one["metrics"].items():
        assert two["metrics"][name] == pytest.approx(value, abs=1e-12), name
    same = decode(program, exp, mini_data, tmp_path / "c", "--duplicate-captions", "match")
    assert {name: result["metrics"] for name, result in same.items()} == {
        name: result["metrics"] for name, result in first.items()
    }


def test_decode_from_the_training_folder_equals_the_averaged_file(
    program, exp, mini_data, tmp_path
):
    from_file = decode(program, exp, mini_data, tmp_path / "file")
    program(
        f"{RECIPE}/decode.py", "--exp-dir", exp / "contrastive", "--epoch", 2, "--avg", 1,
        "--num-workers", 0, "--manifest", mini_data / "cuts_test.jsonl",
    )  # fmt: skip
    chosen = json.loads(
        (exp / "contrastive" / "results" / "retrieval-test-strict.json").read_text()
    )
    assert chosen["metrics"] == from_file["retrieval-test-strict.json"]["metrics"]


def test_probe_and_report(program, exp, mini_data):
    decode(program, exp, mini_data, exp / "contrastive")
    for system, encoder in (
        ("contrastive", exp / "contrastive" / "pretrained.pt"),
        ("logmel", "logmel"),
    ):
        folder = exp / "probe" / system
        program(
            f"{PROBE}/train.py", "--encoder", encoder, "--tasks", "events,voices:gender",
            "--manifest-dir", mini_data, "--exp-dir", folder, "--num-seeds", 2, "--max-epochs", 5,
            "--cache-dir", exp / "embeddings", "--num-workers", 0,
        )  # fmt: skip
        program(f"{PROBE}/decode.py", "--exp-dir", folder, "--num-workers", 0)
        result = json.loads((folder / "results" / "probe_events-test.json").read_text())
        assert (
            set(result) == FIELDS and result["num_clips"] == 6 and result["settings"]["seeds"] == 2
        )
        assert result["settings"]["num_train"] == 18 and 0 <= result["metrics"]["accuracy"] <= 1
        assert result["system"] == system
    program("captionstew/evaluation/report", "--exp-dir", exp)
    report = (exp / "report" / "report.md").read_text()
    assert "## Retrieval" in report and "| contrastive |" in report and "| logmel |" in report
    assert "voices_gender" in report and (exp / "report" / "curves.png").stat().st_size > 5000
    page = (exp / "report" / "index.html").read_text()
    assert page.count("<audio") == 8 and "finds (own captions bold)" in page


def test_a_changed_encoder_is_refused(program, exp, mini_data, tmp_path):
    encoder = tmp_path / "a.pt"
    shutil.copy(exp / "contrastive" / "pretrained.pt", encoder)
    options = ["--exp-dir", tmp_path / "probe", "--num-workers", 0]
    program(
        f"{PROBE}/train.py", "--encoder", encoder, "--tasks", "events", "--manifest-dir", mini_data,
        "--num-seeds", 1, "--max-epochs", 1, "--cache-dir", tmp_path / "cache", *options,
    )  # fmt: skip
    shutil.copy(next((exp / "contrastive").glob("epoch-1.pt")), encoder)
    refused = program(f"{PROBE}/decode.py", *options, check=False)
    assert refused.returncode != 0 and "has changed since its probe was trained" in refused.stderr


@pytest.fixture
def broken_folder(shared_dir, mini_data, tmp_path):
    """Every broken file of the reference data, the one that is missing, and ten good clips."""
    source, folder = shared_dir / "realaudio" / "broken", tmp_path / "broken"
    folder.mkdir()
    with open(source / "manifest.csv", newline="", encoding="utf-8") as table:
        names = [row["file"] for row in csv.DictReader(table)]
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    good = [
        cut.recording.sources[0].source
        for cut in list(open_cuts(mini_data / "cuts_train.jsonl"))[:10]
    ]
    for number, path in enumerate(good):
        shutil.copyfile(path, folder / f"good{number}.flac")
    with open(folder / "captions.csv", "w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["file", "caption"])
        writer.writerows([name, f"a sound called {name}"] for name in names)
        writer.writerows(
            [f"good{number}.flac", f"a good sound, number {number}"] for number in range(10)
        )
        writer.writerow(["good0.flac", "  "])
    return folder, names


def test_broken_recordings_are_listed_and_the_rest_trains(
    program, train_command, broken_folder, tmp_path
):
    folder, names = broken_folder
    data, exp = tmp_path / "data", tmp_path / "exp"
    shown = program(
        "local/split_folder.py", "--corpus-dir", folder, "--output-dir", data, "--num-jobs", 1
    ).stdout
    with open(data / "rejected.csv", newline="", encoding="utf-8") as table:
        rejected = list(csv.DictReader(table))
    assert all(row["reason"] and "\n" not in row["reason"] for row in rejected)
    report = json.loads((data / "report.json").read_text())
    assert sum(report["rejected"].values()) == len(rejected) and "left out: " in shown
    kept = {
        cut.supervisions[0].custom["audio_key"].split("/")[-1]
        for split in ("train", "valid", "test")
        for cut in open_cuts(data / f"cuts_{split}.jsonl")
    }
    listed = " ".join(row["file"] + row["reason"] for row in rejected)
    for name in names:
        assert name in kept or name in listed, f"{name} vanished"
    assert {"missing audio", "empty caption", "bad audio", "too long"} <= {
        row["kind"] for row in rejected
    }
    train = data / "cuts_train.jsonl"
    program(
        "local/train_bpe.py",
        "--manifest",
        train,
        "--output",
        data / "bpe.model",
        "--vocab-size",
        120,
    )
    if not len(open_cuts(data / "cuts_valid.jsonl")):
        shutil.copyfile(train, data / "cuts_valid.jsonl")
    program(
        *train_command(data, exp, "--num-epochs", 1, "--num-workers", 0, "--log-interval", 1)[1:]
    )
    assert (exp / "epoch-1.pt").is_file()


@pytest.mark.parametrize(
    "table, message",
    [
        (b"file,text\na.wav,dog\n", "captions.csv: column caption is missing"),
        ("file,caption\na.wav,caf\u00e9\n".encode("latin-1"), "captions.csv, line 2: not UTF-8"),
        (b"file,caption\nabsent.wav,dog\n", "does not exist"),
        (b"file,caption\na.wav,\n", "empty caption"),
    ],
)
def test_unusable_caption_tables_end_with_one_line(program, tmp_path, table, message):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.wav").write_bytes(b"")
    (tmp_path / "corpus" / "captions.csv").write_bytes(table)
    done = program(
        "local/split_folder.py",
        "--corpus-dir",
        tmp_path / "corpus",
        "--output-dir",
        tmp_path / "data",
        check=False,
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("split_folder.py: ")]
    assert done.returncode == 1 and message in line and "Traceback" not in done.stderr
