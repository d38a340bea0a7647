"""Result files."""

import json
import os

import pytest

from captionstew.evaluation.results import read_results
from captionstew.hashing import hash_of

FIELDS = [
    "task",
    "split",
    "system",
    "encoder",
    "metrics",
    "num_clips",
    "num_captions",
    "trained_clips",
    "settings",
    "trained_parameters",
    "frozen_parameters",
    "checkpoint",
    "config_hash",
    "command",
    "git_sha",
    "created",
]
ENCODER = {"path": "a.pt", "sha256": "12", "preset": "mini", "pretraining": "contrastive"}


def test_a_result_file_holds_every_field(result, tmp_path, capsys):
    path = result(
        tmp_path,
        variant="large",
        settings={"metric": "accuracy", "pooling": "mean"},
        num_captions=7,
    )
    assert path == tmp_path / "results" / "probe_esc10-test-large.json"
    content = json.loads(path.read_text())
    assert list(content) == FIELDS
    assert (
        content["encoder"] == ENCODER
        and content["num_captions"] == 7
        and content["metrics"]["accuracy"] == 0.75
    )
    assert (
        content["config_hash"]
        == hash_of({"pooling": "mean", "metric": "accuracy"})
        != hash_of({"pooling": "max"})
    )
    assert f"wrote {path}" in capsys.readouterr().out
    assert result(tmp_path).name == "probe_esc10-test.json"


def test_a_failed_write_leaves_the_old_file(result, tmp_path, monkeypatch):
    path = result(tmp_path)
    before = path.read_bytes()
    with pytest.raises(ValueError):
        result(tmp_path, metrics={"accuracy": float("nan")})

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        result(tmp_path, num_clips=1)
    assert path.read_bytes() == before
    assert len(read_results(tmp_path)) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"task": "x"}',
        b"[1]",
        b"\xff\xfe",
        b'{"task": "retrieval", "system": "a", "metrics": {}}',
    ],
)
def test_an_unreadable_result_file_is_named(result, tmp_path, content):
    result(tmp_path)
    broken = tmp_path / "deep" / "results" / "broken.json"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.json: not a result file .* remove it"):
        read_results(tmp_path)
