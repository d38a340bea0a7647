"""Folders that went wrong when people tried them; each stands for a kind."""

import shutil
from collections import Counter

import numpy as np
import pytest
import soundfile

from captionstew.corpora.own.prepare import prepare_folder
from captionstew.corpora.own.read import read_folder
from captionstew.data.manifests.cuts import open_cuts


@pytest.fixture
def case(shared_dir, tmp_path):
    """case("names") -> a copy of the folder."""

    def copy(name):
        shutil.copytree(shared_dir / "cases" / "folders", tmp_path / "cases", symlinks=True)
        return tmp_path / "cases" / name

    return copy


def splits(folder, output):
    prepare_folder(folder, output)
    return {
        cut.supervisions[0].custom["audio_key"].rpartition("/")[2]: split
        for split in ("train", "valid", "test")
        for cut in open_cuts(output / f"cuts_{split}.jsonl")
    }


def captions(folder):
    cuts, report = read_folder(folder, progress=False)
    customs = [cut.supervisions[0].custom for cut in cuts]
    return {custom["audio_key"]: custom["captions"] for custom in customs}, report


@pytest.mark.parametrize("name, first", [("fold_as_float", 1), ("fold_from_0", 0)])
def test_folds(case, tmp_path, name, first):
    found = splits(case(name), tmp_path / "out")
    assert len(found) == 20
    expected = ["train", "train", "train", "valid", "test"]
    assert all(found[f"c{n:02d}.wav"] == expected[n % 5] for n in range(20))


def test_split_column(case, tmp_path):
    found = splits(case("split_column"), tmp_path / "out")
    expected = ["train", "train", "valid", "test"]
    assert found == {f"c{n:02d}.wav": expected[n % 4] for n in range(20)}


def test_names(case):
    found, report = captions(case("names"))
    assert found == {
        "names/audio/café.wav": ["a cup"],
        "names/audio/back.wav": ["a step"],
        "names/audio/double.wav": ["twice", "again"],
    }
    assert not report.rejected and not report.without_row


def test_links_are_named_after_themselves(case):
    folder = case("links")
    for link in folder.iterdir():
        if link.is_file():  # copies of the cases may hold a link's target as text
            target = link.read_text()
            link.unlink()
            link.symlink_to(target)
    found, _ = captions(folder)
    assert Counter(key.split("/")[0] for key in found) == {"esc": 8, "fsd": 8}


def test_audio_without_rows(case, tmp_path, capsys):
    folder = case("audio_without_rows")
    splits(folder, tmp_path / "out")
    assert (
        "2 audio files have no row: audio/orphan1.wav, audio/deep/orphan2.wav"
        in capsys.readouterr().out
    )
    listed = (tmp_path / "out" / "rejected.csv").read_text()
    assert "audio/deep/orphan2.wav,,no row," in listed


def test_unbalanced_quote(case):
    found, report = captions(case("unbalanced_quote"))
    assert "unbalanced_quote/audio/a.wav" not in found
    assert found["unbalanced_quote/audio/b.wav"] == ["Rain falls."]
    assert found["unbalanced_quote/audio/d.wav"] == ["Sound d."]
    errors = [item for item in report.rejected if item.kind == "quoting error"]
    assert [item.row for item in errors] == [2] and "'audio/b.wav'" in errors[0].reason


CLIPS = "abcdef"


@pytest.fixture
def table(tmp_path):
    """table(text of captions.csv) -> a folder with six clips."""

    def make(text):
        folder = tmp_path / "set"
        folder.mkdir()
        for number, name in enumerate(CLIPS):
            noise = np.random.default_rng(number).standard_normal(4000)
            soundfile.write(folder / f"{name}.wav", 0.1 * noise, 16000)
        (folder / "captions.csv").write_text(text, newline="")
        return folder

    return make


