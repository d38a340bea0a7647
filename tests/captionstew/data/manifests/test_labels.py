"""Labels of cuts, class lists, and epochs drawn by the inverse frequency of classes."""

import gzip
import json
from collections import Counter

import numpy as np
import pytest
import torch

from captionstew.data.audio import AudioInfo
from captionstew.data.batches.sampling import EpochBatches, ResumeMismatch
from captionstew.data.batches.weighted import WeightedDraw, inverse_frequency_weights
from captionstew.data.manifests.cuts import make_cut, open_cuts, write_cuts
from captionstew.data.manifests.labels import (
    LabelError,
    clip_labels,
    multi_hot,
    read_class_list,
    read_labels,
)

LABELS = [["dog"], ["dog", "rain"], [], ["dog"], ["cat"], ["dog", "cat"]]


@pytest.fixture
def make_cuts(tmp_path):
    """make_cuts([{"labels": [...]}, ...]) -> manifest of clips of 1, 2, 3 s in turn with these
    labels.
    """

    def make(rows):
        info = (AudioInfo(1.0 + i % 3, 16000, 1, 16000 * (1 + i % 3), "") for i in range(len(rows)))
        cuts = (
            make_cut(f"k:{i}", f"/{i}.wav", next(info), ["a"], ["s"], row)
            for i, row in enumerate(rows)
        )
        write_cuts(tmp_path / "cuts.jsonl", cuts)
        return open_cuts(tmp_path / "cuts.jsonl")

    return make


def test_labels_of_a_clip():
    assert clip_labels({"labels": ["b", "a", "b"]}) == ["b", "a"]
    assert clip_labels({"label": "dog"}, "label") == ["dog"]
    assert (
        clip_labels({})
        == clip_labels({"labels": None})
        == clip_labels({"label": ""}, "label")
        == []
    )


def test_label_table(make_cuts):
    table = read_labels(make_cuts([{"labels": names} for names in LABELS]))
    assert table.classes == ["cat", "dog", "rain"]
    assert table.per_clip.tolist() == [len(names) for names in LABELS]
    assert table.class_counts.tolist() == [2, 4, 1]
    found = [
        [table.classes[i] for i in table.indices[a:b]]
        for a, b in zip(table.starts, table.starts[1:])
    ]
    assert found == LABELS
    some = table.select(np.array([1, 4]))
    assert some.starts.tolist() == [0, 2, 3] and [table.classes[i] for i in some.indices] == [
        "dog",
        "rain",
        "cat",
    ]


def test_labels_outside_the_class_list_are_counted(make_cuts):
    table = read_labels(make_cuts([{"labels": names} for names in LABELS]), classes=["rain", "dog"])
    assert table.classes == ["rain", "dog"] and table.unknown == {"cat": 2}
    assert table.class_counts.tolist() == [1, 4] and table.per_clip.tolist() == [1, 2, 0, 1, 0, 1]


def test_custom_is_that_of_the_cut(make_cuts):
    cuts = make_cuts([{"labels": names} for names in LABELS]).select([4, 1])
    assert [cuts.custom(i)["labels"] for i in range(2)] == [["cat"], ["dog", "rain"]]
    assert cuts.custom(0) == cuts[0].supervisions[0].custom


def test_multi_hot():
    targets = multi_hot([["b"], [], ["a", "b", "unheard of"]], {"a": 0, "b": 1})
    assert targets.dtype == torch.float32 and targets.tolist() == [[0, 1], [0, 0], [1, 1]]


def test_class_lists(shared_dir, tmp_path):
    names = read_class_list(shared_dir / "metadata" / "audioset" / "class_labels_indices.csv")
    assert len(names) == 527 and names[:2] == ["Speech", "Male speech, man speaking"]
    (tmp_path / "classes.json").write_text(json.dumps(names))
    assert read_class_list(tmp_path / "classes.json") == names


