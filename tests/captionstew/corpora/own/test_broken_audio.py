"""What happens to each file of the reference folder `realaudio/broken`, and why."""

import csv
import shutil

import numpy as np
import pytest
import soundfile

from captionstew.corpora.own.read import read_folder
from captionstew.data.audio import BadAudio, inspect_audio, read_audio

# file -> (seconds of real audio, why it is used): the length is what decodes, whatever the header
# says
ACCEPTED = {
    "one_sample.wav": (1 / 16000, "valid; padded to 0.25 s"),
    "hundred_samples.wav": (100 / 16000, "valid; padded to 0.25 s"),
    "stereo_44k.wav": (1.0, "channels averaged, resampled"),
    "eight_bit.wav": (2.0, "valid PCM"),
    "rate_96k.wav": (1.0, "resampled"),
    "rate_8k_24bit.wav": (2.0, "resampled; nothing above 4 kHz"),
    "six_channel.wav": (0.5, "channels averaged"),
    "silence.flac": (3.0, "silence is a sound that captions may describe"),
    "near_silence.flac": (2.0, "as silence"),
    "truncated.wav": (1.0, "uncompressed: what is present is intact"),
    "truncated.ogg": (2.52, "OGG pages carry checksums: the pages present are intact"),
    "streaming_size.wav": (
        2.0,
        "the audio is whole, only its length was unknown when the header was written",
    ),
    "wav_named.flac": (2.0, "the content decides, not the name"),
    "mp3_named.wav": (2.0, "the content decides, not the name"),
    "clipped_dc.flac": (
        2.0,
        "ugly but decodable; the filter bank removes the offset of each frame",
    ),
    "float_over_range.wav": (2.0, "divided by its peak of 8"),
    "name with spaces é.wav": (0.5, "names are not interpreted"),
}
# file -> words of the reason given
REJECTED = {
    "truncated.flac": "damaged",  # a decoder that loses its way may have passed noise on before
    "bitflip.flac": "damaged",
    "corrupt_streaminfo.flac": "is not readable audio",
    "zero_byte.wav": "empty",
    "text_named.wav": "is not readable audio",
    "nan_float.wav": "102 NaN or infinite samples",
    "all_nan_float.wav": "16000 NaN or infinite samples",
    "zero_samples.wav": "holds no audio samples",
    "corrupt_header.wav": "is not readable audio",
    "zero_format.wav": "is not readable audio",
}
TOO_LONG = {
    "long_90s.ogg": 90.0
}  # readable, but left out by the 60 s rule when a corpus is prepared
MISSING = "missing.wav"


@pytest.fixture(scope="module")
def broken(shared_dir):
    return shared_dir / "realaudio" / "broken"


def test_the_table_names_every_file(broken):
    with open(broken / "manifest.csv", encoding="utf-8") as file:
        listed = {row["file"] for row in csv.DictReader(file)}
    assert listed == {*ACCEPTED, *REJECTED, *TOO_LONG, MISSING}


@pytest.mark.parametrize("name", [*ACCEPTED, *TOO_LONG])
def test_accepted_files_are_read_whole(broken, name):
    info, samples = inspect_audio(broken / name), read_audio(broken / name)
    expected = TOO_LONG.get(name) or ACCEPTED[name][0]
    assert info.duration == pytest.approx(expected, abs=1e-9)
    assert len(samples) == max(4000, round(expected * 16000))
    assert samples.dtype == np.float32 and np.isfinite(samples).all() and np.abs(samples).max() <= 1


@pytest.mark.parametrize("name", REJECTED)
def test_rejected_files_say_why(broken, name):
    for read in (inspect_audio, read_audio):
        with pytest.raises(BadAudio, match=REJECTED[name]) as error:
            read(broken / name)
        assert "\n" not in str(error.value) and name in str(error.value)


def test_a_corpus_of_broken_files_is_read_and_each_rejection_listed(broken, tmp_path):
    shutil.copytree(broken, tmp_path / "broken")
    names = [*ACCEPTED, *REJECTED, *TOO_LONG, MISSING]
    with open(tmp_path / "broken" / "captions.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [["file", "caption"], *([name, f"Caption of {name}."] for name in names)]
        )
    cuts, report = read_folder(tmp_path / "broken", progress=False)
    assert [cut.supervisions[0].custom["captions"][0] for cut in cuts] == [
        f"Caption of {name}." for name in ACCEPTED
    ]
    assert [cut.duration for cut in cuts] == pytest.approx(
        [seconds for seconds, _ in ACCEPTED.values()]
    )
    assert report.counts() == {"bad audio": len(REJECTED), "missing audio": 1, "too long": 1}
    listed = {
        item.file.removeprefix("broken/"): item.reason
        for item in report.rejected
        if item.kind == "bad audio"
    }
    assert listed.keys() == REJECTED.keys()
    assert all(REJECTED[name] in reason for name, reason in listed.items())


def test_peak_rule_keeps_the_waveform(broken):
    raw = soundfile.read(broken / "float_over_range.wav", dtype="float32")[0]
    np.testing.assert_allclose(
        read_audio(broken / "float_over_range.wav"), raw / np.abs(raw).max(), atol=1e-7
    )
