"""Rows of the shape of each release with the traps it is known to hold; missing and broken
files.
"""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.release import ReleaseError, read_json_list


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def test_wavcaps_ids(prepare, tmp_path):
    def part(*records):
        return json.dumps({"num_captions_per_audio": 1, "data": list(records)})

    release = tmp_path / "wavcaps"
    clip = {"caption": " Wind is heard. ", "audio": "wav_path", "duration": 10.0}
    write(
        release / "json_files/AudioSet_SL/as_final.json", part({"id": "Yb0RFKhbpFJA.wav", **clip})
    )
    write(release / "json_files/BBC_Sound_Effects/bbc_final.json", part({"id": "07066104", **clip}))
    write(
        release / "json_files/FreeSound/fsd_final.json",
        part({"id": "180913", **clip}, {"id": "x", **clip}, {"id": "5", **clip, "caption": "  "}),
    )
    write(release / "json_files/SoundBible/sb_final.json", part({"id": "2219", **clip}))
    audio = release / "audio" / "BBC_Sound_Effects"
    write(audio / "07066104.flac", "x")
    write(
        release / "audio" / "SoundBible" / "2220.flac", "x"
    )  # 88 files of the archive have no caption
    rows = prepare("wavcaps", release, "--max-dropped-share", "1")
    assert [row["audio_key"] for row in rows] == [
        "yt:b0RFKhbpFJA:*",  # leading Y and ending dropped, no start given
        "bbc:07066104",  # leading zero kept
        "fs:180913",
        "soundbible:2219",
    ]
    assert rows[0]["audio_path"].endswith(
        "AudioSet_SL/Yb0RFKhbpFJA.flac"
    )  # the id says .wav, the audio is .flac
    assert rows[1]["audio_path"] == str(audio / "07066104.flac")
    report = json.loads((tmp_path / "tables" / "wavcaps.report.json").read_text())
    assert {reason: entry["rows"] for reason, entry in report["dropped"].items()} == {
        "no identity": 1,
        "empty caption": 1,
    }


def test_audiosetcaps_id_forms(prepare, tmp_path):
    release = tmp_path / "Dataset"
    write(
        release / "AudioSetCaps_caption.csv",
        'id,caption\nY---1_cCGK4M,"A choir, singing"\nYYabcdefghij,Two\n',
    )
    write(
        release / "VGGSound_AudioSetCaps_caption.csv",
        "id,caption\nOxPnZzn1_L8_000883,A\nYabcdefghij_000030,B\nYabcdefghij,no start\n",
    )
    write(release / "YouTube-8M_AudioSetCaps_caption.csv", "id,caption\n9eUrEyAR3xk_84_10,A\n")
    rows = prepare("audiosetcaps", tmp_path)
    assert [(row["audio_key"], row["source"]) for row in rows] == [
        ("yt:---1_cCGK4M:*", "audiosetcaps_audioset"),
        ("yt:Yabcdefghij:*", "audiosetcaps_audioset"),
        ("yt:OxPnZzn1_L8:883", "audiosetcaps_vggsound"),
        ("yt:Yabcdefghij:30", "audiosetcaps_vggsound"),
        ("yt:9eUrEyAR3xk:84", "audiosetcaps_youtube8m"),
    ]


def test_audiosetcaps_finds_audio_below_awkward_folders(prepare, tmp_path):
    write(tmp_path / "YouTube-8M_AudioSetCaps_caption.csv", "id,caption\n-eUrEyAR3xk_84_10,A\n")
    found = tmp_path / "audio" / "batch1" / "Vehicle (road) & more" / "-eUrEyAR3xk_84_10.mp3"
    write(found, "x")
    assert prepare("audiosetcaps", tmp_path, "--splits", "youtube8m")[0]["audio_path"] == str(found)


