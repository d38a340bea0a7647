"""Programs of the probing tasks: audio under other names, broken, missing, not decoded; lists that
are wrong.
"""

import json
from argparse import Namespace
from collections import Counter

import numpy as np
import pytest
import soundfile

from captionstew.corpora import cremad, magnatagatune, voxceleb2
from captionstew.corpora.audioset_strong import join_events
from captionstew.corpora.cremad import ACTORS, split_of_actor
from captionstew.corpora.labelled import held_out_for_validation
from captionstew.corpora.magnatagatune import MAGNATAGATUNE_TAGS
from captionstew.corpora.release import ReleaseError, Report
from captionstew.corpora.voxceleb2 import read_vox2_utterances
from captionstew.data.manifests.cuts import open_cuts

TASKS = {
    "fsd50k": ("FSD50K.ground_truth/vocabulary.csv", "zenodo.org/records/4060432"),
    "vggsound": ("stat.csv", "github.com/hche11/VGGSound"),
    "voxceleb2": ("vox2_meta.csv", "mm.kaist.ac.kr/datasets/voxceleb"),
    "cremad": ("SentenceFilenames.csv", "github.com/CheyneyComputerScience/CREMA-D"),
    "magnatagatune": ("annotations_final.csv", "mirg.city.ac.uk"),
    "nsynth": ("nsynth-train/examples.json", "magenta.tensorflow.org/datasets/nsynth"),
    "audioset_strong": (
        "audioset_train_strong.tsv",
        "research.google.com/audioset/download_strong.html",
    ),
}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_audio(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(round(16_000 * seconds)) * 0.1), 16_000)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("task", TASKS)
def test_a_missing_release_is_one_line_with_what_where_and_whereto(
    prepare_labelled, tmp_path, task
):
    file, home = TASKS[task]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReleaseError) as error:
        prepare_labelled(task, tmp_path / "empty")
    message = str(error.value)
    assert (
        "\n" not in message
        and file in message
        and home in message
        and str(tmp_path / "empty") in message
    )
    with pytest.raises(ReleaseError, match="is not a folder; get the release from"):
        prepare_labelled(task, tmp_path / "nowhere")


NSYNTH_NOTES = (
    "guitar_acoustic_010-066-100",
    "synth_lead_synthetic_011-060-025",
    "bass_electronic_001-050-100",
)


def make_nsynth(folder, split="test", notes=NSYNTH_NOTES):
    write(folder / f"nsynth-{split}" / "examples.json", json.dumps({note: {} for note in notes}))


def test_broken_test_clips_keep_their_labels_and_their_place_in_the_count(
    prepare_labelled, tmp_path, capsys
):
    make_nsynth(tmp_path)
    audio = tmp_path / "nsynth-test" / "audio"
    write_audio(audio / f"{NSYNTH_NOTES[0]}.wav", 4.0)
    write(audio / f"{NSYNTH_NOTES[1]}.wav", "not audio")  # the third is not there at all
    output = prepare_labelled("nsynth", tmp_path, "--splits", "test")
    cuts = open_cuts(output / "cuts_test.jsonl")
    assert [cut.supervisions[0].custom["label"] for cut in cuts] == ["guitar"]
    broken = rows(output / "broken_test.jsonl")
    assert [row["custom"]["label"] for row in broken] == ["synth_lead", "bass"]
    assert broken[0].keys() == {"cut_id", "audio_path", "reason", "custom"}
    assert broken[0]["custom"]["sources"] == ["nsynth"] and broken[0]["audio_path"].endswith(
        "-060-025.wav"
    )
    assert [row["reason"] for row in broken] == [
        "is not readable audio (Format not recognised)",
        "file does not exist",
    ]
    assert json.loads((output / "report.json").read_text())["splits"]["test"] == {
        "listed": 3,
        "found": 1,
        "missing": 0,
        "broken": 2,
        "hours": 0.0011,
    }
    assert "2 clips of test cannot be used" in capsys.readouterr().out
    write_audio(audio / f"{NSYNTH_NOTES[1]}.wav", 4.0)  # the next run finds what has come since
    prepare_labelled("nsynth", tmp_path, "--splits", "test")
    assert (
        len(open_cuts(output / "cuts_test.jsonl")) == 2
        and len(rows(output / "broken_test.jsonl")) == 1
    )


def test_no_audio_at_all_is_an_error_that_names_the_first_file(prepare_labelled, tmp_path):
    make_nsynth(tmp_path)
    with pytest.raises(
        ReleaseError,
        match=r"no audio of 3 clips.*nsynth-test/audio/guitar_acoustic_010-066-100\.wav",
    ):
        prepare_labelled("nsynth", tmp_path, "--splits", "test")


