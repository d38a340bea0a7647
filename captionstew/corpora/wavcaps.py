"""WavCaps: descriptions from the web rewritten by a language model. Mei et al., TASLP 2024.

Academic use only.

Release: https://huggingface.co/datasets/cvssp/WavCaps, files json_files/{AudioSet_SL/as_final,
BBC_Sound_Effects/bbc_final, FreeSound/fsd_final, SoundBible/sb_final}.json into CORPUS_DIR (with or
without those folders), and Zip_files/<source> (join the split archives with `zip -FF` first)
unpacked into AUDIO_DIR: FLAC, 32 kHz, mono, <id>.flac.

    {"num_captions_per_audio": 1, "data": [{"id": "Yb0RFKhbpFJA.wav", "caption": "...",
    "audio": "wav_path", "duration": 10.0}, ...]}

The AudioSet part gives no start (its ids are `Y<video>.wav`) and contains AudioSet *evaluation*
clips, which the published blacklists do not remove: the leakage filter does.

    python local/prepare_corpus.py wavcaps --corpus-dir download/wavcaps --output-dir data/tables \\
        --splits bbc
"""

import argparse
from collections.abc import Iterator
from pathlib import PurePosixPath

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.captioned import Corpus
from captionstew.corpora.fetch import Hub, Steps
from captionstew.corpora.file_names import names_of_clip, youtube_names
from captionstew.corpora.keys import (
    IdentityError,
    freesound_key,
    name_stem,
    youtube_id,
    youtube_key,
)
from captionstew.corpora.release import Report, find_release_file, read_json_list

HOME = "https://huggingface.co/datasets/cvssp/WavCaps"
REVISION = "85a0c21e26fa7696a5a74ce54fada99a9b43c6de"
FETCH = (
    Hub("cvssp/WavCaps", ("json_files/*/*.json",), revision=REVISION),
    Hub("cvssp/WavCaps", ("Zip_files/*",), "audio", REVISION),
    Steps("join each split archive with zip -FF <source>.zip --out x.zip, unzip x.zip into audio/"),
)


LICENSE = "academic use only"
FILES = {
    "audioset": ("AudioSet_SL", "as_final.json"),
    "bbc": ("BBC_Sound_Effects", "bbc_final.json"),
    "freesound": ("FreeSound", "fsd_final.json"),
    "soundbible": ("SoundBible", "sb_final.json"),
}


def audio_key(part: str, clip_id: str) -> str:
    """The canonical key. BBC ids keep their leading zeros: they are names, not numbers."""
    stem = name_stem(clip_id)
    if not stem:
        raise IdentityError("empty id")
    if part == "audioset":
        return youtube_key(youtube_id(clip_id), None)
    return freesound_key(stem) if part == "freesound" else f"{part}:{stem}"


def names_of_file(path: str) -> Iterator[str]:
    """`<part>/<stem>` below any folder that is called like a part, else `/<stem>`; ids repeat
    between the parts.
    """
    for folder in PurePosixPath(path).parts[-2::-1]:
        part = next((part for part in FILES if folder.lower().startswith(part)), None)
        if part is not None:
            yield f"{part}/{name_stem(path)}"
            break
    else:
        yield f"/{name_stem(path)}"
    yield from youtube_names(path)


def names_of(part: str, stem: str) -> list[str]:
    names = [f"{part}/{stem}", f"/{stem}"]
    return names + names_of_clip(youtube_id(stem), None) if part == "audioset" else names


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per clip."""
    audio = AudioFolder(args.audio_dir, report, names_of_file)
    for part in args.splits:
        folder, file = FILES[part]
        names = [f"json_files/{folder}/{file}", f"{folder}/{file}", file]
        path = find_release_file(args.corpus_dir, names, HOME)
        for record in read_json_list(path, "data", ("id", "caption"), report):
            clip_id = str(record["id"])
            with report.counting_bad_names(clip_id):
                stem = name_stem(clip_id)
                yield from report.row(
                    record["caption"],
                    f"wavcaps_{part}",
                    audio_key=audio_key(part, clip_id),
                    audio_path=audio.named(f"{folder}/{stem}.flac", names_of(part, stem)),
                    duration=float(record["duration"]) if record.get("duration") else None,
                    split=part,
                    license=LICENSE,
                )


CORPUS = Corpus(
    name="wavcaps", home=HOME, splits=tuple(FILES), default_splits=tuple(FILES), rows=rows
)
