"""Label lists: the real files, and rows of the shape of the releases that are not there."""

import gzip
import json

import pytest

from captionstew.corpora.audioset import read_audioset_segments
from captionstew.corpora.audioset_strong import read_audioset_strong, read_strong_classes
from captionstew.corpora.build.evaluation_keys import (
    audioset_starts,
    evaluation_keys,
    gather_list,
)
from captionstew.corpora.fsd50k import read_fsd50k, read_fsd50k_vocabulary
from captionstew.corpora.nsynth import NSYNTH_FAMILIES, read_nsynth
from captionstew.corpora.release import ReleaseError
from captionstew.corpora.urbansound8k import read_urbansound8k
from captionstew.corpora.vggsound import (
    VGGSOUND_EXTRA_LABEL,
    read_vggsound,
    read_vggsound_classes,
    read_vggsound_test,
)
from captionstew.corpora.voxceleb2 import (
    VOX2_HELD_OUT,
    read_vox1_speakers,
    read_vox2_speakers,
    read_vox2_utterances,
    vox2_identification_split,
)


@pytest.fixture
def metadata(shared_dir):
    return shared_dir / "metadata"


def test_audioset_commented_and_repackaged(metadata, tmp_path):
    balanced = list(
        read_audioset_segments(metadata / "audioset" / "balanced_train_segments.csv.gz")
    )
    evaluation = list(
        read_audioset_segments(metadata / "audioset" / "eval_segments.repacked.csv.gz")
    )
    assert len(balanced) == len({s.video for s in balanced}) == 22_160
    assert len(evaluation) == len({s.video for s in evaluation}) == 20_371
    assert balanced[0] == ("--PJHxphWEs", 30.0, 40.0, ["/m/09x0r", "/t/dd00088"])
    for segments in (balanced, evaluation):
        assert len({label for segment in segments for label in segment.labels}) == 527
    assert sum(round(s.end - s.start, 3) < 10 for s in balanced) == 345
    assert sum(round(s.end - s.start, 3) < 10 for s in evaluation) == 361
    assert (
        sum(s.start % 1 > 0 for s in balanced) == 7
        and sum(s.start % 1 > 0 for s in evaluation) == 3
    )
    repacked = tmp_path / "balanced.csv"  # the same rows in the other form are the same segments
    with gzip.open(metadata / "audioset" / "balanced_train_segments.csv.gz", "rt") as f:
        lines = f.read().splitlines()
    repacked.write_text("\n".join(["YTID,start_seconds,end_seconds,positive_labels", *lines[3:]]))
    assert list(read_audioset_segments(repacked)) == balanced


def test_audioset_strong(metadata, tmp_path):
    strong = metadata / "audioset_strong"
    evaluation = read_audioset_strong(strong / "eval_events.jsonl.gz")
    training = read_audioset_strong(strong / "train_clip_events_no_times.jsonl.gz")
    assert len(evaluation) == 16_678 and sum(len(clip.events) for clip in evaluation) == 137_007
    labels = [
        {label for clip in clips for _, _, label in clip.events} for clips in (training, evaluation)
    ]
    assert [len(x) for x in labels] == [447, 416]
    assert len(labels[0] | labels[1]) == 456 and len(labels[0] & labels[1]) == 407
    assert len(read_strong_classes(strong / "class_labels_indices_strong.csv")) == 456
    starts = {clip.video: clip.start for clip in evaluation}
    weak = read_audioset_segments(metadata / "audioset" / "eval_segments.repacked.csv.gz")
    assert all(
        int(segment.start) == starts[segment.video] for segment in weak if segment.video in starts
    )
    tsv = tmp_path / "audioset_eval_strong.tsv"
    header = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    tsv.write_text(
        header + "YxlGt805lTA_30000\t2.627\t7.237\t/m/053hz1\nYxlGt805lTA_30000\t0\t1\t/m/x\n"
    )
    assert read_audioset_strong(tsv) == [
        ("YxlGt805lTA", 30, [(2.627, 7.237, "/m/053hz1"), (0.0, 1.0, "/m/x")])
    ]


