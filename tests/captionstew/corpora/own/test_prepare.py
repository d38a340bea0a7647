import json
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile

from captionstew.corpora.own import prepare
from captionstew.corpora.own.csv_rows import FolderError
from captionstew.corpora.own.prepare import prepare_folder
from captionstew.data.manifests.cuts import audio_part, open_cuts


@pytest.fixture
def corpus(tmp_path):
    """corpus(rows of metadata without file) -> folder with one clip and one caption per row."""

    def make(columns, rows, same=()):
        folder = tmp_path / "corpus"
        folder.mkdir()
        for number in range(len(rows)):
            noise = np.random.default_rng(0 if number in same else number + 1).standard_normal(8000)
            soundfile.write(folder / f"{number}.wav", 0.1 * noise, 16000)
        captions = [f"{number}.wav,Clip {number}." for number in range(len(rows))]
        (folder / "captions.csv").write_text("\n".join(["file,caption", *captions, ""]))
        labels = [f"{number}.wav,{row}" for number, row in enumerate(rows)]
        (folder / "metadata.csv").write_text("\n".join([f"file,{columns}", *labels, ""]))
        return folder

    return make


def keys(folder, split):
    cuts = open_cuts(folder / f"cuts_{split}.jsonl")
    return [cut.supervisions[0].custom["audio_key"].removeprefix("corpus/") for cut in cuts]


def test_folds_decide(corpus, tmp_path):
    folder = corpus("label,fold", [f"a,{1 + number % 5}" for number in range(10)])
    prepare_folder(folder, tmp_path / "out")
    assert keys(tmp_path / "out", "test") == ["4.wav", "9.wav"]
    assert keys(tmp_path / "out", "valid") == ["3.wav", "8.wav"]
    assert len(keys(tmp_path / "out", "train")) == 6
    prepare_folder(folder, tmp_path / "out", valid_folds=[], test_folds=[1])
    assert (
        keys(tmp_path / "out", "test") == ["0.wav", "5.wav"]
        and keys(tmp_path / "out", "valid") == []
    )


def test_speakers_without_folds_stay_together(corpus, tmp_path):
    folder = corpus("label,speaker", [f"a,s{number % 30}" for number in range(90)])
    prepare_folder(folder, tmp_path / "out")
    speakers = {}
    for split in ("train", "valid", "test"):
        cuts = open_cuts(tmp_path / "out" / f"cuts_{split}.jsonl")
        speakers[split] = {cut.supervisions[0].custom["speaker"] for cut in cuts}
        assert speakers[split]
    assert sum(map(len, speakers.values())) == 30


def test_a_split_without_clips_is_said(corpus, tmp_path, capsys):
    prepare_folder(
        corpus("label,fold", [f"a,{1 + number % 3}" for number in range(6)]),
        tmp_path / "out",
        valid_folds=[4],
        test_folds=[5],
    )
    lines = capsys.readouterr().out.splitlines()
    assert (
        "valid has no clip: no split or fold of metadata.csv, and no hash of a name, sends one"
        " there" in lines
    )
    assert sum("has no clip" in line for line in lines) == 2
    assert keys(tmp_path / "out", "valid") == [] and len(keys(tmp_path / "out", "train")) == 6


def test_held_out_recordings_are_not_trained_on_under_another_name(corpus, tmp_path):
    folder = corpus("label,fold", ["a,1", "a,4", "a,5", "a,1", "a,2"], same=(0, 1, 2))
    report = prepare_folder(folder, tmp_path / "out")
    assert keys(tmp_path / "out", "test") == ["2.wav"]
    assert keys(tmp_path / "out", "valid") == []
    assert keys(tmp_path / "out", "train") == ["3.wav", "4.wav"]
    assert report["rejected"] == {"repeated audio": 2}
    assert "held out under another name" in (tmp_path / "out" / "rejected.csv").read_text()


