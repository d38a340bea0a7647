"""The question-answer tables: real label files where there are some, releases of our own making
elsewhere.
"""

import csv
import gzip
import json
from collections import Counter, defaultdict

import pytest

from captionstew.corpora import airbench
from captionstew.corpora.captioned import run
from captionstew.corpora.questions import TASKS, qa_row
from captionstew.corpora.release import ReleaseError, Report
from captionstew.corpora.speaker_clip import AGES, SpeakerClip, age_of_decade, age_of_years
from captionstew.corpora.speaker_questions import CHOICE, LABELS, OPEN, shares, speaker_questions
from captionstew.corpora.speaker_readers import speaker_clips


@pytest.fixture
def metadata(shared_dir):
    return shared_dir / "metadata"


def check_contract(rows):
    """What every table owes its readers."""
    assert len({row["item"] for row in rows}) == len(rows)
    for row in rows:
        assert row["task"] in TASKS and row["question"] and row["caption"] and row["dataset"]
        assert not row["choices"] or (
            row["caption"] in row["choices"] and 2 <= len(row["choices"]) <= 4
        )


def test_musicqa_eval(prepare, metadata):
    rows = prepare("musicqa", metadata / "musicqa", "--splits", "eval")
    check_contract(rows)
    per_file = Counter(row["audio_key"] for row in rows)
    assert (
        len(rows) == 5_030 and len(per_file) == 560 and max(per_file.values()) == 9
    )  # of 5,040, 9 a file
    assert {row["task"] for row in rows} == {"qa_music"} and not any(row["choices"] for row in rows)
    assert rows[0]["audio_key"] == "musicqa:012542" and rows[0]["question"] == "Describe the audio"
    assert not any(row["caption"].lower().startswith(row["question"].lower()) for row in rows)


