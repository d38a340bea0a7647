"""Canonical keys: every trap of the releases' names, and the SQL form of the group rule."""

import duckdb
import pytest

from captionstew.corpora.keys import (
    GROUP_SQL,
    IdentityError,
    freesound_key,
    group_key,
    paraspeech_key,
    start_second,
    strong_segment,
    voxceleb_key,
    youtube_key,
    youtube_segment,
)


@pytest.mark.parametrize(
    ("name", "video", "start"),
    [
        ("Yb0RFKhbpFJA.wav", "b0RFKhbpFJA", None),  # WavCaps, AudioSet part
        ("Y---1_cCGK4M", "---1_cCGK4M", None),  # AudioSetCaps, AudioSet part
        ("-0aaa_bbbbb_000030.wav", "-0aaa_bbbbb", 30),
        ("OxPnZzn1_L8_000883", "OxPnZzn1_L8", 883),
        ("9eUrEyAR3xk_84_10", "9eUrEyAR3xk", 84),
        ("_7Xe9vD3Hpg_4_10.mp3", "_7Xe9vD3Hpg", 4),
        ("some/where/---2_BBVHAA_30_40.wav", "---2_BBVHAA", 30),
        ("Yabcdefghij", "Yabcdefghij", None),  # an id that begins with Y
        ("Yabcdefghij_000030", "Yabcdefghij", 30),
        ("YYabcdefghij.flac", "Yabcdefghij", None),
        ("YYabcdefghij_30", "Yabcdefghij", 30),
        (
            "Yabcdefghi_1",
            "abcdefghi_1",
            None,
        ),  # 12 characters: the Y is a prefix, "_1" belongs to the id
        ("abcdefgh_12", "abcdefgh_12", None),  # "_12" belongs to the id
        ("OxPnZzn1_L8_000883-0.wav", "OxPnZzn1_L8", 883),  # suffix of one VGGSound copy
        ("glLQrEijrKg_000300.mp4", "glLQrEijrKg", 300),
        ("--4gqARaEJE_0_10", "--4gqARaEJE", 0),
        ("-TL8Mp3xcUM_0_10.mp3", "-TL8Mp3xcUM", 0),
    ],
)
def test_youtube_names(name, video, start):
    assert youtube_segment(name) == (video, start)


@pytest.mark.parametrize(
    "name", ["", "short", "dog bark.wav", "abcdefghijklm", "r1nicOVtvk!", "é1nicOVtvkQ"]
)
def test_names_without_an_id_are_refused(name):
    with pytest.raises(IdentityError, match="no 11-character YouTube id"):
        youtube_segment(name)


def test_strong_ids_are_in_milliseconds():
    assert strong_segment("YxlGt805lTA_30000") == ("YxlGt805lTA", 30)
    assert strong_segment("--24LG2mr-Y_8000") == ("--24LG2mr-Y", 8)
    with pytest.raises(IdentityError, match="milliseconds"):
        strong_segment("YxlGt805lTA")


def test_starts_are_floored_and_unknown_stays_unknown():
    assert (
        start_second("30.000") == 30 and start_second(30.9) == 30 and start_second("000883") == 883
    )
    assert youtube_key("-0aaa_bbbbb", None) == "yt:-0aaa_bbbbb:*"
    for bad in (-1, float("nan"), float("inf")):
        with pytest.raises(IdentityError, match="not a time"):
            start_second(bad)


def test_freesound_ids_lose_leading_zeros():
    assert freesound_key("0064760") == freesound_key(64760) == "fs:64760"
    with pytest.raises(IdentityError, match="not a number"):
        freesound_key("Not found")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (
            "voxceleb1/dev/wav/id11127/fIXU5ExruI0/00014_voicefixer.wav",
            "vox:v1:id11127:fIXU5ExruI0:00014",
        ),
        (
            "voxceleb2/dev/aac/id03757/ufAcwmC_vD8/00425_voicefixer.wav",
            "vox:v2:id03757:ufAcwmC_vD8:00425",
        ),
        ("voxceleb2/dev/aac/id03757/ufAcwmC_vD8/00425.m4a", "vox:v2:id03757:ufAcwmC_vD8:00425"),
        (
            "voxceleb2_dev_aac_id00944__ykqXxZQLZ4_00323_voicefixer",
            "vox:v2:id00944:_ykqXxZQLZ4:00323",
        ),
        (
            "audio_48khz/read/ex04/whisper/base/ex04_whisper_00373.wav",
            "expresso:ex04_whisper_00373",
        ),
        (
            (
                "audio_48khz/conversational_vad_segmented/ex04-ex02/disgusted/"
                "ex04-ex02_disgusted_012_channel1_segment_50.0_59.58.wav"
            ),
            "expresso:ex04-ex02_disgusted_012_channel1_segment_50.0_59.58",
        ),
        (
            (
                "expresso_audio_48khz_conversational_vad_segmented_ex03-ex02_"
                "sad-sympathetic_ex03-ex02_"
                "sad-sympathetic_002_channel2_segment_383.32_423.46"
            ),
            "expresso:ex03-ex02_sad-sympathetic_002_channel2_segment_383.32_423.46",
        ),
        (
            "expresso_audio_48khz_read_ex04_whisper_base_ex04_whisper_00373",
            "expresso:ex04_whisper_00373",
        ),
        ("p002/emo_contentment_sentences.wav", "ears:p002:emo_contentment_sentences"),
        ("EARS_audio_p010_rainbow_01_lowpitch", "ears:p010:rainbow_01_lowpitch"),
        (
            "EN/EN_B00030/EN_B00030_S01984/mp3/EN_B00030_S01984_W000037.mp3",
            "emilia:EN_B00030_S01984_W000037",
        ),
    ],
)
def test_paraspeech_paths(path, key):
    assert paraspeech_key(path) == key


def test_foreign_paths_are_refused():
    with pytest.raises(IdentityError, match="none of VoxCeleb"):
        paraspeech_key("podcast/episode.wav")
    with pytest.raises(IdentityError, match="not a VoxCeleb path"):
        voxceleb_key("id00012/00001.wav")


def test_group_rule_is_the_same_in_sql():
    keys = [
        "yt:---2_BBVHAA:30",
        "yt:---2_BBVHAA:*",
        "vox:v2:id03757:ufAcwmC_vD8:00425",
        "vox:v1:id11127:fIXU5ExruI0:00014",
        "fs:64760",
        "jamendo:1748883:90",
        "jamendo:132648:full",
        "bbc:07066104",
        "clotho:Santa Motor.wav",
        "ears:p002:emo_contentment_sentences",
        "mine:yt:clip.wav",
    ]
    table = duckdb.sql(
        f"select k, {GROUP_SQL.format(key='k')} as g from (select unnest(?) as k)", params=[keys]
    )
    assert dict(table.fetchall()) == {key: group_key(key) for key in keys}
    assert group_key("yt:---2_BBVHAA:30") == "yt:---2_BBVHAA"
    assert group_key("vox:v2:id03757:ufAcwmC_vD8:00425") == "vox:v2:id03757:ufAcwmC_vD8"
    assert group_key("jamendo:132648:full") == "jamendo:132648"
