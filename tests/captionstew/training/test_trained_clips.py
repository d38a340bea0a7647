"""What training leaves of its clips, and what it takes over from where it started."""

import numpy as np
import pytest
import torch

from captionstew.checkpoint import load_checkpoint, save_checkpoint
from captionstew.data.manifests.trained_clips import ENTRY, TrainedClips, read_trained_clips
from captionstew.training.nonfinite import TrainingStopped


def hashes(*numbers):
    return np.array(numbers, dtype=np.uint64)


def memory_named_in(path):
    return read_trained_clips(path.parent, load_checkpoint(path)["config"][ENTRY])


def test_written_before_the_first_step(toy_run, toy_data, toy_task, tmp_path):
    task = toy_task()
    with pytest.raises(TrainingStopped):
        toy_run(toy_data(tricks={0: "no memory"}), task)
    (path,) = (tmp_path / "exp").glob("trained_clips-*.npz")
    assert path.name == task.config[ENTRY]["file"] and not list((tmp_path / "exp").glob("*.pt"))


def test_every_checkpoint_names_it_and_a_resumed_run_keeps_it(toy_run, tmp_path):
    exp = tmp_path / "exp"
    toy_run(num_epochs=1)
    toy_run(num_epochs=2, resume=True)
    assert len(list(exp.glob("trained_clips-*"))) == 1
    for name in ("epoch-1.pt", "epoch-2.pt"):
        memory = memory_named_in(exp / name)
        assert memory.keys.tolist() == list(range(1, 11)) and memory.complete


def test_a_run_that_goes_on_with_other_clips_knows_both(toy_run, toy_data, tmp_path):
    toy_run(num_epochs=1)
    other = toy_data(manifest="other")
    other.sampler.cuts.key_hashes = hashes(9, 10, 11)
    other.sampler.cuts.fingerprint_hashes = hashes(0, 70, 71)
    toy_run(other, num_epochs=2, resume=True, resume_mode="reseed")
    memory = memory_named_in(tmp_path / "exp" / "epoch-2.pt")
    assert memory.keys.tolist() == list(range(1, 12)) and memory.complete
    assert memory.fingerprints.tolist() == [*range(1, 11), 70, 71]
    assert memory_named_in(tmp_path / "exp" / "epoch-1.pt").keys.tolist() == list(range(1, 11))


def test_a_checkpoint_without_memory_makes_the_next_one_incomplete(toy_run, tmp_path):
    exp = tmp_path / "exp"
    toy_run(num_epochs=1)
    content = load_checkpoint(exp / "epoch-1.pt")
    del content["config"][ENTRY]
    save_checkpoint(exp / "epoch-1.pt", content)
    toy_run(num_epochs=2, resume=True)
    assert not memory_named_in(exp / "epoch-2.pt").complete


@pytest.mark.parametrize("kind", ["known", "unknown", "untrained"])
def test_a_frozen_encoder_brings_its_memory(toy_run, toy_task, tmp_path, kind):
    task = toy_task()
    reference = TrainedClips(hashes(77), hashes(78)).write(tmp_path)
    task.config["audio_encoder"] = {
        "known": {"path": str(tmp_path / "a.pt"), "pretraining": "tagging", ENTRY: reference},
        "unknown": {"path": "wav2vec2", "pretraining": "speech"},
        "untrained": {"path": "logmel", "pretraining": "none"},
    }[kind]
    toy_run(task=task, num_epochs=1)
    memory = memory_named_in(tmp_path / "exp" / "epoch-1.pt")
    assert memory.complete == (kind != "unknown")
    assert memory.keys.tolist() == [*range(1, 11), *([77] if kind == "known" else [])]


def test_an_initial_encoder_brings_its_memory(toy_run, tmp_path):
    reference = TrainedClips(hashes(77), hashes(78)).write(tmp_path)
    for name, config in (("ours", {ENTRY: reference}), ("old", {})):
        path = tmp_path / f"{name}.pt"
        save_checkpoint(path, {"model": {}, "config": {"task": "tagging"} | config})
        toy_run(exp=tmp_path / name, num_epochs=1, init_encoder=path)
    known = memory_named_in(tmp_path / "ours" / "epoch-1.pt")
    assert known.keys.tolist() == [*range(1, 11), 77] and known.complete
    assert known.fingerprints.tolist() == [*range(1, 11), 78]
    assert not memory_named_in(tmp_path / "old" / "epoch-1.pt").complete
    torch.save({"model": {}}, tmp_path / "icefall.pt")
    toy_run(exp=tmp_path / "icefall", num_epochs=1, init_encoder=tmp_path / "icefall.pt")
    assert not memory_named_in(tmp_path / "icefall" / "epoch-1.pt").complete
