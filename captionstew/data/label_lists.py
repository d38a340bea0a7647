"""Readers of the label lists that the evaluations and the leakage filter need, as each release writes them.

AudioSet         research.google.com/audioset/download.html         eval_segments.csv, ...
AudioSet-strong  research.google.com/audioset/download_strong.html  audioset_eval_strong.tsv, ...
VGGSound         github.com/hche11/VGGSound                         vggsound.csv, test.csv, stat.csv
FSD50K           zenodo.org/records/4060432                         FSD50K.ground_truth/{dev,eval}.csv
UrbanSound8K     urbansounddataset.weebly.com                       metadata/UrbanSound8K.csv
VoxCeleb         mm.kaist.ac.kr/datasets/voxceleb                   vox2_meta.csv, voxceleb2/dev/aac/...
CREMA-D          github.com/CheyneyComputerScience/CREMA-D          SentenceFilenames.csv
MagnaTagATune    mirg.city.ac.uk/codeapps/the-magnatagatune-dataset annotations_final.csv
NSynth           magenta.tensorflow.org/datasets/nsynth             nsynth-test/examples.json, ...
"""

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from captionstew.data.captions import stable_hash
from captionstew.data.corpus_cli import AUDIO_ENDINGS, ReleaseError, find_release_file, open_text, read_csv, read_jsonl
from captionstew.data.identity import IdentityError, strong_segment, youtube_id, youtube_segment

AUDIOSET_HOME = "https://research.google.com/audioset/download.html"
STRONG_HOME = "https://research.google.com/audioset/download_strong.html"
VGGSOUND_HOME = "https://github.com/hche11/VGGSound"
FSD50K_HOME = "https://zenodo.org/records/4060432"
URBANSOUND8K_HOME = "https://urbansounddataset.weebly.com/urbansound8k.html"
VOXCELEB_HOME = "https://mm.kaist.ac.kr/datasets/voxceleb"
CREMAD_HOME = "https://github.com/CheyneyComputerScience/CREMA-D"
MAGNATAGATUNE_HOME = "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset"
NSYNTH_HOME = "https://magenta.tensorflow.org/datasets/nsynth"

# The classes in the order of the release's `instrument_family`. The valid and test sets have no synth_lead:
# a head built from the labels of a test set would lack an output.
NSYNTH_FAMILIES = (
    "bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal",
)  # fmt: skip

# The 50 most frequent tags, the most frequent first, as nearly all code orders them.
MAGNATAGATUNE_TAGS = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient",
    "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals",
    "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man",
    "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello",
    "no voice", "weird", "country", "female voice", "metal", "choral",
)  # fmt: skip

# vggsound.csv has 182 training clips of a 310th label that neither stat.csv nor the test set knows.
VGGSOUND_EXTRA_LABEL = "extending ladders"


class Segment(NamedTuple):
    """A stretch of a YouTube video (seconds) with its labels."""

    video: str
    start: float
    end: float
    labels: list[str]


def read_audioset_segments(path: Path) -> Iterator[Segment]:
    """AudioSet's segment CSVs: three "#" lines and no header, or a header row in repackaged copies."""
    with open_text(path) as stream:
        lines = (line for line in stream if not line.startswith("#"))
        for number, row in enumerate(csv.reader(lines, skipinitialspace=True, strict=True)):
            if number == 0 and row and row[0].strip().upper() == "YTID":
                continue
            if len(row) != 4:
                raise ReleaseError(f"{path}: expected YTID, start, end, labels but row {number + 1} is {row}")
            yield Segment(youtube_id(row[0]), float(row[1]), float(row[2]), row[3].split(","))


class StrongClip(NamedTuple):
    """A clip of AudioSet-strong: start in the video (whole seconds) and events (onset, offset in seconds,
    label).
    """

    video: str
    start: int
    events: list[tuple[float | None, float | None, str]]


def read_audioset_strong(path: Path) -> list[StrongClip]:
    """audioset_{train,eval}_strong.tsv, one row per event; or JSON lines with `id` and
    `events`/`events_list`.
    """
    clips: dict[str, list] = defaultdict(list)
    if ".jsonl" in path.suffixes:
        for record in read_jsonl(path):
            clips[record["id"]] += _events_of_record(record)
    else:
        columns = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
        for row in read_csv(path, columns, delimiter="\t"):
            clips[row["segment_id"]].append(
                (float(row["start_time_seconds"]), float(row["end_time_seconds"]), row["label"])
            )
    return [StrongClip(*strong_segment(segment), events) for segment, events in clips.items()]


