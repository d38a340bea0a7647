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


@pytest.mark.parametrize(
    "change, said",
    [
        ({"metrics": {"accuracy": "9\x1b[2J"}}, "metric accuracy is '9\\x1b[2J'"),
        ({"metrics": {"accuracy": [[1]]}}, "metric accuracy is [[1]]"),
        ({"metrics": [1]}, "metrics is [1]"),
        ({"num_clips": "many"}, "num_clips is 'many'"),
        ({"encoder": None}, "encoder is None"),
        ({"settings": "x" * 1000}, "settings is 'xxx"),
        ({"system": {"a": 1}}, "system is {'a': 1}"),
    ],
)
def test_a_result_with_an_odd_value_is_named_and_left_out(result, tmp_path, capsys, change, said):
    good = result(tmp_path)
    odd = good.with_name("odd.json")
    odd.write_text(json.dumps(json.loads(good.read_text()) | change))
    found = read_results(tmp_path)
    assert [one["path"] for one in found] == [str(good)]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{odd}: {said}") and line.endswith("; left out, see to it")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "[" * 50_000 + "]" * 50_000])
def test_numbers_that_are_none_and_nesting_without_end(result, tmp_path, capsys, value):
    good = result(tmp_path)
    text = good.read_text().replace('"num_clips"', f'"metrics": {{"a": {value}}}, "num_clips"')
    good.with_name("odd.json").write_text(text)
    try:
        assert len(read_results(tmp_path)) == 1 and "odd.json" in capsys.readouterr().err
    except ValueError as error:
        assert "odd.json: not a result file" in str(error)
