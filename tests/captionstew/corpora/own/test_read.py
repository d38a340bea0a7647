import csv

import numpy as np
import pytest
import soundfile

from captionstew.corpora.own.csv_rows import FolderError
from captionstew.corpora.own.read import read_folder, write_rejected


@pytest.fixture
def corpus(tmp_path):
    """A folder `set` with three clips; corpus(captions, metadata) writes its tables from text or
    bytes.
    """
    folder = tmp_path / "set"
    (folder / "audio").mkdir(parents=True)
    for number, name in enumerate(["a.wav", "b.wav", "c d é.wav"]):
        samples = 0.1 * np.random.default_rng(number).standard_normal(8000)
        soundfile.write(folder / "audio" / name, samples, 16000)

    def write(captions, metadata=None):
        for name, content in (("captions.csv", captions), ("metadata.csv", metadata)):
            if content is not None:
                (folder / name).write_bytes(
                    content if isinstance(content, bytes) else content.encode()
                )
        return folder

    return write


def read(folder):
    return read_folder(folder, progress=False)


def captions_of(cuts):
    return {
        cut.supervisions[0].custom["audio_key"]: cut.supervisions[0].custom["captions"]
        for cut in cuts
    }


def test_captions_and_labels_meet(corpus):
    folder = corpus(
        'file,caption\naudio/a.wav,A dog.\naudio/c d é.wav,"Rain, wind\n  and'
        ' ""thunder""."\naudio/a.wav, A  bark. \n',
        "file,label,labels,fold,speaker,events\n"
        "audio/a.wav,dog,animal; dog,3,,dog@0.1-0.25;bark@0.3-0.4\n"
        "audio/c d é.wav,rain,,,s1,\n",
    )
    cuts, report = read(folder)
    assert captions_of(cuts) == {
        "set/audio/a.wav": ["A dog.", "A bark."],
        "set/audio/c d é.wav": ['Rain, wind and "thunder".'],
    }
    first, second = (cut.supervisions[0].custom for cut in cuts)
    assert (
        first["sources"] == ["set", "set"]
        and first["label"] == "dog"
        and first["labels"] == ["animal", "dog"]
    )
    assert first["fold"] == 3 and "speaker" not in first
    assert first["events"] == [
        [0.1, 0.25, "dog"],
        [0.3, 0.4, "bark"],
    ]
    assert second["labels"] == ["rain"] and second["speaker"] == "s1" and "fold" not in second
    assert report.clips == {"set": 2} and report.captions == {"set": 3} and not report.rejected


def test_byte_order_mark_and_windows_line_ends(corpus):
    cuts, _ = read(corpus("file,caption\r\naudio/a.wav,Ein Geräusch.\r\n".encode("utf-8-sig")))
    assert captions_of(cuts) == {"set/audio/a.wav": ["Ein Geräusch."]}


def test_folder_of_folders(corpus, tmp_path):
    corpus("file,caption\naudio/a.wav,One.\n")
    other = tmp_path / "other"
    (other / "audio").mkdir(parents=True)
    (tmp_path / "bare").mkdir()
    (tmp_path / ".hidden").mkdir()
    soundfile.write(other / "audio" / "a.wav", np.ones(8000) * 0.1, 16000)
    (other / "captions.csv").write_text("file,caption\naudio/a.wav,Two.\n")
    cuts, report = read(tmp_path)
    assert captions_of(cuts) == {"other/audio/a.wav": ["Two."], "set/audio/a.wav": ["One."]}
    assert len({cut.id for cut in cuts}) == 2
    assert report.skipped_folders == ["bare"] and report.clips == {"other": 1, "set": 1}


# Each fault: tables, the kind it is counted under, the line it is found on, words of the reason.
ROW_FAULTS = {
    "empty caption": (
        "file,caption\naudio/a.wav,A.\naudio/b.wav,  \n",
        None,
        "empty caption",
        3,
        "write one",
    ),
    "missing audio": (
        "file,caption\naudio/x.wav,X.\naudio/a.wav,A.\n",
        None,
        "missing audio",
        2,
        "does not exist",
    ),
    "duplicated row": (
        "file,caption\naudio/a.wav,A.\n./audio/a.wav, A.\n",
        None,
        "duplicate row",
        3,
        "repeats",
    ),
    "unquoted comma": (
        "file,caption\naudio/a.wav,A.\naudio/b.wav,A, B.\n",
        None,
        "malformed row",
        3,
        "double quotes",
    ),
    "too few fields": (
        "file,caption\naudio/a.wav,A.\naudio/b.wav\n",
        None,
        "malformed row",
        3,
        "fewer fields",
    ),
    "empty name": (
        "file,caption\naudio/a.wav,A.\n,B.\n",
        None,
        "malformed row",
        3,
        "empty file name",
    ),
    "parent": (
        "file,caption\naudio/a.wav,A.\naudio/../../x.wav,B.\n",
        None,
        "outside the folder",
        3,
        "points outside",
    ),
    "absolute": (
        "file,caption\naudio/a.wav,A.\n/etc/passwd,B.\n",
        None,
        "outside the folder",
        3,
        "points outside",
    ),
    "directory": (
        "file,caption\naudio/a.wav,A.\naudio,B.\n",
        None,
        "missing audio",
        3,
        "does not exist",
    ),
    "labels twice": (
        "file,caption\naudio/a.wav,A.\n",
        "file,label\naudio/a.wav,dog\naudio/a.wav,cat\n",
        "duplicate row",
        3,
        "earlier row",
    ),
    "label without caption": (
        "file,caption\naudio/a.wav,A.\n",
        "file,label\naudio/b.wav,dog\n",
        "no caption",
        None,
        "no caption",
    ),
    "fold": (
        "file,caption\naudio/a.wav,A.\n",
        "file,label,fold\naudio/b.wav,dog,first\n",
        "bad fold",
        2,
        "whole number",
    ),
    "event": (
        "file,caption\naudio/a.wav,A.\n",
        "file,label,events\naudio/a.wav,dog,dog@2-1\n",
        "bad label",
        2,
        "label@onset-offset",
    ),
}