def test_vggsound(metadata, tmp_path):
    test = list(read_vggsound_test(metadata / "vggsound"))
    assert len(test) == len({(video, start) for video, start, _ in test}) == 15_446
    classes = read_vggsound_classes(metadata / "vggsound")
    assert (
        len(classes) == 309
        and VGGSOUND_EXTRA_LABEL not in classes
        and "bird chirping, tweeting" in classes
    )
    assert {label for _, _, label in test} <= set(classes)
    with gzip.open(metadata / "vggsound" / "vggsound_train_labels.jsonl.gz", "rt") as f:
        labels = [json.loads(line)["event_label"] for line in f]
    assert labels.count(VGGSOUND_EXTRA_LABEL) == 182 and set(labels) - set(classes) == {
        VGGSOUND_EXTRA_LABEL
    }
    listed = (
        '---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,"engine accelerating, revving,'
        ' vroom",train\n'
    )
    (tmp_path / "vggsound.csv").write_text(listed)
    assert list(read_vggsound(tmp_path)) == [
        ("---g-f_I2yQ", 1, "people marching", "test"),
        ("--0PQM4-hqg", 30, "engine accelerating, revving, vroom", "train"),
    ]


def test_fsd50k(metadata, tmp_path):
    assert len(list(read_fsd50k(metadata / "fsd50k", "dev"))) == 40_966
    clips = list(read_fsd50k(metadata / "fsd50k", "eval"))
    assert (
        len(clips) == 10_231 and len({label for _, labels, _ in clips for label in labels}) == 200
    )
    (tmp_path / "FSD50K.ground_truth").mkdir()
    (tmp_path / "FSD50K.ground_truth" / "dev.csv").write_text(
        'fname,labels,mids,split\n64760,"Electric_guitar,Music","/m/02sgy,/m/04rlf",train\n'
        "1,Wind,/m/w,val\n"
    )
    assert list(read_fsd50k(tmp_path, "dev")) == [
        ("64760", ["Electric_guitar", "Music"], "train"),
        ("1", ["Wind"], "val"),
    ]
    (tmp_path / "vocabulary.csv").write_text(
        "0,Accelerating_and_revving_and_vroom,/m/07q2z82\n1,Accordion,/m/0mkg\n"
    )
    assert (
        read_fsd50k_vocabulary(tmp_path / "vocabulary.csv")[0][1]
        == "Accelerating_and_revving_and_vroom"
    )


def test_urbansound8k(metadata):
    rows = list(read_urbansound8k(metadata / "urbansound8k"))
    assert len(rows) == 8_732 and len({sound for _, sound, _, _ in rows}) == 1_297
    assert len({label for *_, label in rows}) == 10 and {fold for _, _, fold, _ in rows} == set(
        range(1, 11)
    )


def test_urbansound8k_as_released(tmp_path):
    """The official name of the last column; the copy in use here renamed it."""
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "UrbanSound8K.csv").write_text(
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n"
    )
    assert list(read_urbansound8k(tmp_path)) == [("100032-3-0-0.wav", "100032", 5, "dog_bark")]


def test_nsynth_test_has_ten_families_and_the_head_eleven(metadata):
    assert len(NSYNTH_FAMILIES) == 11
    for split, count in (("valid", 12_678), ("test", 4_096)):
        notes = dict(read_nsynth(metadata / "nsynth", split))
        assert len(notes) == count
        assert set(notes.values()) == set(NSYNTH_FAMILIES) - {"synth_lead"}
        with gzip.open(metadata / "nsynth" / f"nsynth_{split}.jsonl.gz", "rt") as stream:
            assert notes == {
                record["id"]: record["instrument"] for record in map(json.loads, stream)
            }