@pytest.mark.parametrize(
    "text, lines",
    [
        # closed by a quotation mark inside a later text, at the end of one, or never
        ('file,caption\na.wav,"A\nb.wav,B "loud" b\nc.wav,C\nd.wav,D\n', [2]),
        ('file,caption\r\na.wav,A\r\nb.wav,"B\r\nc.wav,C\r\nd.wav,D\r\n', [3]),
        ('file,caption\na.wav,"A\nb.wav,"B\nc.wav,C\nd.wav,D\n', [2, 3]),
    ],
)
def test_a_quote_that_does_not_close_costs_its_own_row(table, text, lines):
    found, report = captions(table(text))
    assert [item.row for item in report.rejected if item.kind == "quoting error"] == lines
    assert found["set/c.wav"] == ["C"] and found["set/d.wav"] == ["D"]


def test_a_caption_of_several_lines_is_no_error(table):
    found, report = captions(table('file,caption\na.wav,"A dog,\nthen a ""cat"""\nb.wav,B\n'))
    assert found == {"set/a.wav": ['A dog, then a "cat"'], "set/b.wav": ["B"]}
    assert not report.rejected and len(report.without_row) == 4


def test_a_broken_quote_in_the_last_row_costs_that_row(table):
    found, report = captions(table('file,caption\na.wav,A\nb.wav,"B\n'))
    assert found == {"set/a.wav": ["A"]}
    (error,) = report.rejected
    assert error.kind == "quoting error" and error.row == 3 and "check the quotes" in error.reason


def test_a_loop_of_links_ends(table):
    folder = table("file,caption\na.wav,A\n")
    (folder / "again").symlink_to(folder)
    assert len(read_folder(folder, progress=False)[0]) == 1


@pytest.mark.parametrize("ending", ["aif", "aiff", "au", "caf", "w64"])
def test_formats_of_libsndfile_are_found(table, ending):
    folder = table("file,caption\na.wav,A\n")
    for name in CLIPS:
        (folder / f"{name}.wav").unlink()
    for name in (f"a.{ending}", f"b.{ending.upper()}"):
        kind = {"aif": "AIFF"}.get(ending, ending.upper())
        soundfile.write(folder / name, 0.1 * np.ones(4000), 16000, format=kind)
    (folder / "captions.csv").write_text(f"file,caption\na.{ending},A\n")
    found, report = captions(folder)
    assert found == {f"set/a.{ending}": ["A"]} and report.without_row == [f"b.{ending.upper()}"]


def test_formats_of_ffmpeg_are_found_and_its_clips_counted(table, encode):
    folder = table("file,caption\na.wav,A\nb.m4a,B\nc.webm,C\n")
    for name in ("b", "c"):
        (folder / f"{name}.wav").unlink()
    encode(folder / "b.m4a", 0.1 * np.ones(16000), 16000, "aac")
    encode(folder / "c.webm", 0.1 * np.ones(48000), 48000, "libopus")
    found, report = captions(folder)
    assert found == {"set/a.wav": ["A"], "set/b.m4a": ["B"], "set/c.webm": ["C"]}
    assert report.to_dict()["decoders"] == {"ffmpeg": 2, "libsndfile": 1}


def test_clips_whose_channels_cancel_are_kept_and_listed(table):
    folder = table("file,caption\na.wav,A\nb.wav,B\n")
    tone = 0.1 * np.sin(np.arange(8000) * 0.1)
    soundfile.write(folder / "b.wav", np.stack([tone, -tone], axis=1), 16000)
    found, report = captions(folder)
    assert len(found) == 2 and report.to_dict()["cancelling"] == ["set/b.wav"]
    assert report.cancelling_line().startswith("1 clip has channels that cancel")


def test_hidden_characters_of_captions_are_removed_and_counted(table):
    text = "file,caption\na.wav,A\u200b dog\x00\nb.wav,\u200b\nc.wav,C\n"
    found, report = captions(table(text))
    assert found == {"set/a.wav": ["A dog"], "set/c.wav": ["C"]}
    assert report.to_dict()["cleaned"] == 1 and report.counts() == {"empty caption": 1}
    assert report.cleaned_line().endswith("were removed: captions.csv, line 2")