def test_fusionaudio_keeps_captions_only(prepare, tmp_path):
    path = "/home/someone/audioset/unbalanced/Y---2_BBVHAA_30_40.wav"
    record = {"audio_id": path, "instruction": "?", "input": "", "dataset": "x"}
    records = [
        {**record, "task": "captioning", "output": "Birds, then a [bell] {ring}."},
        {**record, "task": "open-ended question", "output": "Yes"},
        {**record, "task": "caption", "output": "A longer text"},
    ]
    write(tmp_path / "release" / "FusionAudio.json", json.dumps(records, indent=1))
    rows = prepare("fusionaudio", tmp_path / "release")
    assert [row["audio_key"] for row in rows] == ["yt:---2_BBVHAA:30"] * 2
    assert rows[0]["caption"] == "Birds, then a [bell] {ring}."
    report = json.loads((tmp_path / "tables" / "fusionaudio.report.json").read_text())
    assert report["dropped"]["not a caption (question and answer)"]["rows"] == 1


def test_json_lists_are_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("captionstew.corpora.release.CHUNK", 40)
    records = [{"id": str(i), "text": 'quotes " and ] brackets \\' * 5} for i in range(20)]
    write(tmp_path / "plain.json", json.dumps(records, indent=2))
    write(tmp_path / "cut.json", json.dumps(records)[:-30])
    assert list(read_json_list(tmp_path / "plain.json")) == records
    with pytest.raises(ValueError, match=r"cut\.json: the list is cut off"):
        list(read_json_list(tmp_path / "cut.json"))


def test_jamendomaxcaps_segments_are_clips_of_their_own(prepare, tmp_path):
    release = tmp_path / "release"
    records = [
        {"id": "1748883", "start_time": 90.0, "end_time": 120.0, "caption": "A"},
        {"id": "1748883", "start_time": 0.0, "end_time": 30.0, "caption": "B"},
        {"id": "1748883_60", "duration": 30.0, "caption": "C"},
        {"id": "132648_fullsong", "duration": 146.7, "caption": "D", "source": "full_song"},
        {"id": "132648", "caption": "opening"},
        {"id": "track", "caption": "E"},
    ]
    write(release / "final_caption30sec.jsonl", "\n".join(map(json.dumps, records)))
    for date, genre in (
        ("2024-01-02", "dub"),
        ("2024-03-01", "techno"),
    ):  # snapshots repeat a track
        metadata = {"id": "1748883", "musicinfo": {"tags": {"genres": [genre]}}}
        write(release / f"{date}.jsonl", json.dumps(metadata) + "\n")
    rows = prepare("jamendomaxcaps", release)
    assert [(row["audio_key"], row["offset"], row["duration"]) for row in rows] == [
        ("jamendo:1748883:90", 90.0, 30.0),
        ("jamendo:1748883:0", 0.0, 30.0),
        ("jamendo:1748883:60", 60.0, 30.0),
        ("jamendo:132648:full", 0.0, 146.7),
        ("jamendo:132648:0", 0.0, 30.0),
    ]
    assert rows[0]["genres"] == ["techno"]


def test_a_dot_in_a_name_is_no_ending(tmp_path):
    for name in ("talk_segment_1.5_2.25.wav", "talk_segment_1.5_2.75.wav"):
        (tmp_path / name).touch()
    audio = AudioFolder(tmp_path)
    assert audio.path_in_tree("talk_segment_1.5_2.75") == str(
        tmp_path / "talk_segment_1.5_2.75.wav"
    )
    assert audio.path_in_tree("talk_segment_1.5_2.25.flac") == str(
        tmp_path / "talk_segment_1.5_2.25.wav"
    )
    assert audio.path_in_tree("talk_segment_1.5_3.0.wav") == str(
        tmp_path / "talk_segment_1.5_3.0.wav"
    )


