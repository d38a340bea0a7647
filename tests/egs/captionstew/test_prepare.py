"""prepare.sh: the stages, killed anywhere, with other settings, and copied to new data."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from captionstew.data.manifests.cuts import open_cuts

pytestmark = pytest.mark.slow

OF_TIME = (".index", ".png")  # an index holds the time stamp of its manifest
LEFT_OUT = {".done", ".lock"}


def contents(folder):
    """Relative path -> bytes of all tables, manifests, reports and pages."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in OF_TIME and not LEFT_OUT & set(path.parts)
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
    train, valid = (
        open_cuts(data / "all" / "cuts_train.jsonl"),
        open_cuts(data / "all" / "cuts_valid.jsonl"),
    )
    assert len(train) + len(valid) == 63 and len(valid) >= 1
    keys = [{cut.supervisions[0].custom["audio_key"] for cut in cuts} for cuts in (train, valid)]
    assert not keys[0] & keys[1]
    assert not any(
        key.startswith("alpha") and int(key[-7:-4]) % 8 == 0 for key in keys[0] | keys[1]
    )
    first = train[0].supervisions[0].custom
    assert len(first["captions"]) == len(first["sources"]) == 2 and set(first["sources"]) == {
        "alpha"
    }
    small = open_cuts(data / "40" / "cuts_train.jsonl")
    assert len(small) == 20 and {cut.id for cut in small} < {cut.id for cut in train}
    sources = [cut.supervisions[0].custom["sources"][0] for cut in small]
    assert sources.count("beta") > sources.count("alpha")  # weight 2
    report = json.loads((data / "all" / "report.json").read_text())
    assert report["coverage"] == coverage and report["clips"] == len(train)
    page = (data / "analysis" / "index.html").read_text()
    assert "Table 4" in page and "data:image/png" in page and "5,572" not in page
    before, stamps = (
        contents(data),
        {path: path.stat().st_mtime_ns for path in data.rglob("[!.]*") if path.is_file()},
    )
    status, output = prepare(data)
    assert status == 0 and output.count("done before") == 8
    assert contents(data) == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_killed_in_every_stage(prepare, tmp_path):
    """Stage 6 is also killed as soon as it has written something."""
    reference, killed = tmp_path / "reference", tmp_path / "killed"
    flags = ("--features", "true")
    assert prepare(reference, *flags)[0] == 0
    assert list((reference / "features").glob("fbank-*/features.bin"))
    draw = random.Random(0)
    for stage in (1, 1, 2, 3, 4, 4, 5, 5, "6 has begun", 6, 7):
        delay, reached = draw.uniform(0.0, 2.5), []

        def kill(output, stage=stage, delay=delay, reached=reached):
            if stage == "6 has begun":
                return (killed / "features").is_dir() and any(
                    (killed / "features").rglob("features.bin")
                )
            if f"Stage {stage}:" in output and not reached:
                reached.append(time.monotonic())
            return bool(reached) and time.monotonic() - reached[0] > delay

        status, output = prepare(killed, *flags, kill=kill)
        assert status in (0, -9), output
        assert status == -9 or stage != "6 has begun"
    status, output = prepare(killed, *flags)
    assert status == 0, output
    assert contents(killed).keys() == contents(reference).keys()
    for name, expected in contents(reference).items():
        assert contents(killed)[name] == expected, name


def test_changed_settings_repeat_their_stage_and_all_later_ones(prepare, download, tmp_path):
    data = tmp_path / "data"
    assert prepare(data, "--stop-stage", "5")[0] == 0
    status, output = prepare(
        data, "--stop-stage", "5", "--license-filter", "*-nc-*", "--leakage", "test-only"
    )
    assert status == 0 and output.count("done before") == 3  # two tables and the evaluation lists
    assert json.loads((data / "leakage.json").read_text())["mode"] == "test-only"
    (download / "corpora.csv").write_text("name,split,role,weight\nbeta,*,pretrain,1\n")
    assert prepare(data, "--stop-stage", "5")[0] == 0
    assert [path.name for path in (data / "filtered").iterdir()] == ["beta.parquet"]


