import math
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from captionstew.data.audio import BadAudio, inspect_audio, read_audio


def write(path, samples, rate=16000, subtype="PCM_16", format=None):
    soundfile.write(path, samples, rate, subtype=subtype, format=format)
    return path


def sine(frequency, rate, duration=1.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * duration)) / rate)).astype(
        np.float32
    )


def test_reading_in_threads_gives_the_same_samples(tmp_path):
    path = write(tmp_path / "a.wav", sine(440, 44100), 44100)
    results = []
    threads = [threading.Thread(target=lambda: results.append(read_audio(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(results[0], result) for result in results)


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([sine(500, 16000), -0.5 * sine(500, 16000)], axis=1)
    path = write(tmp_path / "stereo.wav", stereo, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path), 0.25 * sine(500, 16000), atol=1e-7)
    assert inspect_audio(path).channels == 2


def test_offset_and_duration_cut_the_same_samples_out(tmp_path):
    path = write(tmp_path / "a.flac", sine(300, 16000, 3.0))
    whole = read_audio(path)
    np.testing.assert_array_equal(read_audio(path, 1.25, 0.5), whole[20000:28000])
    np.testing.assert_array_equal(read_audio(path, 2.0), whole[32000:])


def test_short_clip_is_padded_with_zeros(tmp_path):
    path = write(tmp_path / "a.wav", sine(300, 16000, 0.1), subtype="FLOAT")
    samples = read_audio(path)
    assert samples.shape == (4000,) and samples.dtype == np.float32
    np.testing.assert_array_equal(samples[:1600], sine(300, 16000, 0.1))
    assert not samples[1600:].any()
    assert inspect_audio(path).duration == 0.1


def test_beyond_full_scale_is_divided_by_the_peak(tmp_path):
    path = write(tmp_path / "a.wav", 16 * sine(300, 16000), subtype="FLOAT")
    samples = read_audio(path)
    assert np.abs(samples).max() == 1.0
    np.testing.assert_allclose(
        samples, 2 * sine(300, 16000) / np.abs(2 * sine(300, 16000)).max(), atol=1e-6
    )


def test_full_scale_itself_is_left_alone(tmp_path):
    path = write(
        tmp_path / "a.wav", np.array([1.0, -1.0] * 4000, dtype=np.float32), subtype="FLOAT"
    )
    np.testing.assert_array_equal(read_audio(path), [1.0, -1.0] * 4000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_sample_rejects_the_file_but_not_the_rest_of_it(tmp_path, bad):
    samples = sine(300, 16000, 2.0)
    samples[20000] = bad
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    for read in (inspect_audio, read_audio):
        with pytest.raises(BadAudio, match="1 NaN or infinite") as error:
            read(path)
        assert error.value.path == str(path)
    assert len(read_audio(path, 0.0, 1.0)) == 16000


def test_part_behind_the_end_is_an_error_with_times(tmp_path):
    path = write(tmp_path / "a.wav", sine(300, 16000, 1.0))
    with pytest.raises(BadAudio, match=r"ends after 0\.500 s of the 2\.000 s"):
        read_audio(path, 0.5, 2.0)
    with pytest.raises(BadAudio):
        read_audio(path, 3.0, 1.0)
    assert (
        len(read_audio(path, 0.0, 1.1)) == 16000
    )  # manifests round: a quarter of a second is forgiven


def test_fingerprint_is_of_the_samples_not_of_the_file(tmp_path):
    samples = np.round(sine(300, 16000) * 32767).astype(np.int16)
    first, second = write(tmp_path / "a.wav", samples), write(tmp_path / "b.flac", samples)
    other = write(tmp_path / "c.wav", samples[::-1])
    assert inspect_audio(first).fingerprint == inspect_audio(second).fingerprint
    assert inspect_audio(first).fingerprint != inspect_audio(other).fingerprint


def test_rates_without_a_common_divisor_are_converted(tmp_path):
    path = write(tmp_path / "a.wav", sine(300, 44101), 44101, "FLOAT")
    assert inspect_audio(path).sampling_rate == 44101
    samples = read_audio(path)
    assert len(samples) == 16000
    assert np.abs(samples - sine(300, 16000))[100:-100].max() < 1e-3


@pytest.mark.parametrize("rate", [1, 999, 1_000_001])
def test_rates_of_a_broken_header_are_refused(tmp_path, rate):
    path = write(tmp_path / "a.wav", sine(0.1, 16000), rate)
    for read in (inspect_audio, read_audio):
        with pytest.raises(BadAudio, match=f"{rate} Hz, outside 1000 to 1000000"):
            read(path)


@pytest.mark.parametrize("channels", [3, 7, 64, 1000])
def test_any_number_of_channels(tmp_path, channels):
    tone = sine(300, 16000)
    path = write(
        tmp_path / "a.wav", np.outer(tone, np.arange(channels)) / channels, subtype="FLOAT"
    )
    info = inspect_audio(path)
    assert info.channels == channels and not info.cancelling
    expected = tone * np.mean(np.arange(channels) / channels)
    np.testing.assert_allclose(read_audio(path), expected, atol=1e-6)


def test_memory_is_bounded_for_many_channels(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("captionstew.data.audio.BLOCK", 4096)
    path = write(tmp_path / "a.wav", np.zeros((1000, 64)), subtype="PCM_U8")
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda *a, **k: asked.append(a[1]) or read(*a, **k)
    )
    assert inspect_audio(path).num_samples == 1000
    assert max(asked) == 64


@pytest.mark.parametrize(
    "second, cancelling", [(-1.0, True), (-0.9, True), (-0.5, False), (1.0, False), (0.0, False)]
)
def test_channels_that_cancel_are_noticed(tmp_path, second, cancelling):
    tone = sine(300, 16000)
    path = write(tmp_path / "a.wav", np.stack([tone, second * tone], axis=1))
    assert inspect_audio(path).cancelling is cancelling


def test_silent_stereo_does_not_cancel(tmp_path):
    assert not inspect_audio(write(tmp_path / "a.wav", np.zeros((16000, 2)))).cancelling


@pytest.mark.parametrize("name", ["-rf.wav", "a b é.wav", "100%.wav", "'quoted'.wav", "a;b.wav"])
def test_odd_names_are_read(tmp_path, name, monkeypatch):
    write(tmp_path / name, sine(300, 16000))
    monkeypatch.chdir(tmp_path)
    assert len(read_audio(name)) == 16000
    assert math.isclose(inspect_audio(name).duration, 1.0)


def test_bad_audio_survives_pickling(tmp_path):
    import pickle

    error = pickle.loads(pickle.dumps(BadAudio(tmp_path / "a.wav", "why")))
    assert error.reason == "why" and str(error) == f"{tmp_path / 'a.wav'}: why"


def test_folder_is_not_audio(tmp_path):
    with pytest.raises(BadAudio, match="is a folder"):
        read_audio(tmp_path)


@pytest.mark.parametrize(
    "content, kind",
    [
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page"),
        (b'\n  <html lang="en">', "an HTML page"),
        (b"\xef\xbb\xbf<HTML>", "an HTML page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n",
            "a Git LFS pointer",
        ),
        (b'{"error": "not found"}', "JSON"),
        (b'[{"message": "slow down"}]', "JSON"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML error message"),
    ],
)
@pytest.mark.parametrize("ending", ["mp3", "wav", "flac"])
def test_what_downloads_leave_in_the_place_of_audio_is_named(tmp_path, content, kind, ending):
    path = tmp_path / f"page.{ending}"
    path.write_bytes(content)
    for read in (inspect_audio, read_audio):
        with pytest.raises(BadAudio, match=f"not audio: looks like {kind}") as error:
            read(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_page_from_the_cases(shared_dir):
    with pytest.raises(BadAudio, match="page.mp3: not audio: looks like an HTML page"):
        read_audio(shared_dir / "cases" / "audio" / "page.mp3")


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path, reason in (
        (tmp_path / "pipe.wav", "device, pipe or socket"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.wav", "does not exist"),
        (Path("/dev/zero"), "device, pipe or socket"),
    ):
        with pytest.raises(BadAudio, match=reason):
            read_audio(path)