def test_nsynth_as_released(tmp_path):
    with pytest.raises(ReleaseError, match=r"nsynth-train/examples\.json is missing; get"):
        list(read_nsynth(tmp_path, "train"))
    path = tmp_path / "nsynth-train" / "examples.json"
    path.parent.mkdir()
    families = {
        "guitar_acoustic_010-066-100": (3, "guitar"),
        "synth_lead_synthetic_011-060-025": (9, "synth_lead"),
    }
    path.write_text(
        json.dumps(
            {
                x: {"note_str": x, "instrument_family": f, "sample_rate": 16000}
                for x, (f, _) in families.items()
            }
        )
    )
    assert list(read_nsynth(tmp_path, "train")) == [
        (note, family) for note, (_, family) in families.items()
    ]
    assert all(NSYNTH_FAMILIES[index] == family for index, family in families.values())
    path.write_text('{"harp_acoustic_001-060-100": {}}')
    with pytest.raises(ReleaseError, match="'harp_acoustic_001-060-100' begins with none"):
        list(read_nsynth(tmp_path, "train"))
    path.write_text('{"guitar_acoustic_010-066-100": {}')
    with pytest.raises(ReleaseError, match="cut off"):
        list(read_nsynth(tmp_path, "train"))


def test_voxceleb_speakers(metadata):
    vox2 = read_vox2_speakers(metadata / "voxceleb" / "vox2_meta.csv.gz")
    assert len(vox2) == 6_114 and vox2["id00012"] == ("m", "dev")
    dev = [gender for gender, part in vox2.values() if part == "dev"]
    assert len(dev) == 5_994 and dev.count("m") == 3_682 and dev.count("f") == 2_312
    vox1 = read_vox1_speakers(metadata / "voxceleb" / "vox1_meta.csv.gz")
    assert len(vox1) == 1_251 and sum(part == "test" for _, part in vox1.values()) == 40


@pytest.fixture
def vox2_utterances(metadata):
    """Every VoxCeleb2 dev utterance that ParaSpeechCaps base knows: 62,520 of the million."""
    with gzip.open(metadata / "paraspeechcaps" / "psc_train_base_ids.jsonl.gz", "rt") as f:
        ids = [json.loads(line)["id"] for line in f]
    parts = [x.removeprefix("voxceleb2_dev_aac_") for x in ids if x.startswith("voxceleb2_dev")]
    return [f"{x[:7]}/{x[8:19]}/{x[20:25]}" for x in parts]


def test_voxceleb2_split_is_by_video_seeded_and_of_the_right_size(vox2_utterances):
    held_out = vox2_identification_split(vox2_utterances)
    assert held_out == vox2_identification_split(reversed(vox2_utterances))
    assert held_out != vox2_identification_split(vox2_utterances, seed=1)
    speakers = {x.split("/")[0] for x in vox2_utterances}
    evaluation = [x for x in vox2_utterances if tuple(x.split("/")[:2]) in held_out]
    training = [x for x in vox2_utterances if tuple(x.split("/")[:2]) not in held_out]
    assert {
        x.split("/")[0] for x in training
    } == speakers  # a class without training data could not be learned
    assert not {x.rsplit("/", 1)[0] for x in evaluation} & {x.rsplit("/", 1)[0] for x in training}
    assert 0.5 * VOX2_HELD_OUT < len(evaluation) / len(vox2_utterances) <= 1.5 * VOX2_HELD_OUT
    one_speaker = [x for x in vox2_utterances if x.startswith("id03757")]
    assert vox2_identification_split(one_speaker) == {
        pair for pair in held_out if pair[0] == "id03757"
    }


def test_voxceleb2_from_a_list_or_a_tree(tmp_path):
    with pytest.raises(ReleaseError, match="VoxCeleb2 dev, or a list of its utterances"):
        list(read_vox2_utterances(tmp_path))
    names = [
        f"id00012/{video}/{number:05d}"
        for video in ("21Uxsk56VDQ", "_ykqXxZQLZ4")
        for number in range(3)
    ]
    for name in names:
        path = tmp_path / "voxceleb2/dev/aac" / f"{name}.m4a"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert list(read_vox2_utterances(tmp_path)) == sorted(names)
    (tmp_path / "vox2_dev_utterances.txt").write_text("\n".join(names[:4]) + "\n")
    assert list(read_vox2_utterances(tmp_path)) == names[:4]


@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("audiocaps", "val", 495),
        ("audiocaps", "test", 975),
        ("musiccaps", "eval", 2_858),
        ("audioset", "eval", 20_371),
        ("audioset_strong", "eval", 16_678),
        ("fsd50k", "eval", 10_231),
        ("urbansound8k", "all", 1_297),
        ("paraspeechcaps", "dev", 11_967),
        ("paraspeechcaps", "holdout", 14_756),
        (
            "clotho",
            "evaluation",
            1_045 + 7_941,
        ),  # names, and the Freesound ids of all splits but "Not found"
    ],
)
def test_evaluation_keys(metadata, name, split, count):
    assert len(list(evaluation_keys(metadata, name, split))) == count