def test_audio_and_tables_that_came_later_are_noticed(prepare, download, tmp_path):
    data, audio = tmp_path / "data", download / "beta" / "audio"
    assert prepare(data, "--stop-stage", "4")[0] == 0

    def found():
        return json.loads((data / "audio_check" / "coverage.json").read_text())["total"]["found"]

    assert found() == 63
    shutil.copy(audio / "000.wav", audio / "004.wav")  # was missing
    shutil.copy(audio / "001.wav", audio / "003.wav")  # was broken
    status, output = prepare(data, "--stop-stage", "4")
    assert status == 0 and found() == 65
    assert output.count("done before") == 1  # the table of the other corpus
    with open(download / "alpha" / "captions.csv", "a") as table:
        table.write("audio/001.wav,One more caption.\n")
    status, output = prepare(data, "--stop-stage", "4")
    assert status == 0 and output.count("done before") == 1
    rows = pq.read_table(data / "clips.parquet").to_pylist()
    assert "One more caption." in {text for row in rows for text in row["captions"]}


def test_clear_errors(prepare, download, tmp_path):
    status, output = prepare(tmp_path / "data", "--leekage", "strict")
    assert status == 2 and "unknown option --leekage" in output
    status, output = prepare(tmp_path / "data", "--corpora", "nope.csv")
    assert (
        status == 2
        and output.startswith("prepare.sh: --corpora nope.csv: no such list")
        and output.count("\n") == 1
    )
    (download / "corpora.csv").write_text("name,split,role,weight\ngamma,*,pretrain,1\n")
    status, output = prepare(tmp_path / "data")
    assert status != 0 and "gamma is not a folder; get the release from" in output.splitlines()[-1]
    (download / "corpora.csv").write_text(
        "name,split,role,weight\nbeta,*,pretrain,1\nfsd50k,eval,evaluation,\n"
        "audiocaps,test,evaluation,\nclothoaqa,test,evaluation,\n"
    )
    status, output = prepare(tmp_path / "data")
    assert status != 0 and "evaluation lists are missing" in output
    assert (
        "fsd50k:eval" in output
        and "zenodo.org/records/4060432" in output
        and "audiocaps:test" in output
    )
    status, output = prepare(
        tmp_path / "data", "--stop-stage", "2", "--allow-missing-lists", "true"
    )
    assert status == 0, output
    page = (tmp_path / "data" / "leakage.md").read_text()
    assert "**Not protected: clothoaqa:test**" in page
    assert "**Protected by the 10,231 keys that come with the code: fsd50k:eval** (" in page
    assert "| fsd50k:eval | 0 |" in page


def test_recordings_of_an_evaluation_folder_leave_training_under_any_name(
    prepare, download, shared_dir, tmp_path
):
    """Three files of `mydata` are byte for byte files of `myeval`; both lists say `*`."""
    case = shared_dir / "cases" / "corpus" / "own_evaluation_folder"
    shutil.copytree(case, download, dirs_exist_ok=True)
    for mode in ("strict", "test-only"):
        data = tmp_path / mode
        status, output = prepare(data, "--subsets", "all", "--leakage", mode)
        assert status == 0, output
        total = json.loads((data / "audio_check" / "coverage.json").read_text())["total"]
        assert total["listed"] == 6 and total["found"] == 3 and total["held out"] == 3
        held_out = (data / "audio_check" / "held_out.txt").read_text().splitlines()
        assert len(held_out) == 3 and all(
            line.endswith(f"the same sound as myeval:audio/other{n}.wav (myeval:*)")
            for n, line in enumerate(sorted(held_out, key=lambda line: line[-20:]))
        )
        cuts = [
            cut for part in ("train", "valid") for cut in open_cuts(data / f"all/cuts_{part}.jsonl")
        ]
        held = {line.split("\t")[0] for line in held_out}
        assert len(cuts) == 3
        assert not held & {cut.supervisions[0].custom["audio_key"] for cut in cuts}
        assert "| held out |" in (data / "audio_check" / "coverage.md").read_text()


def readme_steps(repository):
    """README, "Your own data": the list of corpora, and the commands of steps 1, 4 and 5."""
    text = (repository / "egs" / "captionstew" / "README.md").read_text(encoding="utf-8")
    section = text.split("## Your own data\n")[1].split("\n## ")[0]
    first, corpora, middle, last, _ = re.split("```(?:bash)?", section)
    copy, prepare = (
        re.search(rf"^{step}\. `([^`]+)`$", first + middle, re.MULTILINE)[1] for step in (1, 4)
    )
    corpora, last = (
        [line.strip() for line in block.strip().splitlines()] for block in (corpora, last)
    )
    return corpora, copy, prepare, last