def make_vggsound(folder, videos):
    write(folder / "stat.csv", 'raining,1050,nature\n"bird chirping, tweeting",1050,animals\n')
    write(
        folder / "test.csv",
        f'{videos[0]}_000030.mp4,raining\n{videos[1]}_000007.mp4,"bird chirping, tweeting"\n',
    )
    train = [video for video in videos[2:] if not held_out_for_validation(f"yt:{video}:5")]
    lines = [f"{video},5,raining,train" for video in train]
    lines += [
        f"{videos[0]},99,raining,train",
        f"{videos[0]},30,raining,test",
        f"{train[0]},7,extending ladders,train",
    ]
    write(folder / "vggsound.csv", "\n".join(lines) + "\n")
    return train


def test_vggsound_names_missing_videos_and_whole_videos(prepare_labelled, tmp_path):
    videos = ["-0aaa_bbbbb", "Yabcdefghij", "_Xbcdefghij", "zXbcdef_hij", "aXbcdefghi_"]
    train = make_vggsound(tmp_path, videos)
    names = (f"{videos[0]}_000030-0", f"Y{videos[1]}_000007", f"{train[0]}_000005", f"{train[1]}_5")
    for name in names:
        write_audio(
            tmp_path / "some" / "where" / f"{name}.wav", 300.0 if name == names[2] else 10.01
        )
    output = prepare_labelled("vggsound", tmp_path)
    test = open_cuts(output / "cuts_test.jsonl")
    assert [cut.supervisions[0].custom["label"] for cut in test] == [
        "raining",
        "bird chirping, tweeting",
    ]
    assert [cut.duration for cut in test] == [10.0, 10.0]
    assert len(open_cuts(output / "cuts_train.jsonl")) == 1
    report = json.loads((output / "report.json").read_text())
    assert report["splits"]["train"] | {"hours": 0} == {
        "listed": 3,
        "found": 1,
        "missing": 1,
        "broken": 1,
        "hours": 0,
    }
    assert "cut the clip out of the video" in rows(output / "broken_train.jsonl")[0]["reason"]
    missing = (output / "missing_train.txt").read_text()
    assert missing.startswith(f"yt:{train[2]}:5\t") and missing.count("\n") == 1
    assert {reason: row["rows"] for reason, row in report["dropped"].items()} == {
        "training clip of a test video": 1,
        "label extending ladders, which is not one of the classes": 1,
    }


def test_labels_that_are_not_classes_are_refused(prepare_labelled, tmp_path):
    write(tmp_path / "FSD50K.ground_truth/vocabulary.csv", "0,Bark,/m/0\n1,Dog,/m/1\n")
    write(
        tmp_path / "FSD50K.ground_truth/dev.csv",
        'fname,labels,mids,split\n0012,"Bark,Cat","/m/0,/m/2",train\n',
    )
    with pytest.raises(
        ReleaseError, match="fs:12 has the label 'Cat', which is not of its classes"
    ):
        prepare_labelled("fsd50k", tmp_path, "--splits", "train", "valid")
    write(tmp_path / "FSD50K.ground_truth/dev.csv", "fname,labels,mids\n0012,Bark,/m/0\n")
    with pytest.raises(ReleaseError, match=r"clip 0012 of dev\.csv is of split 'dev'"):
        prepare_labelled("fsd50k", tmp_path, "--splits", "train", "valid")


def test_magnatagatune_with_a_tag_spelt_otherwise_is_refused(prepare_labelled, tmp_path):
    write(
        tmp_path / "annotations_final.csv",
        '"clip_id"\t"guitar"\t"noVocals"\t"mp3_path"\n"2"\t"1"\t"0"\t"f/a.mp3"\n',
    )
    with pytest.raises(ReleaseError, match="column 'classical' is missing"):
        prepare_labelled("magnatagatune", tmp_path)


