"""Files whose announced length is not that of their audio: read to their real end, or refused."""

import logging
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from captionstew.data.audio import BadAudio, audio_duration, inspect_audio, read_audio

RATE = 16000


def chirp(seconds, rate=RATE):
    time = np.arange(round(rate * seconds)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 * time + 50 * time**2))).astype(np.float32)


@pytest.fixture
def flac(tmp_path):
    """flac(announced samples) -> file with 4 s that announces another length, and its samples."""

    def write(announced):
        path = tmp_path / "a.flac"
        soundfile.write(path, chirp(4), RATE)
        content = bytearray(path.read_bytes())
        content[21] &= 0xF0  # STREAMINFO: 36 bits of total samples end in bytes 22 to 25
        content[22:26] = struct.pack(">I", announced)
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("announced", [0, 1000, 40_960])
def test_flac_that_announces_less_than_it_holds(flac, announced):
    path = flac(announced)
    info = inspect_audio(path)
    assert (info.duration, info.decoder) == (4.0, "ffmpeg") and audio_duration(path) == 4.0
    expected = np.round(chirp(4) * 32768) / 32768
    np.testing.assert_allclose(read_audio(path), expected, atol=2**-15)
    np.testing.assert_array_equal(read_audio(path, 2.5, 1.0), read_audio(path)[40_000:56_000])


def test_flac_that_announces_more_is_refused(flac):
    with pytest.raises(BadAudio, match="damaged"):
        inspect_audio(flac(100_000))


