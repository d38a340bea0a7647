"""Frames on disk: computed once, whole or absent, the same as the encoder's own."""

import json
import shutil
from collections import namedtuple
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from captionstew.data.audio import BadAudio, inspect_audio
from captionstew.data.manifests.cuts import make_cut, open_cuts, write_cuts
from captionstew.evaluation.frames import cache as frame_cache
from captionstew.evaluation.frames.cache import cached_frames
from captionstew.models.encoders.base import FrozenEncoder
from captionstew.models.pooling import mean_pool

SECONDS = (0.5, 1.25, 0.8, 2.0, 0.1)


class Loudness(FrozenEncoder):
    """Ten frames per second, two channels: loudness, and a constant."""

    sampling_rate, frame_rate, dim = 16000, 10.0, 2

    def __init__(self, content="a", constant=1.0):
        super().__init__()
        self.calls = 0
        self.constant = constant
        self.description = {"path": "x", "sha256": content, "preset": "", "pretraining": "none"}

    def forward(self, waveforms, num_samples):
        self.calls += 1
        lengths = num_samples // 1600
        blocks = waveforms[:, : int(lengths.max()) * 1600].unflatten(1, (-1, 1600)).abs().mean(-1)
        return torch.stack([blocks, torch.full_like(blocks, self.constant)], -1), lengths


@pytest.fixture
def cuts(write_sounds, tmp_path):
    names = {f"{number}.wav": (seconds, 200 + number) for number, seconds in enumerate(SECONDS)}
    folder = write_sounds(names)
    made = [
        make_cut(name, folder / name, inspect_audio(folder / name), ["a tone"], ["tones"])
        for name in names
    ]
    write_cuts(tmp_path / "cuts_test.jsonl", made)
    return open_cuts(tmp_path / "cuts_test.jsonl")


def own_frames(cut, encoder):
    samples = torch.from_numpy(cut.recording.load_audio()[0])
    samples = torch.nn.functional.pad(samples, (0, max(0, 4000 - len(samples))))
    return encoder(samples[None], torch.tensor([len(samples)]))[0][0]


def test_frames_are_the_encoders_and_the_second_run_reads(cuts, tmp_path, capsys):
    encoder = Loudness()
    table = cached_frames(encoder, cuts, tmp_path / "cache", 3.0, 0, dtype="float32")
    assert "will take" in capsys.readouterr().err and len(table) == len(cuts) and table.dim == 2
    for cut in cuts:
        np.testing.assert_array_equal(table[cut.id], own_frames(cut, encoder).numpy())
    calls = encoder.calls
    again = cached_frames(encoder, cuts, tmp_path / "cache", 100.0, 0, dtype="float32")
    assert encoder.calls == calls and capsys.readouterr().err == ""
    assert all(np.array_equal(table[cut.id], again[cut.id]) for cut in cuts)


def test_a_batch_is_padded_and_in_order(cuts, tmp_path):
    table = cached_frames(Loudness(), cuts, tmp_path / "cache", 100.0, 0)
    ids = [cuts[3].id, cuts[0].id]
    frames, lengths = table.batch(ids)
    assert (
        frames.shape == (2, 20, 2) and frames.dtype == torch.float32 and lengths.tolist() == [20, 5]
    )
    np.testing.assert_array_equal(frames[1, :5].numpy(), table[ids[1]].astype(np.float32))
    assert not frames[1, 5:].any() and table[ids[0]].dtype == np.float16


@pytest.mark.parametrize(
    "change",
    [
        {"pooling": "mean"},
        {"max_seconds": 1.0},
        {"dtype": "float32"},
        {"encoder": "other"},
        {"cuts": 3},
    ],
)
def test_whatever_decides_the_values_computes_again(cuts, tmp_path, change):
    cached_frames(Loudness(), cuts, tmp_path / "cache", 100.0, 0)
    encoder = Loudness(change.pop("encoder", "a"))
    selected = cuts.select(range(change.pop("cuts", len(cuts))))
    cached_frames(encoder, selected, tmp_path / "cache", 100.0, 0, **change)
    assert encoder.calls == 1


def test_the_place_of_the_encoder_does_not_matter(cuts, tmp_path):
    cached_frames(Loudness(), cuts, tmp_path / "cache", 100.0, 0)
    moved = Loudness()
    moved.description["path"] = "elsewhere"
    cached_frames(moved, cuts, tmp_path / "cache", 100.0, 0)
    assert moved.calls == 0


def test_pooled_vectors_and_windows(cuts, tmp_path):
    encoder = Loudness()
    table = cached_frames(
        encoder,
        cuts,
        tmp_path / "a",
        100.0,
        0,
        pooling="mean_std",
        max_seconds=1.0,
        dtype="float32",
    )
    own = own_frames(cuts[1], encoder)[:10]
    vector = table[cuts[1].id]
    assert vector.shape == (1, 4)
    np.testing.assert_allclose(
        vector[0, :2], mean_pool(own[None], torch.tensor([10]))[0], rtol=1e-6
    )
    np.testing.assert_allclose(vector[0, 2:], own.std(0, correction=0), atol=1e-6)