def test_copy_the_recipe_to_new_data_and_train(repository, make_folder_corpus, tmp_path):
    """Every line of the README's section as it stands there; training itself is made small by
    further flags.
    """
    corpora, copy, prepare, (bpe, train) = readme_steps(repository)
    built = shutil.ignore_patterns("data", "exp", "download", "__pycache__")
    shutil.copytree(
        repository / "egs" / "captionstew",
        tmp_path / "egs" / "captionstew",
        symlinks=True,
        ignore=built,
    )
    for name in ("shared", "local"):
        (tmp_path / name).symlink_to(repository / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}

    def run(command, folder):
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    run(copy, tmp_path)
    recipe = tmp_path / "egs" / "mine"
    (recipe / "corpora.csv").write_text("\n".join(corpora) + "\n")
    make_folder_corpus(recipe / "download" / "mydata", 30, 0.01)
    run(prepare, tmp_path)
    run(f"{bpe} --vocab-size 100", recipe)
    small = "--encoder-preset mini --text-tower tiny --max-duration 8 --max-steps 2 --num-workers 0"
    run(f"{train} {small}", recipe)
    assert list((recipe / "exp" / "contrastive").glob("*.pt"))


def test_a_corpus_of_three_clips_gets_its_statistics_without_a_figure(
    prepare, download, make_folder_corpus, tmp_path
):
    make_folder_corpus(download / "few", 3, 0.03)
    (download / "few" / "captions.csv").write_text(
        "file,caption\naudio/000.wav,A b\naudio/001.wav,A b\naudio/002.wav,A b\n"
    )
    (download / "corpora.csv").write_text("name,split,role,weight\nfew,*,pretrain,1\n")
    status, output = prepare(tmp_path / "data", "--subsets", "all")
    assert status == 0, output
    warnings = [
        line for line in output.splitlines() if line.startswith("warning: Figure 3 is left out")
    ]
    assert len(warnings) == 1 and "too few" in warnings[0]
    page = (tmp_path / "data" / "analysis" / "index.html").read_text()
    assert "Table 4" in page and "Figure 3" not in page
    assert not (tmp_path / "data" / "analysis" / "sources.png").exists()


def test_the_mini_corpus_goes_through_the_same_stages(prepare, download, tmp_path):
    (download / "corpora.csv").write_text(
        "name,split,role,weight\nmini,train,pretrain,1\nmini,valid,pretrain,1\n"
        "mini,test,evaluation,\n"
    )
    data = tmp_path / "data"
    status, output = prepare(data, "--mini-clips", "60")
    assert status == 0, output
    train = open_cuts(data / "all" / "cuts_train.jsonl")
    assert {cut.supervisions[0].custom["sources"][0] for cut in train} == {
        "events",
        "music",
        "voices",
    }
    leakage = json.loads((data / "leakage.json").read_text())
    assert leakage["lists"]["mini:test"] == 60 - leakage["total"]["clips"] > 0
    assert leakage["total"]["kept_clips"] == len(train) + len(
        open_cuts(data / "all" / "cuts_valid.jsonl")
    )


def test_features_stage_equals_one_process(prepare, tmp_path):
    data = tmp_path / "data"
    assert prepare(data, "--stop-stage", "6", "--features", "true")[0] == 0
    from captionstew.data.features.fbank import FbankConfig
    from captionstew.data.features.store import build_feature_store

    cuts = open_cuts(data / "all" / "cuts_train.jsonl")
    store = build_feature_store(tmp_path / "alone", cuts, FbankConfig())
    made = next((data / "features").glob("fbank-*"))
    for name in ("features.bin", "index.jsonl", "store.json"):
        assert (made / name).read_bytes() == (store.folder / name).read_bytes(), name


def test_tables_keep_the_contract(prepare, tmp_path):
    assert prepare(tmp_path / "data", "--stop-stage", "1")[0] == 0
    rows = pq.read_table(tmp_path / "data" / "tables" / "alpha.parquet").to_pylist()
    assert (
        len(rows) == 70
        and rows[0]["license"] == "CC-BY-4.0"
        and rows[0]["audio_key"] == "alpha:audio/001.wav"
    )


def test_the_top_level_program_looks_at_its_flags_before_it_installs_anything(repository, tmp_path):
    shutil.copy(repository / "prepare.sh", tmp_path)
    (tmp_path / "shared").symlink_to(repository / "shared")
    done = subprocess.run(
        [tmp_path / "prepare.sh", "--corpus", "nowhere"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "prepare.sh: --corpus nowhere is not a folder (see prepare.sh --help)\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepare.sh", "shared"]
