"""What a model was trained on, from its first step to every evaluation of every copy of it."""

import json
import shutil
import subprocess

import pytest

from captionstew.checkpoint import load_checkpoint
from captionstew.corpora.own.read import read_folder
from captionstew.data.manifests.cuts import open_cuts, write_cuts
from captionstew.data.manifests.trained_clips import ENTRY, read_trained_clips

pytestmark = pytest.mark.slow

SHORT = (
    "--num-epochs", 1, "--average-period", 1, "--num-workers", 0, "--tensorboard", "false",
    "--preflight", "false",
)  # fmt: skip


@pytest.fixture(scope="module")
def exp(mini_data, train_command, free_port, tmp_path_factory):
    """An experiment folder that two processes trained."""
    exp = tmp_path_factory.mktemp("trained") / "exp"
    flags = map(str, (*SHORT, "--world-size", 2, "--master-port", free_port()))
    subprocess.run(train_command(mini_data, exp, *flags), check=True, capture_output=True)
    return exp


@pytest.fixture(scope="module")
def averaged(program, exp, tmp_path_factory):
    """An averaged checkpoint in a folder of its own."""
    path = tmp_path_factory.mktemp("averaged") / "pretrained.pt"
    program(
        "egs/captionstew/local/average_checkpoints.py", "--exp-dir", exp, "--epoch", 1, "--output",
        path
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def renamed(mini_data, tmp_path_factory):
    """Manifest of ten training recordings under other names, and ten that are not trained on."""
    folder = tmp_path_factory.mktemp("renamed")
    lines = ["file,caption"]
    for split in ("train", "test"):
        for number, cut in enumerate(list(open_cuts(mini_data / f"cuts_{split}.jsonl"))[:10]):
            name = f"mine-{split}-{number}.flac"
            shutil.copy(cut.recording.sources[0].source, folder / name)
            lines.append(f"{name},a sound that has the number {number}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    manifest = tmp_path_factory.mktemp("renamed_data") / "cuts_test.jsonl"
    write_cuts(manifest, read_folder(folder, progress=False)[0])
    return manifest


@pytest.fixture
def decode(program, tmp_path):
    """decode(checkpoint, manifest, flag, value, ...) -> the process, and its retrieval result."""

    def run(checkpoint, manifest, *flags):
        done = program(
            "egs/captionstew/contrastive/decode.py", "--exp-dir", tmp_path / "decoded",
            "--checkpoint", checkpoint, "--manifest", manifest, "--num-workers", 0, *flags,
            check=False,
        )  # fmt: skip
        found = list((tmp_path / "decoded" / "results").glob("retrieval-*.json"))
        return done, json.loads(found[0].read_text()) if found else None

    return run


def test_two_processes_write_one_file(exp, mini_data):
    (path,) = exp.glob("trained_clips-*.npz")
    reference = load_checkpoint(exp / "epoch-1.pt")["config"][ENTRY]
    assert reference["file"] == path.name
    memory = read_trained_clips(exp, reference)
    assert len(memory.keys) == len(open_cuts(mini_data / "cuts_train.jsonl")) and memory.complete


def test_test_clips_are_evaluated_on(decode, averaged, mini_data):
    done, result = decode(averaged, mini_data / "cuts_test.jsonl")
    assert done.returncode == 0 and "was trained on 0 of 18 clips" in done.stdout
    assert result["trained_clips"] == {
        "trained": 0, "by_key": 0, "by_audio": 0, "clips": 18, "complete": True,
    }  # fmt: skip


def test_training_clips_stop_the_evaluation_unless_allowed(decode, averaged, mini_data):
    done, result = decode(averaged, mini_data / "cuts_train.jsonl")
    assert done.returncode == 1 and result is None and "Traceback" not in done.stderr
    assert "was trained on 54 of 54 clips (54 by name, 54 by audio)" in done.stderr
    _, result = decode(averaged, mini_data / "cuts_train.jsonl", "--allow-trained-clips", "true")
    assert result["trained_clips"]["by_key"] == 54


def test_the_same_recording_under_another_name_is_found(decode, averaged, renamed):
    done, _ = decode(averaged, renamed)
    assert "was trained on 10 of 20 clips (0 by name, 10 by audio)" in done.stderr


def test_a_copy_without_its_memory_is_unknown(decode, averaged, mini_data, tmp_path):
    shutil.copy(averaged, tmp_path / "alone.pt")
    done, result = decode(tmp_path / "alone.pt", mini_data / "cuts_train.jsonl")
    assert result["trained_clips"] is None and "unknown how many of 54 clips" in done.stdout


def test_an_exported_encoder_is_probed_with_its_memory(program, averaged, mini_data, tmp_path):
    encoder = tmp_path / "encoder"
    program("captionstew/cli.py", "export", averaged, "--output", encoder)
    probe = ("--exp-dir", tmp_path / "probe", "--num-workers", 0)
    program(
        "egs/eval_probe/train.py", "--encoder", encoder, "--tasks", "events", "--manifest-dir",
        mini_data, "--num-seeds", 1, "--max-epochs", 1, "--cache-dir", tmp_path / "cache", *probe,
    )  # fmt: skip
    program("egs/eval_probe/decode.py", *probe)
    result = json.loads((tmp_path / "probe/results/probe_events-test.json").read_text())
    assert result["trained_clips"]["trained"] == 0 < result["trained_clips"]["clips"]
    on_train = (*probe, "--manifest", mini_data / "cuts_train.jsonl")
    refused = program("egs/eval_probe/decode.py", *on_train, check=False)
    assert refused.returncode == 1 and f"{encoder} was trained on" in refused.stderr
    program("egs/eval_probe/decode.py", *on_train, "--allow-trained-clips", "true")
    result = json.loads((tmp_path / "probe/results/probe_events-train.json").read_text())
    assert result["trained_clips"]["trained"] == result["trained_clips"]["clips"] > 0


def test_the_tagger_that_an_encoder_starts_from_counts(
    decode, exp, mini_data, renamed, train_command, tmp_path
):
    """The contrastive model is trained on the renamed clips alone, from one that met the mini
    corpus.
    """
    data = tmp_path / "data"
    data.mkdir()
    for name, source in (("train", renamed), ("valid", mini_data / "cuts_valid.jsonl")):
        write_cuts(data / f"cuts_{name}.jsonl", open_cuts(source))
    shutil.copy(mini_data / "bpe.model", data)
    command = train_command(
        data, tmp_path / "second", *map(str, SHORT), "--init-encoder", exp / "epoch-1.pt"
    )
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    reference = load_checkpoint(tmp_path / "second" / "epoch-1.pt")["config"][ENTRY]
    both = read_trained_clips(tmp_path / "second", reference)
    assert both.complete and len(both.keys) == 54 + 20
    done, _ = decode(tmp_path / "second" / "epoch-1.pt", mini_data / "cuts_train.jsonl")
    assert done.returncode == 1 and "was trained on 54 of 54 clips" in done.stderr
