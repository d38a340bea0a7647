"""What the stages of prepare.sh depend on."""

import os
import runpy

import pytest


@pytest.fixture
def contents(repository, monkeypatch, capsys, tmp_path):
    """contents("a") -> (hash of its release, hash of its audio)."""
    main = runpy.run_path(repository / "egs/captionstew/local/list_contents.py")["main"]

    def read(name):
        flags = ["--corpora-dir", tmp_path / "corpora", "--audio-dir", tmp_path / "audio", name]
        monkeypatch.setattr("sys.argv", ["list_contents.py", *map(str, flags)])
        main()
        found, release, audio = capsys.readouterr().out.split()
        assert found == name
        return release, audio

    return read


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_each_change_is_noticed_where_it_matters(contents, tmp_path):
    table = write(tmp_path / "corpora/a/train.csv", "x")
    first = contents("a")
    assert contents("a") == first
    table.write_text("xy")
    larger = contents("a")
    assert larger[0] != first[0] and larger[1] == first[1]
    os.utime(table, ns=(0, 0))
    assert contents("a")[0] != larger[0]
    release, audio = contents("a")
    sound = write(tmp_path / "audio/a/deep/1.MP4", "x")
    more = contents("a")
    assert more[0] != release and more[1] != audio  # tables name the file, the check decodes it
    os.utime(sound, ns=(0, 0))
    again = contents("a")
    assert again[0] == more[0] and again[1] != more[1]  # the same name: the check alone


def test_links_and_folders_that_are_not_there(contents, tmp_path):
    nothing = contents("a")
    write(tmp_path / "store/1.wav")
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora/a").symlink_to(tmp_path / "store")
    (tmp_path / "store/loop").symlink_to(tmp_path / "store")
    assert contents("a") != nothing
    write(tmp_path / "corpora/mini/captions.csv")  # stage 1 makes it itself
    assert contents("mini") == nothing