def test_report_counts_sources_and_splits(mini_corpus, tmp_path, capsys):
    report = prepare_folder(mini_corpus, tmp_path)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["total"]["clips"] == 60
    for source in ("events", "music", "voices"):
        assert [
            report["splits"][split][source]["clips"] for split in ("train", "valid", "test")
        ] == [12, 4, 4]
    assert (
        report["splits"]["train"]["total"]["clips"]
        == len(open_cuts(tmp_path / "cuts_train.jsonl"))
        == 36
    )
    out = capsys.readouterr().out
    assert "voices" in out and "left out: nothing" in out


def test_second_run_does_nothing_until_something_changes(corpus, tmp_path, capsys):
    folder = corpus("label,fold", [f"a,{1 + number % 5}" for number in range(10)])
    out = tmp_path / "out"
    first = prepare_folder(folder, out)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert prepare_folder(folder, out) == first and "already prepared" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == stamps
    (out / "cuts_valid.jsonl").unlink()
    prepare_folder(folder, out)
    assert (out / "cuts_valid.jsonl").is_file()
    with open(folder / "captions.csv", "a") as file:
        file.write("0.wav,Another caption.\n")
    assert prepare_folder(folder, out)["total"]["captions"] == 11
    assert prepare_folder(folder, out, test_folds=[1])["splits"]["test"]["total"]["clips"] == 2


def test_killed_run_is_done_again(corpus, tmp_path, monkeypatch):
    from captionstew.corpora.own import prepare as preparation

    folder = corpus("label,fold", [f"a,{1 + number % 5}" for number in range(10)])
    monkeypatch.setattr(
        preparation, "write_rejected", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        prepare_folder(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "done.json").exists()
    monkeypatch.undo()
    prepare_folder(folder, tmp_path / "out")
    assert (tmp_path / "out" / "done.json").exists()


def test_nothing_to_train_on_stops(corpus, tmp_path):
    folder = corpus("label,fold", ["a,5", "a,4"])
    with pytest.raises(FolderError, match="leave none to train on"):
        prepare_folder(folder, tmp_path / "out")
    with pytest.raises(ValueError, match=r"\[5\] are both"):
        prepare_folder(folder, tmp_path / "out", valid_folds=[5], test_folds=[5])


def run(repository, program, *arguments):
    command = [sys.executable, repository / "local" / program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_programs_end_with_one_clear_line(repository, mini_corpus, tmp_path):
    done = run(
        repository, "split_folder.py", "--corpus-dir", mini_corpus, "--output-dir", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "bad"
    shutil.copytree(mini_corpus / "events", folder)
    (folder / "captions.csv").write_text("file,text\naudio/events_00000.flac,A.\n")
    failed = run(
        repository, "split_folder.py", "--corpus-dir", folder, "--output-dir", tmp_path / "bad_out"
    )
    assert failed.returncode == 1
    assert (
        failed.stderr
        == f"split_folder.py: {folder}/captions.csv: column caption is missing (found: file, text);"
        " add it to line 1\n"
    )


@pytest.mark.slow
def test_mini_program_and_a_moved_folder(repository, tmp_path):
    arguments = ["--output-dir", tmp_path / "mini", "--num-clips", 15]
    done = run(repository, "split_mini.py", *arguments)
    assert done.returncode == 0, done.stderr
    again = run(repository, "split_mini.py", *arguments)
    assert again.returncode == 0 and "already prepared" in again.stdout
    shutil.move(tmp_path / "mini", tmp_path / "moved")
    cuts = open_cuts(tmp_path / "moved" / "cuts_train.jsonl")
    assert len(cuts) == 9 and all(soundfile.info(audio_part(cut)[0]).frames for cut in cuts)


def test_a_second_preparation_waits_for_the_first(monkeypatch, tmp_path):
    """Two identical commands: the second finds everything done."""
    asked = []

    @contextmanager
    def watched(folder, wait=False):
        asked.append((folder, wait))
        yield

    monkeypatch.setattr(prepare, "one_writer", watched)
    with pytest.raises(FolderError):
        prepare.prepare_folder(tmp_path / "absent", tmp_path / "out")
    assert asked == [(tmp_path / "out", True)]
