"""Every clip of the test list counts: hand-worked accuracy, mAP and PSDS with clips that cannot be
heard.
"""

import json

import numpy as np
import pytest
import soundfile
import torch

from captionstew.data.audio import inspect_audio
from captionstew.data.manifests.cuts import make_cut, open_cuts, write_cuts
from captionstew.evaluation.probing.fit import Probe
from captionstew.evaluation.probing.representations import Representations
from captionstew.evaluation.probing.scoring import score_logits, score_probe
from captionstew.evaluation.probing.tasks import BrokenClip, ProbeTask, task_clips
from captionstew.models.encoders.base import FrozenEncoder
from captionstew.models.heads import FrameHead

CPU = torch.device("cpu")


class Blocks(FrozenEncoder):
    """25 frames per second, one channel: mean magnitude of 640 samples."""

    sampling_rate, frame_rate, dim = 16000, 25.0, 1

    def __init__(self):
        super().__init__()
        self.description = {"path": "x", "sha256": "blocks", "preset": "", "pretraining": "none"}

    def forward(self, waveforms, num_samples):
        lengths = num_samples // 640
        blocks = waveforms[:, : int(lengths.max()) * 640].unflatten(1, (-1, 640)).abs().mean(-1)
        return blocks.unsqueeze(-1), lengths


@pytest.fixture
def cuts(write_sounds, tmp_path):
    """Two clips of 4 s with events; the second is louder in its second half, where its event is."""
    folder = write_sounds({"a.wav": (4.0, 300), "b.wav": (4.0, 400)})
    samples, rate = soundfile.read(folder / "b.wav")
    samples[:32000] *= 0.1
    soundfile.write(folder / "b.wav", samples, rate, subtype="FLOAT")
    events = {"a.wav": [[0.0, 4.0, "tone"]], "b.wav": [[2.0, 4.0, "tone"]]}
    made = [
        make_cut(
            name,
            folder / name,
            inspect_audio(folder / name),
            ["a tone"],
            ["t"],
            {"events": own, "label": name},
        )
        for name, own in events.items()
    ]
    write_cuts(tmp_path / "cuts_test.jsonl", made)
    return open_cuts(tmp_path / "cuts_test.jsonl")


def representations(tmp_path, pooling="mean", cache="auto"):
    return Representations(Blocks(), pooling, cache, tmp_path / "cache", 100.0, 0)


