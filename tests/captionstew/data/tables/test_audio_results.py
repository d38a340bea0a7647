"""A file is decoded once as long as it stays the same."""

import os

import numpy as np
import pytest
import soundfile

from captionstew.data.tables import audio_results
from captionstew.data.tables.audio_check import check_audio, inspect_clips
from captionstew.data.tables.caption_table import write_rows
from captionstew.data.tables.clip_table import CLIP_SCHEMA


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that were decoded since it was last cleared."""
    names, inspect = [], audio_results.inspect_audio

    def counting(path):
        names.append(os.path.basename(path))
        return inspect(path)

    monkeypatch.setattr(audio_results, "inspect_audio", counting)
    return names


def tone(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(4_800 + 160 * number) * 0.1), 16_000)


@pytest.fixture
def make_clips(tmp_path):
    """make_clips(numbers): a clip table with a file for each."""

    def make(numbers):
        rows = (
            {
                "audio_key": f"mine:{n:03d}",
                "captions": ["A"],
                "sources": ["mine"],
                "licenses": ["free"],
                "files": [{"source": "mine", "path": str(tmp_path / f"audio/{n:03d}.wav"),
                           "offset": 0.0, "duration": None}],
                "duration": None,
                "num_captions": 1,
            }
            for n in numbers
        )  # fmt: skip
        write_rows(tmp_path / "clips.parquet", CLIP_SCHEMA, rows)
        return tmp_path / "clips.parquet"

    return make


def test_only_what_is_new_or_changed_is_decoded(make_clips, decoded, tmp_path):
    check, audio = tmp_path / "check", tmp_path / "audio"
    for number in range(30):
        tone(audio / f"{number:03d}.wav", number)
    (audio / "007.wav").write_text("not audio")
    first = check_audio(make_clips(range(50)), check, clips_per_share=7)["total"]
    assert len(decoded) == 30 and first["found"] == 29 and first["broken"] == 1
    before = (check / "checked.parquet").read_bytes()
    decoded.clear()
    check_audio(make_clips(range(50)), check, clips_per_share=7)
    assert decoded == [] and (check / "checked.parquet").read_bytes() == before
    for number in range(30, 33):
        tone(audio / f"{number:03d}.wav", number)
    tone(audio / "003.wav", 99)
    found = check_audio(make_clips(range(45)), check, clips_per_share=5)["total"]
    assert sorted(decoded) == ["003.wav", "030.wav", "031.wav", "032.wav"]
    assert found["found"] == 32 and found["listed"] == 45
    reference = check_audio(make_clips(range(45)), tmp_path / "anew", clips_per_share=5)["total"]
    assert reference == found
    for name in ("checked.parquet", "missing.txt", "broken.txt"):
        assert (check / name).read_bytes() == (tmp_path / "anew" / name).read_bytes()


def test_what_one_decoder_found_says_nothing_of_another(make_clips, decoded, tmp_path, monkeypatch):
    tone(tmp_path / "audio/000.wav", 0)
    (tmp_path / "audio/001.wav").write_text("not audio")
    check_audio(make_clips(range(2)), tmp_path / "check")
    decoded.clear()
    monkeypatch.setattr(audio_results, "decoder", lambda: "another")
    check_audio(make_clips(range(2)), tmp_path / "check")
    assert decoded == ["000.wav", "001.wav"]


def test_a_killed_check_of_another_table_loses_nothing(make_clips, decoded, tmp_path, monkeypatch):
    from captionstew.data.tables import audio_check

    for number in range(20):
        tone(tmp_path / f"audio/{number:03d}.wav", number)
    work = audio_check._check_share

    def dying(share):
        if share.start == 15:
            raise KeyboardInterrupt
        work(share)

    monkeypatch.setattr(audio_check, "_check_share", dying)
    with pytest.raises(KeyboardInterrupt):
        inspect_clips(make_clips(range(20)), tmp_path / "check", clips_per_share=5)
    monkeypatch.setattr(audio_check, "_check_share", work)
    decoded.clear()
    inspect_clips(make_clips(range(19)), tmp_path / "check", clips_per_share=5)
    assert sorted(decoded) == [f"{number:03d}.wav" for number in range(15, 19)]


def test_results_of_another_form_are_decoded_again(make_clips, decoded, tmp_path):
    tone(tmp_path / "audio/000.wav", 0)
    path = str(tmp_path / "audio/000.wav")
    known = audio_results.KnownAudio(tmp_path)
    known.found.append((audio_results._key(path, os.stat(path)), {"length": 1}))
    known.write_found(tmp_path / f"x{audio_results.ENDING}")
    (tmp_path / f"y{audio_results.ENDING}").write_text('["half a li')
    audio_results.remember(tmp_path)
    assert not list(tmp_path.glob(f"*{audio_results.ENDING}"))
    assert audio_results.KnownAudio(tmp_path).inspect(path).num_samples == 4_800
    assert decoded == ["000.wav"]
