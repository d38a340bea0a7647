"""Audio is found in every usual layout; what does not meet is counted."""

import json
import os

import pytest

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.release import Report


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


def test_the_end_of_a_path_is_enough(tmp_path):
    deep = touch(tmp_path / "mnt/data/set/f/one.wav")
    near = touch(tmp_path / "other/set/f/one.mp3")
    audio = AudioFolder(tmp_path)
    assert audio.path_in_tree("set/f/one.flac") in (deep, near)
    assert audio.path_in_tree("data/set/f/one.flac") == deep
    assert audio.path_in_tree("f/two.flac") == str(tmp_path / "f/two.flac")
    assert audio.path_in_tree("one.wav") == str(tmp_path / "one.wav")  # no folder: at the top only


def test_links_are_followed_and_loops_broken(tmp_path):
    store = touch(tmp_path / "store" / "a.wav")
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "back").symlink_to(tmp_path / "audio")
    audio = AudioFolder(tmp_path / "audio")
    assert os.path.realpath(audio.path("x/a.flac")) == store


@pytest.mark.parametrize("ending", [".mp4", ".m4a", ".webm", ".opus", ".MP3"])
def test_endings_and_accents(tmp_path, ending):
    path = touch(tmp_path / f"cafe\N{COMBINING ACUTE ACCENT}{ending}")
    assert AudioFolder(tmp_path).path("café.wav") == path


def test_what_does_not_meet_is_counted(tmp_path):
    for name in "abcde":
        touch(tmp_path / f"{name}.wav")
    report = Report()
    audio = AudioFolder(tmp_path, report)
    for name in ("a", "b", "x", "x", "y"):
        audio.path(f"{name}.wav")
    (summary,) = report.audio_summary()
    assert summary == {
        "files": 5,
        "files_without_clip": {"count": 3, "examples": ["c.wav", "d.wav", "e.wav"]},
        "clips_without_file": {"count": 2, "examples": ["x.wav", "y.wav"]},
    }
    assert "3 audio files without clip: c.wav, d.wav, e.wav" in str(report)
    assert "2 audio clips without file: x.wav, y.wav" in str(report)


LAYOUTS = {  # corpus: (clips, its layouts, each with the file of each clip)
    "audiocaps": (
        ["cAsE0000001", "-AsE0000002"],
        [
            ["Y{}.wav"] * 2,
            ["AUDIOCAPS/audio_32000Hz/train/{}_30.flac"] * 2,
            ["{}_30000_40000.wav", "A title [{}].wav"],
            ["0.wav", "1.wav"],
        ],
    ),
    "wavcaps": (
        ["1000", "1001"],
        [
            ["SoundBible/{}.flac"] * 2,
            ["SoundBible_flac/{}.flac"] * 2,
            ["mnt/fast/scratch/WavCaps/data/waveforms/SoundBible_flac/{}.flac"] * 2,
            ["WAVCAPS/Audio/SoundBible/{}.flac"] * 2,
            ["{}.flac"] * 2,
        ],
    ),
    "fusionaudio": (
        ["cAsE0000001", "-AsE0000002"],
        [["{}_30_40.wav"] * 2, ["Y{}.wav"] * 2, ["{}.opus"] * 2],
    ),
    "musiccaps": (
        ["cAsE0000001", "-AsE0000002"],
        [["[{}]-[30-40].wav"] * 2, ["{}.wav"] * 2, ["{}_30_40.wav"] * 2],
    ),
}


def write_release(name, folder, clips):
    if name == "audiocaps":
        rows = [f"{n},{clip},30,A\n" for n, clip in enumerate(clips)]
        text = "audiocap_id,youtube_id,start_time,caption\n" + "".join(rows)
        (folder / "train.csv").write_text(text)
        return ["--splits", "train"]
    if name == "wavcaps":
        data = [{"id": clip, "caption": "A", "duration": 2.0} for clip in clips]
        (folder / "sb_final.json").write_text(json.dumps({"data": data}))
        return ["--splits", "soundbible"]
    if name == "fusionaudio":
        data = [{"audio_id": f"{x}_30_40.wav", "task": "caption", "output": "A"} for x in clips]
        (folder / "fusion.json").write_text(json.dumps(data))
        return []
    rows = [f"{clip},30,40,\"['low']\",A,False\n" for clip in clips]
    header = "ytid,start_s,end_s,aspect_list,caption,is_audioset_eval\n"
    (folder / "musiccaps-public.csv").write_text(header + "".join(rows))
    return ["--splits", "train"]


