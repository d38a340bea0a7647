"""Test results of a probe: every clip of the test list counts, those that cannot be heard as wrong.

S seeds, N clips, C classes, T frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captionstew.evaluation.metrics.bootstrap import bootstrap_interval
from captionstew.evaluation.metrics.classification import mean_average_precision
from captionstew.evaluation.metrics.psds import (
    MEDIAN_FRAMES,
    DetectionClip,
    PsdsScore,
    frame_borders,
    median_filter,
    psds,
)
from captionstew.evaluation.probing.clips import DetectionClips
from captionstew.evaluation.probing.detection import DETECTION_RATE
from captionstew.evaluation.probing.fit import Clips, Probe
from captionstew.evaluation.probing.head_metrics import map_interval
from captionstew.evaluation.probing.representations import Loaded
from captionstew.evaluation.probing.tasks import (
    BrokenClip,
    ProbeTask,
    event_of,
    num_unknown_labels,
    targets,
)
from captionstew.files import scratch_folder

SCORE_BATCH = 64
ALPHA_ST = 0.0  # of PSDS1 on AudioSet-strong: the plain mean over classes


@dataclass(frozen=True)
class ProbeScore:
    """A test result.

    Attributes:
      metrics: of the result file.
      settings: how they were computed.
      correct: (S, N) which clips were right, for accuracy.
    """

    metrics: dict[str, Any]
    settings: dict[str, Any]
    correct: np.ndarray | None = None


def score_probe(
    probe: Probe, task: ProbeTask, classes: Sequence[str], trained: Sequence[str], loaded: Loaded,
    broken: Sequence[BrokenClip], device: torch.device, folder: Path,
) -> ProbeScore:  # fmt: skip
    """Scores every seed's head.

    Args:
      classes: of the head's outputs; trained: those that training clips have.
      loaded: the clips that can be heard; broken: all others.
      folder: for scores of frames, while they are needed.
    """
    values = [*loaded.kept.values, *(clip.value for clip in broken)]
    if task.is_detection:
        settings = {
            "num_classes": len(classes),
            "num_unknown_labels": num_unknown_labels(values, classes),
        }
        scores = _detection_scores(
            probe.to(device), task, classes, trained, loaded, broken, device, folder
        )
        return _detection(scores, settings)
    return score_logits(clip_scores(probe, loaded.clips, device), task, classes, values)


def score_logits(
    scores: np.ndarray, task: ProbeTask, classes: Sequence[str], values: Sequence[Any]
) -> ProbeScore:
    """logits (S, n, C) of the clips that can be heard -> result; `values`: labels of these n and,
    behind them, of all others.
    """
    truth = targets(values, task, classes).numpy()
    settings = {
        "num_classes": len(classes),
        "num_unknown_labels": num_unknown_labels(values, classes),
    }
    return (_tagging if task.multi_label else _classification)(scores, truth, settings)


def clip_scores(probe: Probe, clips: Clips, device: torch.device) -> np.ndarray:
    """-> logits (S, N, C)"""
    probe = probe.to(device)
    parts = []
    for rows in torch.arange(len(clips)).split(SCORE_BATCH):
        inputs, _ = clips.batch(rows)
        parts.append(probe.scores(*(one.to(device) for one in inputs)).cpu())
    return torch.cat(parts, dim=1).numpy()


def _classification(scores: np.ndarray, truth: np.ndarray, settings: dict[str, Any]) -> ProbeScore:
    """scores (S, n, C) of the clips that can be heard, truth (N,) of these and, behind them, the
    others
    """
    correct = np.zeros((len(scores), len(truth)), dtype=bool)
    correct[:, : scores.shape[1]] = scores.argmax(-1) == truth[: scores.shape[1]]
    largest = np.unique(truth, return_counts=True)[1].max()
    return ProbeScore(
        accuracy_metrics(correct) | {"chance": float(largest / len(truth))}, settings, correct
    )


def accuracy_metrics(correct: np.ndarray) -> dict[str, Any]:
    """(S, N) which clips were right -> accuracy, its deviation over seeds and its interval over
    clips
    """
    found = mean_and_deviation("accuracy", correct.mean(1))
    return found | {"accuracy_interval": bootstrap_interval(correct.mean(0))}


def _tagging(scores: np.ndarray, truth: np.ndarray, settings: dict[str, Any]) -> ProbeScore:
    """scores (S, n, C), truth (N, C); a clip that cannot be heard stands last in every class's
    ranking
    """
    last = np.repeat(scores.min(axis=1, keepdims=True) - 1.0, len(truth) - scores.shape[1], axis=1)
    scores = np.concatenate([scores, last], axis=1)
    each = [mean_average_precision(one, truth) for one in scores]
    found = mean_and_deviation("map", np.array([value for value, _ in each])) | {
        "map_interval": map_interval(scores, truth),
        "chance": float(truth[:, truth.any(0)].mean()),
    }
    return ProbeScore(found, settings | {"scored_classes": each[0][1]})


def _detection_scores(
    probe: Probe, task: ProbeTask, classes: Sequence[str], trained: Sequence[str], loaded: Loaded,
    broken: Sequence[BrokenClip], device: torch.device, folder: Path,
) -> list[PsdsScore]:  # fmt: skip
    """PSDS of each seed over the classes that are in training and test."""
    results = []
    for seed in range(probe.num_seeds):
        with scratch_folder(folder / "scores") as place:
            scored = _scored_clips(probe, seed, loaded, device, place / "scores.bin")
            silent = _silent_clips(broken, task.max_seconds, len(classes))
            results.append(psds([*scored, *silent], classes, scored_classes=trained))
    return results


def _detection(results: Sequence[PsdsScore], settings: dict[str, Any]) -> ProbeScore:
    each = np.array([list(result.single_class.values()) for result in results])  # (S, classes)
    found = mean_and_deviation("psds1", np.array([result.psds(ALPHA_ST) for result in results]))
    intervals = {"psds1_interval": bootstrap_interval(each.mean(0)), "chance": None}
    how = {
        "alpha_st": ALPHA_ST,
        "scored_classes": each.shape[1],
        "scored_clips": results[0].num_clips,
        "median_frames": MEDIAN_FRAMES,
        "detection_rate": DETECTION_RATE,
        "interval_over": "classes",
    }
    return ProbeScore(found | intervals, settings | how)


def _scored_clips(
    probe: Probe, seed: int, loaded: Loaded, device: torch.device, path: Path
) -> list[DetectionClip]:
    """One head's logits of every frame, median-filtered over time; they lie in `path` as long as
    they are needed.
    """
    clips, kept = loaded.clips, loaded.kept
    if not isinstance(clips, DetectionClips):
        raise TypeError("detection is scored on frames")
    durations = clips.durations.tolist()
    lengths, starts = [], [0]
    with open(path, "wb") as file:
        for rows in torch.arange(len(clips)).split(SCORE_BATCH):
            frames, counts = clips.frames(rows)
            scores = probe.scores(frames.to(device), counts, seed=seed)[0].cpu().numpy()
            for one, count in zip(scores, counts.tolist()):
                file.write(median_filter(one[:count]).astype(np.float32).tobytes())
                lengths.append(count)
                starts.append(starts[-1] + count)
    stored = np.memmap(path, np.float32, "r", shape=(starts[-1], clips.num_classes))
    return [
        DetectionClip(
            cut_id, duration, [event_of(one) for one in value], stored[start : start + length],
            frame_borders(length, DETECTION_RATE, duration),
        )
        for cut_id, duration, value, start, length in zip(
            kept.ids, durations, kept.values, starts, lengths
        )
    ]  # fmt: skip


def _silent_clips(
    broken: Sequence[BrokenClip], seconds: float, num_classes: int
) -> list[DetectionClip]:
    """Clips that cannot be heard: their events count, and nothing is ever detected; `seconds` is
    their least length.
    """
    clips = []
    for clip in broken:
        found = [event_of(one) for one in clip.value]
        duration = max([seconds, *(offset for _, offset, _ in found)])
        scores, borders = np.full((1, num_classes), -np.inf), np.array([0.0, duration])
        clips.append(DetectionClip(clip.cut_id, duration, found, scores, borders))
    return clips


def mean_and_deviation(name: str, values: np.ndarray) -> dict[str, Any]:
    """(S,) -> mean and deviation"""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {name: float(values.mean()), f"{name}_deviation": deviation}
