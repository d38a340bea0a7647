"""AIR-Bench: the questions that the study evaluates on. Yang et al., ACL 2024.

Release: https://huggingface.co/datasets/qyang1021/AIR-Bench-Dataset, Foundation/ and Chat/ with
<Part>_meta.json and the audio in <Part>/<task_name>_<dataset_name>/<path>. `foundation` is multiple
choice (emotion, gender and age of the speaker), `chat` open questions that a judge scores.

    {"path": "x.wav", "question": "...", "choice_a": "angry", "choice_b": "sad", "answer_gt": "sad",
     "task_name": "Speaker_Emotion_Recontion", "dataset_name": "iemocap", "uniq_id": 17}

    python local/prepare_corpus.py airbench --corpus-dir download/airbench \\
        --audio-dir download/airbench \\
        --output-dir data/tables
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.captioned import Corpus
from captionstew.corpora.clotho import all_metadata, named_clips, unnamed_clips
from captionstew.corpora.fetch import Hub
from captionstew.corpora.keys import IdentityError, name_stem, video_key
from captionstew.corpora.questions import qa_row
from captionstew.corpora.release import (
    EvaluationList,
    ReleaseError,
    Report,
    find_release_file,
    read_json_list,
)
from captionstew.data.tables.question_table import QA_FIELDS

HOME = "https://huggingface.co/datasets/qyang1021/AIR-Bench-Dataset"
FETCH = (
    Hub("qyang1021/AIR-Bench-Dataset", ("*_meta.json", "*/*_meta.json")),
    Hub("qyang1021/AIR-Bench-Dataset", ("Foundation/*", "Chat/*"), "audio"),
)


RECORDS = {"Foundation": 7_776, "Chat": 2_200}  # at least: of the tasks whose size is known
# Data sets by how their names begin, and what their files are named after. Any other data set is
# of no training corpus.
ON_YOUTUBE = ("audiocaps", "audiogrounding", "audioset", "avqa", "musiccaps", "vggsound")
VOXCELEB = re.compile(r"(id\d{5})[/_-]([A-Za-z0-9_-]{11})[/_-]\d{5}")
JAMENDO = re.compile(r"(?:track_)?0*(\d+)(?:\.low)?")


def evaluation_list(corpora: Path, split: str) -> EvaluationList:
    """The recordings of both parts, by the data set that AIR-Bench took them from."""
    paths = [meta_file(corpora / "airbench", part) for part in RECORDS]
    records = [
        (f"{path.name}:{number}", record["dataset_name"], record["path"])
        for path in paths
        for number, record in enumerate(read_records(path))
    ]
    metadata = all_metadata(corpora)
    names = [PurePosixPath(path).name for _, dataset, path in records if in_clotho(dataset)]
    clips = chain(_clips(records, metadata), unnamed_clips(corpora, names, metadata))
    return EvaluationList(paths, clips, sum(RECORDS.values()), HOME, tuple(PARTS))


def _clips(
    records: list[tuple[str, str, str]], metadata: dict[str, dict[str, str]]
) -> Iterator[tuple[str, Sequence[str]]]:
    """Every recording with its keys; then raises ReleaseError if names were not understood."""
    unknown = []
    for item, dataset, path in records:
        try:
            yield item, leak_keys(dataset, path, metadata)
        except IdentityError as error:
            unknown.append(f"{dataset}: {error}")
    if unknown:
        raise ReleaseError(f"{len(unknown):,} names without a key, e.g. of {unknown[0]}")


def in_clotho(dataset: str) -> bool:
    return plain(dataset).startswith("clotho")


def plain(dataset: str) -> str:
    """A data set's name without case and punctuation: `MTG-Jamendo` is `mtgjamendo`."""
    return re.sub(r"[^a-z0-9]", "", dataset.lower())


