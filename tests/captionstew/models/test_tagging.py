"""The tagger: icefall's keys and head, the loss, its checkpoints, and its scores."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

import captionstew
from captionstew.checkpoint import CheckpointError, save_checkpoint
from captionstew.evaluation.probing.head_metrics import map_interval
from captionstew.evaluation.tagging import (
    TaggedClips,
    tag_clips,
    tagging_metrics,
    tagging_report,
    write_class_table,
)
from captionstew.models.tagging import build_tagger, load_tagger, read_tagger, tagging_loss
from zipformer import ZipformerConfig
from zipformer.config import PRESETS

CLASSES = ["bark", "meow", "rain"]


@pytest.fixture
def config(tiny_config):
    """What a checkpoint's config says of a tiny tagger."""
    return {
        "task": "tagging",
        "preset": "tiny",
        "encoder": tiny_config.to_dict(),
        "classes": CLASSES,
        "label_field": "labels",
        "fbank": {},
    }


@pytest.fixture
def tagger(config):
    torch.manual_seed(0)
    return build_tagger(config).eval()


@pytest.mark.slow
def test_icefalls_key_list_loads_strictly(golden_dir):
    """The public medium tagger: every key with its shape, the 527-way head included, and nothing
    besides.
    """
    shapes = json.loads((golden_dir("zipformer_golden") / "keys.icefall_medium.json").read_text())
    model = build_tagger(
        {"encoder": ZipformerConfig.preset("medium").to_dict(), "classes": ["c"] * 527}
    )
    state = {name: torch.full(shape, 0.01) for name, shape in shapes.items()}
    model.load_state_dict(state, strict=True)
    assert len(state) == 733 and model.classifier[1].weight.shape == (527, 512)
    assert all((value == 0.01).all() for value in model.state_dict().values())


def test_loss_is_the_sum_of_binary_cross_entropies():
    logits, targets = torch.randn(4, 3, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)
    expected = 0.0
    for x, y in zip(logits.flatten().tolist(), targets.flatten().tolist()):
        p = 1 / (1 + math.exp(-x))
        expected -= y * math.log(p) + (1 - y) * math.log(1 - p)
    assert tagging_loss(logits, targets.float()).item() == pytest.approx(expected, rel=1e-5)
    split = tagging_loss(logits[:1], targets[:1].float()) + tagging_loss(
        logits[1:], targets[1:].float()
    )
    assert tagging_loss(logits, targets.float()).item() == pytest.approx(split.item(), rel=1e-6)


def test_logits_are_the_mean_over_a_clips_own_frames(tagger, make_batch):
    batch = make_batch(0, 3)
    features, lengths = batch["features"], batch["feature_lengths"]
    with torch.inference_mode():
        logits = tagger(features, lengths)
        frames, counts = tagger.encode(features, lengths)
        for row in range(3):
            mean = tagger.classifier[1](frames[row, : counts[row]]).mean(0)
            torch.testing.assert_close(logits[row], mean)


def test_a_loaded_tagger_ignores_padding(tagger, config, make_batch, tmp_path):
    loaded = load_tagger(config, tagger.state_dict(), tmp_path)
    batch = make_batch(0, 3)
    features, lengths = batch["features"], batch["feature_lengths"]
    with torch.inference_mode():
        together = loaded(features, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = loaded(features[row : row + 1, :length], lengths[row : row + 1])
            torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


def test_our_checkpoint_serves_as_tagger_and_as_encoder(tagger, config, tmp_path):
    path = tmp_path / "tagger.pt"
    save_checkpoint(path, {"model": tagger.state_dict(), "config": config})
    found, weights = read_tagger(path, None)
    assert found == config and weights.keys() == tagger.state_dict().keys()
    encoder = captionstew.load_encoder(path)
    assert encoder.dim == 32 and encoder.description["pretraining"] == "tagging"
    samples = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert np.isfinite(encoder.embed(samples, sampling_rate=16000)).all()


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "module."])
def test_icefalls_checkpoint_is_a_tagger(monkeypatch, tagger, config, tmp_path, prefix):
    """Weights alone under `model`: sizes are read off their shapes, the classes come from a
    list.
    """
    sizes = {
        name: value for name, value in config["encoder"].items() if name not in ("batch_invariant",)
    }
    monkeypatch.setitem(PRESETS, "tiny", sizes)
    path = tmp_path / "pretrained.pt"
    torch.save(
        {"model": {prefix + name: value for name, value in tagger.state_dict().items()}}, path
    )
    found, weights = read_tagger(path, CLASSES)
    loaded = load_tagger(found, weights, path)
    assert found["classes"] == CLASSES and found["label_field"] == "labels"
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, tagger.state_dict()[name]), name
    with pytest.raises(
        CheckpointError, match="tagger of 3 classes that it does not name, no class list"
    ):
        read_tagger(path, None)
    with pytest.raises(CheckpointError, match="the class list has 2"):
        read_tagger(path, CLASSES[:2])