def _events_of_record(record: dict) -> Iterator[tuple[float | None, float | None, str]]:
    for line in record.get("events", "").splitlines():  # "[2.29-3.51] Squeak"
        times, _, label = line.partition("] ")
        onset, offset = times.lstrip("[").split("-")
        yield float(onset), float(offset), label
    for label in record.get("events_list", ()):
        yield None, None, label


def read_strong_classes(path: Path) -> list[tuple[str, str]]:
    """(MID, name) pairs of a header-less class list; join on the MID, names differ from the weak labels'."""
    return [(row["mid"], row["name"]) for row in read_csv(path, ("mid", "name"), header=False)]


def read_vggsound(folder: Path) -> Iterator[tuple[str, int, str, str]]:
    """(video, start second, label, split) of vggsound.csv, which has no header; labels may hold commas."""
    path = find_release_file(folder, ["vggsound.csv", "data/vggsound.csv"], VGGSOUND_HOME)
    for row in read_csv(path, ("video", "start", "label", "split"), header=False):
        yield youtube_id(row["video"]), int(row["start"]), row["label"], row["split"]


def read_vggsound_test(folder: Path) -> Iterator[tuple[str, int, str]]:
    """(video, start second, label) of the official test.csv (15,446 clips), which has no header."""
    path = find_release_file(folder, ["test.csv", "data/test.csv"], VGGSOUND_HOME)
    for row in read_csv(path, ("name", "label"), header=False):
        video, start = youtube_segment(row["name"])
        if start is None:
            raise ReleaseError(f"{path}: {row['name']!r} has no start second")
        yield video, start, row["label"]


def read_vggsound_classes(folder: Path) -> list[str]:
    """The 309 class names in the order of stat.csv; `extending ladders` is not among them."""
    path = find_release_file(folder, ["stat.csv", "data/stat.csv"], VGGSOUND_HOME)
    return [row["label"] for row in read_csv(path, ("label", "count", "category"), header=False)]


def read_fsd50k(folder: Path, split: str) -> Iterator[tuple[str, list[str], str]]:
    """(Freesound id, labels, train | val | eval) of FSD50K's `dev` or `eval` list. Labels are as the release
    writes them.
    """
    official = [f"FSD50K.ground_truth/{split}.csv", f"{split}.csv", f"fsd50k_{split}_labels.jsonl"]
    path = find_release_file(folder, official, FSD50K_HOME)
    if ".jsonl" in path.suffixes:
        for record in read_jsonl(path):
            yield record["id"], record["audio_events"].split("; "), split
        return
    for row in read_csv(path, ("fname", "labels", "mids")):
        yield row["fname"], row["labels"].split(","), row.get("split") or split


def read_fsd50k_vocabulary(path: Path) -> list[tuple[int, str, str]]:
    """(index, label, MID): vocabulary.csv has no header, so row 0 is class 0."""
    rows = read_csv(path, ("index", "label", "mid"), header=False)
    return [(int(row["index"]), row["label"], row["mid"]) for row in rows]


def read_urbansound8k(folder: Path) -> Iterator[tuple[str, str, int, str]]:
    """(slice file, Freesound id, fold, class)."""
    names = ["metadata/UrbanSound8K.csv", "UrbanSound8K.csv"]
    path = find_release_file(folder, names, URBANSOUND8K_HOME)
    for row in read_csv(path, ("slice_file_name", "fsID", "fold")):
        yield row["slice_file_name"], row["fsID"], int(row["fold"]), row.get("class") or row["class_name"]


def read_nsynth(folder: Path, split: str) -> Iterator[tuple[str, str]]:
    """(note, instrument family) of `train`, `valid` or `test`; the audio is `<note>.wav`.

    From the release's examples.json, an object keyed by note, or from JSON lines with the note as `id`. The
    family is the beginning of the note's name, `<family>_<source>_<instrument>-<pitch>-<velocity>`; raises
    ReleaseError for a family that is none of NSYNTH_FAMILIES.
    """
    path = find_release_file(folder, [f"nsynth-{split}/examples.json", f"nsynth_{split}.jsonl"], NSYNTH_HOME)
    for note in _nsynth_notes(path):
        family = next((family for family in NSYNTH_FAMILIES if note.startswith(f"{family}_")), None)
        if family is None:
            raise ReleaseError(f"{path}: {note!r} begins with none of the families {', '.join(NSYNTH_FAMILIES)}")
        yield note, family


