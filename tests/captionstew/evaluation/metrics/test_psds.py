"""PSDS equals sed_scores_eval, and a case worked by hand."""

import json

import numpy as np
import pytest

from captionstew.evaluation.metrics.psds import (
    DetectionClip,
    PsdsSettings,
    frame_borders,
    median_filter,
    merge_events,
    psds,
)

SETTINGS = {
    "psds1_st0": (PsdsSettings(), 0.0),
    "psds1_st1": (PsdsSettings(), 1.0),
    "psds1_st0_efpr30": (PsdsSettings(max_efpr=30), 0.0),
    "psds1_st0_minute": (PsdsSettings(max_efpr=2, unit_seconds=60), 0.0),
    "psds2_st1": (PsdsSettings(dtc=0.1, gtc=0.1, cttc=0.3, alpha_ct=0.5), 1.0),
}
CASES = [
    "hand",
    "zero_length_event",
    "overlapping_same_class",
    "touching_same_class",
    "class_without_events",
    "event_beyond_clip_end",
    "events_touch_clip_ends",
    "clip_without_events_kept",
    "clip_without_events_dropped",
    "all_scores_equal",
    "ties_across_clips",
    "perfect",
    "nothing_found",
    "fragments",
    "rise_and_fall",
    "exact_seventy_percent",
    "single_clip",
    "short_clips",
    "random",
    "real_clips",
    "as407",
]


@pytest.fixture(scope="module")
def golden(golden_dir):
    folder = golden_dir("metric_golden")
    head = json.loads((folder / "psds.json").read_text(encoding="utf-8"))
    return head, np.load(folder / "psds_scores.npz")


def golden_clips(case, arrays, post):
    scores, borders = arrays[f"{case['name']}__scores"], arrays[f"{case['name']}__timestamps"]
    if scores.dtype == np.uint16:  # thousandths
        scores = scores / 1000
    clips, frame, border = [], 0, 0
    for clip in case["clips"]:
        own = scores[frame : frame + clip["frames"]]
        edges = borders[border : border + clip["frames"] + 1]
        own = median_filter(own) if post == "median9" else own
        clips.append(
            DetectionClip(
                clip["id"], clip["duration"], [tuple(e) for e in clip["events"]], own, edges
            )
        )
        frame, border = frame + clip["frames"], border + clip["frames"] + 1
    assert frame == len(scores) and border == len(borders)
    return clips


@pytest.mark.parametrize("name", CASES)
def test_psds_equals_the_reference(golden, name):
    head, arrays = golden
    case = next((case for case in head["cases"] if case["name"] == name), None)
    if case is None:
        pytest.skip(f"reference data not found: {name} is in the full set alone")
    classes, scored = (head.get(names, names) if isinstance(names, str) else names
                       for names in (case["classes"], case["scored_classes"]))  # fmt: skip
    scores = {}
    for result in case["results"]:
        if result["post"] == "medfilt0.36s":  # a filter that we do not offer
            continue
        settings, alpha_st = SETTINGS[result["params"]]
        if (result["post"], settings) not in scores:
            clips = golden_clips(case, arrays, result["post"])
            chosen = None if name == "class_without_events" else scored
            keep = name == "clip_without_events_kept"
            scores[result["post"], settings] = psds(
                clips, classes, settings, chosen, drop_empty_clips=not keep
            )
        score, what = scores[result["post"], settings], (result["post"], result["params"])
        assert score.psds(alpha_st) == pytest.approx(result["psds"], abs=1e-9), what
        single = score.single_class
        if "mean_single_class" in result:
            assert np.mean(list(single.values())) == pytest.approx(
                result["mean_single_class"], abs=1e-9
            ), what
        if "single_class" in result:
            expected = result["single_class"]
            expected = expected if isinstance(expected, dict) else dict(zip(scored, expected))
            assert single == pytest.approx(expected, abs=1e-9), what
        assert score.total_duration == pytest.approx(case["total_duration"], abs=1e-9)
        assert score.num_clips == (
            len(clips) if case["scored_clips"] == "all" else len(case["scored_clips"])
        )
        assert sum(score.num_events.values()) == (
            case["num_events"]
            if isinstance(case["num_events"], int)
            else sum(case["num_events"].values())
        )


def test_every_golden_case_is_compared(golden, full_golden):
    names = {case["name"] for case in golden[0]["cases"]}
    assert set(CASES) - names == (set() if full_golden else {"real_clips", "as407"})
    assert names <= set(CASES)
    assert {result["params"] for case in golden[0]["cases"] for result in case["results"]} == set(
        SETTINGS
    )


def test_events_are_united_as_in_the_reference(golden):
    for case in golden[0]["cases"]:
        for clip in case["clips"]:
            if clip["merged"] != "same":
                events = [
                    event for event in clip["events"] if event[2] in golden_scored(golden[0], case)
                ]
                assert sorted(
                    merge_events(map(tuple, events), golden_scored(golden[0], case))
                ) == sorted(map(tuple, clip["merged"]))


def golden_scored(head, case):
    names = case["scored_classes"]
    return set(head[names] if isinstance(names, str) else names)


