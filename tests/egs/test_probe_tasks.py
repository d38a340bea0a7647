"""The seven tasks on miniature releases with both poolings and many encoders; broken clips, caches,
stale probes.
"""

import importlib
import importlib.util
import json
import shutil
import sys

import numpy as np
import pytest
import torch

from captionstew.checkpoint import CheckpointError, save_checkpoint
from captionstew.corpora.labelled import run_labelled
from captionstew.data.manifests.cuts import open_cuts
from captionstew.evaluation.trained_clips import TrainedOn
from captionstew.models.encoders.load import load_encoder
from captionstew.models.encoders.stored import save_embeddings
from zipformer import Zipformer, ZipformerConfig

METRICS = {
    "fsd50k": "map", "vggsound": "accuracy", "voxceleb2": "accuracy", "cremad": "accuracy",
    "magnatagatune": "map", "nsynth": "accuracy", "audioset_strong": "psds1",
}  # fmt: skip
ENCODERS = ("logmel", "zipformer", "random", "wav2vec2", "wavlm", "mert", "clap", "beats")
QUICK = ("--num-seeds", 2, "--learning-rates", "0.01", "--max-epochs", 2, "--num-workers", 0)
TINY = {
    "downsampling_factor": (1, 2), "encoder_dim": (16, 32), "num_encoder_layers": 1,
    "encoder_unmasked_dim": (16, 24), "query_head_dim": 8, "value_head_dim": 4, "num_heads": 2,
    "feedforward_dim": (32, 48), "cnn_module_kernel": 7, "pos_dim": 12, "frontend_channels": (2, 4,
    8),
}  # fmt: skip


def load(path):
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def programs(repository):
    folder = repository / "egs" / "eval_probe"
    return {name: load(folder / f"{name}.py") for name in ("train", "train_encoder", "decode")}


@pytest.fixture
def run(programs, monkeypatch, capsys):
    """run("train" or "decode", flag, value, ...) -> what it printed; in this process, which has
    torch imported.
    """

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        programs[name].main()
        shown = capsys.readouterr()
        return shown.out + shown.err

    return run


@pytest.fixture(scope="module")
def data(mini_release, repository, tmp_path_factory):
    """Manifests of the seven miniature releases, one broken clip in each test set; and a table with
    short windows.
    """
    folder = tmp_path_factory.mktemp("probe_data")
    for task in METRICS:
        release = mini_release(task, broken_test_clips=1)
        corpus = importlib.import_module(f"captionstew.corpora.{task}").CORPUS
        output = folder / task
        run_labelled(
            corpus,
            None,
            ["--corpus-dir", str(release), "--output-dir", str(output), "--num-jobs", "1"],
        )
    rows = json.loads((repository / "egs" / "eval_probe" / "tasks.json").read_text())
    (folder / "tasks.json").write_text(json.dumps([row | {"max_seconds": 1.5} for row in rows]))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("encoder") / "pretrained.pt", 0)


def write_checkpoint(path, seed):
    torch.manual_seed(seed)
    config = ZipformerConfig(**TINY)
    content = {"encoder": config.to_dict(), "fbank": {}, "preset": "tiny", "task": "contrastive"}
    weights = {f"encoder.{name}": value for name, value in Zipformer(config).state_dict().items()}
    save_checkpoint(path, {"model": weights, "config": content})
    return path


def results(folder):
    return {path.stem: json.loads(path.read_text()) for path in (folder / "results").glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS)