def _nsynth_notes(path: Path) -> Iterator[str]:
    if ".jsonl" in path.suffixes:
        yield from (record["id"] for record in read_jsonl(path))
        return
    with open_text(path) as stream:
        try:
            yield from json.load(stream)
        except ValueError as error:
            raise ReleaseError(f"{path}: cut off or not JSON ({error})") from error


def read_vox2_speakers(path: Path) -> dict[str, tuple[str, str]]:
    """Speaker -> (gender, dev | test) from vox2_meta.csv: a BOM, and blanks around every field."""
    rows = ({key.strip(): value.strip() for key, value in row.items()} for row in _padded_rows(path))
    return {row["VoxCeleb2 ID"]: (row["Gender"], row["Set"]) for row in rows}


def _padded_rows(path: Path) -> Iterator[dict[str, str]]:
    with open_text(path) as stream:
        yield from csv.DictReader(stream, strict=True)


def read_vox1_speakers(path: Path) -> dict[str, tuple[str, str]]:
    """Speaker -> (gender, dev | test) from vox1_meta.csv: tab-separated, in one copy with whole lines in
    quotes.
    """
    with open_text(path) as stream:
        lines = [line.strip().strip('"').split("\t") for line in stream if line.strip()]
    header = lines[0]
    if header[0] != "VoxCeleb1 ID":
        raise ReleaseError(f"{path}: the first column is {header[0]!r}, expected 'VoxCeleb1 ID'")
    rows = (dict(zip(header, fields, strict=True)) for fields in lines[1:])
    return {row["VoxCeleb1 ID"]: (row["Gender"], row["Set"]) for row in rows}


def read_vox2_utterances(folder: Path) -> Iterator[str]:
    """`<speaker>/<video>/<utterance>` of VoxCeleb2 dev: vox2_dev_utterances.txt, or else the folder tree of
    the audio.
    """
    listed = folder / "vox2_dev_utterances.txt"
    tree = folder / "voxceleb2" / "dev" / "aac"
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
            f"neither {listed} nor {tree} is there; get VoxCeleb2 dev, or a list of its utterances, "
            f"from {VOXCELEB_HOME}"
        )


VOX2_SPLIT_SEED = 2025
VOX2_VALID_SEED = 2026  # the same rule once more, on what the test part leaves
VOX2_HELD_OUT = 0.034  # the paper's 36,693 of 1,092,009 utterances


def vox2_identification_split(utterances: Iterable[str], seed: int = VOX2_SPLIT_SEED) -> set[tuple[str, str]]:
    """The (speaker, video) pairs held out for evaluating speaker identification.

    VoxCeleb2 has no official identification split, and the paper's is unpublished. Per speaker, whole videos
    (the recording channel is shared inside one) are taken in the order of a seeded hash while they fit into
    3.4 % of the speaker's utterances, at least one; a speaker with a single video stays in training. A
    speaker's share depends on that speaker's utterances alone.
    """
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for utterance in utterances:
        parts = utterance.strip().split("/")
        if len(parts) < 3:
            raise IdentityError(f"{utterance!r} is not <speaker>/<video>/<utterance>")
        counts[parts[-3]][parts[-2]] += 1
    held_out = set()
    for speaker, videos in counts.items():
        if len(videos) == 1:
            continue
        order = sorted(videos, key=lambda video: hashlib.md5(f"{seed}:{speaker}:{video}".encode()).digest())
        room = VOX2_HELD_OUT * sum(videos.values())
        chosen = []
        for video in order:
            if videos[video] <= room:
                chosen.append(video)
                room -= videos[video]
        chosen = chosen or [min(order, key=lambda video: videos[video])]
        held_out.update((speaker, video) for video in chosen)
    return held_out


CREMAD_ACTORS = range(1001, 1092)
CREMAD_SPLIT_SEED = 2025
CREMAD_TEST_ACTORS, CREMAD_VALID_ACTORS = 19, 9


def cremad_split(seed: int = CREMAD_SPLIT_SEED) -> dict[str, str]:
    """Actor -> train | valid | test of CREMA-D, which has no official split; it depends on the seed alone.

    The actors follow a seeded hash: 19 test, 9 validate, 63 train.
    """
    order = sorted(map(str, CREMAD_ACTORS), key=lambda actor: stable_hash("cremad", seed, actor))
    bounds = (("test", CREMAD_TEST_ACTORS), ("valid", CREMAD_VALID_ACTORS), ("train", len(order)))
    return dict(zip(order, (split for split, count in bounds for _ in range(count))))