def write_csv(path, rows, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows(rows)


def test_clothoaqa_merges_three_annotators(prepare, tmp_path):
    release = tmp_path / "clothoaqa"
    asked = [("Café, rain.wav", "Is it raining?", answer) for answer in ("yes", "NO", "Yes ")]
    asked += [("Café, rain.wav", "What is heard?", answer) for answer in ("rain", "water", "drops")]
    asked += [("b.wav", "Is it raining?", "no")] * 3
    write_csv(
        release / "clotho_aqa_train.csv",
        [("file_name", "QuestionText", "answer"), *asked],
        "iso-8859-1",
    )
    rows = prepare("clothoaqa", release)
    check_contract(rows)
    assert [(row["audio_key"], row["question"], row["caption"]) for row in rows] == [
        ("clotho:Café, rain.wav", "Is it raining?", "yes"),
        ("clotho:Café, rain.wav", "What is heard?", "rain"),
        ("clotho:b.wav", "Is it raining?", "no"),
    ]
    assert {row["split"] for row in rows} == {"train"}


def airbench_record(number, task, dataset, path, choices=("angry", "sad"), answer="sad", **more):
    letters = {f"choice_{letter}": choice for letter, choice in zip("abcd", choices)}
    return {
        "path": path, "question": "How does the speaker feel?", **letters, "answer_gt": answer,
        "task_name": task, "dataset_name": dataset, "uniq_id": number, **more,
    }  # fmt: skip


def write_airbench(folder, foundation, chat):
    for part, records in (("Foundation", foundation), ("Chat", chat)):
        (folder / part).mkdir(parents=True)
        (folder / part / f"{part}_meta.json").write_text(json.dumps(records))


def test_airbench(prepare, tmp_path):
    release = tmp_path / "airbench"
    foundation = [
        airbench_record(1, "Speaker_Emotion_Recontion", "iemocap", "Ses01F_impro01_F000.wav"),
        airbench_record(
            2, "Speaker_Gender_Recognition", "meld", "dia0_utt1.wav", ("male", "female"), "male"
        ),
        airbench_record(
            3,
            "Speaker_Age_Prediction",
            "common_voice_13.0_en",
            "common_voice_en_5.mp3",
            AGES,
            AGES[2],
        ),
        airbench_record(4, "Sound_AQA_clothoaqa", "clothoaqa", "x.wav", ("yes", "no"), "no"),
        airbench_record(
            5, "Speaker_Gender_Recognition", "meld", "dia0_utt2.wav", ("male", "female"), "robot"
        ),
    ]
    chat = [
        airbench_record(
            1, "sound_QA", "clotho", "rain.wav", (), "It rains.", meta_info="Rain\non a roof."
        ),
        airbench_record(2, "sound_generation_QA", "clotho", "rain.wav", (), "It rains."),
    ]
    write_airbench(release, foundation, chat)
    wav = release / "Foundation" / "Speaker_Emotion_Recontion_iemocap" / "Ses01F_impro01_F000.wav"
    wav.parent.mkdir()
    wav.touch()
    rows = prepare("airbench", release, "--audio-dir", str(release))
    check_contract(rows)
    assert [(row["task"], row["split"], row["audio_key"]) for row in rows] == [
        ("qa_emotion", "foundation", "iemocap:Ses01F_impro01_F000"),
        ("qa_gender", "foundation", "meld:dia0_utt1"),
        ("qa_age", "foundation", "commonvoice:common_voice_en_5"),
        ("qa_sound", "chat", "clotho:rain.wav"),
    ]
    assert rows[0]["audio_path"] == str(wav) and rows[0]["choices"] == ["angry", "sad"]
    assert rows[0]["dataset"] == "Speaker_Emotion_Recontion_iemocap"
    assert rows[3]["description"] == "Rain on a roof." and rows[3]["choices"] == []
    more = prepare(
        "airbench", release, "--audio-dir", str(release), "--generation-tasks", "--splits", "chat"
    )
    assert [row["item"] for row in more] == ["airbench-chat-1", "airbench-chat-2"]


def test_airbench_names_what_a_record_lacks(tmp_path):
    write_airbench(tmp_path, [{"path": "x.wav"}], [])
    with pytest.raises(ReleaseError, match="a record has no 'question'"):
        run(
            airbench.CORPUS,
            None,
            ["--corpus-dir", str(tmp_path), "--output-dir", str(tmp_path / "t")],
        )


@pytest.fixture
def speech(metadata, tmp_path):
    """The five speech corpora: label files of CREMA-D, MELD and RAVDESS are the real ones."""
    folder = tmp_path / "speech"
    for corpus in ("cremad", "meld"):
        (folder / corpus).parent.mkdir(parents=True, exist_ok=True)
        (folder / corpus).symlink_to(metadata / corpus)
    with gzip.open(metadata / "audiosetcaps" / "RAVDESS_test.csv.gz", "rt") as file:
        ravdess = [row["Audio Path"].removeprefix("RAVDESS/") for row in csv.DictReader(file)]
    for name in ravdess:
        (folder / "ravdess" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "ravdess" / name).touch()
    evaluation = folder / "iemocap" / "Session1" / "dialog" / "EmoEvaluation"
    evaluation.mkdir(parents=True)
    (evaluation / "Ses01F_impro01.txt").write_text(
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n[6.2901 -"
        " 8.2357]\tSes01F_impro01_M000\tang\t[2.5000, 2.5000,"
        " 2.5000]\nC-E2:\tNeutral;\t()\n[10.0100 - 11.3925]\tSes01F_impro01_F001\txxx\t[2.5000,"
        " 2.5000, 2.5000]\n"
    )
    (evaluation / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07")
    clips = [
        (
            "x",
            f"common_voice_en_{n}.mp3",
            'a "quote',
            ("fourties", "teens", "")[n % 3],
            ("male", "")[n % 2],
        )
        for n in range(60)
    ]
    (folder / "commonvoice").mkdir()
    lines = ["\t".join(row) for row in [("client_id", "path", "sentence", "age", "gender"), *clips]]
    (folder / "commonvoice" / "train.tsv").write_text("\n".join(lines) + "\n")
    return folder


def read(corpus, folder):
    report = Report()
    return list(speaker_clips(corpus, folder / corpus, report)), report


def test_real_speaker_labels(speech):
    cremad, _ = read("cremad", speech)
    emotions = Counter(clip.emotion for clip in cremad)
    assert len(cremad) == 7_442 and emotions["neutral"] == 1_087 and emotions["fearful"] == 1_271
    assert len({clip.audio_key.split(":")[1][:4] for clip in cremad}) == 91
    first = next(clip for clip in cremad if clip.audio_key.startswith("cremad:1001_"))
    assert (first.gender, first.age) == ("male", "fifties to sixties")

    meld, _ = read("meld", speech)
    assert Counter(clip.emotion for clip in meld)["neutral"] == 4_710 and len(meld) == 9_989
    assert sum(clip.gender is not None for clip in meld) == 8_306
    assert meld[0].audio_key == "meld:dia0_utt0" and meld[0].audio_path.endswith(
        "train_splits/dia0_utt0.wav"
    )

    ravdess, report = read("ravdess", speech)
    assert len(ravdess) == 1_440 and report.dropped["RAVDESS: not speech"] == 1_012
    assert Counter(clip.emotion for clip in ravdess)["calm"] == 192 and {
        clip.age for clip in ravdess
    } == {None}
    assert sum(clip.gender == "male" for clip in ravdess) == 720


def test_iemocap_and_common_voice(speech):
    iemocap, report = read("iemocap", speech)
    assert [(clip.audio_key, clip.emotion, clip.gender) for clip in iemocap] == [
        (
            "iemocap:Ses01F_impro01_M000",
            "angry",
            "male",
        ),  # the letter before the turn's number, not the dialogue's
        ("iemocap:Ses01F_impro01_F001", None, "female"),
    ]
    assert iemocap[0].audio_path.endswith(
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav"
    )
    voices, report = read("commonvoice", speech)
    assert len(voices) == 50 and report.dropped["Common Voice: neither age nor gender"] == 10
    assert {clip.age for clip in voices} == {None, "teens to twenties", "thirties to fourties"}
    with pytest.raises(ReleaseError, match="get ravdess from .*zenodo"):
        list(speaker_clips("ravdess", speech / "nowhere", Report()))


def test_ages():
    assert age_of_decade("fourties") == "thirties to fourties" and age_of_decade("nineties") is None
    assert [age_of_years(years) for years in (17, 39, 50, 74)] == list(AGES)
    assert age_of_years(9) is None and age_of_years(95) is None


@pytest.mark.slow
def test_speaker_questions_of_real_labels(prepare, speech):
    rows = prepare("speakerqa", speech, "--num-pairs", "30000")
    check_contract(rows)
    assert len(rows) == 30_000
    again = prepare("speakerqa", speech, "--num-pairs", "30000")
    assert rows == again
    assert prepare("speakerqa", speech, "--num-pairs", "30000", "--seed", "1") != rows
    by_task = Counter(row["task"] for row in rows)
    assert all(abs(count - 10_000) <= 1 for count in by_task.values()) and len(by_task) == 3
    assert sum(bool(row["choices"]) for row in rows) == pytest.approx(15_000, abs=200)
    genders = Counter(row["caption"] for row in rows if row["task"] == "qa_gender")
    assert abs(genders["male"] - genders["female"]) <= 1
    emotions = Counter(row["caption"] for row in rows if row["task"] == "qa_emotion")
    # excited and frustrated need IEMOCAP; calm is RAVDESS's alone: its 192 clips are asked about
    # four times
    assert emotions["calm"] == 768 and emotions["happy"] == pytest.approx(emotions["angry"], abs=1)
    places = Counter(
        row["choices"].index(row["caption"]) for row in rows if len(row["choices"]) == 4
    )
    assert max(places.values()) < 1.1 * min(places.values())


def clip(number, corpus="a", **labels):
    return SpeakerClip(corpus, f"{corpus}:{number}", f"/{number}.wav", **labels)


def test_shares_are_even_as_far_as_possible():
    assert shares(10, [1, 20, 20]) == [1, 5, 4]
    assert shares(100, [3, 4]) == [3, 4] and shares(0, [5]) == [0] and shares(7, []) == []


def test_a_clip_is_never_asked_twice_in_the_same_words():
    clips = [clip(number, emotion=label) for number, label in enumerate(("happy", "sad", "angry"))]
    found = list(speaker_questions(clips, 1000, seed=1))
    assert len(found) == 12 and all(question.attribute == "emotion" for question in found)
    words = defaultdict(list)
    for question in found:
        words[question.clip.audio_key].append((question.question, bool(question.choices)))
        assert question.answer == question.clip.emotion
        assert question.question in (CHOICE if question.choices else OPEN)["emotion"]
        assert not question.choices or set(question.choices) == {"happy", "sad", "angry"}
    assert all(len(set(asked)) == 4 for asked in words.values())
    with pytest.raises(ValueError, match="1 to 4 times, not 5"):
        list(speaker_questions(clips, 10, seed=1, max_repeats=5))


def test_corpora_share_a_label_evenly():
    clips = [clip(number, "big", gender="male") for number in range(500)]
    clips += [clip(number, "small", gender="male") for number in range(20)]
    clips += [clip(number, "big", gender="female") for number in range(500, 900)]
    found = list(speaker_questions(clips, 400, seed=1))
    counts = Counter((question.clip.corpus, question.answer) for question in found)
    assert counts == {("big", "male"): 120, ("small", "male"): 80, ("big", "female"): 200}


def test_wordings_are_different_and_labels_are_known():
    for forms in (OPEN, CHOICE):
        assert set(forms) == set(LABELS)
        assert all(len(set(texts)) == len(texts) == 4 for texts in forms.values())
    for attribute in LABELS:
        assert not set(OPEN[attribute]) & set(CHOICE[attribute])


def test_bad_rows_are_counted():
    report = Report()
    about = {"task": "qa_sound", "item": "i", "audio_key": "a:b"}
    assert not list(qa_row(report, "s", question=" ", answer="x", **about))
    assert not list(qa_row(report, "s", question="q", answer="x", choices=["y", "z"], **about))
    assert not list(qa_row(report, "s", question="q", answer="x", choices=["x", "x"], **about))
    assert not list(qa_row(report, "s", question="q", answer="x", choices=list("xyzvw"), **about))
    assert not list(qa_row(report, "s", question="q", answer="", **about))
    assert sum(report.dropped.values()) == 5
    with pytest.raises(ValueError, match="task 'qa_smell'"):
        list(qa_row(report, "s", question="q", answer="x", task="qa_smell", item="i"))


def test_own_questions(prepare, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.wav").touch()
    write_csv(folder / "questions.csv", [
        ("file", "question", "answer", "choices", "task"), ("a.wav", "What animal?", "dog",
        "dog;cat", "qa_sound"), ("a.wav", "How many?", "two", "", ""), ("../b.wav", "Who?", "me",
        "", ""),
    ])  # fmt: skip
    rows = prepare("ownqa", folder)
    check_contract(rows)
    assert [(row["caption"], row["choices"], row["task"]) for row in rows] == [
        ("dog", ["dog", "cat"], "qa_sound"),
        ("two", [], "qa_sound"),
    ]
    assert {row["audio_key"] for row in rows} == {"mine:a.wav"} and len(
        {row["split"] for row in rows}
    ) == 1


def test_questions_from_labels_of_real_recordings(prepare, shared_dir):
    rows = prepare("ownqa", shared_dir / "realaudio")
    check_contract(rows)
    tasks = Counter(row["task"] for row in rows)
    assert tasks["qa_emotion"] == 480 and tasks["qa_gender"] == 480 and tasks["qa_sound"] == 630
    assert {row["split"] for row in rows} == {"train", "valid", "test"}
    voices = [row for row in rows if row["source"] == "ravdess" and row["task"] == "qa_emotion"]
    assert all(len(row["choices"]) == 4 for row in voices)
    speakers = defaultdict(set)
    for row in voices:
        speakers[row["audio_key"].split("/")[2]].add(row["split"])
    assert all(len(splits) == 1 for splits in speakers.values())
