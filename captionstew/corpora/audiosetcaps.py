"""AudioSetCaps: 6M captions by language models for AudioSet, VGGSound and YouTube-8M. Bai et al.,
2025.

Captions are under CC BY 4.0.

Release: https://huggingface.co/datasets/baijs/AudioSetCaps, files Dataset/AudioSetCaps_caption.csv,
Dataset/VGGSound_AudioSetCaps_caption.csv and Dataset/YouTube-8M_AudioSetCaps_caption.csv, into
CORPUS_DIR. Audio: AudioSet and VGGSound as you have them, YouTube-8M clips from the authors' drive
(batch<N>/<category>/<id>.mp3).

    id,caption
    Y---1_cCGK4M,A man speaks ...                (AudioSet: Y + video)
    OxPnZzn1_L8_000883,A woman sings ...         (VGGSound: video _ start)
    9eUrEyAR3xk_84_10,An engine idles ...        (YouTube-8M: video _ start _ duration)

Evaluation clips of AudioCaps, VGGSound and others are inside: the leakage filter removes them.

    python local/prepare_corpus.py audiosetcaps --corpus-dir download/audiosetcaps \\
        --output-dir data/tables
"""

import argparse
from collections.abc import Iterator

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.captioned import Corpus
from captionstew.corpora.fetch import YOUTUBE_STEPS, Hub, Steps
from captionstew.corpora.file_names import names_of_clip, youtube_names
from captionstew.corpora.keys import IdentityError, youtube_key, youtube_segment
from captionstew.corpora.release import Report, find_release_file, read_csv

HOME = "https://huggingface.co/datasets/baijs/AudioSetCaps"
FETCH = (
    Hub("baijs/AudioSetCaps", ("Dataset/*AudioSetCaps_caption.csv",)),
    Steps(f"YouTube-8M clips: the drive that {HOME} names; AudioSet and VGGSound: {YOUTUBE_STEPS}"),
)
LICENSE = "CC-BY-4.0"
# How the folders of the parts that are no AudioSet are called, without regard to case.
FOLDERS = {"vggsound/": "vggsound", "youtube8m/": "youtube8m", "youtube-8m": "youtube8m"}
FILES = {
    "audioset": "AudioSetCaps_caption.csv",
    "vggsound": "VGGSound_AudioSetCaps_caption.csv",
    "youtube8m": "YouTube-8M_AudioSetCaps_caption.csv",
}


def audio_key(part: str, clip_id: str) -> str:
    """The file decides the form of the id: a VGGSound or YouTube-8M video may itself begin with
    "Y".
    """
    video, start = youtube_segment(clip_id)
    if (start is None) != (part == "audioset"):
        raise IdentityError(f"{clip_id!r} does not have the id form of the {part} part")
    return youtube_key(video, start)


def names_of_file(path: str) -> Iterator[str]:
    """What the name says; of a file without start below the folder of a part, also that part's."""
    names = list(youtube_names(path))
    yield from names
    part = next((part for form, part in FOLDERS.items() if form in path.lower()), None)
    if part is not None:
        yield from (f"{part}/{name}" for name in names if name.endswith(":*"))


def names_of(part: str, clip_id: str) -> list[str]:
    """A file without start is AudioSet's segment, but no other segment of its video."""
    video, start = youtube_segment(clip_id)
    if start is None:
        return names_of_clip(video, None)
    return [f"yt:{video}:{start}", f"{part}/yt:{video}:*"]


def rows(args: argparse.Namespace, report: Report) -> Iterator[dict]:
    """One row per clip, 10 s each."""
    audio = AudioFolder(args.audio_dir, report, names_of_file)
    for part in args.splits:
        path = find_release_file(args.corpus_dir, [f"Dataset/{FILES[part]}", FILES[part]], HOME)
        for row in read_csv(path, ("id", "caption"), report=report):
            clip_id = row["id"].strip()
            with report.counting_bad_names(clip_id):
                key = audio_key(part, clip_id)
                yield from report.row(
                    row["caption"],
                    f"audiosetcaps_{part}",
                    audio_key=key,
                    audio_path=audio.named(
                        f"{part}/{clip_id}.{'mp3' if part == 'youtube8m' else 'wav'}",
                        names_of(part, clip_id),
                    ),
                    duration=10.0,
                    split=part,
                    license=LICENSE,
                )


CORPUS = Corpus(
    name="audiosetcaps", home=HOME, splits=tuple(FILES), default_splits=tuple(FILES), rows=rows
)