def test_strong_events_are_joined_and_empty_ones_dropped(prepare_labelled, tmp_path):
    assert join_events(
        [
            (3.0, 4.0, "a"),
            (0.0, 1.0, "a"),
            (0.5, 2.0, "a"),
            (1.0, 1.0, "b"),
            (2.0, 2.5, "a"),
            (0.2, 0.3, "b"),
        ]
    ) == [
        [0.0, 2.5, "a"],
        [0.2, 0.3, "b"],
        [3.0, 4.0, "a"],
    ]
    header = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    write(
        tmp_path / "audioset_train_strong.tsv",
        header + "_xlGt805lTA_30000\t2.627\t7.237\t/m/053hz1\n",
    )
    write(
        tmp_path / "audioset_eval_strong.tsv",
        header
        + "-xlGt805lTA_30000\t0\t0\t/m/x\nYxlGt805lTA_8000\t0\t1\t/m/053hz1\n"
        + "YxlGt805lTA_8000\t2\t2\t/m/x\n",
    )
    write_audio(tmp_path / "YYxlGt805lTA.wav", 10.016)
    write_audio(tmp_path / "_xlGt805lTA_30000.wav", 9.5)
    output = prepare_labelled("audioset_strong", tmp_path)
    cut = open_cuts(output / "cuts_test.jsonl")[0]
    assert (
        cut.supervisions[0].custom["events"] == [[0.0, 1.0, "/m/053hz1"]] and cut.duration == 10.0
    )
    assert cut.supervisions[0].custom["audio_key"] == "yt:YxlGt805lTA:8"
    assert json.loads((output / "classes.json").read_text()) == ["/m/053hz1", "/m/x"]
    dropped = json.loads((output / "report.json").read_text())["dropped"]
    assert {reason: row["rows"] for reason, row in dropped.items()} == {
        "event without length": 2,
        "clip without events": 1,
    }


def test_voxceleb2_takes_the_decoded_copy_and_counts_it_once(prepare_labelled, tmp_path, encode):
    write(
        tmp_path / "vox2_meta.csv",
        "\ufeffVoxCeleb2 ID,VGGFace2 ID,Gender,Set\nid00012 ,n000012 ,m ,dev \n",
    )
    names = [
        f"id00012/{v}xxxxxxxxx_/{number:05d}" for v in ("-", "_", "a", "b") for number in (1, 2)
    ]
    tree = tmp_path / "voxceleb2/dev/aac"
    for name in names:
        encode(tree / f"{name}.m4a", 0.1 * np.sin(np.arange(16_000) * 0.1), 16_000, "aac")
        write_audio(tree / f"{name}.wav")
    write(tree / "id99999/cxxxxxxxxx_/00001.m4a", "AAC")
    assert len(list(read_vox2_utterances(tmp_path))) == 9
    output = prepare_labelled("voxceleb2", tmp_path)
    cuts = {
        split: open_cuts(output / f"cuts_{split}.jsonl") for split in ("train", "valid", "test")
    }
    assert {split: len(x) for split, x in cuts.items()} == {"train": 4, "valid": 2, "test": 2}
    assert all(cut.recording.sources[0].source.endswith(".wav") for x in cuts.values() for cut in x)
    for name in names[:4]:
        (tree / f"{name}.wav").unlink()
    output = prepare_labelled("voxceleb2", tmp_path)
    cuts = [
        cut
        for split in ("train", "valid", "test")
        for cut in open_cuts(output / f"cuts_{split}.jsonl")
    ]
    endings = [cut.recording.sources[0].source[-4:] for cut in cuts]
    assert sorted(endings) == [".m4a"] * 4 + [".wav"] * 4


def test_cremad_takes_the_intended_emotion_and_keeps_a_silent_clip(prepare_labelled, tmp_path):
    names = ("1076_MTI_SAD_XX", "1001_IEO_HAP_LO", "1001_IEO_JOY_LO", "2001_IEO_HAP_LO")
    lines = [f'{number},"{name}"' for number, name in enumerate(names, 1)]
    write(
        tmp_path / "SentenceFilenames.csv",
        '"Stimulus_Number","Filename"\n' + "\n".join(lines) + "\n",
    )
    for name in names[:2]:
        (tmp_path / "AudioWAV").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "AudioWAV" / f"{name}.wav", np.zeros(32_000), 16_000)
    output = prepare_labelled("cremad", tmp_path)
    custom = [
        cut.supervisions[0].custom
        for split in ("train", "valid", "test")
        for cut in open_cuts(output / f"cuts_{split}.jsonl")
    ]
    assert {(row["speaker"], row["label"]) for row in custom} == {
        ("1076", "sad"),
        ("1001", "happy"),
    }
    report = json.loads((output / "report.json").read_text())
    assert report["dropped"]["name is not <actor>_<sentence>_<emotion>_<level>"]["rows"] == 2


