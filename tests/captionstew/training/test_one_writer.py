"""One training per folder."""

import os

import pytest

from captionstew.distributed import Rank
from captionstew.locks import InUse, one_writer
from captionstew.training.flags import TrainingFlags
from captionstew.training.launch import launch_training


def test_a_second_training_of_the_folder_ends_with_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    flags, began = TrainingFlags(exp_dir=tmp_path / "exp", device="cpu"), []

    def run(rank: Rank, flags: TrainingFlags) -> None:
        began.append(rank.rank)
        with pytest.raises(InUse, match=rf"exp: in use by process {os.getpid()} on"):
            launch_training(run, flags)

    launch_training(run, flags)
    assert began == [0]
    with one_writer(flags.exp_dir):  # and it is free afterwards
        pass
    assert not list(flags.exp_dir.glob(".*"))