def test_paraspeechcaps_prefers_the_original_voxceleb(prepare, tmp_path):
    paths = [
        "voxceleb1/dev/wav/id11127/fIXU5ExruI0/00014_voicefixer.wav",
        "voxceleb1/test/wav/id10270/5r0dWxy17C8/00001_voicefixer.wav",
        "p002/emo_contentment_sentences.wav",
        "EN/EN_B00030/EN_B00030_S01984/mp3/EN_B00030_S01984_W000037.mp3",
    ]
    table = {
        "source": ["voxceleb", "voxceleb", "ears", "emilia"],
        "relative_audio_path": paths,
        "text_description": [[" A."], ["B.", " C."], ["D."], []],
        "speakerid": ["id11127", "id03757", "p002", "x"],
        "duration": [6.6, 7.5, 8.0, 9.0],
        "gender": ["m", "f", "f", "m"],
        "all_tags": pa.array([["husky"], None, None, None], pa.list_(pa.string())),
    }
    (tmp_path / "release").mkdir()
    pq.write_table(pa.table(table), tmp_path / "release" / "train_scaled-00000-of-00001.parquet")
    audio = tmp_path / "audio"
    write(audio / "voxceleb1/dev/wav/id11127/fIXU5ExruI0/00014.wav", "x")
    write(audio / "voxceleb1/dev/wav/id99999/fIXU5ExruI0/00014.wav", "another speaker's 00014")
    write(audio / "ears" / paths[2], "x")
    rows = prepare(
        "paraspeechcaps",
        tmp_path / "release",
        "--audio-dir",
        str(audio),
        "--splits",
        "train_scaled",
    )
    assert [row["caption"] for row in rows] == ["A.", "B.", "C.", "D."]
    assert {row["source"] for row in rows} == {"paraspeechcaps_scaled"}
    assert rows[0]["audio_path"] == str(audio / "voxceleb1/dev/wav/id11127/fIXU5ExruI0/00014.wav")
    assert rows[1]["audio_path"] == str(audio / "voxceleb1/test/wav/id10270/5r0dWxy17C8/00001.wav")
    assert rows[3]["audio_path"] == str(audio / "ears" / paths[2])
    assert rows[0]["tags"] == ["husky"] and rows[1]["tags"] == []


CLOTHO = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"


def test_clotho_latin1_metadata_and_awkward_names(prepare, tmp_path):
    release = tmp_path / "release"
    captions = (
        CLOTHO
        + "café.wav,A,B,C,D,E\nIntersection Wet : Metro Pass.wav,A,B,C,D,E\nlost.wav,A,B,C,D,E\n"
    )
    write(release / "clotho_captions_development.csv", captions)
    metadata = (
        "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
        'café.wav,a;b,0123456,http,"[0, 44100]",José,CC0\n'
        "lost.wav,a,Not found,,,,\n"
    )
    write(release / "clotho_metadata_development.csv", metadata, "latin-1")
    write(tmp_path / "audio/development/Intersection Wet_Metro Pass.wav", "x")
    flags = ["--audio-dir", str(tmp_path / "audio"), "--splits", "development"]
    with pytest.raises(ReleaseError, match="1 of 3 clips have no Freesound id.*allow-missing-ids"):
        prepare("clotho", release, *flags)
    rows = prepare("clotho", release, *flags, "--allow-missing-ids")
    report = json.loads((tmp_path / "tables" / "clotho.report.json").read_text())
    assert "1 of 3 clips have no Freesound id" in report["unprotected"][0]
    assert [row["audio_key"] for row in rows[::5]] == [
        "fs:123456",
        "clotho:Intersection Wet : Metro Pass.wav",
        "clotho:lost.wav",
    ]
    assert rows[0]["license"].endswith("; CC0")
    assert rows[5]["audio_path"] == str(
        tmp_path / "audio/development/Intersection Wet_Metro Pass.wav"
    )


def test_clotho_clips_cut_from_one_freesound_sound_are_not_taken_for_one(prepare, tmp_path):
    write(
        tmp_path / "clotho_captions_development.csv",
        CLOTHO + "a.wav,A,B,C,D,E\nb.wav,F,G,H,I,J\nc.wav,A,B,C,D,E\n",
    )
    metadata = (
        'file_name,sound_id,start_end_samples\na.wav,77,"[0, 9]"\nb.wav,077,"[9, 18]"\nc.wav,Not'
        " found,\n"
    )
    write(tmp_path / "clotho_metadata_development.csv", metadata)
    rows = prepare("clotho", tmp_path, "--splits", "development")
    assert [row["audio_key"] for row in rows] == ["fs:77"] * 5 + ["clotho:c.wav"] * 5
    assert [row["caption"] for row in rows[:5]] == list("ABCDE")
    report = json.loads((tmp_path / "tables" / "clotho.report.json").read_text())
    assert report["dropped"]["another excerpt of the same Freesound sound"]["rows"] == 1


