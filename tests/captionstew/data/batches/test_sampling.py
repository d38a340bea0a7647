import copy
import json
from collections import Counter

import numpy as np
import pytest

from captionstew.data.audio import AudioInfo
from captionstew.data.batches.sampling import EpochBatches, ResumeMismatch
from captionstew.data.manifests.cuts import make_cut, open_cuts, write_cuts


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    """1,000 cuts of 0.05 to 12 s, without audio."""
    rng = np.random.default_rng(0)
    durations = np.round(rng.uniform(0.05, 12.0, 1000), 3)
    path = tmp_path_factory.mktemp("sampling") / "cuts.jsonl"
    rows = (
        make_cut(f"k{i}", f"/{i}.wav", AudioInfo(d, 16000, 1, round(d * 16000), ""), ["a"], ["s"])
        for i, d in enumerate(durations.tolist())
    )
    write_cuts(path, rows)
    return open_cuts(path)


def ids(batches):
    return [[cut.id for cut in batch] for batch in batches]


SETTINGS = {"max_duration": 60.0, "num_buckets": 10, "seed": 3, "segment_size": 300}


def sampler(cuts, epoch=0, **changes):
    batches = EpochBatches(cuts, **(SETTINGS | changes))
    batches.set_epoch(epoch)
    return batches


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("segment_size", [300, 100_000])
@pytest.mark.parametrize("num_buckets", [1, 10, 300])
def test_every_cut_once_within_the_limit(cuts, shuffle, segment_size, num_buckets):
    seen = Counter()
    for batch in sampler(cuts, shuffle=shuffle, segment_size=segment_size, num_buckets=num_buckets):
        durations = [max(cut.duration, 0.25) for cut in batch]
        assert len(durations) * max(durations) <= 60.0
        seen.update(cut.id for cut in batch)
    assert len(seen) == 1000 and set(seen.values()) == {1}


def test_bucketing_wastes_little(cuts):
    batches = [
        [max(cut.duration, 0.25) for cut in batch] for batch in sampler(cuts, segment_size=100_000)
    ]
    padded = sum(len(batch) * max(batch) for batch in batches)
    assert sum(map(sum, batches)) / padded > 0.85
    assert len(batches) < 1.25 * sampler(cuts).expected_batches


def test_epochs_and_seeds_differ_and_repeat(cuts):
    first = ids(sampler(cuts, epoch=1))
    assert first == ids(sampler(cuts, epoch=1))
    assert first != ids(sampler(cuts, epoch=2)) and first != ids(sampler(cuts, epoch=1, seed=4))
    together = sampler(cuts)
    together.set_epoch(1)
    assert ids(together) == first and ids(together) == first


def test_positions_are_the_batches_and_read_nothing(cuts, monkeypatch):
    expected = ids(sampler(cuts, epoch=1))
    monkeypatch.setattr(type(cuts), "__getitem__", None)
    batches = list(sampler(cuts, epoch=1).positions())
    monkeypatch.undo()
    assert [[cuts[position].id for position in batch] for batch in batches] == expected
    assert json.loads(json.dumps(batches)) == batches


def test_clips_meet_others_in_every_epoch(cuts):
    """Batches are drawn from the whole corpus at random, within a bucket."""
    partners = [{} for _ in range(2)]
    for epoch, meets in enumerate(partners):
        for batch in sampler(cuts, epoch=epoch, segment_size=100_000).positions():
            meets |= {position: set(batch) - {position} for position in batch}
    again = [
        len(partners[0][cut] & partners[1][cut]) / len(partners[0][cut])
        for cut in range(1000)
        if partners[0][cut]
    ]
    assert np.mean(again) < 0.3  # about one in ten batches of a bucket of 100 cuts, if random


def test_without_shuffling_epochs_are_equal(cuts):
    assert ids(sampler(cuts, epoch=1, shuffle=False)) == ids(sampler(cuts, epoch=2, shuffle=False))


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_share_an_epoch_and_stay_in_step(cuts, world_size, drop_last):
    ranks = [
        ids(sampler(cuts, rank=rank, world_size=world_size, drop_last=drop_last))
        for rank in range(world_size)
    ]
    assert len({len(rank) for rank in ranks}) == 1
    seen = Counter(cut for rank in ranks for batch in rank for cut in batch)
    assert all(batch for rank in ranks for batch in rank)
    if drop_last:
        assert 800 < len(seen) <= 1000 and set(seen.values()) == {1}
    else:
        assert len(seen) == 1000 and sum(seen.values()) <= 1000 + 4 * world_size


@pytest.mark.parametrize("world_size", [2, 5, 8, 16])
@pytest.mark.parametrize("num_clips", [30, 300, 1000])
def test_the_last_step_of_a_segment_keeps_the_limit_too(cuts, world_size, num_clips):
    """Of batches of very different durations, fewer than there are ranks."""
    part = cuts.select(range(num_clips))
    ranks = [list(sampler(part, rank=rank, world_size=world_size)) for rank in range(world_size)]
    for batch in (batch for rank in ranks for batch in rank):
        assert len(batch) * max(max(cut.duration, 0.25) for cut in batch) <= 60.0
    last = [[cut.id for cut in rank[-1]] for rank in ranks]
    twice = [
        name for name, count in Counter(cut for batch in last for cut in batch).items() if count > 1
    ]
    assert not twice or max(map(len, last)) == 1  # only when there are no clips left to share