def leak_keys(dataset: str, path: str, metadata: dict[str, dict[str, str]]) -> Sequence[str]:
    """The keys under which a training corpus may hold the recording; none where none can.

    Raises IdentityError for a name that is not of its data set's form.
    """
    name, kind = PurePosixPath(path).name, plain(dataset)
    if in_clotho(dataset):
        return named_clips([name], metadata)[0][1]
    if kind.startswith(ON_YOUTUBE):
        return [video_key(name)]
    if "jamendo" in kind:
        track = JAMENDO.fullmatch(name_stem(name))
        if track is None:
            raise IdentityError(f"{path!r} of {dataset} is not <track>.mp3")
        return [f"jamendo:{track[1]}"]
    if kind.startswith("voxceleb"):  # the speakers of VoxCeleb1 are numbered from 10,001 on
        found = VOXCELEB.findall(path)
        if not found:
            raise IdentityError(f"{path!r} names no VoxCeleb utterance")
        return [f"vox:v{1 if who >= 'id10001' else 2}:{who}:{video}" for who, video in found]
    return []


LICENSE = "CC-BY-NC-4.0"
PARTS = {"foundation": "Foundation", "chat": "Chat"}
TASKS = {  # spelt as released
    "Speaker_Emotion_Recontion": "qa_emotion",
    "Speaker_Gender_Recognition": "qa_gender",
    "Speaker_Age_Prediction": "qa_age",
    "sound_QA": "qa_sound",
    "music_QA": "qa_music",
}
GENERATION_TASKS = {"sound_generation_QA": "qa_sound", "music_generation_analysis_QA": "qa_music"}
NEEDED = ("path", "question", "answer_gt", "task_name", "dataset_name", "uniq_id")


def meta_file(folder: Path, part: str) -> Path:
    return find_release_file(folder, [f"{part}/{part}_meta.json", f"{part}_meta.json"], HOME)


def read_records(path: Path) -> Iterator[dict]:
    """The questions of a part. Raises ReleaseError for one that lacks what all have."""
    for record in read_json_list(path):
        if missing := [name for name in NEEDED if record.get(name) is None]:
            raise ReleaseError(f"{path}: a record has no {missing[0]!r}: {str(record)[:200]}")
        yield record


def audio_key(dataset: str, stem: str) -> str:
    """The key that the training sets give the same recording, where AIR-Bench took it from one of
    them.
    """
    dataset = dataset.lower()
    for name, namespace in (
        ("common_voice", "commonvoice"),
        ("iemocap", "iemocap"),
        ("meld", "meld"),
    ):
        if dataset.startswith(name):
            return f"{namespace}:{stem}"
    return f"clotho:{stem}.wav" if dataset.startswith("clotho") else f"airbench:{dataset}:{stem}"


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per question of the tasks in use."""
    audio = AudioFolder(args.audio_dir, report)
    tasks = TASKS | (GENERATION_TASKS if args.generation_tasks else {})
    for split in args.splits:
        part = PARTS[split]
        for record in read_records(meta_file(args.corpus_dir, part)):
            task, dataset = record["task_name"], record["dataset_name"]
            if task not in tasks:
                continue
            name = f"{part}/{task}_{dataset}/{record['path']}"
            stem = record["path"].rpartition("/")[2].rpartition(".")[0]
            letters = [record.get(f"choice_{letter}") for letter in "abcd"]
            yield from qa_row(
                report,
                f"airbench_{split}",
                question=record["question"],
                answer=record["answer_gt"],
                choices=[choice for choice in letters if choice],
                task=tasks[task],
                item=f"airbench-{split}-{record['uniq_id']}",
                dataset=f"{task}_{dataset}",
                description=str(record.get("meta_info") or ""),
                audio_key=audio_key(dataset, stem),
                audio_path=audio.path_in_tree(name),
                split=split,
                license=LICENSE,
            )


CORPUS = Corpus(
    name="airbench",
    home=HOME,
    splits=tuple(PARTS),
    default_splits=tuple(PARTS),
    rows=rows,
    extra=QA_FIELDS,
    flags={
        "--generation-tasks": {
            "action": "store_true",
            "help": (
                "also the questions on generated audio (the benchmark's own sound and music scores"
                " join them)"
            ),
        }
    },
)
