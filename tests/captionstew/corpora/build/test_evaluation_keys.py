"""Evaluation lists that are not there, cut off or empty never protect in silence."""

import json
import runpy
import shutil

import pytest

from captionstew.corpora.build import shipped_keys
from captionstew.corpora.build.evaluation_keys import gather_list

LISTS = ["audioset:eval", "vggsound:test"]


@pytest.fixture
def program(repository):
    """program("filter_leakage") -> main of that program of the recipe."""
    return lambda name: runpy.run_path(repository / f"egs/captionstew/local/{name}.py")["main"]


@pytest.fixture
def corpora(tmp_path):
    """AudioSet's list cut off after two clips, and an empty one of VGGSound."""
    folder = tmp_path / "corpora"
    for name in ("audioset", "vggsound"):
        (folder / name).mkdir(parents=True)
    (folder / "audioset" / "eval_segments.csv").write_text(
        '-aaaaaaaaaa, 30.000, 40.000, "/m/a"\nbbbbbbbbbbb, 0.000, 10.000, "/m/a"\n'
    )
    (folder / "vggsound" / "test.csv").touch()
    return folder


def test_a_list_that_is_cut_off_gives_what_it_has_and_says_so(corpora):
    found = gather_list(corpora, "audioset", "eval")
    assert found.keys == ["yt:-aaaaaaaaaa", "yt:bbbbbbbbbbb"] and found.clips == 2
    assert f"{corpora / 'audioset' / 'eval_segments.csv'}: found 2 clips" in found.problem
    assert "expected 20,371" in found.problem and "research.google.com" in found.problem


def test_the_empty_lists_that_were_once_counted_as_present(shared_dir):
    folder = shared_dir / "cases" / "corpus" / "evaluation_lists_empty"
    for name, split, size in (("audioset", "eval", "20,371"), ("vggsound", "test", "15,446")):
        found = gather_list(folder, name, split)
        assert not found.keys and f"found 0 clips, expected {size}" in found.problem


def test_what_clothos_missing_metadata_does_not_concern_is_protected(tmp_path):
    folder = tmp_path / "airbench"
    records = {
        "Foundation": [("common_voice_13", "x.wav")],
        "Chat": [("musiccaps", "aaaaaaaaaaa.wav"), ("clotho", "Rain.wav")],
    }
    for part, listed in records.items():
        (folder / part).mkdir(parents=True)
        rows = [
            {"dataset_name": name, "path": path, "task_name": "x", "uniq_id": 1, "question": "?",
             "answer_gt": "x"}
            for name, path in listed
        ]  # fmt: skip
        (folder / part / f"{part}_meta.json").write_text(json.dumps(rows))
    found = gather_list(tmp_path, "airbench", "test")
    assert {"yt:aaaaaaaaaaa", "clotho:Rain.wav"} <= set(found.keys) and found.clips == 3
    assert "1 clips have no Freesound id, e.g. 'Rain.wav'" in found.problem


@pytest.mark.parametrize("name", ["musiccaps", "clotho", "audiocaps", "fsd50k"])
def test_a_split_that_is_none(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "musiccaps-public.csv").write_text("ytid\n")
    found = gather_list(tmp_path, name, "tset")
    assert not found.keys and ("'tset'" in found.problem or "tset.csv" in found.problem)


def test_stage_1_stops_or_says_so_in_the_report(
    corpora, program, make_table, tmp_path, monkeypatch
):
    data = tmp_path
    flags = ["--corpora-dir", str(corpora), "--output-dir", str(data), "--sets", *LISTS]
    with pytest.raises(SystemExit) as stop:
        program("gather_evaluation_keys")(flags)
    message = str(stop.value)
    assert (
        "found 2 clips, expected 20,371" in message and "found 0 clips, expected 15,446" in message
    )
    assert not (data / "evaluation_keys.parquet").exists()
    program("gather_evaluation_keys")([*flags, "--allow-missing"])
    make_table("vgg", [("yt:-aaaaaaaaaa:30", "a"), ("yt:ccccccccccc:30", "b")])
    report = {"unprotected": ["3 of 4 clips have no Freesound id"]}
    (data / "tables" / "vgg.report.json").write_text(json.dumps(report))
    (data / "corpora.csv").write_text("name,split,role,weight\nvgg,*,pretrain,1\n")
    arguments = ["filter_leakage.py", "--corpora", data / "corpora.csv", "--data-dir", data]
    monkeypatch.setattr("sys.argv", list(map(str, arguments)))
    program("filter_leakage")()
    page = (data / "leakage.md").read_text()
    assert "| audioset:eval | 2 | 1 |" in page and "| vggsound:test | 0 | 0 |" in page
    what = "**Protected by the {} keys that come with the code: {}** ("
    assert what.format("20,371", "audioset:eval") in page
    assert what.format("14,851", "vggsound:test") in page
    monkeypatch.setattr(shipped_keys, "FILE", data / "none")
    program("gather_evaluation_keys")([*flags, "--allow-missing"])
    program("filter_leakage")()
    page = (data / "leakage.md").read_text()
    assert "**Not protected but in part: audioset:eval** (" in page
    assert "**Not protected: vggsound:test** (" in page
    assert "**Not protected: clips of vgg** (3 of 4 clips have no Freesound id)" in page


def test_a_folder_of_ones_own_without_a_clip_of_the_split_is_no_list(shared_dir, tmp_path):
    shutil.copytree(shared_dir / "cases/corpus/own_evaluation_folder", tmp_path / "own")
    found = gather_list(tmp_path / "own", "myeval", "*")
    assert found.clips == len(found.keys) == 3 and found.problem is None
    (tmp_path / "own" / "myeval" / "metadata.csv").write_text(
        "file,split\n" + "".join(f"audio/other{n}.wav,train\n" for n in range(3))
    )
    assert "found 0 clips, expected 1" in gather_list(tmp_path / "own", "myeval", "test").problem