def test_other_checkpoints_are_no_taggers(tiny_model, tiny_task_config, tmp_path):
    path = tmp_path / "contrastive.pt"
    save_checkpoint(path, {"model": tiny_model.state_dict(), "config": tiny_task_config})
    with pytest.raises(CheckpointError, match="a checkpoint of 'contrastive', not of tagging"):
        read_tagger(path, CLASSES)
    torch.save(
        {"model": {f"encoder.{name}": value for name, value in tiny_model.state_dict().items()}},
        path,
    )
    with pytest.raises(CheckpointError, match="no tagging head"):
        read_tagger(path, CLASSES)


def test_scores_do_not_depend_on_the_batches(tagger, make_batch):
    tagger.batch_invariant = True
    batches = []
    for first, clips in ((0, 3), (3, 2)):
        batch = make_batch(first, clips)
        batches.append(
            batch | {"custom": [{"labels": [CLASSES[i % 3]]} for i in range(first, first + clips)]}
        )
    found = tag_clips(tagger, batches, CLASSES, "labels", torch.device("cpu"))
    assert found.cut_ids == [f"clip-{i}" for i in range(5)] and found.targets.tolist()[3] == [
        1,
        0,
        0,
    ]
    again = tag_clips(
        tagger, [{"cut_ids": []}, *reversed(batches)], CLASSES, "labels", torch.device("cpu")
    )
    assert again.cut_ids == found.cut_ids and (again.scores == found.scores).all()
    values = tagging_metrics(found)
    loss = tagging_loss(torch.from_numpy(found.scores), torch.from_numpy(found.targets)).item() / 5
    assert values["loss"] == pytest.approx(loss, rel=1e-5)
    with pytest.raises(ValueError, match="no labelled clip"):
        tag_clips(tagger, [{"cut_ids": []}], CLASSES, "labels", torch.device("cpu"))


@pytest.fixture
def scored():
    """300 clips of 6 classes: some classes common, one rare, one absent; some scores tie."""
    generator = np.random.default_rng(0)
    shares = np.array([0.5, 0.3, 0.1, 0.05, 0.01, 0.0])
    targets = (generator.random((300, 6)) < shares).astype(np.float32)
    targets[7, 4] = 1
    scores = np.round(targets + generator.normal(size=(300, 6)), 1).astype(np.float32)
    return TaggedClips(
        [f"class {i}" for i in range(6)], scores, targets, [str(i) for i in range(300)]
    )


def test_report_and_class_table(scored, tmp_path):
    expected = [
        average_precision_score(scored.targets[:, c], scored.scores[:, c]) for c in range(5)
    ]
    report = tagging_report(scored, seed=1, rounds=50)
    assert (
        report["map"] == pytest.approx(np.mean(expected), abs=1e-12) and report["num_classes"] == 5
    )
    low, high = report["map_interval"]
    assert low < report["map"] < high and report == tagging_report(scored, seed=1, rounds=50)
    assert report["map_chance"] == pytest.approx(scored.targets[:, :5].mean())
    write_class_table(tmp_path / "results" / "classes.csv", scored)
    with open(tmp_path / "results" / "classes.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [float(row["average_precision"]) for row in rows[:5]] == pytest.approx(
        expected, abs=1e-6
    )
    assert rows[5] == {"index": "5", "label": "class 5", "positives": "0", "average_precision": ""}


def test_the_interval_is_that_of_a_plain_bootstrap(scored):
    """Weighted precision of counts drawn at once equals scikit-learn's on the clips repeated."""
    low, high = map_interval(scored.scores[None], scored.targets, seed=3, rounds=40)
    drawn = np.random.default_rng(3).multinomial(300, np.full(300, 1 / 300), size=40)
    values = []
    for counts in drawn:
        rows = np.repeat(np.arange(300), counts)
        present = [c for c in range(6) if scored.targets[rows, c].any()]
        values.append(
            np.mean(
                [
                    average_precision_score(scored.targets[rows, c], scored.scores[rows, c])
                    for c in present
                ]
            )
        )
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(values), rel=1e-9)
