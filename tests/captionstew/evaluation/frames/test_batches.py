"""Batches of a frozen encoder's frames: cached as computed, without the clips that cannot be
read.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from captionstew.data.audio import BadAudio, inspect_audio
from captionstew.data.manifests.cuts import make_cut, open_cuts, write_cuts
from captionstew.distributed import Rank
from captionstew.evaluation.frames.batches import FrameBatches, frame_batches, frame_table
from captionstew.models.encoders.load import load_encoder

RANK = Rank(0, 0, 1, torch.device("cpu"))
BROKEN = "train3"


@pytest.fixture
def encoder():
    return load_encoder("logmel", torch.device("cpu"))


@pytest.fixture
def flags(write_sounds, tmp_path):
    """Flags of manifests with 8 training clips, one of them broken, and 3 for validation."""
    names = {
        f"{split}{i}": (1 + 0.3 * i, 200 + i)
        for split, n in (("train", 8), ("valid", 3))
        for i in range(n)
    }
    folder = write_sounds({f"{name}.wav": sound for name, sound in names.items()})
    for split in ("train", "valid"):
        made = [
            make_cut(
                name, path, inspect_audio(path), [f"caption of {name}"], ["tones"], cut_id=name
            )
            for name in names
            if name.startswith(split) and (path := folder / f"{name}.wav")
        ]
        write_cuts(tmp_path / f"cuts_{split}.jsonl", made)
    (folder / f"{BROKEN}.wav").write_bytes(b"no audio")
    return SimpleNamespace(
        manifest_dir=tmp_path, max_duration=4.0, num_buckets=2, num_workers=0, seed=1,
        valid_clips=2, cache_dir=tmp_path / "cache", cache="frames",
    )  # fmt: skip


def clips_of(batches):
    """Cut id -> its frames (T', D) and its caption; the failed cut ids."""
    clips, failed = {}, []
    for batch in batches:
        failed += [cut_id for cut_id, _ in batch["failed"]]
        rows = zip(
            batch["cut_ids"],
            batch["features"],
            batch["feature_lengths"],
            batch["captions"],
            strict=True,
        )
        clips |= {cut_id: (frames[:length], caption) for cut_id, frames, length, caption in rows}
    return clips, failed


def test_cached_and_computed_batches_are_the_same(encoder, flags):
    found = {}
    for flags.cache in ("frames", "none"):
        data = FrameBatches(encoder, flags, RANK)
        found[flags.cache], failed = clips_of(data.train_batches(1, None))
        assert failed == [BROKEN]
    assert (
        found["frames"].keys() == found["none"].keys() == {f"train{i}" for i in range(8)} - {BROKEN}
    )
    for cut_id, (frames, caption) in found["frames"].items():
        assert caption == found["none"][cut_id][1] == f"caption of {cut_id}"
        torch.testing.assert_close(
            frames, found["none"][cut_id][0], atol=0.02, rtol=0
        )  # the cache has half precision


@pytest.mark.parametrize("cache", ["frames", "none"])
def test_an_epoch_goes_on_after_a_position(encoder, flags, cache):
    flags.cache = cache
    whole = list(FrameBatches(encoder, flags, RANK).train_batches(1, None))
    rest = list(FrameBatches(encoder, flags, RANK).train_batches(1, whole[0]["position"]))
    assert len(whole) > 2
    assert [batch["cut_ids"] for batch in rest] == [batch["cut_ids"] for batch in whole[1:]]


@pytest.mark.parametrize("cache", ["frames", "none"])
def test_a_batch_of_broken_clips_is_empty(encoder, flags, cache):
    flags.cache = cache
    data = FrameBatches(encoder, flags, RANK)
    (position,) = [row for row, cut in enumerate(data.train_cuts) if cut.id == BROKEN]
    batch = data.batch_of([position])
    assert (
        batch["cut_ids"] == []
        and batch["features"].shape[0] == 0
        and len(batch["feature_lengths"]) == 0
    )
    assert [cut_id for cut_id, _ in batch["failed"]] == [BROKEN]


def test_validation_has_the_same_few_clips_every_time(encoder, flags):
    data = FrameBatches(encoder, flags, RANK)
    first, second = (clips_of(data.valid_batches())[0].keys() for _ in range(2))
    assert first == second and len(first) == 2


def test_an_evaluation_does_not_go_on_without_a_clip(encoder, flags):
    cuts = open_cuts(flags.manifest_dir / "cuts_train.jsonl")
    with pytest.raises(BadAudio, match=BROKEN):
        frame_table(encoder, cuts, flags, RANK, strict=True)
    with pytest.raises(BadAudio, match=BROKEN):
        list(frame_batches(encoder, cuts, None, 4.0, 0))


def test_channel_statistics(encoder, flags):
    flags.cache = "none"
    data = FrameBatches(encoder, flags, RANK)
    frames = (
        torch.cat([frames for frames, _ in clips_of(data.train_batches(1, None))[0].values()])
        .double()
        .numpy()
    )
    mean, deviation = data.channel_statistics()
    np.testing.assert_allclose(mean, frames.mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation, frames.std(0), rtol=1e-4)
    for path in (flags.manifest_dir / "audio").glob("train*"):
        path.write_bytes(b"no audio")
    with pytest.raises(ValueError, match="no training clip could be read"):
        data.channel_statistics()
