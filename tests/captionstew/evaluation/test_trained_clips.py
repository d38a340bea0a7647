"""Evaluating on clips that were trained on: counted, refused, allowed, unknown."""

from types import SimpleNamespace

import numpy as np
import pytest

from captionstew.data.manifests.trained_clips import ENTRY, TrainedClips
from captionstew.evaluation.trained_clips import TrainedOn, check_trained_clips, summed
from captionstew.evaluation.weights import SelectedWeights


class Cuts(SimpleNamespace):
    path = "cuts_test.jsonl"

    def __len__(self):
        return len(self.key_hashes)


def cuts(*numbers):
    hashes = np.array(numbers, dtype=np.uint64)
    return Cuts(key_hashes=hashes, fingerprint_hashes=hashes + np.uint64(100))


@pytest.fixture
def memory():
    return TrainedClips.of(cuts(1, 2, 3))


def test_other_clips_are_evaluated(memory, capsys):
    assert check_trained_clips(cuts(7, 8), memory, False, "a.pt")["trained"] == 0
    assert "a.pt was trained on 0 of 2 clips" in capsys.readouterr().out


def test_clips_that_were_trained_on_stop_unless_allowed(memory, capsys):
    with pytest.raises(TrainedOn, match=r"on 2 of 3 clips \(2 by name, 2 by audio\); --allow-trai"):
        check_trained_clips(cuts(3, 2, 7), memory, False, "a.pt")
    assert check_trained_clips(cuts(3, 2, 7), memory, True, "a.pt")["by_key"] == 2
    assert "on 2 of 3 clips (2 by name, 2 by audio)\n" in capsys.readouterr().out


def test_what_is_not_known_is_never_zero(memory, capsys):
    assert check_trained_clips(cuts(1), None, False, "wav2vec2") is None
    assert "unknown how many of 1 clips wav2vec2 was trained on" in capsys.readouterr().out
    partly = check_trained_clips(cuts(8), memory.joined(None), False, "a.pt")
    assert partly["trained"] == 0 and not partly["complete"]
    assert "and on other clips that are not known" in capsys.readouterr().out


def test_the_memory_lies_beside_the_weights(memory, tmp_path):
    config = {"task": "contrastive", ENTRY: memory.write(tmp_path)}
    selected = SelectedWeights({}, config, tmp_path / "a.pt", "file")
    assert selected.count_trained(cuts(1, 9), allow=True)["trained"] == 1
    moved = SelectedWeights({}, config, tmp_path / "elsewhere" / "a.pt", "file")
    assert moved.count_trained(cuts(1, 9), allow=False) is None


def test_counts_of_several_evaluations(memory):
    first, second = (memory.count(some) for some in (cuts(1, 8), cuts(2, 3, 9)))
    assert summed([first, second]) == {
        "trained": 3, "by_key": 3, "by_audio": 3, "clips": 5, "complete": True,
    }  # fmt: skip
    assert summed([first, None]) is None and summed([]) is None
    assert summed([first, second | {"by_audio": None, "complete": False}]) == {
        "trained": 3, "by_key": 3, "by_audio": None, "clips": 5, "complete": False,
    }  # fmt: skip