def test_clotho_metadata_with_semicolons(prepare, tmp_path):
    write(tmp_path / "clotho_captions_evaluation.csv", CLOTHO + "a.wav,A,B,C,D,E\n")
    write(
        tmp_path / "clotho_metadata_evaluation.csv", "file_name;keywords;sound_id\na.wav;x,y;77\n"
    )
    rows = prepare("clotho", tmp_path, "--splits", "evaluation")
    assert rows[0]["audio_key"] == "fs:77"


def test_audiocaps_finds_every_naming_in_use(prepare, tmp_path):
    header = "audiocap_id,youtube_id,start_time,caption\n"
    lines = ["1,-1nicOVtvkQ,30,A", "2,Y2nicOVtvkQ,40,B", "3,r3nic_VtvkQ,50,C", "4,r4nicOVtvkQ,0,D"]
    write(tmp_path / "train.csv", header + "\n".join(lines) + "\n")
    for name in ("-1nicOVtvkQ_30.flac", "YY2nicOVtvkQ.wav", "3.wav"):
        write(tmp_path / "audio" / name, "x")
    rows = prepare("audiocaps", tmp_path, "--splits", "train")
    found = [row["audio_path"].rsplit("/", 1)[1] for row in rows]
    assert found == ["-1nicOVtvkQ_30.flac", "YY2nicOVtvkQ.wav", "3.wav", "r4nicOVtvkQ_0.flac"]


@pytest.mark.parametrize(
    ("name", "file", "home"),
    [
        ("audiocaps", "dataset/train.csv", "github.com/cdjkim/audiocaps"),
        ("clotho", "clotho_captions_development.csv", "zenodo.org/records/4783391"),
        ("musiccaps", "musiccaps-public.csv", "googleai/musiccaps"),
        ("wavcaps", "as_final.json", "cvssp/WavCaps"),
        ("audiosetcaps", "AudioSetCaps_caption.csv", "baijs/AudioSetCaps"),
        ("fusionaudio", "no JSON file", "SatsukiVie/FusionAudio"),
        ("jamendomaxcaps", "final_caption30sec.jsonl", "amaai-lab/JamendoMaxCaps"),
        ("paraspeechcaps", "train_base.parquet", "ajd12342/paraspeechcaps"),
    ],
)
def test_a_missing_release_is_one_line_with_what_where_and_whereto(
    prepare, tmp_path, name, file, home
):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReleaseError) as stop:
        prepare(name, tmp_path / "empty")
    message = str(stop.value)
    assert (
        "\n" not in message
        and file in message
        and home in message
        and str(tmp_path / "empty") in message
    )
    with pytest.raises(ReleaseError, match="is not a folder; get the release from"):
        prepare(name, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("audiocap_id,youtube_id,caption\n1,r1nicOVtvkQ,A\n", "column 'start_time' is missing"),
        ("audiocap_id,youtube_id,start_time,caption\n1,r1nicOVtvkQ\n", "row 2: too few fields"),
        (
            'audiocap_id,youtube_id,start_time,caption\n1,r1nicOVtvkQ,0,"never closed\n',
            "not a well-formed CSV",
        ),
    ],
)
def test_broken_csvs_are_named(prepare, tmp_path, content, message):
    write(tmp_path / "train.csv", content)
    with pytest.raises(ReleaseError, match=message) as stop:
        prepare("audiocaps", tmp_path, "--splits", "train")
    assert str(tmp_path / "train.csv") in str(stop.value)
    assert not (tmp_path / "tables" / "audiocaps.parquet").exists()


def test_wrong_encoding_is_named(prepare, tmp_path):
    write(
        tmp_path / "train.csv",
        "audiocap_id,youtube_id,start_time,caption\n1,r1nicOVtvkQ,0,café\n",
        "latin-1",
    )
    with pytest.raises(ReleaseError, match=r"train\.csv: line 2: not utf-8 text"):
        prepare("audiocaps", tmp_path, "--splits", "train")


def test_unknown_split_and_abbreviated_flag_are_refused(prepare, tmp_path):
    for flags in (["--splits", "everything"], ["--split", "train"]):
        with pytest.raises(SystemExit):
            prepare("audiocaps", tmp_path, *flags)
