"""Polyphonic sound detection score, PSDS (Bilen et al. 2020; over all thresholds, Ebbers et al.
2022), of frame scores.

    score = psds(clips, classes)    # DetectionClip: duration, events, scores (T, C), borders (T+1,)
    score.psds(), score.single_class["dog"]

Terms: a *detection* at a threshold is a maximal run of frames with at least that score. It is
*relevant* if events of its class cover `dtc` of it; an event is *found* if relevant detections
cover `gtc` of it; detections that are not relevant are false alarms. The ROC of a class is the
share of events found (TPR) over false alarms per hour (eFPR), and its score the area below it up to
`max_efpr`, as a share. The defaults are PSDS1; AudioSet-strong takes alpha_st 0.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

DECIMALS = 6  # of a second, to which both sides of a comparison are rounded
MEDIAN_FRAMES = 9  # 0.36 s at 25 Hz

Event = tuple[float, float, str]  # onset and offset in seconds, label


@dataclass(frozen=True)
class DetectionClip:
    """A clip's events and frame scores.

    Attributes:
      duration: seconds, counted in the rate of false alarms.
      events: onset, offset, label; may overlap.
      scores: (T, C) one column per class.
      borders: (T+1,) seconds where the frames begin, and where the last one ends.
    """

    id: str
    duration: float
    events: Sequence[Event]
    scores: np.ndarray
    borders: np.ndarray


@dataclass(frozen=True)
class PsdsSettings:
    """`cttc` and `alpha_ct` count false alarms on another class's events a second time (PSDS2); not
    in PSDS1.
    """

    dtc: float = 0.7
    gtc: float = 0.7
    cttc: float = 1.0
    alpha_ct: float = 0.0
    max_efpr: float = 100.0  # false alarms per unit of time
    unit_seconds: float = 3600.0


@dataclass(frozen=True)
class PsdsScore:
    """Curves of the classes that have events, and what they were computed on."""

    curves: dict[
        str, tuple[np.ndarray, np.ndarray]
    ]  # label -> eFPR (K,) ascending from 0, TPR (K,) at and after it
    max_efpr: float
    num_clips: int
    num_events: dict[str, int]
    total_duration: float  # seconds

    @property
    def single_class(self) -> dict[str, float]:
        return {label: _area(*curve, self.max_efpr) for label, curve in self.curves.items()}

    def psds(self, alpha_st: float = 0.0) -> float:
        """Area below mean - alpha_st x standard deviation over the classes; 0 is AudioSet-strong's,
        1 DCASE's.
        """
        points = np.unique(np.concatenate([efpr for efpr, _ in self.curves.values()]))
        rates = np.stack(
            [tpr[np.searchsorted(efpr, points, "right") - 1] for efpr, tpr in self.curves.values()]
        )
        return _area(points, np.maximum(rates.mean(0) - alpha_st * rates.std(0), 0), self.max_efpr)


def psds(
    clips: Sequence[DetectionClip],
    classes: Sequence[str],
    settings: PsdsSettings = PsdsSettings(),
    scored_classes: Collection[str] | None = None,
    drop_empty_clips: bool = True,
) -> PsdsScore:
    """Curves over all thresholds.

    Args:
      clips: read twice; `scores` may be a memory-mapped file.
      classes: of the columns of the scores.
      scored_classes: leave out all others, events and columns; None for all. Classes without any
          event never count.
      drop_empty_clips: clips without event of a scored class do not count, neither their false
          alarms nor their length.

    Raises:
      ValueError: nothing to score, or a clip whose scores, borders or labels do not fit.
    """
    column = {label: number for number, label in enumerate(classes)}
    scored = set(classes if scored_classes is None else scored_classes)
    events = {}
    for clip in clips:
        own = merge_events(clip.events, scored)
        if unknown := {
            label for _, _, label in clip.events if label in scored and label not in column
        }:
            raise ValueError(f"clip {clip.id}: no column for {', '.join(sorted(unknown))}")
        if own or not drop_empty_clips:
            events[clip.id] = own
    lengths: dict[str, list[float]] = defaultdict(list)
    for onset, offset, label in (event for own in events.values() for event in own):
        lengths[label].append(offset - onset)
    labels = [label for label in classes if label in lengths]
    if not labels:
        raise ValueError("no clip has an event of a scored class: nothing to score")
    total_duration = sum(clip.duration for clip in clips if clip.id in events)
    changes = _Changes(
        column=np.array([column[label] for label in labels]),
        false_alarm=settings.unit_seconds / total_duration,
        cross_trigger=np.array(
            [_cross_trigger_rate(sum(lengths[label]), len(labels), settings) for label in labels]
        ),
        settings=settings,
    )
    index = {label: number for number, label in enumerate(labels)}
    for clip in clips:
        if clip.id in events:
            changes.add(
                clip,
                [(onset, offset, index[label]) for onset, offset, label in events[clip.id]],
                len(classes),
            )
    curves = {
        label: _curve(*changes.of_class(number), len(lengths[label]), settings.max_efpr)
        for label, number in index.items()
    }
    num_events = {label: len(lengths[label]) for label in labels}
    return PsdsScore(curves, settings.max_efpr, len(events), num_events, total_duration)


def merge_events(events: Iterable[Event], scored: Collection[str]) -> list[Event]:
    """Events of the scored classes by class and onset, without empty ones; those that overlap or
    touch are united.
    """
    merged: list[Event] = []
    for onset, offset, label in sorted(events, key=lambda event: (event[2], event[0])):
        if label not in scored or offset <= onset:
            continue
        if merged and merged[-1][2] == label and onset <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(offset, merged[-1][1]), label)
        else:
            merged.append((onset, offset, label))
    return merged


def median_filter(scores: np.ndarray, frames: int = MEDIAN_FRAMES) -> np.ndarray:
    """(T, C) -> (T, C) median over time; the clip is mirrored at its ends, the outermost frame
    repeated.
    """
    return ndimage.median_filter(scores, (frames, 1))


def frame_borders(num_frames: int, frame_rate: float, duration: float) -> np.ndarray:
    """(T+1,) seconds. Frame k lasts from k / frame_rate on; the last one ends with the clip.

    Raises:
      ValueError: the clip ends before the last frame begins; give as many frames as it holds.
    """
    borders = np.round(np.arange(num_frames + 1) / frame_rate, DECIMALS)
    borders[-1] = duration
    if num_frames < 1 or borders[-1] <= borders[-2]:
        raise ValueError(f"{num_frames} frames at {frame_rate} Hz do not fit into {duration} s")
    return borders


@dataclass
class _Changes:
    """How found events and eFPR change where the threshold falls to a score, gathered clip by clip.

    Attributes:
      column: (K,) column of each scored class.
      false_alarm: eFPR of one false alarm.
      cross_trigger: (K,) eFPR of one cross trigger on each class.
    """

    column: np.ndarray
    false_alarm: float
    cross_trigger: np.ndarray
    settings: PsdsSettings

    def __post_init__(self) -> None:
        self._false_alarms: list[
            tuple[np.ndarray, ...]
        ] = []  # class, score, +1 or -1, where no event of the class is
        self._counts: dict[int, list[tuple[np.ndarray, ...]]] = defaultdict(
            list
        )  # score, found, eFPR, where one is
        self._by_class: tuple[np.ndarray, ...] | None = None

    def add(
        self, clip: DetectionClip, events: Sequence[tuple[float, float, int]], num_columns: int
    ) -> None:
        _check_clip(clip, num_columns)
        scores = clip.scores[:, self.column]
        times = np.array([event[:2] for event in events]).reshape(-1, 2)
        owners = np.array([event[2] for event in events], dtype=int)
        every = self.settings.alpha_ct > 0  # then false alarms are not all alike
        detailed = np.arange(len(self.column)) if every else np.unique(owners)
        for number in detailed.tolist():
            self._counts[number].append(
                self._count(number, scores[:, number], clip.borders, times, owners)
            )
        if not every:
            rest = np.setdiff1d(np.arange(len(self.column)), detailed)
            self._false_alarms.append(_run_changes(scores[:, rest], rest))

    def _count(
        self,
        number: int,
        scores: np.ndarray,
        borders: np.ndarray,
        times: np.ndarray,
        owners: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """A class in a clip -> (scores (U,) falling, change of found events (U,), change of eFPR
        (U,)).
        """
        levels = np.unique(scores[scores > -np.inf])[::-1]
        active = np.zeros((len(levels), len(scores) + 2), dtype=np.int8)
        active[:, 1:-1] = scores >= levels[:, None]
        edges = np.diff(active, axis=1)
        row, first = np.nonzero(
            edges == 1
        )  # detections by level, in order of time: the ends pair up with the starts
        start, end = borders[first], borders[np.nonzero(edges == -1)[1]]
        shared = np.maximum(
            np.minimum(end[:, None], times[:, 1]) - np.maximum(start[:, None], times[:, 0]), 0
        )
        own = owners == number
        relevant = _at_least(shared[:, own].sum(1), self.settings.dtc * (end - start))
        covered = np.zeros((len(levels), own.sum()))
        np.add.at(covered, row[relevant], shared[relevant][:, own])
        found = _at_least(covered, self.settings.gtc * (times[own, 1] - times[own, 0])).sum(1)
        efpr = np.where(relevant, 0.0, self.false_alarm)
        for other in np.setdiff1d(owners, [number]) if self.settings.alpha_ct > 0 else ():
            crossed = _at_least(
                shared[:, owners == other].sum(1), self.settings.cttc * (end - start)
            )
            efpr += np.where(crossed & ~relevant, self.cross_trigger[other], 0.0)
        efpr = np.bincount(row, weights=efpr, minlength=len(levels))
        return levels, np.diff(found, prepend=0), np.diff(efpr, prepend=0)

    def of_class(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """-> found events and eFPR at every threshold."""
        if self._by_class is None:
            owners, levels, signs = (
                np.concatenate(parts) for parts in zip(*self._false_alarms or [_NO_CHANGES])
            )
            order = np.argsort(owners, kind="stable")
            bounds = np.searchsorted(owners[order], np.arange(len(self.column) + 1))
            self._by_class = levels[order], signs[order], bounds
        levels, signs, bounds = self._by_class
        own = slice(bounds[number], bounds[number + 1])
        alone = (
            levels[own],
            np.zeros(bounds[number + 1] - bounds[number]),
            signs[own] * self.false_alarm,
        )
        level, found, efpr = (np.concatenate(parts) for parts in zip(alone, *self._counts[number]))
        order = np.argsort(-level, kind="stable")
        last = np.append(
            np.diff(level[order]) != 0, True
        )  # equal scores of several clips take effect together
        return np.cumsum(found[order])[last], np.cumsum(efpr[order])[last]


_NO_CHANGES = (np.zeros(0, dtype=np.uint16), np.zeros(0), np.zeros(0, dtype=np.int8))


def _run_changes(
    scores: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T, K) -> where the number of runs with scores at or above a threshold changes: class, score,
    +1 or -1.

    As the threshold falls, a run appears at every local maximum, and two become one at every local
    minimum.
    """
    padded = np.full((len(numbers), len(scores) + 2), -np.inf, dtype=scores.dtype)
    padded[:, 1:-1] = scores.T
    flat = padded.reshape(-1)
    turns = np.ones(len(flat), dtype=bool)
    turns[1:] = flat[1:] != flat[:-1]  # of a plateau, one frame
    values, owners = flat[turns], np.repeat(numbers.astype(np.uint16), len(scores) + 2)[turns]
    rises, falls = values[1:-1] > values[:-2], values[1:-1] > values[2:]
    keep = (rises == falls) & (values[1:-1] > -np.inf)
    return owners[1:-1][keep], values[1:-1][keep], np.where(rises[keep], 1, -1).astype(np.int8)