def test_fewer_cuts_than_ranks(cuts):
    few = cuts.select([1, 2])
    ranks = [ids(EpochBatches(few, 60.0, rank=rank, world_size=5)) for rank in range(5)]
    assert [len(rank) for rank in ranks] == [1] * 5
    assert {cut for rank in ranks for cut in rank[0]} == {few[0].id, few[1].id}


@pytest.mark.parametrize("world_size", [1, 2])
def test_resume_continues_exactly_from_every_place(cuts, world_size):
    options = {"world_size": world_size, "rank": world_size - 1, "segment_size": 60}
    cuts = cuts.select(range(240))
    whole = sampler(cuts, epoch=5, **options)
    expected = ids(whole)
    assert whole.num_segments == 4
    for consumed in range(len(expected) + 1):
        state = json.loads(json.dumps(whole.state_dict(consumed)))
        resumed = sampler(cuts, **options)
        resumed.load_state_dict(state)
        resumed.set_epoch(5)
        assert ids(resumed) == expected[consumed:]


def test_resume_twice_and_count_on(cuts):
    expected = ids(sampler(cuts, epoch=2))
    state = None
    got = []
    for stop in (7, 31, 60, 10**9):  # killed three times
        part = sampler(cuts, epoch=2)
        if state:
            part.load_state_dict(state)
        consumed = state["consumed"] if state else 0
        for batch in part:
            if consumed == stop:
                break
            got.append([cut.id for cut in batch])
            consumed += 1
        state = part.state_dict(consumed)
    assert got == expected


def test_state_is_asked_for_while_workers_run_ahead(cuts):
    whole = sampler(cuts)
    expected = ids(whole)
    ahead = sampler(cuts)
    iterator = iter(ahead)
    for _ in range(40):
        next(iterator)
    resumed = sampler(cuts)
    resumed.load_state_dict(ahead.state_dict(12))
    assert ids(resumed) == expected[12:]


def test_next_epoch_after_a_resume_starts_at_its_beginning(cuts):
    resumed = sampler(cuts)
    resumed.load_state_dict(sampler(cuts).state_dict(3))
    resumed.set_epoch(1)
    assert ids(resumed) == ids(sampler(cuts, epoch=1))


def test_resuming_replays_only_the_current_segment(cuts, monkeypatch):
    whole = sampler(cuts)
    expected = ids(whole)
    state = whole.state_dict(len(expected) - 1)
    walked = []
    resumed = sampler(cuts)
    positions = resumed._positions
    monkeypatch.setattr(
        resumed, "_positions", lambda segment: walked.append(segment) or positions(segment)
    )
    resumed.load_state_dict(state)
    reads = []
    monkeypatch.setattr(type(cuts), "__getitem__", lambda self, index: reads.append(index))
    assert len(list(resumed)) == 1
    assert walked == [3] and len(reads) == len(expected[-1])


def test_loading_leaves_the_state_alone(cuts):
    state = sampler(cuts).state_dict(0)
    before = copy.deepcopy(state)
    sampler(cuts).load_state_dict(state)
    assert state == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_duration": 50.0}, "max_duration 60.0 -> 50.0"),
        ({"num_buckets": 11}, "num_buckets 10 -> 11"),
        ({"seed": 4, "shuffle": False}, "seed 3 -> 4; shuffle True -> False"),
        ({"world_size": 2}, "world_size 1 -> 2"),
        ({"segment_size": 1000}, "segment_size 300 -> 1000"),
    ],
)
def test_changed_settings_are_named(cuts, changes, words):
    with pytest.raises(ResumeMismatch, match=words):
        sampler(cuts, **changes).load_state_dict(sampler(cuts).state_dict(3))


def test_changed_manifest_is_named(cuts):
    with pytest.raises(ResumeMismatch, match="manifest '"):
        sampler(cuts.select(range(999))).load_state_dict(sampler(cuts).state_dict(3))


def test_impossible_settings_are_refused(cuts):
    with pytest.raises(ValueError, match=r"longest clip has 11\.99 s, raise --max-duration"):
        EpochBatches(cuts, 5.0)
    with pytest.raises(ValueError, match="no cuts"):
        EpochBatches(cuts.select([]), 60.0)
    with pytest.raises(ValueError, match="rank=2"):
        EpochBatches(cuts, 60.0, rank=2, world_size=2)


def test_max_cuts_limits_batches(cuts):
    batches = ids(sampler(cuts, max_cuts=4))
    assert max(map(len, batches)) == 4 and sum(map(len, batches)) == 1000


def test_small_corpora_get_fewer_buckets(cuts):
    assert EpochBatches(cuts, 600.0, num_buckets=30).num_buckets <= 6
    assert EpochBatches(cuts, 60.0, num_buckets=30).num_buckets > 20
    assert EpochBatches(cuts.select([0]), 60.0).num_buckets == 1


def test_heaviest_batches(cuts):
    batches = sampler(cuts)
    before = list(batches.positions())
    found = batches.heaviest()
    durations = np.maximum(cuts.durations, 0.25)
    assert sorted(durations[found["longest clips"]]) == sorted(durations)[-5:]
    of_segment = before[: before.index(found["most clips"]) + 1]
    assert len(found["most clips"]) >= max(map(len, of_segment))
    assert found["most audio"] in before
    assert list(batches.positions()) == before