def test_a_truncated_mp3_of_magnatagatune_is_listed_as_broken(prepare_labelled, tmp_path):
    tags = [f'"{tag}"' for tag in MAGNATAGATUNE_TAGS]
    rows_of_tags = [
        "\t".join(['"1"', *['"0"'] * len(tags)]),
        "\t".join(['"0"', '"1"', *['"0"'] * (len(tags) - 1)]),
    ]
    header = "\t".join(['"clip_id"', *tags, '"singer"', '"mp3_path"'])
    paths = ["6/norine_braun-now_and_zen-08-gently-117-146.mp3", "c/a-b-0-29.mp3"]
    lines = [
        f'"{number}"\t{row}\t"{path}"'
        for number, (row, path) in enumerate(zip(rows_of_tags, paths))
    ]
    write(tmp_path / "annotations_final.csv", "\n".join([header, *lines]) + "\n")
    (tmp_path / "6").mkdir()
    (tmp_path / "6" / paths[0][2:]).write_bytes(b"")
    (tmp_path / "c").mkdir()
    soundfile.write(tmp_path / paths[1], 0.1 * np.ones(16_000), 16_000, format="MP3")
    output = prepare_labelled("magnatagatune", tmp_path)
    assert rows(output / "broken_train.jsonl")[0]["custom"]["labels"] == ["guitar"]
    assert [
        cut.supervisions[0].custom["labels"] for cut in open_cuts(output / "cuts_valid.jsonl")
    ] == [["classical"]]


def test_cremad_has_the_public_split_and_one_of_the_papers_sizes(tmp_path):
    parts = Counter(split_of_actor(str(actor)) for actor in ACTORS)
    assert parts == {"train": 63, "valid": 9, "test": 19}
    assert [split_of_actor(x) for x in ("1001", "1009", "1002")] == ["test", "valid", "train"]
    names = [
        f"{actor}_{sentence}_{emotion}_XX"
        for actor in ACTORS
        for sentence in ("DFA", "ITH", "WSI")
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
    ]
    rows = [f'{number},"{name}"' for number, name in enumerate(names, 1)]
    write(tmp_path / "SentenceFilenames.csv", "\n".join(['"Stimulus_Number","Filename"', *rows]))
    found = {}
    for split in ("public", "paper"):
        args = Namespace(corpus_dir=tmp_path, audio_dir=tmp_path, split=split)
        found[split] = {clip.key: clip.split for clip in cremad.clips(args, Report())}
    assert Counter(found["paper"].values()) == {"train": 1638 - 2 * 706, "valid": 706, "test": 706}
    assert found["public"]["cremad:1001_DFA_ANG_XX"] == "test"
    actors = {split: set() for split in ("train", "valid", "test")}
    for key, split in found["public"].items():
        actors[split].add(key[7:11])
    assert not actors["train"] & actors["test"] and not actors["train"] & actors["valid"]


def test_a_row_without_identity_names_the_release_and_its_home(prepare_labelled, tmp_path):
    write(tmp_path / "stat.csv", "hum,1,x\n")
    write(tmp_path / "vggsound.csv", "---g-f_I2yQ,1,hum,train\n")
    write(tmp_path / "test.csv", "a,b\n")
    with pytest.raises(ReleaseError, match=r"no 11-character .* again from https://github.com"):
        prepare_labelled("vggsound", tmp_path)


def test_voxceleb_utterances_may_be_split_at_random_as_in_the_paper():
    names = [f"id{n % 50:05d}/video{n % 200:06d}/{n:05d}" for n in range(80_000)]
    of = voxceleb2.split_rule("paper", names)
    assert Counter(map(of, names)) == {
        "train": 80_000 - 2 * 36_693,
        "valid": 36_693,
        "test": 36_693,
    }
    public = voxceleb2.split_rule("public", names)
    by_video = {}
    for name in names:
        by_video.setdefault(name.rsplit("/", 1)[0], set()).add(public(name))
    assert all(len(parts) == 1 for parts in by_video.values())


def test_tags_may_be_split_at_random_as_in_the_paper(tmp_path):
    tags = [f"x{n}" for n in range(138)] + list(MAGNATAGATUNE_TAGS)
    header = "\t".join(f'"{name}"' for name in ["clip_id", *tags, "mp3_path"])
    lines = [
        "\t".join([f'"{n}"', *['"0"'] * 138, *['"1"'] * 50, f'"{n % 10}/song_{n}-0-29.mp3"'])
        for n in range(1000)
    ]
    write(tmp_path / "annotations_final.csv", "\n".join([header, *lines]) + "\n")
    found = {}
    for split in ("public", "paper"):
        args = Namespace(corpus_dir=tmp_path, audio_dir=tmp_path, split=split)
        found[split] = Counter(clip.split for clip in magnatagatune.clips(args, Report()))
    assert found == {"public": {"train": 1000}, "paper": {"train": 760, "valid": 40, "test": 200}}