def _curve(
    found: np.ndarray, efpr: np.ndarray, num_events: int, max_efpr: float
) -> tuple[np.ndarray, np.ndarray]:
    """Counts at every threshold -> eFPR ascending from 0 (K,), and the best TPR up to there
    (K,).
    """
    efpr, tpr = np.append(0.0, efpr), np.append(0.0, found / num_events)
    order = np.lexsort((tpr, efpr))
    efpr, tpr = efpr[order], np.maximum.accumulate(tpr[order])
    last = np.append(np.diff(efpr) != 0, True) & (efpr <= max_efpr)
    return efpr[last], tpr[last]


def _area(efpr: np.ndarray, tpr: np.ndarray, max_efpr: float) -> float:
    """Share of the area below a staircase that holds each value up to the next point."""
    return float((np.diff(np.append(efpr, max_efpr)) * tpr).sum() / max_efpr)


def _at_least(value: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Seconds against seconds, equal up to the noise of floating point."""
    return np.round(value, DECIMALS) >= np.round(bound, DECIMALS)


def _cross_trigger_rate(event_seconds: float, num_classes: int, settings: PsdsSettings) -> float:
    """eFPR that one cross trigger on a class adds: alpha_ct x the mean over the other classes of
    triggers per time.
    """
    return settings.alpha_ct * settings.unit_seconds / event_seconds / max(num_classes - 1, 1)


def _check_clip(clip: DetectionClip, num_columns: int) -> None:
    if clip.scores.ndim != 2 or clip.scores.shape[1] != num_columns:
        raise ValueError(
            f"clip {clip.id}: scores of shape {clip.scores.shape} for {num_columns} classes"
        )
    if len(clip.borders) != len(clip.scores) + 1 or (np.diff(clip.borders) <= 0).any():
        raise ValueError(
            f"clip {clip.id}: {len(clip.scores)} frames need {len(clip.scores) + 1} rising borders"
        )
    if np.isnan(clip.scores).any():
        raise ValueError(f"clip {clip.id}: scores hold NaN")