def test_damage_in_a_flac_of_unknown_length(flac):
    path = flac(0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(BadAudio, match="damaged: .* cannot be decoded"):
        inspect_audio(path)


@pytest.mark.parametrize("format", ["WAV", "AIFF", "CAF", "AU", "RF64"])
@pytest.mark.parametrize("seconds, announced", [(2.0, 0.01), (2.0, 1.0), (2.0, 2.0)])
def test_uncompressed_files_that_were_not_closed(tmp_path, format, seconds, announced):
    path = tmp_path / "a"
    soundfile.write(path, chirp(seconds), RATE, format=format, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    true, false = round(2 * RATE * seconds), round(2 * RATE * announced)
    if format == "AU":
        at, form, extra = 8, ">I", 0
    elif format == "AIFF":
        at, form, extra = content.index(b"SSND") + 4, ">I", 8
    elif format == "CAF":
        at, form, extra = content.index(b"data") + 4, ">q", 4
    elif format == "RF64":
        at, form, extra = content.index(b"ds64") + 16, "<q", 0
    else:
        at, form, extra = content.index(b"data") + 4, "<I", 0
    assert struct.unpack_from(form, content, at)[0] == true + extra
    struct.pack_into(form, content, at, false + extra)
    path.write_bytes(content)
    try:
        assert inspect_audio(path).duration == seconds
        np.testing.assert_allclose(read_audio(path), chirp(seconds), atol=2**-15)
    except BadAudio as error:
        assert announced < seconds and format != "WAV"
        assert "more than its header announces" in error.reason or format == "CAF"


def test_wav_of_no_announced_length_with_chunks_before_its_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", chirp(2), RATE)
    content = (tmp_path / "a.wav").read_bytes()
    at = content.index(b"data")
    note = b"LIST" + struct.pack("<I", 5) + b"INFOx" + b"\0"
    path = tmp_path / "b.wav"
    path.write_bytes(content[:at] + note + b"data" + bytes(4) + content[at + 8 :])
    assert inspect_audio(path).duration == 2.0


@pytest.mark.parametrize("name", [b"LIST", b"id3 ", b"free", b"ID3\x04"])
def test_what_follows_the_samples_of_a_wav_is_no_sound(tmp_path, name):
    path = tmp_path / "a.wav"
    soundfile.write(path, chirp(1), RATE)
    with open(path, "ab") as file:
        file.write(name + struct.pack("<I", 50_000) + bytes(50_000))
    info = inspect_audio(path)
    assert (info.duration, info.decoder) == (1.0, "libsndfile")


@pytest.fixture
def mp3(tmp_path, encode):
    """mp3(name, seconds, ...) -> MP3 file of a constant bit rate."""
    return lambda name, seconds=4.0, **options: encode(
        tmp_path / name, chirp(seconds, 44100), 44100, "libmp3lame", **options
    )


def test_mp3_without_a_header(mp3):
    path = mp3("a.mp3", write_xing="0")
    info = inspect_audio(path)
    assert info.decoder == "ffmpeg" and info.duration == pytest.approx(4.0, abs=0.06)


def test_joined_mp3(mp3, tmp_path):
    first, second = mp3("a.mp3", 3.0).read_bytes(), mp3("b.mp3", 2.0).read_bytes()
    path = tmp_path / "joined.mp3"
    path.write_bytes(first + second)
    info = inspect_audio(path)
    assert info.decoder == "ffmpeg" and info.duration == pytest.approx(5.0, abs=0.11)


@pytest.mark.parametrize(
    "between",
    [
        b"TAG".ljust(128),
        b"TAG".ljust(128) + b"APETAGEX" + struct.pack("<II", 2000, 40) + bytes(2016),
        b"ID3\x04\0\0"
        + bytes(100_000 >> shift & 0x7F for shift in (21, 14, 7, 0))
        + bytes(100_000),
    ],
)
def test_joined_mp3_with_tags_between(mp3, tmp_path, between):
    first, second = (mp3(name, 5.0, id3v2_version="0").read_bytes() for name in ("a.mp3", "b.mp3"))
    path = tmp_path / "joined.mp3"
    path.write_bytes(first + between + second)
    info = inspect_audio(path)
    assert info.decoder == "ffmpeg" and info.duration == pytest.approx(10.0, abs=0.11)


def test_a_codec_that_nobody_knows_is_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", chirp(1), RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[20:22] = struct.pack("<H", 0x1234)
    (tmp_path / "b.wav").write_bytes(content)
    with pytest.raises(BadAudio, match="codec that FFmpeg does not know"):
        inspect_audio(tmp_path / "b.wav")


def test_an_ogg_file_that_is_cut_in_a_later_first_page(tmp_path):
    soundfile.write(tmp_path / "a.ogg", chirp(2), RATE, format="OGG", subtype="VORBIS")
    content = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "b.ogg").write_bytes(content + content[:10])
    assert inspect_audio(tmp_path / "b.ogg").duration == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("tag", [b"TAG".ljust(128), b"APETAGEX" + b"x" * 60_000, bytes(60_000)])
def test_tags_behind_an_mp3(mp3, tag):
    path = mp3("a.mp3")
    path.write_bytes(path.read_bytes() + tag)
    info = inspect_audio(path)
    assert (info.decoder, info.duration) == ("libsndfile", 4.0)


def test_large_tag_ahead_of_an_mp3(mp3, tmp_path):
    content = mp3("a.mp3", id3v2_version="0").read_bytes()
    size = bytes(40_000 >> shift & 0x7F for shift in (21, 14, 7, 0))
    path = tmp_path / "b.mp3"
    path.write_bytes(b"ID3\x04\0\0" + size + bytes(40_000) + content)
    info = inspect_audio(path)
    assert (info.decoder, info.duration) == ("libsndfile", 4.0)


@pytest.mark.parametrize("header", ["0", "1"])
def test_damage_inside_an_mp3(mp3, header):
    path = mp3("a.mp3", write_xing=header)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(len(content) // 8) + content[half:])
    with pytest.raises(BadAudio, match="damaged"):
        inspect_audio(path)


def test_one_damaged_frame_of_an_mp3_is_silence(mp3):
    path = mp3("a.mp3", write_xing="0")
    whole = inspect_audio(path).num_samples
    content = bytearray(path.read_bytes())
    half = content.index(b"\xff\xfb", len(content) // 2)
    content[half + 4 : half + 40] = bytes(36)
    path.write_bytes(content)
    assert inspect_audio(path).num_samples == pytest.approx(whole, abs=2 * 1152)


def test_mp3_that_is_cut_off(mp3):
    path = mp3("a.mp3")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadAudio, match=r"ends after \d.\d+ s of the 4.000 s that its header"):
        inspect_audio(path)


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}])
def test_m4a_that_is_cut_off(tmp_path, encode, options):
    path = encode(tmp_path / "a.m4a", chirp(4), RATE, "aac", **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(BadAudio, match="ends after|not readable"):
        inspect_audio(path)


@pytest.mark.parametrize("subtype, rate", [("VORBIS", 44100), ("OPUS", 48000)])
def test_chained_ogg(tmp_path, subtype, rate):
    parts, samples = [], []
    part = tmp_path / "part.ogg"
    for seconds in (3.0, 2.0, 1.5):
        soundfile.write(part, chirp(seconds, rate), rate, format="OGG", subtype=subtype)
        parts.append(part.read_bytes())
        samples.append(read_audio(part, sampling_rate=rate))
    path = tmp_path / "a.ogg"
    path.write_bytes(b"".join(parts))
    expected = np.concatenate(samples)
    assert inspect_audio(path).num_samples == len(expected)
    np.testing.assert_array_equal(read_audio(path, sampling_rate=rate), expected)
    for offset in (0.5, 2.6, 3.0, 4.9, 5.5):
        found = read_audio(path, offset, 0.6, rate)
        start = round(offset * rate)
        np.testing.assert_allclose(found, expected[start : start + len(found)], atol=1e-4)


def test_the_same_ogg_twice_has_one_serial_number(tmp_path, encode):
    path = encode(tmp_path / "a.opus", chirp(2, 48000), 48000, "libopus")
    content = path.read_bytes()
    path.write_bytes(content + content)
    assert inspect_audio(path).duration == pytest.approx(4.0, abs=1e-3)


def test_chained_ogg_of_different_rates_is_refused(tmp_path):
    parts = []
    for rate in (22050, 44100):
        soundfile.write(tmp_path / "part", chirp(1, rate), rate, format="OGG", subtype="VORBIS")
        parts.append((tmp_path / "part").read_bytes())
    (tmp_path / "a.ogg").write_bytes(b"".join(parts))
    with pytest.raises(BadAudio, match="22050 Hz with 1 channels, 44100 Hz"):
        inspect_audio(tmp_path / "a.ogg")


def test_what_libmpg123_prints_is_logged_with_the_files_name(mp3, caplog, capfd):
    path = mp3("a.mp3")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING), pytest.raises(BadAudio):
        inspect_audio(path)
    assert capfd.readouterr().err == ""
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: Warning: Xing")
    with pytest.raises(BadAudio):
        inspect_audio(path)
    assert len(caplog.records) == 1  # once for each file