def test_clotho_keys_come_from_the_metadata_where_it_is(tmp_path):
    folder = tmp_path / "clotho"
    folder.mkdir()
    (folder / "clotho_captions_evaluation.csv").write_text(
        "file_name,caption_1\na.wav,A\nb.wav,B\n"
    )
    (folder / "clotho_metadata_evaluation.csv").write_text(
        "file_name,keywords,sound_id\na.wav,x,0077\nb.wav,x,Not found\n"
    )
    assert list(evaluation_keys(tmp_path, "clotho", "evaluation")) == [
        "clotho:a.wav",
        "fs:77",
        "clotho:b.wav",
    ]
    (tmp_path / "clothoaqa").mkdir()
    (tmp_path / "clothoaqa" / "clotho_aqa_test.csv").write_bytes(
        "file_name,QuestionText,answer\na.wav,Is it raining?,yes\ncafé.wav,?,no\n".encode("latin-1")
    )
    with pytest.raises(ReleaseError, match="1 clips have no Freesound id, e.g. 'café.wav'"):
        list(evaluation_keys(tmp_path, "clothoaqa", "test"))
    (tmp_path / "clothoaqa" / "clotho_aqa_metadata.csv").write_bytes(
        "file_name,sound_id\ncafé.wav,Not found\n".encode("latin-1")
    )
    assert list(evaluation_keys(tmp_path, "clothoaqa", "test")) == [
        "clotho:a.wav",
        "fs:77",
        "clotho:café.wav",
    ]


def write_airbench(corpora, foundation, chat):
    """AIR-Bench with records of these (data set, path)."""
    for part, clips in (("Foundation", foundation), ("Chat", chat)):
        records = [
            {"path": path, "dataset_name": dataset, "question": "?", "answer_gt": "x",
             "task_name": "x", "uniq_id": number}
            for number, (dataset, path) in enumerate(clips)
        ]  # fmt: skip
        path = corpora / "airbench" / part / f"{part}_meta.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(records))


def test_airbench_keys_are_those_of_its_data_sets(tmp_path):
    (tmp_path / "clotho").mkdir()
    (tmp_path / "clotho" / "clotho_metadata_evaluation.csv").write_text(
        "file_name,sound_id\nSanta Motor.wav,77\n"
    )
    foundation = [
        ("AudioGrounding", "Y-1nicOVtvkQ.wav"),
        ("common_voice_13.0_en", "common_voice_en_1.mp3"),
        ("MTG-Jamendo", "track_0007400.mp3"),
        ("voxceleb1", "id10270_5r0dWxy17C8_00001.wav"),
        ("voxceleb2", "id00012/21Uxsk56VDQ/00001.m4a"),
        ("nsynth", "guitar_1234.wav"),
    ]
    write_airbench(tmp_path, foundation, [("clotho", "x/Santa Motor.wav")])
    assert list(evaluation_keys(tmp_path, "airbench", "test")) == [
        "yt:-1nicOVtvkQ",
        "jamendo:7400",
        "vox:v1:id10270:5r0dWxy17C8",
        "vox:v2:id00012:21Uxsk56VDQ",
        "clotho:Santa Motor.wav",
        "fs:77",
    ]


def test_airbench_names_without_a_key_do_not_pass_in_silence(tmp_path):
    clips = [("musiccaps", "no video.wav"), ("avqa", "-1nicOVtvkQ_000030.wav")]
    write_airbench(tmp_path, clips, [("iemocap", "Ses01F_impro01_F000.wav")])
    found = gather_list(tmp_path, "airbench", "test")
    assert found.keys == ["yt:-1nicOVtvkQ"]
    assert "1 names without a key, e.g. of musiccaps: no 11-character" in found.problem


@pytest.mark.slow
def test_starts_of_audioset_agree_between_its_lists(metadata):
    starts = set(audioset_starts(metadata))
    assert len(starts) == len({video for video, _ in starts})
