"""prepare.sh: the stages, killed anywhere, with other settings, and copied to new data."""

import json
import random
import shutil
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from captionstew.data.cuts import open_cuts

pytestmark = pytest.mark.slow

OF_TIME = (".index", ".png")  # an index holds the time stamp of its manifest


def contents(folder):
    """Relative path -> bytes of all tables, manifests, reports and pages."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in OF_TIME and ".done" not in path.parts
    }


def test_stages_reports_and_second_run(prepare, tmp_path):
    data = tmp_path / "data"
    status, output = prepare(data)
    assert status == 0, output
    leakage = json.loads((data / "leakage.json").read_text())
    assert leakage["total"]["clips"] == 65 and leakage["total"]["leaked_clips"] == 0
    assert leakage["lists"] == {"alpha:test": 5}
    coverage = json.loads((data / "audio_check" / "coverage.json").read_text())
    assert coverage["total"] | {"hours": 0} == {
        "listed": 65,
        "found": 63,
        "missing": 1,
        "broken": 1,
        "too long": 0,
        "hours": 0,
    }
    assert (data / "audio_check" / "missing.txt").read_text().startswith("beta:audio/004.wav\t")
    train, valid = open_cuts(data / "all" / "cuts_train.jsonl"), open_cuts(data / "all" / "cuts_valid.jsonl")
    assert len(train) + len(valid) == 63 and len(valid) >= 1
    keys = [{cut.supervisions[0].custom["audio_key"] for cut in cuts} for cuts in (train, valid)]
    assert not keys[0] & keys[1]
    assert not any(key.startswith("alpha") and int(key[-7:-4]) % 8 == 0 for key in keys[0] | keys[1])
    first = train[0].supervisions[0].custom
    assert len(first["captions"]) == len(first["sources"]) == 2 and set(first["sources"]) == {"alpha"}
    small = open_cuts(data / "40" / "cuts_train.jsonl")
    assert len(small) == 20 and {cut.id for cut in small} < {cut.id for cut in train}
    sources = [cut.supervisions[0].custom["sources"][0] for cut in small]
    assert sources.count("beta") > sources.count("alpha")  # weight 2
    report = json.loads((data / "all" / "report.json").read_text())
    assert report["coverage"] == coverage and report["clips"] == len(train)
    page = (data / "analysis" / "index.html").read_text()
    assert "Table 4" in page and "data:image/png" in page and "5,572" not in page
    before, stamps = contents(data), {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    status, output = prepare(data)
    assert status == 0 and output.count("done before") == 8
    assert contents(data) == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_killed_in_every_stage(prepare, tmp_path):
    reference, killed = tmp_path / "reference", tmp_path / "killed"
    assert prepare(reference)[0] == 0
    draw = random.Random(0)
    for stage in (1, 1, 2, 3, 4, 4, 5, 5, 7):
        delay, reached = draw.uniform(0.0, 2.5), []

        def kill(output, stage=stage, delay=delay, reached=reached):
            if f"Stage {stage}:" in output and not reached:
                reached.append(time.monotonic())
            return bool(reached) and time.monotonic() - reached[0] > delay

        status, output = prepare(killed, kill=kill)
        assert status in (0, -9), output
    status, output = prepare(killed)
    assert status == 0, output
    assert contents(killed).keys() == contents(reference).keys()
    for name, expected in contents(reference).items():
        assert contents(killed)[name] == expected, name


def test_changed_settings_repeat_their_stage_and_all_later_ones(prepare, download, tmp_path):
    data = tmp_path / "data"
    assert prepare(data, "--stop-stage", "5")[0] == 0
    status, output = prepare(data, "--stop-stage", "5", "--license-filter", "*-nc-*", "--leakage", "test-only")
    assert status == 0 and output.count("done before") == 3  # two tables and the evaluation lists
    assert json.loads((data / "leakage.json").read_text())["mode"] == "test-only"
    (download / "corpora.csv").write_text("name,split,role,weight\nbeta,*,pretrain,1\n")
    assert prepare(data, "--stop-stage", "5")[0] == 0
    assert [path.name for path in (data / "filtered").iterdir()] == ["beta.parquet"]


def test_clear_errors(prepare, download, tmp_path):
    status, output = prepare(tmp_path / "data", "--leekage", "strict")
    assert status == 2 and "unknown option --leekage" in output
    (download / "corpora.csv").write_text("name,split,role,weight\ngamma,*,pretrain,1\n")
    status, output = prepare(tmp_path / "data")
    assert status != 0 and "gamma is not a folder; get the release from" in output.splitlines()[-1]
    (download / "corpora.csv").write_text(
        "name,split,role,weight\nbeta,*,pretrain,1\nfsd50k,eval,evaluation,\naudiocaps,test,evaluation,\n"
    )
    status, output = prepare(tmp_path / "data")
    assert status != 0 and "evaluation lists are missing" in output
    assert "fsd50k:eval" in output and "zenodo.org/records/4060432" in output and "audiocaps:test" in output
    status, output = prepare(tmp_path / "data", "--stop-stage", "2", "--allow-missing-lists", "true")
    assert status == 0, output
    assert "**Not protected: fsd50k:eval**" in (tmp_path / "data" / "leakage.md").read_text()


def test_copy_the_recipe_to_new_data_and_train(prepare, repository, download, tmp_path):
    """README, "Your own data": copy the recipe, edit one file, put a folder in place, prepare, train."""
    shutil.copytree(repository / "egs" / "captionstew", tmp_path / "egs" / "mine", symlinks=True)
    for name in ("shared", "local"):
        (tmp_path / name).symlink_to(repository / name)
    recipe = tmp_path / "egs" / "mine"
    assert (recipe / "shared" / "log.sh").is_file()
    data = recipe / "data"
    status, output = prepare(data, "--stop-stage", "5", recipe=recipe)
    assert status == 0, output
    tokenizer = recipe / "bpe.model"
    command = [sys.executable, "../../local/train_bpe.py", "--manifest", str(data / "all" / "cuts_train.jsonl")]
    command += ["--output", str(tokenizer), "--vocab-size", "100"]
    subprocess.run(command, cwd=recipe, check=True)
    command = [sys.executable, "contrastive/train.py", "--manifest-dir", str(data / "all"), "--exp-dir", "exp"]
    command += ["--tokenizer", str(tokenizer)]
    command += ["--encoder-preset", "mini", "--text-tower", "tiny", "--max-duration", "8", "--max-steps", "2"]
    command += ["--num-workers", "0"]
    trained = subprocess.run(command, cwd=recipe, capture_output=True, text=True)
    assert trained.returncode == 0, trained.stdout + trained.stderr


def test_the_mini_corpus_goes_through_the_same_stages(prepare, download, tmp_path):
    (download / "corpora.csv").write_text(
        "name,split,role,weight\n"
        + "".join(f"mini,fold{fold},pretrain,1\n" for fold in range(1, 5))
        + "mini,fold5,evaluation,\n"
    )
    data = tmp_path / "data"
    status, output = prepare(data, "--mini-clips", "60")
    assert status == 0, output
    train = open_cuts(data / "all" / "cuts_train.jsonl")
    assert {cut.supervisions[0].custom["sources"][0] for cut in train} == {"events", "music", "voices"}
    leakage = json.loads((data / "leakage.json").read_text())
    assert leakage["lists"]["mini:fold5"] == 60 - leakage["total"]["clips"] > 0
    assert leakage["total"]["kept_clips"] == len(train) + len(open_cuts(data / "all" / "cuts_valid.jsonl"))


def test_features_stage_equals_one_process(prepare, tmp_path):
    data = tmp_path / "data"
    assert prepare(data, "--stop-stage", "6", "--features", "true")[0] == 0
    from captionstew.data.fbank import FbankConfig
    from captionstew.data.feature_store import build_feature_store

    cuts = open_cuts(data / "all" / "cuts_train.jsonl")
    store = build_feature_store(tmp_path / "alone", cuts, FbankConfig())
    made = next((data / "features").glob("fbank-*"))
    for name in ("features.bin", "index.jsonl", "store.json"):
        assert (made / name).read_bytes() == (store.folder / name).read_bytes(), name


def test_tables_keep_the_contract(prepare, tmp_path):
    assert prepare(tmp_path / "data", "--stop-stage", "1")[0] == 0
    rows = pq.read_table(tmp_path / "data" / "tables" / "alpha.parquet").to_pylist()
    assert len(rows) == 70 and rows[0]["license"] == "CC-BY-4.0" and rows[0]["audio_key"] == "alpha:audio/001.wav"