def test_median_filter_equals_the_reference(metric_golden):
    arrays = metric_golden("median_filter.npz")
    for number in range(5):
        for frames in (3, 7, 9):
            filtered = median_filter(arrays[f"in_{number}"], frames)
            assert np.array_equal(filtered, arrays[f"median{frames}_{number}"])


def clip(name, duration, events, runs, classes=("dog", "cat")):
    """Frames of 1 s; runs: (class, first frame, last frame + 1, score)."""
    scores = np.zeros((int(duration), len(classes)))
    for label, first, stop, score in runs:
        scores[first:stop, classes.index(label)] = score
    return DetectionClip(
        name, duration, events, scores, frame_borders(int(duration), 1.0, duration)
    )


@pytest.fixture
def two_clips():
    first = clip("a", 36.0, [(2.0, 5.0, "dog"), (30.0, 36.0, "cat")],
                 [("dog", 2, 5, 0.9), ("dog", 20, 22, 0.3), ("cat", 31, 36, 0.8)])  # fmt: skip
    second = clip("b", 36.0, [(10.0, 14.0, "dog")], [("dog", 0, 1, 0.6), ("dog", 10, 13, 0.5)])
    return [first, second]


def test_worked_by_hand(two_clips):
    """Two clips of 36 s, frames of 1 s: 72 s, so a false alarm is 50 per hour. Dog has two events.

    0.9: a is found, TPR 1/2 at 0. 0.6: a false alarm, 1/2 at 50. 0.5: three of the four seconds of
    b, inside it: found, 1 at 50. 0.3: a second false alarm, 1 at 100. 0: one detection over each
    clip, nothing found. The area is 0.5 x 50 + 1 x 50 of 100: 0.75. Cat: five of six seconds at no
    false alarm: 1. On 0-50 the classes have 0.5 and 1, mean 0.75 and deviation 0.25, then both 1.
    """
    score = psds(two_clips, ["dog", "cat"])
    assert score.single_class == pytest.approx({"dog": 0.75, "cat": 1.0})
    assert score.psds() == pytest.approx((0.75 * 50 + 50) / 100)
    assert score.psds(alpha_st=1.0) == pytest.approx((0.5 * 50 + 50) / 100)
    efpr, tpr = score.curves["dog"]
    assert efpr.tolist() == [0, 50, 100] and tpr.tolist() == [0.5, 1, 1]
    assert (score.num_clips, score.num_events, score.total_duration) == (
        2,
        {"dog": 2, "cat": 1},
        72.0,
    )


def test_classes_and_clips_that_do_not_count(two_clips):
    silent = clip("c", 36.0, [], [("dog", 0, 3, 0.95)])
    assert (
        psds([*two_clips, silent], ["dog", "cat"]).psds() == psds(two_clips, ["dog", "cat"]).psds()
    )
    assert (
        psds([*two_clips, silent], ["dog", "cat"], drop_empty_clips=False).total_duration == 108.0
    )
    assert set(psds(two_clips, ["dog", "cat"], scored_classes=["cat"]).curves) == {"cat"}


def test_the_short_way_without_events_equals_the_long_one():
    """Local maxima and minima count the same false alarms as runs at every threshold, plateaus and
    ties included.
    """
    generator = np.random.default_rng(0)
    clips = []
    for number in range(12):
        scores = median_filter(generator.integers(0, 6, (60, 3)).astype(float), 3)
        events = [(1.0, 9.0, "abc"[number % 3])]
        clips.append(DetectionClip(str(number), 60.0, events, scores, frame_borders(60, 1.0, 60.0)))
    short = psds(clips, list("abc"), PsdsSettings(max_efpr=1e6))
    long = psds(clips, list("abc"), PsdsSettings(max_efpr=1e6, alpha_ct=1e-300, cttc=2.0))
    for label in "abc":
        for ours, theirs in zip(short.curves[label], long.curves[label]):
            assert ours == pytest.approx(theirs, abs=1e-6)


def test_broken_input_raises(two_clips):
    good = two_clips[0]

    def changed(**values):
        return [DetectionClip(**(vars(good) | values))]

    with pytest.raises(ValueError, match="clip a: scores hold NaN"):
        psds(changed(scores=np.full((36, 2), np.nan)), ["dog", "cat"])
    with pytest.raises(ValueError, match="clip a: scores of shape"):
        psds([good], ["dog"], scored_classes=["dog"])
    with pytest.raises(ValueError, match="clip a: no column for bird"):
        psds(changed(events=[(0.0, 1.0, "bird")]), ["dog", "cat"], scored_classes=["bird"])
    with pytest.raises(ValueError, match="clip a: 36 frames need 37 rising borders"):
        psds(changed(borders=np.zeros(37)), ["dog", "cat"])
    with pytest.raises(ValueError, match="nothing to score"):
        psds(changed(events=[]), ["dog", "cat"])


def test_frame_borders():
    assert frame_borders(3, 25.0, 0.1).tolist() == [0, 0.04, 0.08, 0.1]
    with pytest.raises(ValueError, match="4 frames at 25.0 Hz do not fit into 0.1 s"):
        frame_borders(4, 25.0, 0.1)