def test_seven_tasks_with_both_poolings(run, data, checkpoint, small_encoder, tmp_path, kind):
    name = {"logmel": "logmel", "zipformer": checkpoint, "random": f"random:{checkpoint}"}.get(kind)
    common = (
        "--manifest-dir", data, "--task-table", data / "tasks.json", "--encoder",
        name or small_encoder(kind), "--exp-dir", tmp_path / "probe", "--cache-dir",
        tmp_path / "cache", "--cache", "frames", *QUICK,
    )  # fmt: skip
    for pooling, suffix in (("mean", ""), ("attention", "-attention")):
        shown = run("train", *common, "--pooling", pooling)
        encoded = shown.count("will take")
        assert encoded == (14 if pooling == "mean" else 0), (
            "the second pooling reads the first one's frames"
        )
        shown = run("decode", "--exp-dir", tmp_path / "probe", "--system", kind, "--num-workers", 0)
        assert shown.count("1 of ") == 7 and shown.count("count as wrong") == 7
        found = results(tmp_path / "probe")
        for task, metric in METRICS.items():
            result = found[f"probe_{task}-test{suffix if metric != 'psds1' else ''}"]
            low, high = result["metrics"][f"{metric}_interval"]
            assert 0 <= low <= high <= 1 and 0 <= result["metrics"][metric] <= 1
            settings = result["settings"]
            assert settings["pooling"] == ("frames" if metric == "psds1" else pooling)
            assert (
                settings["num_broken"] == 1
                and settings["seeds"] == 2
                and settings["metric"] == metric
            )
            listed = json.loads((data / task / "report.json").read_text())["splits"]["test"][
                "listed"
            ]
            assert result["num_clips"] == listed and result["system"] == kind
            assert settings["num_classes"] == len(
                json.loads((data / task / "classes.json").read_text())
            )
        strong = found["probe_audioset_strong-test"]["settings"]
        assert strong["alpha_st"] == 0.0 and 0 < strong["scored_classes"] <= strong["num_classes"]
        average = found[f"probe_average-test{suffix}"]
        assert average["settings"]["tasks"] == ["cremad", "nsynth", "vggsound", "voxceleb2"]
        trained = [
            found[f"probe_{task}-test{suffix}"]["trained_parameters"]
            for task in average["settings"]["tasks"]
        ]
        assert average["trained_parameters"] == sum(trained) > 0


def train_cremad(run, data, folder, encoder, *flags):
    return run(
        "train", "--tasks", "cremad", "--manifest-dir", data, "--encoder", encoder, "--exp-dir",
        folder / "probe", "--cache-dir", folder / "cache", *QUICK, *flags,
    )  # fmt: skip


@pytest.mark.slow
def test_the_second_run_reads_the_cache_and_a_changed_checkpoint_does_not(run, data, tmp_path):
    path = write_checkpoint(tmp_path / "a.pt", 0)
    assert train_cremad(run, data, tmp_path, path).count("will take") == 2
    assert "will take" not in train_cremad(run, data, tmp_path, path)
    moved = tmp_path / "elsewhere.pt"
    shutil.copy(path, moved)
    assert "will take" not in train_cremad(run, data, tmp_path, moved)
    write_checkpoint(path, 1)
    write_checkpoint(moved, 1)
    with pytest.raises(CheckpointError, match="has changed since its probe was trained"):
        run("decode", "--exp-dir", tmp_path / "probe", "--num-workers", 0)
    assert train_cremad(run, data, tmp_path, path).count("will take") == 2


@pytest.mark.slow
def test_a_clip_that_breaks_after_preparation_is_wrong(run, data, tmp_path):
    own = tmp_path / "data"
    shutil.copytree(data / "cremad", own)
    cut = open_cuts(own / "cuts_test.jsonl")[0]
    audio = tmp_path / "broken.wav"
    audio.write_bytes(b"no audio")
    rows = [json.loads(line) for line in (own / "cuts_test.jsonl").read_text().splitlines()]
    rows[0]["recording"]["sources"][0]["source"] = str(audio)
    (own / "cuts_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(
        "train",
        "--tasks",
        "cremad",
        "--manifest-dir",
        own,
        "--encoder",
        "logmel",
        "--exp-dir",
        tmp_path / "probe",
        "--cache-dir",
        tmp_path / "cache",
        *QUICK,
    )
    shown = run("decode", "--exp-dir", tmp_path / "probe", "--num-workers", 0)
    assert (
        f"2 of {len(rows) + 1} clips cannot be heard and count as wrong" in shown
        and cut.id in shown
    )
    result = results(tmp_path / "probe")["probe_cremad-test"]
    assert result["settings"]["num_broken"] == 2 and result["num_clips"] == len(rows) + 1
    assert result["metrics"]["accuracy"] <= (len(rows) - 1) / (len(rows) + 1)