@pytest.mark.parametrize("fault", ROW_FAULTS)
def test_a_bad_row_is_left_out_counted_and_listed(corpus, tmp_path, fault):
    captions, metadata, kind, line, words = ROW_FAULTS[fault]
    cuts, report = read(corpus(captions, metadata))
    assert captions_of(cuts) == {"set/audio/a.wav": ["A."]}
    assert report.counts() == {kind: 1}
    (rejected,) = report.rejected
    assert rejected.row == line and words in rejected.reason and "\n" not in str(rejected)
    write_rejected(tmp_path / "rejected.csv", report.rejected)
    with open(tmp_path / "rejected.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (
        row["kind"] == kind and row["reason"] == rejected.reason and row["line"] == str(line or "")
    )


# Each fault: tables, the file that the error names, words of the reason.
FATAL_FAULTS = {
    "missing column": (
        "file,text\naudio/a.wav,A.\n",
        None,
        "captions.csv",
        "column caption is missing",
    ),
    "no header": ("audio/a.wav,A dog.\n", None, "captions.csv", "column file, caption is missing"),
    "empty table": ("", None, "captions.csv", "column file, caption is missing"),
    "latin-1": (
        b"file,caption\naudio/a.wav,A.\naudio/b.wav,\xe4\n",
        None,
        "captions.csv",
        "line 3: not UTF-8",
    ),
    "utf-16": (
        "file,caption\naudio/a.wav,A.\n".encode("utf-16"),
        None,
        "captions.csv",
        "line 1: not UTF-8",
    ),
    "open quote": ('file,caption\naudio/a.wav,"A.\n', None, "captions.csv", "check the quotes"),
    "metadata column": (
        "file,caption\naudio/a.wav,A.\n",
        "name,class\n",
        "metadata.csv",
        "column file",
    ),
    "reserved column": (
        "file,caption\naudio/a.wav,A.\n",
        "file,label,captions\naudio/a.wav,dog,x\n",
        "metadata.csv",
        "column captions is reserved",
    ),
    "repeated column": (
        "file,caption\naudio/a.wav,A.\n",
        "file,label,label\naudio/a.wav,dog,x\n",
        "metadata.csv",
        "column label is reserved or repeated",
    ),
    "no rows": ("file,caption\n", None, "set", "the tables are empty"),
    "nothing left": (
        "file,caption\naudio/x.wav,A.\n",
        None,
        "set",
        "no usable row is left; 1 left out",
    ),
}


@pytest.mark.parametrize("fault", FATAL_FAULTS)
def test_unusable_tables_stop_with_one_line(corpus, fault):
    captions, metadata, file, words = FATAL_FAULTS[fault]
    with pytest.raises(FolderError, match=words) as error:
        read(corpus(captions, metadata))
    assert file in str(error.value) and "\n" not in str(error.value)


def test_only_broken_audio_stops(corpus):
    folder = corpus("file,caption\naudio/a.wav,A.\n")
    (folder / "audio" / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(FolderError, match="no usable audio is left; 1 left out.*a.wav"):
        read(folder)


def test_folders_without_tables_stop(tmp_path):
    with pytest.raises(FolderError, match=r"no captions\.csv here or in a subfolder"):
        read(tmp_path)
    with pytest.raises(FolderError, match="no such folder"):
        read(tmp_path / "none")


def test_long_and_broken_clips_are_counted_apart(corpus):
    folder = corpus("file,caption\naudio/a.wav,A.\naudio/b.wav,B.\naudio/c d é.wav,C.\n")
    soundfile.write(folder / "audio" / "b.wav", np.zeros(61 * 16000), 16000)
    (folder / "audio" / "c d é.wav").write_bytes(b"")
    cuts, report = read(folder)
    assert [cut.duration for cut in cuts] == [0.5]
    assert report.counts() == {"bad audio": 1, "too long": 1}
    assert report.to_dict()["total"] == {"clips": 1, "captions": 1, "hours": round(0.5 / 3600, 4)}


def test_linked_audio_folders_are_followed(corpus, tmp_path):
    folder = corpus("file,caption\naudio/a.wav,A.\n")
    (folder / "audio").rename(tmp_path / "elsewhere")
    (folder / "audio").symlink_to(tmp_path / "elsewhere")
    assert len(read(folder)[0]) == 1


def test_processes_give_the_same_cuts(mini_corpus):
    one, _ = read_folder(mini_corpus, num_jobs=1, progress=False)
    two, _ = read_folder(mini_corpus, num_jobs=2, progress=False)
    assert [cut.to_dict() for cut in one] == [cut.to_dict() for cut in two]


def test_reference_recordings_are_read(shared_dir):
    cuts, report = read_folder(shared_dir / "realaudio" / "drums", progress=False)
    assert len(cuts) == 137 and not report.rejected
    custom = cuts[0].supervisions[0].custom
    assert (
        custom["label"] == "conga" and custom["labels"] == ["drum", "conga"] and custom["fold"] == 1
    )
