"""VoxCeleb2: celebrities in YouTube videos; which of the 5,994 speakers of the dev part? Chung et
al., 2018.

Release: https://mm.kaist.ac.kr/datasets/voxceleb (registration; annotations under CC BY 4.0),
vox2_meta.csv and the tree voxceleb2/dev/aac/ into CORPUS_DIR, a folder `voxceleb` wherever several
corpora lie side by side. The audio is .m4a; where a decoded .wav lies beside it, that is read,
which is faster.

There is no official identification split (the release's test speakers are others). With `--split
public`, of every speaker whole videos, 3.4 % of the utterances and at least one video, are held
out to test, and as many of the rest to validate, by seeded hashes (`held_out_videos`; the leakage
filter uses the same). The split is that of the utterances listed, so the tree, or
vox2_dev_utterances.txt in its place, has to be the whole one. `--split paper`: 36,693 utterances to
test, as in the paper, and as many to validate, at random: a video is in several parts, so its
channel helps to identify the speaker, and the leakage filter, which drops whole videos, does not
follow it. `custom.label` is the speaker.

    VoxCeleb2 ID,VGGFace2 ID,Gender,Set      vox2_meta.csv, with a byte order mark and blanks
    id00012 ,n000012 ,m ,dev
    voxceleb2/dev/aac/id00012/21Uxsk56VDQ/00001.m4a

    python local/prepare_corpus.py voxceleb2 --corpus-dir download/voxceleb \\
        --output-dir data/voxceleb2
"""

import argparse
import csv
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from captionstew.corpora.audio_folder import AudioFolder
from captionstew.corpora.fetch import METADATA, Steps
from captionstew.corpora.file_names import speech_names
from captionstew.corpora.keys import IdentityError, voxceleb_key
from captionstew.corpora.labelled import LabelledClip, LabelledCorpus, paper_split
from captionstew.corpora.release import (
    EvaluationList,
    ReleaseError,
    Report,
    find_release_file,
    open_text,
)
from captionstew.data.audio import AUDIO_ENDINGS

HOME = "https://mm.kaist.ac.kr/datasets/voxceleb"
FETCH = (
    Steps(f"vox2_meta.csv, and the tree or a list of the dev utterances, from {HOME}", METADATA),
)
LISTED, TREE = "vox2_dev_utterances.txt", "voxceleb2/dev/aac"
UTTERANCES = 1_092_009  # of the dev part


def read_vox2_speakers(path: Path) -> dict[str, tuple[str, str]]:
    """Speaker -> (gender, dev | test) from vox2_meta.csv: a BOM, and blanks around every field."""
    rows = (
        {key.strip(): value.strip() for key, value in row.items()} for row in _padded_rows(path)
    )
    return {row["VoxCeleb2 ID"]: (row["Gender"], row["Set"]) for row in rows}


def _padded_rows(path: Path) -> Iterator[dict[str, str]]:
    with open_text(path) as stream:
        yield from csv.DictReader(stream, strict=True)


def read_vox1_speakers(path: Path) -> dict[str, tuple[str, str]]:
    """Speaker -> (gender, dev | test) from vox1_meta.csv: tab-separated, in one copy with whole
    lines in quotes.
    """
    with open_text(path) as stream:
        lines = [line.strip().strip('"').split("\t") for line in stream if line.strip()]
    header = lines[0]
    if header[0] != "VoxCeleb1 ID":
        raise ReleaseError(f"{path}: the first column is {header[0]!r}, expected 'VoxCeleb1 ID'")
    rows = (dict(zip(header, fields, strict=True)) for fields in lines[1:])
    return {row["VoxCeleb1 ID"]: (row["Gender"], row["Set"]) for row in rows}


def read_vox2_utterances(folder: Path) -> Iterator[str]:
    """`<speaker>/<video>/<utterance>` of VoxCeleb2 dev: vox2_dev_utterances.txt, or else the folder
    tree of the audio.
    """
    listed, tree = folder / LISTED, folder / TREE
    if listed.is_file():
        with open_text(listed) as stream:
            lines = (line.strip() for line in stream)
            yield from (line for line in lines if line)
    elif tree.is_dir():
        found = (path for path in tree.glob("id*/*/*") if path.suffix.lower() in AUDIO_ENDINGS)
        # One utterance, though it may be there twice: as released, and decoded beside that.
        yield from sorted({str(path.relative_to(tree).with_suffix("")) for path in found})
    else:
        raise ReleaseError(
            f"neither {listed} nor {tree} is there; get VoxCeleb2 dev, or a list of its utterances,"
            f" from {HOME}"
        )


