"""From question-answer tables to manifests: grouping, holding out, leakage, lost clips."""

import json
from array import array

import numpy as np
import pytest
import soundfile

from captionstew.corpora.build.question_manifests import write_qa_manifests
from captionstew.corpora.questions import qa_row
from captionstew.corpora.release import Report
from captionstew.data.batches.questions import Encoded, QaItems, qa_batches, read_items
from captionstew.data.manifests.cuts import make_cut, open_cuts, write_cuts
from captionstew.data.manifests.rows import ManifestError
from captionstew.data.tables.caption_table import TableError, write_table
from captionstew.data.tables.question_table import QA_FIELDS


@pytest.fixture
def sound(tmp_path):
    """sound(name, seed, seconds) -> path of a WAV file of noise."""

    def write(name, seed, seconds=0.5):
        path = tmp_path / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16000))
        soundfile.write(path, noise, 16000)
        return path

    return write


@pytest.fixture
def table(tmp_path):
    """table(name, [(key, path, split, questions)]) -> a question-answer table."""

    def write(name, clips):
        rows = [
            row
            for key, path, split, questions in clips
            for number in range(questions)
            for row in qa_row(
                Report(), name, question=f"Question {number}?", answer=f"answer {number}",
                task="qa_sound", item=f"{name}-{key}-{split}-{number}", audio_key=key,
                audio_path=str(path), split=split, license="x",
            )
        ]  # fmt: skip
        path = tmp_path / f"{name}.parquet"
        write_table(path, rows, QA_FIELDS)
        return path

    return write


def prepare(tables, output, **options):
    return write_qa_manifests(tables, output, **{"valid_share": 0.1, "seed": 1} | options)


def keys(output, split):
    return [
        cut.supervisions[0].custom["audio_key"] for cut in open_cuts(output / f"cuts_{split}.jsonl")
    ]


def test_one_cut_per_clip_with_all_its_questions(table, sound, tmp_path):
    clips = [(f"own:{n}", sound(f"{n}.wav", n), "train", 1 + n % 3) for n in range(20)]
    report = prepare([table("own", clips)], tmp_path / "out")
    train, valid = keys(tmp_path / "out", "train"), keys(tmp_path / "out", "valid")
    assert len(train) == 18 and len(valid) == 2 and not set(train) & set(valid)
    assert report["splits"]["train"]["questions"] + report["splits"]["valid"]["questions"] == sum(
        c[3] for c in clips
    )
    items = read_items(open_cuts(tmp_path / "out" / "cuts_train.jsonl"))
    assert (
        len({item.item for item in items}) == len(items) == report["splits"]["train"]["questions"]
    )
    assert (
        items[0].question == "Question 0?"
        and items[0].answer == "answer 0"
        and items[0].seconds == 0.5
    )
    prepare([table("own", clips)], tmp_path / "again")
    assert keys(tmp_path / "again", "valid") == valid


def test_evaluation_clips_are_kept_out_of_training(table, sound, tmp_path):
    other = sound("other.wav", 7)
    train = [
        ("meld:dia0_utt0", sound("a.wav", 1), "train", 1),  # evaluated on under this name
        ("cremad:x", sound("copy.wav", 7), "train", 1),  # the very samples of `other`
        *((f"own:{n}", sound(f"{n}.wav", 10 + n), "train", 1) for n in range(5)),
        ("musicqa:dia0_utt0", sound("b.wav", 3), "train", 1),  # the same name in another corpus
    ]
    test = [
        ("meld:dia0_utt0", sound("c.wav", 2), "foundation", 2),
        ("airbench:d:y", other, "chat", 1),
    ]
    report = prepare([table("train", train), table("airbench", test)], tmp_path / "out")
    assert report["rejected"] == {"evaluated on": 2}
    left = set(keys(tmp_path / "out", "train")) | set(keys(tmp_path / "out", "valid"))
    assert left == {"musicqa:dia0_utt0", *(f"own:{n}" for n in range(5))}
    assert keys(tmp_path / "out", "foundation") == ["meld:dia0_utt0"] and keys(
        tmp_path / "out", "chat"
    ) == ["airbench:d:y"]
    assert "is evaluated on" in (tmp_path / "out" / "rejected.csv").read_text()


