"""Every format is read whole, at the right place, by the decoder that can be trusted with it."""

import os
import shutil

import numpy as np
import pytest
import soundfile

from captionstew.data.audio import AUDIO_ENDINGS, BadAudio, inspect_audio, read_audio
from captionstew.data.decoders.ffmpeg import FFmpeg
from captionstew.data.decoders.libsndfile import Libsndfile

SECONDS = 12
# file -> (codec of FFmpeg or subtype of libsndfile, rate, decoder, exact)
BY_FFMPEG = {
    "a.m4a": ("aac", 44100, "ffmpeg", False),
    "a.mp4": ("aac", 44100, "ffmpeg", False),
    "a.aac": ("aac", 44100, "ffmpeg", False),
    "a.mkv": ("aac", 44100, "ffmpeg", False),
    "a.webm": ("libopus", 48000, "ffmpeg", False),
    "vorbis.webm": ("vorbis", 44100, "ffmpeg", False),
    "a.wma": ("wmav2", 44100, "ffmpeg", False),
    "a.ac3": ("ac3", 48000, "ffmpeg", False),
    "a.mp2": ("mp2", 44100, "ffmpeg", False),
    "a.amr": ("libopencore_amrnb", 8000, "ffmpeg", False),
    "alac.m4a": ("alac", 44100, "ffmpeg", True),
    "flac.mka": ("flac", 44100, "ffmpeg", True),
    "flac.ogg": ("flac", 44100, "ffmpeg", True),
    "a.wv": ("wavpack", 44100, "ffmpeg", True),
    "a.tta": ("tta", 44100, "ffmpeg", True),
    "a.opus": ("libopus", 48000, "libsndfile", False),
    "a.mp3": ("libmp3lame", 44100, "libsndfile", False),
}
BY_LIBSNDFILE = {
    "a.wav": ("PCM_16", 44100, "libsndfile", True),
    "a.flac": ("PCM_24", 44100, "libsndfile", True),
    "a.ogg": ("VORBIS", 44100, "libsndfile", False),
    "vbr.mp3": ("MPEG_LAYER_III", 44100, "libsndfile", False),
    "a.aiff": ("PCM_16", 44100, "libsndfile", True),
    "a.caf": ("PCM_24", 44100, "libsndfile", True),
    "a.au": ("FLOAT", 44100, "libsndfile", True),
    "a.w64": ("PCM_32", 44100, "libsndfile", True),
    "gsm.wav": ("GSM610", 8000, "libsndfile", False),
}
FORMATS = BY_FFMPEG | BY_LIBSNDFILE


def chirp(rate, seconds=SECONDS):
    """Its frequency tells the second: 200 Hz + 100 Hz per second."""
    time = np.arange(round(rate * seconds)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 * time + 50 * time**2))).astype(np.float32)