def test_a_zipped_class_list(tmp_path):
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("index,mid,display_name\n0,/m/a,A\n1,/m/b,B\n")
    assert read_class_list(tmp_path / "a.csv.gz") == ["A", "B"]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", "index,mid,display_name\n0,/m/a,A\n2,/m/b,B\n", "every index from 0 to 1"),
        ("a.csv", "index,label\n0,A\n1,A\n", "every name must occur once"),
        ("a.csv", "index,mid\n0,/m/a\n", "index and display_name"),
        ("a.csv", "mid,display_name\n/m/a,A\n", "'index' is missing"),
        ("a.json", '["A", "A"]', "different names"),
        ("a.json", "{}", "different names"),
    ],
)
def test_broken_class_lists(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(LabelError, match=message):
        read_class_list(tmp_path / name)


def test_weights_are_inverse_frequencies(make_cuts):
    weights = inverse_frequency_weights(
        read_labels(make_cuts([{"labels": names} for names in LABELS]))
    )
    assert weights == pytest.approx([1 / 4, 1 / 4 + 1, 0, 1 / 4, 1 / 2, 1 / 4 + 1 / 2])
    assert weights.sum() == pytest.approx(3)  # one per class


def test_a_draw_has_every_clip_as_often_as_its_weight_says():
    weights = np.array([1.0, 2.0, 0.0, 0.3, 5.0])
    draw = WeightedDraw(weights, 100)
    expected = 100 * weights / weights.sum()
    counts = np.zeros(5)
    for seed in range(200):
        drawn = np.bincount(draw.positions(np.random.default_rng(seed)), minlength=5)
        assert drawn.sum() == 100 and (np.abs(drawn - expected) < 1).all()
        counts += drawn / 200
    assert counts == pytest.approx(expected, abs=0.15)
    once = WeightedDraw(np.full(7, 0.1), 7).positions(np.random.default_rng(0))
    assert sorted(once) == list(range(7)) and once.tolist() != list(range(7))


@pytest.mark.parametrize(
    "weights, size", [([0.0, 0.0], 3), ([1.0, -1.0], 3), ([1.0, np.nan], 3), ([1.0], 0)]
)
def test_impossible_draws(weights, size):
    with pytest.raises(ValueError):
        WeightedDraw(np.array(weights), size)


@pytest.fixture
def labelled(make_cuts):
    """500 clips: class 0 has nine tenths of them, classes 1 to 4 share the rest."""
    rows = [{"labels": [str(0 if i % 10 else 1 + i // 10 % 4)]} for i in range(500)]
    cuts = make_cuts(rows)
    return cuts, inverse_frequency_weights(read_labels(cuts))


def positions(cuts, draw, epoch=1, rank=0, world_size=1):
    batches = EpochBatches(
        cuts,
        20.0,
        num_buckets=3,
        seed=1,
        rank=rank,
        world_size=world_size,
        draw=draw,
        segment_size=150,
    )
    batches.set_epoch(epoch)
    return batches, list(batches.positions())


def test_an_epoch_has_every_class_equally_often(labelled):
    cuts, weights = labelled
    batches, found = positions(cuts, WeightedDraw(weights, 400))
    counts = Counter(cuts.custom(position)["labels"][0] for batch in found for position in batch)
    assert batches.num_clips == sum(counts.values()) == 400
    assert all(abs(count - 80) <= 13 for count in counts.values()), (
        counts
    )  # 12.5 clips of each, rounded one by one
    assert found == positions(cuts, WeightedDraw(weights, 400))[1]
    assert found != positions(cuts, WeightedDraw(weights, 400), epoch=2)[1]
    durations = [max(cuts.durations[batch]) * len(batch) for batch in found]
    assert max(durations) <= 20.0 and len(found) < 1.3 * batches.expected_batches


def test_ranks_share_out_one_draw(labelled):
    cuts, weights = labelled
    draw = WeightedDraw(weights, 400)
    ranks = [positions(cuts, draw, rank=rank, world_size=2)[1] for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1])
    together = Counter(position for batches in ranks for batch in batches for position in batch)
    alone = Counter(position for batch in positions(cuts, draw)[1] for position in batch)
    extra = sum((together - alone).values())  # ranks get equally many batches
    assert not alone - together and extra <= 2


def test_a_weighted_epoch_resumes_where_it_was(labelled):
    cuts, weights = labelled
    draw = WeightedDraw(weights, 400)
    _, whole = positions(cuts, draw, epoch=3)
    for consumed in (1, len(whole) // 2, len(whole) - 1):
        first = EpochBatches(cuts, 20.0, num_buckets=3, seed=1, draw=draw, segment_size=150)
        first.set_epoch(3)
        iterator = first.positions()
        for _ in range(min(consumed + 3, len(whole))):  # a loader runs ahead
            next(iterator)
        state = json.loads(json.dumps(first.state_dict(consumed)))
        again = EpochBatches(cuts, 20.0, num_buckets=3, seed=1, draw=draw, segment_size=150)
        again.load_state_dict(state)
        again.set_epoch(3)
        assert list(again.positions()) == whole[consumed:]
    for other in (None, WeightedDraw(weights, 401), WeightedDraw(weights + 0.1, 400)):
        with pytest.raises(ResumeMismatch, match="draw"):
            EpochBatches(
                cuts, 20.0, num_buckets=3, seed=1, draw=other, segment_size=150
            ).load_state_dict(state)


def test_a_draw_needs_a_weight_per_cut(labelled):
    cuts, weights = labelled
    with pytest.raises(ValueError, match="a weight for each of 500 cuts"):
        EpochBatches(cuts, 20.0, draw=WeightedDraw(weights[1:], 400))