def test_accuracy_counts_unheard_and_unknown_clips_as_wrong():
    logits = np.array([[[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]], [[0.0, 1.0], [0.0, 1.0], [3.0, 0.0]]])
    score = score_logits(logits, ProbeTask("t"), ["x", "y"], ["x", "y", "new", "x"])
    assert score.metrics["accuracy"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert score.metrics["accuracy_deviation"] == pytest.approx(np.std([0.5, 0.25], ddof=1))
    assert score.correct.tolist() == [[True, True, False, False], [False, True, False, False]]
    assert score.metrics["chance"] == 0.5 and score.settings == {
        "num_classes": 2,
        "num_unknown_labels": 1,
    }


def test_average_precision_ranks_unheard_clips_last():
    task = ProbeTask("t", metric="map")
    logits = np.array([[[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]]])
    heard = score_logits(logits, task, ["x", "y"], [["x"], ["x"], ["y"]])
    assert heard.metrics["map"] == 1.0
    unheard = score_logits(logits, task, ["x", "y"], [["x"], ["x"], ["y"], ["y"]])
    assert unheard.metrics["map"] == pytest.approx(
        (1.0 + (1.0 + 2 / 4) / 2) / 2
    )  # y: first, and last of four
    low, high = unheard.metrics["map_interval"]
    assert low <= unheard.metrics["map"] <= high and unheard.settings["scored_classes"] == 2


def detector(threshold):
    """Two equal heads that detect where a block is louder than the threshold."""
    weights = {
        "linear_weight": torch.full((2, 1, 1), 100.0),
        "linear_bias": torch.full((2, 1), -100.0 * threshold),
    }
    return Probe(
        FrameHead(1, 1), torch.zeros(1), torch.ones(1), weights, 0.1, [0.0, 0.0], [0.0, 0.0]
    )


def test_detection_by_hand(cuts, tmp_path):
    """Both events are found exactly: PSDS 1. An unheard clip with one event leaves 2 of 3."""
    task = ProbeTask("t", field="events", metric="psds1")
    loaded = representations(tmp_path).load(task_clips(cuts, task), task, ["tone"])
    score = score_probe(detector(0.1), task, ["tone"], ["tone"], loaded, [], CPU, tmp_path)
    assert score.metrics["psds1"] == 1.0 and score.metrics["psds1_deviation"] == 0.0
    broken = [BrokenClip("c", "no audio", [[0.0, 1.0, "tone"]])]
    score = score_probe(detector(0.1), task, ["tone"], ["tone"], loaded, broken, CPU, tmp_path)
    assert score.metrics["psds1"] == pytest.approx(2 / 3)
    assert score.settings["alpha_st"] == 0.0 and score.settings["scored_clips"] == 3
    assert score.settings["median_frames"] == 9 and not list(tmp_path.glob("scores-*"))


def test_every_cache_gives_the_same_and_keeps_what_it_says(cuts, tmp_path):
    task = ProbeTask("t")
    found, vectors = task_clips(cuts, task), {}
    for cache in ("none", "clip", "frames", "auto"):
        loaded = representations(tmp_path / cache, cache=cache).load(
            found, task, ["a.wav", "b.wav"]
        )
        vectors[cache] = loaded.clips.vectors
        assert loaded.clips.targets.tolist() == [0, 1] and not loaded.failed
    torch.testing.assert_close(vectors["clip"], vectors["none"], rtol=0, atol=0)
    torch.testing.assert_close(vectors["auto"], vectors["none"], rtol=0, atol=0)
    torch.testing.assert_close(vectors["frames"], vectors["none"], rtol=1e-3, atol=0)
    written = {cache: list((tmp_path / cache).rglob("index.json")) for cache in vectors}
    assert not written["none"] and len(written["clip"]) == len(written["frames"]) == 1
    lengths = [json.loads(written[cache][0].read_text())["lengths"] for cache in ("clip", "frames")]
    assert lengths == [[1, 1], [100, 100]]


def test_frames_computed_for_every_batch_are_those_of_the_cache(cuts, tmp_path):
    task, rows = ProbeTask("t", max_seconds=1.0), torch.tensor([1, 0])
    found = task_clips(cuts, task)
    batches = []
    for cache in ("none", "frames"):
        loaded = representations(tmp_path, "attention", cache).load(found, task, ["a.wav", "b.wav"])
        batches.append(loaded.clips.batch(rows))
    (frames, lengths), labels = batches[0]
    assert lengths.tolist() == [25, 25] and labels.tolist() == [1, 0]
    torch.testing.assert_close(batches[1][0][0], frames, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("cache", ["none", "clip", "frames"])
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_unreadable_clips_are_set_apart(cuts, tmp_path, cache, pooling):
    if (cache, pooling) == ("clip", "attention"):
        with pytest.raises(
            ValueError, match="--cache clip keeps pooled vectors, attention pooling"
        ):
            representations(tmp_path, pooling, cache).pooling_of(ProbeTask("t"))
        return
    task = ProbeTask("t")
    with open(cuts[0].recording.sources[0].source, "r+b") as file:
        file.truncate(30)
    loaded = representations(tmp_path, pooling, cache).load(
        task_clips(cuts, task), task, ["a.wav", "b.wav"]
    )
    assert [clip.value for clip in loaded.failed] == ["a.wav"] and "a.wav" in loaded.failed[
        0
    ].reason
    assert loaded.kept.values == ["b.wav"] and len(loaded.clips) == 1
    with open(cuts[1].recording.sources[0].source, "r+b") as file:
        file.truncate(30)
    with pytest.raises(ValueError, match="none of 2 clips can be read"):
        representations(tmp_path / "new", pooling, cache).load(
            task_clips(cuts, task), task, ["a.wav", "b.wav"]
        )
