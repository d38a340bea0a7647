"""Every pipeline sees one and the same split of a user's folder, whichever columns it has."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from captionstew.corpora.build.evaluation_keys import evaluation_keys
from captionstew.corpora.build.question_manifests import write_qa_manifests
from captionstew.corpora.captioned import Corpus, run
from captionstew.corpora.own import caption_rows, question_rows
from captionstew.corpora.own.csv_rows import FolderError
from captionstew.corpora.own.prepare import prepare_folder
from captionstew.corpora.own.split import SPLITS, choose_splits, parse_fold, parse_split
from captionstew.data.manifests.cuts import audio_part, open_cuts

CLIPS = 40
FORMS = {
    "nothing": ("label", lambda n: f"l{n % 2}"),
    "split": ("label,split", lambda n: f"l{n % 2},{['Train', 'dev', 'EVAL', 'training'][n % 4]}"),
    "folds from 1": ("label,fold", lambda n: f"l{n % 2},{1 + n % 5}"),
    "folds from 0": ("label,fold", lambda n: f"l{n % 2},{n % 5}"),
    "ten folds": ("label,fold", lambda n: f"l{n % 2},{1 + n % 10}"),
    "floats": ("label,fold", lambda n: f"l{n % 2},{1 + n % 5}.0"),
    "zeros": ("label,fold", lambda n: f"l{n % 2},0{1 + n % 5}"),
    "unreadable folds": (
        "label,fold",
        lambda n: f"l{n % 2},{'?' if n % 7 == 0 else 1 + n % 5}",
    ),
    "speakers": ("label,speaker", lambda n: f"l{n % 2},s{n % 23}"),
    "split and fold": (
        "label,split,fold",
        lambda n: f"l{n % 2},{'train' if n % 2 else ''},{n % 5}",
    ),
    "blank header": (" Label , FOLD ", lambda n: f"l{n % 2},{1 + n % 5}"),
    "no label": ("fold", lambda n: f"{1 + n % 5}"),
}
SPELLED = ("audio/{}.wav", "./audio/{}.wav", "audio//{}.wav", "audio\\{}.wav")


@pytest.fixture
def folder(tmp_path):
    """folder(columns, row of clip n) -> a folder with CLIPS clips and all three tables."""

    def make(columns, row, name="mine"):
        folder = tmp_path / "corpora" / name
        (folder / "audio").mkdir(parents=True)
        captions, facts, questions = ["file,caption"], [f"file,{columns}"], ["file,question,answer"]
        for n in range(CLIPS):
            noise = 0.1 * np.random.default_rng(n).standard_normal(4000)
            soundfile.write(folder / "audio" / f"{n}.wav", noise, 16000)
            captions.append(f"{SPELLED[n % 4].format(n)},Clip {n}.")
            facts.append(f"{SPELLED[(n + 1) % 4].format(n)},{row(n)}")
            questions.append(f"{SPELLED[(n + 2) % 4].format(n)},Which clip?,{n}")
        for table, lines in (("captions", captions), ("metadata", facts), ("questions", questions)):
            (folder / f"{table}.csv").write_text("\n".join([*lines, ""]))
        return folder

    return make


def by_pipeline(folder, output):
    """pipeline -> path of a clip -> split."""
    prepare_folder(folder, output / "manifests")
    found = {"manifests": splits_of_manifests(output / "manifests")}
    flags = ["--corpus-dir", str(folder), "--output-dir", str(output)]
    caption_rows.main(flags)
    run(question_rows.CORPUS, None, flags)
    for name, table in (("captions", folder.name), ("questions", "ownqa")):
        rows = pq.read_table(output / f"{table}.parquet").to_pylist()
        found[name] = {row["audio_path"]: row["split"] for row in rows}
        assert len({row["audio_key"] for row in rows}) == len(found[name])
    write_qa_manifests([output / "ownqa.parquet"], output / "qa", valid_share=0, seed=1)
    found["answers"] = splits_of_manifests(output / "qa")
    rows = pq.read_table(output / f"{folder.name}.parquet").to_pylist()
    for split in ("valid", "test"):
        kept_out = set(evaluation_keys(folder.parent, folder.name, split))
        assert kept_out == {row["audio_key"] for row in rows if row["split"] == split}
    everything = set(evaluation_keys(folder.parent, folder.name, "*"))
    assert everything == {row["audio_key"] for row in rows}
    return found


def splits_of_manifests(folder):
    cuts = {split: folder / f"cuts_{split}.jsonl" for split in SPLITS}
    return {
        audio_part(cut)[0]: split
        for split, path in cuts.items()
        if path.is_file()
        for cut in open_cuts(path)
    }


@pytest.mark.parametrize("form", FORMS)
def test_no_pipeline_trains_on_what_another_evaluates(folder, tmp_path, form):
    found = by_pipeline(folder(*FORMS[form]), tmp_path / "out")
    manifests = found.pop("manifests")
    assert set(manifests.values()) == set(SPLITS)
    for name, splits in found.items():
        assert splits == manifests, name
    left_out = sum(n % 7 == 0 for n in range(CLIPS)) if form == "unreadable folds" else 0
    assert len(manifests) == CLIPS - left_out


def test_rules_of_the_split():
    def splits(*facts, **folds):
        clips = [("set", f"set/{n}", fact) for n, fact in enumerate(facts)]
        return choose_splits(clips, **folds)

    folds = [{"fold": fold} for fold in range(1, 6)]
    assert splits(*folds) == ["train", "train", "train", "valid", "test"]
    assert splits(*folds, valid_folds=[1]) == ["valid", "train", "train", "train", "test"]
    assert splits(*folds, valid_folds=[], test_folds=[]) == ["train"] * 5
    assert splits(*folds, {"fold": 5, "split": "train"})[-1] == "train"
    with pytest.raises(ValueError, match=r"\[5\] are both"):
        splits(*folds, valid_folds=[5], test_folds=[5])
    # A source that counts from 0 beside one that counts from 1, and one with a single fold.
    clips = [(source, f"{source}/{n}", {"fold": fold}) for source, n, fold in (
        *(("a", n, n) for n in range(5)), *(("b", n, n + 1) for n in range(5)), ("c", 0, 1),
    )]  # fmt: skip
    five = ["train", "train", "train", "valid", "test"]
    assert choose_splits(clips) == [*five, *five, "train"]


@pytest.mark.parametrize(
    "text, fold",
    [("1", 1), ("1.0", 1), ("01", 1), ("0", 0), ("1.5", None), ("first", None), ("-1", None),
     ("nan", None), ("inf", None)],
)  # fmt: skip
def test_folds_as_people_write_them(text, fold):
    assert parse_fold(text) == fold


def test_splits_as_people_write_them(tmp_path):
    words = {"Train": "train", "dev": "valid", " val ": "valid", "validation": "valid",
             "eval": "test", "TEST": "test", "evaluation": "test"}  # fmt: skip
    assert {word: parse_split(word, tmp_path, 2) for word in words} == words
    with pytest.raises(FolderError, match="metadata.csv, line 7: split 'tset' is none of"):
        parse_split("tset", tmp_path / "metadata.csv", 7)


def test_without_a_validation_share_questions_leave_training_clips_alone(folder, tmp_path):
    made = folder("label,split", lambda n: f"l,{'test' if n % 4 == 0 else 'train'}")
    splits = by_pipeline(made, tmp_path / "out")["answers"]
    assert sorted(splits.values()) == ["test"] * 10 + ["train"] * 30


def test_corpus_of_a_folder_takes_these_splits_alone(folder, tmp_path):
    made = folder("fold", lambda n: f"{1 + n % 5}")
    assert isinstance(question_rows.CORPUS, Corpus)
    with pytest.raises(SystemExit):
        caption_rows.main(
            ["--corpus-dir", str(made), "--output-dir", str(tmp_path), "--splits", "fold1"]
        )
