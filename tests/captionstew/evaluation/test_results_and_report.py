"""Result files and the report that is built from them alone."""

import json
import os

import pytest

from captionstew.evaluation.report import main, write_report
from captionstew.evaluation.results import read_results, write_result
from captionstew.hashing import hash_of

FIELDS = [
    "task",
    "split",
    "system",
    "encoder",
    "metrics",
    "num_clips",
    "num_captions",
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


def result(folder, **changes):
    values = {
        "task": "probe_esc10",
        "split": "test",
        "system": "ours",
        "encoder": ENCODER,
        "metrics": {"accuracy": 0.75, "accuracy_deviation": 0.01, "accuracy_interval": (0.7, 0.8)},
        "num_clips": 100,
        "settings": {"metric": "accuracy"},
    }
    return write_result(folder, **(values | changes))


def retrieval_metrics(value):
    metrics = {}
    for direction in ("text_to_audio", "audio_to_text"):
        for k in (1, 5, 10):
            metrics |= {f"{direction}_r{k}": value, f"{direction}_r{k}_interval": (value - 0.1, value + 0.1)}
        metrics[f"{direction}_r10_chance"] = value / 5
    return metrics


def retrieval(folder, **changes):
    values = {
        "task": "retrieval",
        "metrics": retrieval_metrics(0.5),
        "settings": {"duplicate_captions": "match"},
        "variant": "match",
    }
    return result(folder, **(values | changes))


def test_a_result_file_holds_every_field(tmp_path, capsys):
    path = result(tmp_path, variant="large", settings={"metric": "accuracy", "pooling": "mean"}, num_captions=7)
    assert path == tmp_path / "results" / "probe_esc10-test-large.json"
    content = json.loads(path.read_text())
    assert list(content) == FIELDS
    assert content["encoder"] == ENCODER and content["num_captions"] == 7 and content["metrics"]["accuracy"] == 0.75
    assert content["config_hash"] == hash_of({"pooling": "mean", "metric": "accuracy"}) != hash_of({"pooling": "max"})
    assert f"wrote {path}" in capsys.readouterr().out
    assert result(tmp_path).name == "probe_esc10-test.json"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
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
    "content", [b"{", b'{"task": "x"}', b"[1]", b"\xff\xfe", b'{"task": "retrieval", "system": "a", "metrics": {}}']
)
def test_an_unreadable_result_file_is_named(tmp_path, content):
    result(tmp_path)
    broken = tmp_path / "deep" / "results" / "broken.json"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.json: not a result file .* remove it"):
        read_results(tmp_path)


def test_report_without_results(tmp_path):
    with pytest.raises(ValueError, match="run an evaluation first"):
        write_report(tmp_path)


def test_report_from_result_files(tmp_path, monkeypatch, capsys):
    retrieval(tmp_path / "contrastive", system="pre|trained")
    result(tmp_path / "probe" / "ours")
    result(tmp_path / "probe" / "ours", task="probe_average")
    result(tmp_path / "probe" / "floor", system="logmel", task="probe_average")
    zero_shot = {"accuracy": 0.4, "accuracy_interval": (0.3, 0.5), "majority_class_share": 0.1, "num_classes": 10}
    result(tmp_path / "contrastive", task="zero_shot", metrics=zero_shot, settings={"subset": "esc10"})
    monkeypatch.setattr("sys.argv", ["report", "--exp-dir", str(tmp_path)])
    main()
    text = (tmp_path / "report" / "report.md").read_text()
    assert text in capsys.readouterr().out
    row = "| pre\\|trained | test | match | text-to-audio | 0.500 [0.400, 0.600] | 0.500 [0.400, 0.600] |"
    assert row in text and "| 0.100 | 5.0 | 100 |" in text
    assert "| encoder | esc10 | average |" in text
    assert "| ours | 0.750 ± 0.010 [0.700, 0.800] | 0.750 ± 0.010 [0.700, 0.800] |" in text
    assert "| logmel | missing | 0.750" in text
    assert "| ours | esc10 | 0.400 [0.300, 0.500] | 0.100 | 10 | 100 |" in text
    assert not (tmp_path / "report" / "curves.png").exists()


def test_report_draws_the_curves_of_a_run(tmp_path):
    run = tmp_path / "contrastive"
    retrieval(run)
    records = [{"kind": "train", "step": step, "epoch": 1, "loss": 3.0 / step} for step in range(1, 9)]
    records += [{"kind": "valid", "step": 8, "epoch": 1, "text_to_audio_r10": 0.2, "audio_to_text_r10": 0.3}]
    lines = "".join(json.dumps(record) + "\n" for record in records) + '{"kind": "tr'  # killed while writing
    (run / "scalars.jsonl").write_text(lines)
    assert "![Losses and validation recall](curves.png)" in write_report(tmp_path).read_text()
    picture = (tmp_path / "report" / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000