def test_a_killed_run_goes_on_at_the_shard_it_was_in(cuts, tmp_path, monkeypatch):
    monkeypatch.setattr(frame_cache, "SHARD_CLIPS", 2)
    table = cached_frames(Loudness(), cuts, tmp_path / "cache", 100.0, 0)
    (folder,) = (tmp_path / "cache").iterdir()
    shards = sorted(folder.iterdir())
    assert [path.name for path in shards] == ["0000", "0001", "0002"]
    before = {cut.id: table[cut.id].copy() for cut in cuts}
    (shards[1] / "index.json").rename(tmp_path / "gone")
    (shards[1] / "frames.bin").unlink()
    shards[1].rmdir()
    encoder = Loudness()
    again = cached_frames(encoder, cuts, tmp_path / "cache", 100.0, 0)
    assert encoder.calls == 1 and all(np.array_equal(before[cut.id], again[cut.id]) for cut in cuts)


def test_a_failure_leaves_no_shard(cuts, tmp_path):
    with pytest.raises(ValueError, match="too large numbers"):
        cached_frames(Loudness(constant=1e6), cuts, tmp_path / "cache", 100.0, 0)
    assert [path for folder in (tmp_path / "cache").iterdir() for path in folder.iterdir()] == []
    assert (
        len(
            cached_frames(
                Loudness(constant=1e6), cuts, tmp_path / "cache", 100.0, 0, dtype="float32"
            )
        )
        == 5
    )


def test_unreadable_clips_are_listed_and_never_given(cuts, tmp_path, capsys):
    broken = cuts[2]
    with open(broken.recording.sources[0].source, "r+b") as file:
        file.truncate(20)
    for _ in range(2):  # computed, then read
        table = cached_frames(Loudness(), cuts, tmp_path / "cache", 100.0, 0)
        assert list(table.failed) == [broken.id] and len(table) == 4 and broken.id not in table
        assert "1 of 5 clips cannot be read" in capsys.readouterr().err
        with pytest.raises(KeyError, match="2.wav"):
            table.batch([cuts[0].id, broken.id])
    with pytest.raises(BadAudio, match="2.wav"):
        cached_frames(Loudness(), cuts, tmp_path / "cache", 100.0, 0, strict=True)
    with pytest.raises(BadAudio, match="2.wav"):
        cached_frames(Loudness(), cuts, tmp_path / "new", 100.0, 0, strict=True)


def test_a_full_disk_is_refused_before_anything_is_encoded(cuts, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    needed = sum(int(np.ceil(duration * 10)) for duration in cuts.durations) * 2 * 2
    monkeypatch.setattr(
        frame_cache.shutil, "disk_usage", lambda _: usage(0, 0, needed + frame_cache.FREE_SPACE - 1)
    )
    encoder = Loudness()
    with pytest.raises(ValueError, match="name another --cache-dir, or use --cache clip"):
        cached_frames(encoder, cuts, tmp_path / "cache", 100.0, 0)
    assert encoder.calls == 0
    monkeypatch.setattr(
        frame_cache.shutil, "disk_usage", lambda _: usage(0, 0, needed + frame_cache.FREE_SPACE)
    )
    table = cached_frames(encoder, cuts, tmp_path / "cache", 100.0, 0)
    written = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("frames.bin"))
    assert written <= needed and len(table) == 5
    index = json.loads(next((tmp_path / "cache").rglob("index.json")).read_text())
    assert index["settings"]["encoder"]["sha256"] == "a"


def test_a_second_process_waits_and_takes_what_the_first_made(cuts, tmp_path, monkeypatch):
    """The shards that were missing when it asked are there when the lock is its own."""
    encoder, other = Loudness(), Loudness()

    @contextmanager
    def after_the_other(folder, wait):
        assert wait
        monkeypatch.undo()
        cached_frames(other, cuts, tmp_path / "cache", 3.0, 0)
        yield

    monkeypatch.setattr(frame_cache, "one_writer", after_the_other)
    table = cached_frames(encoder, cuts, tmp_path / "cache", 3.0, 0)
    assert len(table) == len(cuts) and other.calls > 0 and encoder.calls == 0


def test_what_a_killed_run_left_is_removed(cuts, tmp_path):
    table = cached_frames(Loudness(), cuts, tmp_path / "cache", 3.0, 0)
    (folder,) = (tmp_path / "cache").iterdir()
    assert len(table) == len(cuts)
    shutil.rmtree(folder / "0000")
    (folder / ".0000.0123abcd.tmp").mkdir()
    cached_frames(Loudness(), cuts, tmp_path / "cache", 3.0, 0)
    assert [path.name for path in folder.iterdir()] == ["0000"]
