"""Where a run's numbers go: one JSON line, TensorBoard and, if asked, Weights & Biases, all with
the same values.
"""

import json
import sys
from types import SimpleNamespace

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from captionstew.training.log import ScalarLog, read_scalars


class Client:
    """What ScalarLog uses of the wandb package."""

    def __init__(self):
        self.settings, self.logged, self.finished = None, [], False

    def init(self, **settings):
        self.settings = settings
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


def test_the_same_numbers_everywhere(tmp_path, monkeypatch):
    client = Client()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=client.init))
    log = ScalarLog(tmp_path, enabled=True, tensorboard=True, wandb=True, config={"seed": 1})
    log.write("train", 20, 1, {"loss": 2.5})
    log.write_samples(20, [("clip", "a dog barks", "a cat")])
    log.close()
    (record,) = read_scalars(tmp_path)
    assert (record["kind"], record["step"], record["epoch"], record["loss"]) == (
        "train",
        20,
        1,
        2.5,
    )
    assert client.settings["config"] == {"seed": 1} and client.settings["name"] == tmp_path.name
    assert client.logged == [(20, {"train/loss": 2.5})] and client.finished
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(20, 2.5)]
    sample = json.loads((tmp_path / "samples.jsonl").read_text())
    assert sample == {"step": 20, "cut_id": "clip", "caption": "a dog barks", "hypothesis": "a cat"}


def test_half_a_line_of_a_killed_run_does_not_spoil_the_next(tmp_path):
    (tmp_path / "scalars.jsonl").write_text(
        '{"kind": "train", "step": 1, "epoch": 1}\n{"kind": "tra'
    )
    log = ScalarLog(tmp_path, enabled=True, tensorboard=False, wandb=False, config={})
    log.write("train", 2, 1, {"loss": 1.0})
    log.close()
    assert [record["step"] for record in read_scalars(tmp_path)] == [1, 2]


def test_other_ranks_write_nothing(tmp_path):
    log = ScalarLog(tmp_path, enabled=False, tensorboard=True, wandb=True, config={})
    log.write("train", 1, 1, {"loss": 1.0})
    log.write_samples(1, [("clip", "a", "b")])
    log.close()
    assert list(tmp_path.iterdir()) == []