VOX2_SPLIT_SEED = 2025


VOX2_VALID_SEED = 2026  # the same rule once more, on what the test part leaves


VOX2_HELD_OUT = 0.034  # the paper's 36,693 of 1,092,009 utterances
PAPER_TEST = 36_693


def vox2_identification_split(
    utterances: Iterable[str], seed: int = VOX2_SPLIT_SEED
) -> set[tuple[str, str]]:
    """The (speaker, video) pairs held out for evaluating speaker identification.

    VoxCeleb2 has no official identification split, and the paper's is unpublished. Per speaker,
    whole videos (the recording channel is shared inside one) are taken in the order of a seeded
    hash while they fit into 3.4 % of the speaker's utterances, at least one; a speaker with a
    single video stays in training. A speaker's share depends on that speaker's utterances alone.
    """
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for utterance in utterances:
        parts = utterance.strip().split("/")
        if len(parts) < 3:
            raise IdentityError(f"{utterance!r} is not <speaker>/<video>/<utterance>")
        counts[parts[-3]][parts[-2]] += 1
    held_out: set[tuple[str, str]] = set()
    for speaker, videos in counts.items():
        if len(videos) == 1:
            continue
        order = sorted(
            videos, key=lambda video: hashlib.md5(f"{seed}:{speaker}:{video}".encode()).digest()
        )
        room = VOX2_HELD_OUT * sum(videos.values())
        chosen = []
        for video in order:
            if videos[video] <= room:
                chosen.append(video)
                room -= videos[video]
        chosen = chosen or [min(order, key=lambda video: videos[video])]
        held_out.update((speaker, video) for video in chosen)
    return held_out


def held_out_videos(
    utterances: Sequence[str],
) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(speaker, video) pairs of the public split: those to test, those to validate."""
    test = vox2_identification_split(utterances)
    rest = (name for name in utterances if tuple(name.split("/")[:2]) not in test)
    return test, vox2_identification_split(rest, seed=VOX2_VALID_SEED)


def evaluation_list(corpora: Path, split: str) -> EvaluationList:
    """The recordings that speaker identification tests on (`eval`) or validates on (`valid`); the
    split is that of all utterances.
    """
    folder = corpora / "voxceleb"
    listed = folder / LISTED
    source = listed if listed.is_file() else folder / TREE
    read_as = "valid" if split == "valid" else "test"
    return EvaluationList([source], _held_out(folder, read_as), UTTERANCES, HOME, (read_as,))


def _held_out(folder: Path, read_as: str) -> Iterator[tuple[str | None, list[str]]]:
    utterances = list(read_vox2_utterances(folder))
    yield from ((utterance, []) for utterance in utterances)
    test, valid = held_out_videos(utterances)
    for speaker, video in sorted(valid if read_as == "valid" else test):
        yield None, [f"vox:v2:{speaker}:{video}"]


def split_rule(split: str, utterances: Sequence[str]) -> Callable[[str], str]:
    """Utterance -> train | valid | test."""
    if split == "paper":
        parts = paper_split(utterances, PAPER_TEST, PAPER_TEST)
        return parts.__getitem__
    test, valid = held_out_videos(utterances)

    def split_of(utterance: str) -> str:
        speaker, video, _ = utterance.split("/")
        return (
            "test"
            if (speaker, video) in test
            else "valid"
            if (speaker, video) in valid
            else "train"
        )

    return split_of


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    table = read_vox2_speakers(find_release_file(args.corpus_dir, ["vox2_meta.csv"], HOME))
    speakers = sorted(speaker for speaker, (_, part) in table.items() if part == "dev")
    return speakers, clips(args, report, set(speakers))


def clips(args: argparse.Namespace, report: Report, speakers: set[str]) -> Iterator[LabelledClip]:
    listed = (args.corpus_dir / LISTED).is_file()
    utterances = list(read_vox2_utterances(args.corpus_dir if listed else args.audio_dir))
    split_of = split_rule(args.split, utterances)
    audio = AudioFolder(args.audio_dir, report, speech_names)
    for utterance in utterances:
        speaker, video, _ = utterance.split("/")
        if speaker not in speakers:
            report.drop("speaker is not a dev speaker of vox2_meta.csv", utterance)
            continue
        path = f"voxceleb2/dev/aac/{utterance}.m4a"
        key, labels = voxceleb_key(path), {"label": speaker, "video": video}
        yield LabelledClip(key, audio.named(path, [key]), split_of(utterance), labels)


CORPUS = LabelledCorpus(name="voxceleb2", home=HOME, read=read, has_paper_split=True)