def seconds_told(samples, rate):
    """When in the chirp half a second of it begins."""
    samples = samples[: rate // 2]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 18))
    middle = (spectrum.argmax() * rate / (1 << 18) - 200) / 100
    return middle - len(samples) / rate / 2


def channels(codec):
    return 2 if codec == "vorbis" else 1  # FFmpeg's encoder writes stereo alone


@pytest.fixture(scope="module")
def sounds(tmp_path_factory, encode):
    """Folder with the chirp in every format."""
    folder = tmp_path_factory.mktemp("sounds")
    for name, (codec, rate, _, _) in BY_FFMPEG.items():
        encode(folder / name, np.stack([chirp(rate)] * channels(codec)), rate, codec)
    for name, (subtype, rate, _, _) in BY_LIBSNDFILE.items():
        soundfile.write(folder / name, chirp(rate), rate, subtype=subtype)
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_whole_file(sounds, name):
    codec, rate, decoder, exact = FORMATS[name]
    info = inspect_audio(sounds / name)
    assert (info.decoder, info.sampling_rate) == (decoder, rate)
    assert info.channels == channels(codec) and not info.cancelling
    assert info.duration == pytest.approx(SECONDS, abs=0.06)  # lossy codecs pad to whole frames
    samples = read_audio(sounds / name, sampling_rate=rate)
    assert len(samples) == info.num_samples
    if exact:
        wave = soundfile.read(sounds / "a.wav", dtype="float32")[0]
        step = 2**-7 if name in ("a.wv", "a.tta") else 2**-15  # written with 8 bits
        assert np.abs(samples[: len(wave)] - wave[: len(samples)]).max() <= step


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("offset", [0.4, 3.21, 7.777, 11.3])
def test_offsets_are_exact(sounds, name, offset):
    _, rate, _, exact = FORMATS[name]
    part = read_audio(sounds / name, offset, 0.6, rate)
    whole = read_audio(sounds / name, sampling_rate=rate)
    start = round(offset * rate)
    error = np.abs(part - whole[start : start + len(part)]).max()
    assert len(part) == round(0.6 * rate)
    assert error == 0 if exact else error < 1e-4
    assert seconds_told(part, rate) == pytest.approx(offset, abs=0.06)


@pytest.mark.parametrize("name", BY_LIBSNDFILE)
def test_both_decoders_give_the_same_samples(sounds, name):
    _, _, _, exact = FORMATS[name]
    first, second = Libsndfile(sounds / name), FFmpeg(sounds / name)
    expected, samples = first.read(1 << 20), second.read(1 << 20)
    first.close()
    second.close()
    assert samples.shape == expected.shape and samples.dtype == expected.dtype == np.float32
    error = np.abs(samples - expected).max()
    assert error == 0 if exact else error < 1e-4


def test_long_files_are_not_decoded_up_to_the_offset(tmp_path, encode, monkeypatch):
    decoded = []
    samples = FFmpeg._samples
    monkeypatch.setattr(
        FFmpeg,
        "_samples",
        lambda self, frame: decoded.append(frame.samples) or samples(self, frame),
    )
    for name, codec, rate in (
        ("a.m4a", "aac", 8000),
        ("a.aac", "aac", 8000),
        ("a.mp3", "libmp3lame", 8000),
        ("a.mkv", "aac", 8000),
        ("a.webm", "libopus", 8000),
        ("a.wma", "wmav2", 44100),
    ):
        path = encode(tmp_path / name, chirp(rate, 120), rate, codec)
        decoded.clear()
        part = read_audio(path, 100.0, 1.0)
        assert len(part) == 16000 and sum(decoded) < 15 * 48000, name
        decoded.clear()


def test_walks_find_every_format_and_endings_are_one_list(sounds):
    from captionstew.corpora.audio_folder import AudioFolder
    from captionstew.corpora.own.audio_names import AudioNames
    from captionstew.data.features.noise import NoiseMixer
    from captionstew.inference.audio_files import find_audio

    names = sorted(FORMATS)
    assert sorted(path.rpartition("/")[2] for path in find_audio([sounds])) == names
    assert sorted(AudioNames(sounds).paths) == names
    assert sorted(path.name for path, _ in NoiseMixer(sounds, seed=0).files) == names
    assert all(duration > 11.9 for _, duration in NoiseMixer(sounds, seed=0).files)
    folder = AudioFolder(sounds)
    assert folder.path_in_tree("vorbis.wav") == str(sounds / "vorbis.webm")
    assert folder.path("a") == str(sounds / "a.aac")


def test_content_decides_not_the_name(sounds, tmp_path):
    path = shutil.copy(sounds / "a.m4a", tmp_path / "a.wav")
    assert inspect_audio(path).decoder == "ffmpeg"
    path = shutil.copy(sounds / "a.wav", tmp_path / "a.m4a")
    assert inspect_audio(path).decoder == "libsndfile"


@pytest.mark.parametrize("ending", AUDIO_ENDINGS)
def test_noise_of_any_name_is_no_audio(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(np.random.default_rng(0).bytes(20_000))
    with pytest.raises(BadAudio) as error:
        read_audio(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_play_lists_are_not_followed(tmp_path, sounds):
    path = tmp_path / "a.mp3"
    path.write_text(f"#EXTM3U\n#EXTINF:12,\nfile:{sounds / 'a.aac'}\n#EXT-X-ENDLIST\n")
    with pytest.raises(BadAudio, match="not readable audio"):
        read_audio(path)


@pytest.mark.parametrize("name", ["http:a.m4a", "a%03d.m4a", "concat:a.m4a|b.m4a", "-x y.m4a"])
def test_names_are_not_interpreted(tmp_path, sounds, name, monkeypatch):
    shutil.copy(sounds / "a.m4a", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert inspect_audio(name).duration == pytest.approx(SECONDS, abs=0.06)


@pytest.mark.parametrize("name", ["a.m4a", "a.wav"])
def test_a_name_that_is_no_text_is_one_line(tmp_path, sounds, name):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9." + name.encode())
    shutil.copy(sounds / name, path)
    for given in (path, os.fsdecode(path)):
        with pytest.raises(BadAudio, match="its name is not UTF-8: rename it"):
            read_audio(given)


@pytest.mark.parametrize("name", ["a.m4a", "a.mkv", "a.webm", "a.wma", "a.ac3", "a.wv", "a.aac"])
def test_a_hole_is_never_passed_over(tmp_path, sounds, name):
    content = (sounds / name).read_bytes()
    start, length = len(content) // 2, len(content) // 8
    path = tmp_path / name
    path.write_bytes(content[:start] + bytes(length) + content[start + length :])
    with pytest.raises(BadAudio, match="damaged"):
        inspect_audio(path)


@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.wma", "a.mp3", "a.ogg", "a.flac"])
def test_behind_the_end_is_no_audio(sounds, name):
    with pytest.raises(BadAudio, match="holds no audio after 100.0 s"):
        read_audio(sounds / name, 100.0, 1.0)
    with pytest.raises(BadAudio, match=r"ends after 0\.[45]\d\d s of the 2\.000 s"):
        read_audio(sounds / name, 11.5, 2.0)


def test_pictures_without_sound(tmp_path):
    import av

    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), dtype=np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(BadAudio, match="holds no audio track"):
        read_audio(tmp_path / "a.mp4")