EACH = [(name, n) for name, (_, layouts) in LAYOUTS.items() for n in range(len(layouts))]


@pytest.mark.parametrize(("name", "number"), EACH)
def test_every_layout_of_a_corpus(prepare, tmp_path, name, number):
    clips, layouts = LAYOUTS[name]
    folder = tmp_path / name
    folder.mkdir()
    flags = write_release(name, folder, clips)
    audio = tmp_path / "elsewhere"
    paths = [touch(audio / form.format(clip)) for form, clip in zip(layouts[number], clips)]
    touch(audio / "FreeSound" / f"{clips[0]}.flac")  # another source with the same id
    if name != "wavcaps":
        (audio / "FreeSound" / f"{clips[0]}.flac").unlink()
    rows = prepare(name, folder, "--audio-dir", str(audio), *flags)
    assert [row["audio_path"] for row in rows] == paths
    report = json.loads((tmp_path / "tables" / f"{name}.report.json").read_text())
    (summary,) = report["audio"]
    assert summary["clips_without_file"]["count"] == 0
    assert summary["files_without_clip"]["count"] == (name == "wavcaps")


def test_the_layouts_that_were_not_found(prepare, shared_dir, tmp_path):
    cases = json.loads((shared_dir / "cases" / "corpus" / "audio_layouts.json").read_text())
    for case, path in cases.items():
        name = case.split("_")[0]
        if name == "emilia":
            continue
        clip = path.rpartition("/")[2]
        video = next((x for n in (1, 2, 3) if (x := f"cAsE000000{n}") in clip), "1000")
        folder = tmp_path / case
        folder.mkdir()
        flags = write_release(name, folder, [video])
        found = touch(folder / "audio" / path)
        assert [row["audio_path"] for row in prepare(name, folder, *flags)] == [found], case


def test_audiosetcaps_takes_no_other_segment_of_a_video(prepare, tmp_path):
    video = "cAsE0000001"
    for file, clip in (
        ("AudioSetCaps_caption.csv", f"Y{video}"),
        ("VGGSound_AudioSetCaps_caption.csv", f"{video}_000200"),
        ("YouTube-8M_AudioSetCaps_caption.csv", f"{video}_84_10"),
    ):
        (tmp_path / file).write_text(f"id,caption\n{clip},A\n")
    audio = tmp_path / "audio"
    vggsound = touch(audio / f"{video}_000200.mp4")

    def found():
        return [
            os.path.relpath(row["audio_path"], audio) for row in prepare("audiosetcaps", tmp_path)
        ]

    assert found() == [
        f"audioset/Y{video}.wav",
        os.path.basename(vggsound),
        f"youtube8m/{video}_84_10.mp3",
    ]
    touch(audio / f"Y{video}.flac")
    assert found()[0] == f"Y{video}.flac" and found()[2] == f"youtube8m/{video}_84_10.mp3"
    touch(audio / "YouTube-8M" / f"{video}.mp3")  # a whole video of that part
    assert found()[2] == f"YouTube-8M/{video}.mp3"


def test_what_downloaders_leave_beside_the_audio_is_no_caption_file(prepare, tmp_path):
    write_release("fusionaudio", tmp_path, ["cAsE0000001"])
    sound = touch(tmp_path / "audio" / "A title [cAsE0000001].opus")
    (tmp_path / "audio" / "A title [cAsE0000001].info.json").write_text('{"id": "cAsE0000001"}')
    assert [row["audio_path"] for row in prepare("fusionaudio", tmp_path)] == [sound]


def test_jamendo_segments_that_are_cut_already(prepare, tmp_path):
    record = {"id": "1748883", "start_time": 90.0, "end_time": 120.0, "caption": "A"}
    (tmp_path / "final_caption30sec.jsonl").write_text(json.dumps(record) + "\n")
    cut = touch(tmp_path / "audio" / "1748883_90.mp3")
    (row,) = prepare("jamendomaxcaps", tmp_path)
    assert (row["audio_path"], row["offset"]) == (cut, 0.0)
    track = touch(tmp_path / "audio" / "83" / "track_1748883.mp3")
    (row,) = prepare("jamendomaxcaps", tmp_path)
    assert (row["audio_path"], row["offset"]) == (track, 90.0)
