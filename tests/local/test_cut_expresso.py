"""Expresso's conversations become the utterances that ParaSpeechCaps names."""

import runpy

import numpy as np
import pytest
import soundfile

from captionstew.errors import UserError

NAME = "ex04-ex02_disgusted_012"


@pytest.fixture
def run(repository, monkeypatch, tmp_path):
    main = runpy.run_path(repository / "local" / "cut_expresso.py")["main"]
    monkeypatch.setattr("sys.argv", ["cut_expresso.py", "--expresso-dir", str(tmp_path)])
    return main


def test_segments_of_a_channel(run, tmp_path, capsys):
    conversations = tmp_path / "audio_48khz" / "conversational" / "ex04-ex02" / "disgusted"
    conversations.mkdir(parents=True)
    samples = np.stack([np.full(48_000, 0.25), np.linspace(0, 0.5, 48_000)], axis=1)
    soundfile.write(conversations / f"{NAME}.wav", samples, 48_000, subtype="PCM_16")
    (tmp_path / "VAD_segments.txt").write_text(
        f"# comment\n{NAME}/channel1\t(0.25, 0.5) (0.5, 0.58)\n"
        f"{NAME}/channel2\t(0.0, 0.1)\nex01-ex02_longform_001/channel1\t(0.0, 1.0)\n"
        "ex01-ex02_happy_001/channel1\t(0.0, 1.0)\n"
    )
    run()
    assert "3 cut, 0 there already, 1 of conversations that are not" in capsys.readouterr().out
    folder = tmp_path / "audio_48khz/conversational_vad_segmented/ex04-ex02/disgusted"
    lengths = {path.name: soundfile.info(path).frames for path in folder.iterdir()}
    assert lengths == {
        f"{NAME}_channel1_segment_0.25_0.5.wav": 12_000,
        f"{NAME}_channel1_segment_0.5_0.58.wav": 3_840,
        f"{NAME}_channel2_segment_0.0_0.1.wav": 4_800,
    }
    one, rate = soundfile.read(folder / f"{NAME}_channel1_segment_0.25_0.5.wav")
    assert rate == 48_000 and one.ndim == 1 and np.allclose(one, 0.25, atol=1e-4)
    two, _ = soundfile.read(folder / f"{NAME}_channel2_segment_0.0_0.1.wav")
    assert np.allclose(two, samples[:4_800, 1], atol=1e-4)
    run()
    assert "0 cut, 3 there already" in capsys.readouterr().out


def test_a_line_that_is_no_segment_is_named(run, tmp_path):
    with pytest.raises(UserError, match="VAD_segments.txt is missing"):
        run()
    (tmp_path / "VAD_segments.txt").write_text(f"{NAME}/channel3\t(0.0, 1.0)\n")
    with pytest.raises(UserError, match="line 1: not <name>/channel<N>"):
        run()