@pytest.mark.slow
def test_only_the_last_trainings_probes_are_scored(run, data, tmp_path):
    common = (
        "--manifest-dir", data, "--encoder", "logmel", "--exp-dir", tmp_path, "--cache-dir",
        tmp_path / "c", *QUICK,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="run train.py first"):
        run("decode", "--exp-dir", tmp_path)
    run("train", "--tasks", "cremad,nsynth", *common)
    run("train", "--tasks", "nsynth", *common)
    shown = run("decode", "--exp-dir", tmp_path, "--num-workers", 0)
    assert "probe_nsynth-test" in shown and "cremad" not in shown
    assert set(results(tmp_path)) == {"probe_nsynth-test"}
    shown = run(
        "decode", "--exp-dir", tmp_path, "--num-workers", 0, "--tasks", "cremad", "--split", "valid"
    )
    assert set(results(tmp_path)) == {"probe_nsynth-test", "probe_cremad-valid"}
    with pytest.raises(CheckpointError, match="no probe of 'fsd50k'"):
        run("decode", "--exp-dir", tmp_path, "--tasks", "fsd50k")


@pytest.mark.slow
def test_vectors_computed_elsewhere(run, data, tmp_path):
    generator = np.random.default_rng(0)
    classes = json.loads((data / "cremad" / "classes.json").read_text())
    ids, vectors = [], []
    for split in ("train", "valid", "test"):
        for cut in open_cuts(data / "cremad" / f"cuts_{split}.jsonl"):
            ids.append(cut.id)
            vectors.append(generator.normal(size=len(classes)))
            vectors[-1][classes.index(cut.supervisions[0].custom["label"])] += 20
    save_embeddings(tmp_path / "v.parquet", ids, vectors)
    common = (
        "--manifest-dir", data, "--embeddings", tmp_path / "v.parquet", "--exp-dir",
        tmp_path / "probe", "--num-workers", 0,
    )  # fmt: skip
    run("train", "--tasks", "cremad", *common, "--num-seeds", 2, "--learning-rates", "0.03")
    run("decode", "--exp-dir", tmp_path / "probe", "--num-workers", 0)
    result = results(tmp_path / "probe")["probe_cremad-test"]
    total = result["num_clips"]
    assert result["metrics"]["accuracy"] == pytest.approx(
        (total - 1) / total
    )  # all but the broken one
    assert result["settings"]["pooling"] == "embeddings" and result["frozen_parameters"] == 0
    with pytest.raises(SystemExit):
        run("train", "--tasks", "cremad", *common, "--pooling", "attention")
    with pytest.raises(ValueError, match="no detection"):
        run("train", "--tasks", "audioset_strong", *common)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_the_encoder_can_be_trained_too(run, data, checkpoint, tiny_encoder, tmp_path, pooling):
    flags = (
        "--tasks", "cremad,magnatagatune", "--manifest-dir", data, "--task-table",
        data / "tasks.json", "--exp-dir", tmp_path, "--num-epochs", 2, "--num-workers", 0,
        "--pooling", pooling, "--average-period", 1, "--ref-duration", 5, "--tensorboard", "false",
        *tiny_encoder,
    )  # fmt: skip
    run("train_encoder", *flags)
    # The miniature MagnaTagATune is made of few sounds: training and test share some.
    run("decode", "--exp-dir", tmp_path, "--num-workers", 0, "--allow-trained-clips", "true")
    trained_on = ("--manifest", data / "cremad" / "cuts_train.jsonl", "--tasks", "cremad")
    with pytest.raises(TrainedOn, match=r"was trained on (\d+) of \1 clips \(\1 by name"):
        run("decode", "--exp-dir", tmp_path, "--num-workers", 0, *trained_on)
    scratch = results(tmp_path)[
        f"probe_cremad-test{'-attention' if pooling == 'attention' else ''}"
    ]
    assert scratch["settings"]["train_encoder"] and scratch["settings"]["num_broken"] == 1
    assert scratch["trained_parameters"] > 1000 and scratch["encoder"]["pretraining"] == "none"
    assert scratch["trained_clips"]["trained"] == 0 and scratch["trained_clips"]["complete"]
    run(
        "train_encoder",
        *flags,
        "--exp-dir",
        tmp_path / "from",
        "--init-encoder",
        checkpoint,
        "--base-lr",
        1e-9,
    )
    by_steps = ("--exp-dir", tmp_path / "steps", "--num-epochs", 50, "--max-steps", 4)
    saved = ("--save-every-n", 2, "--valid-interval", 2, "--save-every-epochs", 50)
    run("train_encoder", *flags, *by_steps, *saved, "--tasks", "cremad")
    run("decode", "--exp-dir", tmp_path / "steps", "--num-workers", 0)
    name = f"probe-cremad{'-attention' if pooling == 'attention' else ''}.pt"
    trained, start = load_encoder(tmp_path / "from" / name), load_encoder(checkpoint)
    for (key, value), (_, before) in zip(trained.state_dict().items(), start.state_dict().items()):
        assert (value.float() - before.float()).abs().max() < 1e-3, key