def test_mp3_is_read_without_standard_error(mp3):
    code = """
import os, sys
from captionstew.data.audio import inspect_audio
os.close(2)
print(inspect_audio(sys.argv[1]).duration)
"""
    shown = subprocess.run([sys.executable, "-c", code, mp3("a.mp3")], capture_output=True)
    assert shown.returncode == 0 and float(shown.stdout) == 4.0


@pytest.fixture
def case(shared_dir):
    return lambda name: shared_dir / "cases" / "audio" / name


def test_case_of_variable_bit_rate_without_a_header(case):
    path = case("vbr_without_header_14s.mp3")
    assert inspect_audio(path).duration == pytest.approx(14.0, abs=2 * 1152 / 44100)
    whole = read_audio(path, sampling_rate=44100)
    for offset in (0.7, 5.0, 11.3):
        part = read_audio(path, offset, 1.0, 44100)
        start = round(offset * 44100)
        np.testing.assert_allclose(part, whole[start : start + 44100], atol=1e-4)


def test_case_of_an_unclosed_wav(case):
    path = case("data_chunk_says_1000_bytes_of_64000.wav")
    assert inspect_audio(path).duration == 2.0 and len(read_audio(path)) == 32_000


def test_case_of_an_odd_rate(case):
    samples = read_audio(case("rate_11111.wav"))
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert len(samples) == 16_000 and np.abs(samples - tone)[200:-200].max() < 3e-4


def test_case_of_cancelling_channels(case):
    info = inspect_audio(case("antiphase_stereo.wav"))
    assert info.cancelling and info.channels == 2
    assert np.abs(read_audio(case("antiphase_stereo.wav"))).max() < 1e-4


def test_case_of_a_page_is_quiet(case, capfd):
    with pytest.raises(BadAudio, match="page.mp3: not audio: looks like an HTML page"):
        read_audio(case("page.mp3"))
    assert capfd.readouterr().err == ""
