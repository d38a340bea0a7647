"""What file names say, in every form that archives and downloaders write."""

import pytest

from captionstew.corpora.file_names import jamendo_names, speech_names, youtube_names
from captionstew.corpora.keys import paraspeech_key

IDS = ["b0RFKhbpFJA", "-0aaa_bbbbb", "Yabcdefghij", "_YaYaYaYaY_"]
FORMS = {
    "{}.wav": "*",
    "Y{}.wav": "*",
    "unbalanced/00/Y{}.m4a": "*",
    "{}_30.flac": "30",
    "Y{}_30.wav": "30",
    "{}_30000.wav": "30",
    "{}_000030.mp4": "30",
    "{}_000030-0.wav": "30",
    "{}_30_40.wav": "30",
    "{}_30.000_40.000.wav": "30",
    "{}_30.5_40.5.wav": "30",
    "{}_30000_40000.wav": "30",
    "{}_30_10.mp3": "30",
    "[{}]-[30-40].wav": "30",
    "[{}].webm": "*",
    "A title [{}].opus": "*",
    "A - (loud) title, with.dots [{}].mp4": "*",
    "A title-{}.mkv": "*",
}


@pytest.mark.parametrize("video", IDS)
@pytest.mark.parametrize("form", FORMS)
def test_youtube_names(form, video):
    assert f"yt:{video}:{FORMS[form]}" in list(youtube_names(form.format(video)))


def test_what_may_be_the_segment_of_audioset():
    def may_be(name):
        return "segment:b0RFKhbpFJA" in list(youtube_names(name))

    assert may_be("b0RFKhbpFJA_30_40.wav") and may_be("b0RFKhbpFJA_30000_40000.wav")
    assert may_be("b0RFKhbpFJA_30.flac")
    assert not may_be("b0RFKhbpFJA_000030.wav")  # VGGSound's
    assert not may_be("b0RFKhbpFJA_84_10.mp3")  # YouTube-8M's


@pytest.mark.parametrize("name", ["07066104.flac", "short.wav", "a_much_longer_name_of_rain.wav"])
def test_other_names_are_none_of_youtube(name):
    assert not [key for key in youtube_names(name) if not key.startswith("yt:")]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("voxceleb1/dev/wav/id11127/fIXU5ExruI0/00014.wav", "vox:v1:id11127:fIXU5ExruI0:00014"),
        ("vox1_dev_wav/wav/id11127/fIXU5ExruI0/00014.wav", "vox:v1:id11127:fIXU5ExruI0:00014"),
        ("aac/id00012/-IXU5Exru_0/00014.m4a", "vox:v2:id00012:-IXU5Exru_0:00014"),
        ("id00012_-IXU5Exru_0_00014.wav", "vox:v2:id00012:-IXU5Exru_0:00014"),
        (
            "id00012/-IXU5Exru_0/00014_voicefixer.wav",
            "vox:v2:id00012:-IXU5Exru_0:00014:voicefixer",
        ),
        ("ears/p002/emo_contentment_sentences.wav", "ears:p002:emo_contentment_sentences"),
        ("expresso/read/ex04/whisper/base/ex04_whisper_00373.wav", "expresso:ex04_whisper_00373"),
        ("EN_B00030_S01984_W000037.mp3", "emilia:EN_B00030_S01984_W000037"),
        (
            "EN/EN_B00030/EN_B00030_S01984/mp3/EN_B00030_S01984_W000037.mp3",
            "emilia:EN_B00030_S01984_W000037",
        ),
    ],
)
def test_speech_names(path, name):
    assert list(speech_names(path)) == [name]


def test_speech_names_agree_with_the_keys_of_the_release():
    for path in (
        "voxceleb2/dev/aac/id03757/ufAcwmC_vD8/00425.m4a",
        "audio_48khz/read/ex04/whisper/base/ex04_whisper_00373.wav",
        "audio_48khz/conversational_vad_segmented/ex04-ex02/disgusted/"
        "ex04-ex02_disgusted_012_channel1_segment_50.0_59.58.wav",
        "p002/emo_contentment_sentences.wav",
    ):
        assert list(speech_names(path)) == [paraspeech_key(path)]
    assert list(speech_names("readme/noise.wav")) == []


def test_jamendo_names():
    names = {"1748883.mp3": "1748883", "83/track_0001083.low.mp3": "1083"}
    names |= {"1748883_90.mp3": "1748883_90", "1748883_90_120.wav": "1748883_90"}
    assert {path: next(jamendo_names(path)) for path in names} == names
    assert list(jamendo_names("a song.mp3")) == []
