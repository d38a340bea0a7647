"""ParaSpeechCaps: how people speak, by annotators (base) and at scale (scaled). Diwan et al., 2025.

Under CC BY-NC-SA 4.0.

Release: https://huggingface.co/datasets/ajd12342/paraspeechcaps, Parquet files
data/<split>-*.parquet into CORPUS_DIR. It has no audio: put under AUDIO_DIR the trees voxceleb1/
and voxceleb2/ (https://mm.kaist.ac.kr/datasets/voxceleb; the original recordings, whose names lack
`_voicefixer`), EARS p001/..p107/ (https://github.com/facebookresearch/ears_dataset), Expresso
audio_48khz/ and VAD_segments.txt (textlesslib; `local/cut_expresso.py` cuts the conversations into
audio_48khz/conversational_vad_segmented/) and Emilia EN/
(https://huggingface.co/datasets/amphion/Emilia-Dataset).

    source     relative_audio_path                                         text_description  ...
    voxceleb   voxceleb1/dev/wav/id11127/fIXU5ExruI0/00014_voicefixer.wav  [" A male ..."]   ...

A clip has one or two descriptions, each a caption of its own.

    python local/prepare_corpus.py paraspeechcaps --corpus-dir download/paraspeechcaps \\
        --output-dir data/tables
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.captioned import Corpus, Part
from captionstew.corpora.damage import require_shards
from captionstew.corpora.fetch import Hub, Steps
from captionstew.corpora.file_names import speech_names
from captionstew.corpora.keys import paraspeech_key
from captionstew.corpora.release import (
    EvaluationList,
    Report,
    find_release_file,
    read_jsonl,
    read_parquet,
)

HOME = "https://huggingface.co/datasets/ajd12342/paraspeechcaps"
EMILIA_REVISION = "fc71e07e8572f5f3be1dbd02ed3172a4d298f152"
FETCH = (
    Hub("ajd12342/paraspeechcaps", ("data/*.parquet",)),
    Hub("amphion/Emilia-Dataset", ("*EN_B*",), "audio", EMILIA_REVISION, "audio"),
    Steps(
        "unpack Emilia's archives in audio/; VoxCeleb1 and 2 from"
        " https://mm.kaist.ac.kr/datasets/voxceleb (registration), EARS from"
        " https://github.com/facebookresearch/ears_dataset (p001.zip to p107.zip), Expresso from"
        " the textlesslib project, into audio/; then local/cut_expresso.py"
    ),
)


def read_paraspeech_split(
    folder: Path, split: str, columns: tuple[str, ...] = (), report: Report | None = None
) -> Iterator[dict]:
    """Records of one ParaSpeechCaps split: the release's Parquet files, or the JSON lines of a
    mirror (`id`, `caption`).
    """
    for file in split_files(folder, split):
        if file.suffix == ".parquet":
            yield from read_parquet(file, ("relative_audio_path", *columns), report)
            continue
        for record in read_jsonl(file, ("id",), report):
            texts = [record["caption"]] if "caption" in record else []
            yield {**record, "relative_audio_path": record["id"], "text_description": texts}


def split_files(folder: Path, split: str) -> list[Path]:
    """The files of a split: the release's, or a mirror's. Raises ReleaseError if one is missing."""
    files = sorted(folder.glob(f"**/{split}-*.parquet")) or sorted(
        folder.glob(f"**/{split}.parquet")
    )
    names = [f"{split}.parquet", f"psc_{split}_captions.jsonl", f"psc_{split}_ids.jsonl"]
    require_shards(files)
    return files or [find_release_file(folder, names, HOME)]


SIZES = {"train_base": 116_516, "train_scaled": 924_651, "dev": 11_967, "holdout": 14_756}


def evaluation_list(corpora: Path, split: str) -> EvaluationList:
    """The utterances of a split."""
    folder = corpora / "paraspeechcaps"
    paths = (record["relative_audio_path"] for record in read_paraspeech_split(folder, split))
    clips = ((path, [paraspeech_key(path)]) for path in paths)
    return EvaluationList(split_files(folder, split), clips, SIZES.get(split, 1), HOME, (split,))


LICENSE = "CC-BY-NC-SA-4.0"
LIT_PARTS = {
    "train": Part("train_base"),
    "valid": Part("dev", 500),
    "test": Part("holdout", 500),
}
SOURCES = {
    "train_scaled": "paraspeechcaps_scaled"
}  # every other split was annotated like the base part
COLUMNS = ("source", "text_description", "speakerid", "duration", "gender", "all_tags")
ENDINGS = {"v1": ".wav", "v2": ".m4a"}


def audio_path(audio: AudioFolder, relative: str, key: str) -> str:
    """The original VoxCeleb recording rather than the denoised copy; elsewhere what the release
    names.
    """
    if key.startswith("vox:"):
        _, version, speaker, video, utterance = key.split(":")
        part = "test" if re.match(r"voxceleb[12][/_]test[/_]", relative) else "dev"
        folder = {"v1": f"voxceleb1/{part}/wav", "v2": f"voxceleb2/{part}/aac"}[version]
        original = f"{folder}/{speaker}/{video}/{utterance}{ENDINGS[version]}"
        return audio.named(original, [key, f"{key}:voicefixer"])
    return audio.named(relative, [key])


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per description."""
    audio = AudioFolder(args.audio_dir, report, speech_names)
    for split in args.splits:
        for record in read_paraspeech_split(args.corpus_dir, split, COLUMNS, report):
            relative = record["relative_audio_path"]
            with report.counting_bad_names(relative):
                key = paraspeech_key(relative)
                descriptions = record["text_description"] or []
                if not descriptions:
                    report.drop("no description", relative)
                for text in descriptions:
                    yield from report.row(
                        text,
                        SOURCES.get(split, "paraspeechcaps_base"),
                        audio_key=key,
                        audio_path=audio_path(audio, relative, key),
                        duration=record["duration"],
                        split=split,
                        license=LICENSE,
                        speaker=record.get("speakerid"),
                        gender=record.get("gender"),
                        tags=record.get("all_tags") or [],
                    )


CORPUS = Corpus(
    name="paraspeechcaps",
    home=HOME,
    splits=("train_base", "train_scaled", "dev", "holdout", "test"),
    default_splits=("train_base", "train_scaled"),
    rows=rows,
    extra=(
        pa.field("speaker", pa.string()),
        pa.field("gender", pa.string()),
        pa.field("tags", pa.list_(pa.string())),
    ),
)