def test_lost_evaluation_clips_stop_the_preparation(table, sound, tmp_path):
    clips = [(f"own:{n}", sound(f"{n}.wav", n), "train", 1) for n in range(4)]
    clips += [
        ("own:lost", tmp_path / "nowhere.wav", "train", 1),
        ("own:good", sound("good.wav", 9), "test", 1),
    ]
    assert prepare([table("own", clips)], tmp_path / "one")["rejected"] == {"missing or broken": 1}
    clips.append(("own:gone", tmp_path / "gone.wav", "test", 1))
    with pytest.raises(
        ValueError, match="1 clips to evaluate on cannot be used.*gone.wav.*--allow-missing"
    ):
        prepare([table("own", clips)], tmp_path / "two")
    report = prepare([table("own", clips)], tmp_path / "two", allow_missing=True)
    assert report["clips_lost_for_evaluation"] == {"test": 1} and keys(
        tmp_path / "two", "test"
    ) == ["own:good"]


def test_given_validation_clips_are_used(table, sound, tmp_path):
    clips = [(f"own:{n}", sound(f"{n}.wav", n), "valid" if n < 2 else "train", 1) for n in range(6)]
    prepare([table("own", clips)], tmp_path / "out")
    assert keys(tmp_path / "out", "valid") == ["own:0", "own:1"]


def test_long_clips_and_repeated_names_are_refused(table, sound, tmp_path):
    clips = [
        (f"own:{n}", sound(f"{n}.wav", n, 3.0 if n == 0 else 0.5), "train", 1) for n in range(5)
    ]
    assert prepare([table("own", clips)], tmp_path / "out", max_duration=2.0)["rejected"] == {
        "too long": 1
    }
    with pytest.raises(TableError, match="two questions are called"):
        prepare([table("own", [*clips, clips[0]])], tmp_path / "out")


def test_a_manifest_without_questions_is_refused(sound, tmp_path):
    from captionstew.data.audio import inspect_audio

    path = sound("a.wav", 1)
    write_cuts(
        tmp_path / "cuts.jsonl", [make_cut("own:a", path, inspect_audio(path), ["a dog"], ["own"])]
    )
    with pytest.raises(ManifestError, match="has no questions"):
        read_items(open_cuts(tmp_path / "cuts.jsonl"))


class Table:
    """Frames of as many seconds as asked for, without an encoder."""

    def batch(self, cut_ids):
        import torch

        return torch.zeros(len(cut_ids), 3, 2), torch.full((len(cut_ids),), 3)


def test_batches_are_filled_by_audio_and_text(table, sound, tmp_path):
    clips = [(f"own:{n}", sound(f"{n}.wav", n), "train", 3) for n in range(8)]
    prepare([table("own", clips)], tmp_path / "out")
    cuts = open_cuts(tmp_path / "out" / "cuts_train.jsonl")
    items = read_items(cuts)
    encoded = [
        Encoded(array("i", [1] * (5 + 40 * (n % 2))), array("i", [2] * 5))
        for n in range(len(items))
    ]
    clip_of = cuts.select([row for row in range(len(cuts)) for _ in range(3)])
    questions = QaItems(clip_of, items, encoded, token_rate=5.0, fixed_tokens=10)
    assert questions.durations[:2].tolist() == pytest.approx([0.5 + 4.0, 0.5 + 12.0])
    seen = []
    for batch in qa_batches(questions, Table(), 26.0, 0):
        longest = max(len(ids) for ids in batch["question_ids"])
        assert len(batch["cut_ids"]) * (0.5 + (longest + 15) / 5.0) <= 26.0
        assert batch["features"].shape[0] == len(batch["items"]) == len(batch["answer_ids"])
        seen += batch["cut_ids"]
    assert sorted(seen) == sorted(item.item for item in items)
    part = questions.select([3, 1])
    assert [item.item for item in part.items] == [
        items[3].item,
        items[1].item,
    ] and part.sha256 != questions.sha256
    assert part.durations.tolist() == questions.durations[[3, 1]].tolist()
    assert part.key_hashes.tolist() == cuts.key_hashes[[1, 0]].tolist()
    assert part.fingerprint_hashes.tolist() == cuts.fingerprint_hashes[[1, 0]].tolist()


def test_report_is_json(table, sound, tmp_path):
    clips = [(f"own:{n}", sound(f"{n}.wav", n), "train", 1) for n in range(3)]
    report = prepare([table("own", clips)], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