def test_contradictory_flags_end_with_one_line(run, capsys):
    for flags, message in (
        ((), "give either --encoder"),
        (
            ("--encoder", "logmel", "--pooling", "attention", "--cache", "clip"),
            "--pooling attention needs frames",
        ),
        (("--encoder", "logmel", "--world-size", 4), "unrecognized arguments: --world-size 4"),
        (("--encoder", "logmel", "--base-lr", 99), "unrecognized arguments: --base-lr 99"),
        (
            ("--encoder", "logmel", "--attention-heads", 2),
            "--attention-heads has no effect with --pooling mean",
        ),
        (
            ("--embeddings", "v.npz", "--pooling", "mean"),
            "--pooling has no effect without --encoder",
        ),
        (
            ("--encoder", "logmel", "--cache", "none", "--cache-dir", "x"),
            "--cache-dir has no effect with --cache none",
        ),
    ):
        with pytest.raises(SystemExit) as stop:
            run("train", *flags)
        assert stop.value.code == 2 and message in capsys.readouterr().err
    for flags, message in (
        (("--encoder", "logmel"), "unrecognized arguments: --encoder logmel"),
        (("--pooling", "mean_std"), "invalid choice: 'mean_std'"),
        (("--attention-heads", 2), "--attention-heads has no effect with --pooling mean"),
    ):
        with pytest.raises(SystemExit) as stop:
            run("train_encoder", *flags)
        assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_classes_tags_and_events_of_the_mini_corpus(run, mini_data, tmp_path):
    """Tasks without a row in the table; both poolings of one experiment folder stand side by
    side.
    """
    tasks = {
        "events": "accuracy",
        "voices_gender": "accuracy",
        "music_labels": "map",
        "events_events": "psds1",
    }
    common = (
        "--manifest-dir", mini_data, "--encoder", "logmel", "--exp-dir", tmp_path / "probe",
        "--cache-dir", tmp_path / "cache", "--tasks",
        "events,voices:gender,music:labels,events:events", *QUICK,
    )  # fmt: skip
    for pooling in ("mean_std", "attention"):
        run("train", *common, "--pooling", pooling)
        run("decode", "--exp-dir", tmp_path / "probe", "--system", "logmel", "--num-workers", 0)
    found = results(tmp_path / "probe")
    assert {name for name in found if "average" not in name} == {
        f"probe_{task}-test{suffix}"
        for task, metric in tasks.items()
        for suffix in (("", "-attention") if metric != "psds1" else ("",))
    }
    for name, result in found.items():
        assert 0 <= result["metrics"][result["settings"]["metric"]] <= 1 and result[
            "num_clips"
        ] in (6, 12), name


@pytest.mark.slow
def test_probes_that_are_there_stay_as_long_as_nothing_that_decides_them_changes(
    run, data, tmp_path
):
    manifests = tmp_path / "data"
    shutil.copytree(data / "nsynth", manifests)
    flags = (
        "--manifest-dir", manifests, "--task-table", data / "tasks.json", "--encoder", "logmel",
        "--tasks", "nsynth", "--exp-dir", tmp_path / "probe", "--cache-dir", tmp_path / "cache",
        *QUICK, "--resume", "true",
    )  # fmt: skip
    probe = tmp_path / "probe" / "probe-nsynth.pt"
    assert "is there" not in run("train", *flags)
    made = probe.stat().st_mtime_ns
    assert f"{probe} is there" in run("train", *flags, "--num-workers", 1)
    assert probe.stat().st_mtime_ns == made and not probe.with_suffix(".progress").exists()
    assert "is there" not in run("train", *flags, "--patience", 3)
    assert f"{probe} is there" in run("train", *flags, "--patience", 3)
    lines = (manifests / "cuts_train.jsonl").read_text().splitlines(keepends=True)
    (manifests / "cuts_train.jsonl").write_text("".join(lines[:-1]))
    assert "is there" not in run("train", *flags, "--patience", 3)
