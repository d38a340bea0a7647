"""Miniature releases of the probing tasks, in the layout, file formats and names of the real ones.

Where the reference data is at hand, the rows are real rows of the releases' lists, and the sounds
real recordings whose class fits the row; otherwise rows of the same shape are made up, with the
mini corpus's sounds. Every test class occurs in training.
"""

import csv
import gzip
import itertools
import json
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from captionstew.corpora.cremad import ACTORS, split_of_actor
from captionstew.corpora.keys import youtube_key
from captionstew.corpora.labelled import held_out_for_validation
from captionstew.corpora.magnatagatune import MAGNATAGATUNE_TAGS
from captionstew.corpora.mini.synthesis import EVENTS, INSTRUMENTS, VOWELS, normalised, vowel
from captionstew.corpora.vggsound import VGGSOUND_EXTRA_LABEL
from captionstew.corpora.voxceleb2 import vox2_identification_split
from captionstew.data.audio import SAMPLING_RATE, read_audio
from captionstew.data.resampling import resample
from captionstew.hashing import stable_hash

FOLDERS = {"voxceleb2": "voxceleb"}  # elsewhere the folder is named after the task
COUNTS = {"train": 6, "valid": 2, "test": 3}  # clips of each class
EMOTIONS = {
    "ANG": "angry", "DIS": "disgusted", "FEA": "fearful", "HAP": "happy", "NEU": "neutral",
    "SAD": "sad",
}  # fmt: skip


class Sounds:
    """sounds("esc10/dog", 3) -> (N,) float32 at 16 kHz: the recording number 3 of a set and label
    (and speaker).
    """

    def __init__(self, recordings: Path | None) -> None:
        self.recordings = recordings
        self._files: dict[str, list[Path]] = {}

    def __call__(self, kind: str, number: int) -> np.ndarray:
        if self.recordings is None:
            return synthetic(kind, number)
        files = self._files.setdefault(kind, self._find(kind))
        return read_audio(files[number % len(files)])

    def _find(self, kind: str) -> list[Path]:
        folder, label, *speaker = kind.split("/")
        with open(self.recordings / folder / "metadata.csv", encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if label in ("*", row["label"])]
        return [
            self.recordings / folder / row["file"]
            for row in rows
            if not speaker or row["speaker"] == speaker[0]
        ]


def synthetic(kind: str, number: int) -> np.ndarray:
    """The same kind sounds the same, other numbers differ a little."""
    rng, choice = np.random.default_rng(stable_hash(kind, number)), stable_hash(kind)
    if kind.startswith("ravdess"):
        f0 = np.full(2 * SAMPLING_RATE, 90.0 + choice % 200 + rng.uniform(-5, 5))
        samples = vowel(rng, list(VOWELS)[choice % len(VOWELS)], f0, 0.9 + choice % 40 / 100, 0.9)
    elif kind.startswith("instruments"):
        instrument = list(INSTRUMENTS.values())[choice % len(INSTRUMENTS)]
        samples = instrument(rng, 2.0, 220.0 * 2 ** (number % 12 / 12))
    else:
        samples = list(EVENTS.values())[choice % len(EVENTS)].make(
            rng, 2.0, 600.0 + 40 * (number % 10)
        )
    return (0.5 * normalised(samples)).astype(np.float32)


class Metadata:
    """The real lists, or none."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def __bool__(self) -> bool:
        return self.folder is not None

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else open(path, encoding="utf-8")
        ) as file:
            return file.read().splitlines()

    def records(self, name: str) -> Iterator[dict]:
        return map(json.loads, self.lines(name))


def make_release(task: str, folder: Path, shared: Path | None, broken_test_clips: int = 0) -> None:
    """Writes the release of `task` into `folder`; the first `broken_test_clips` test files are not
    audio.
    """
    sounds = Sounds(shared / "realaudio" if shared else None)
    test = MAKERS[task](folder, Metadata(shared / "metadata" if shared else None), sounds)
    for path in test[:broken_test_clips]:
        path.write_text("not audio")


def write_audio(path: Path, samples: np.ndarray, rate: int = SAMPLING_RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, resample(samples, SAMPLING_RATE, rate), rate)
    return path


def write_csv(
    path: Path, rows: list, delimiter: str = ",", quoting: int = csv.QUOTE_MINIMAL
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerows(rows)


def fitted(samples: np.ndarray, duration: float) -> np.ndarray:
    """Repeated or cut to `duration` seconds."""
    count = round(duration * SAMPLING_RATE)
    return np.resize(samples, count)


def made_up_video(rng: random.Random) -> str:
    return "".join(rng.choice(string.ascii_letters + string.digits + "-_") for _ in range(11))


def official(name: str) -> str:
    """FSD50K's spelling of an AudioSet name: `Domestic animals, pets` ->
    `Domestic_animals_and_pets`.
    """
    return name.replace(", ", " and ").replace(" ", "_")


def make_fsd50k(folder: Path, metadata: Metadata, sounds: Sounds) -> list[Path]:
    kinds = {
        "Bark": "dog", "Rain": "rain", "Waves_and_surf": "sea_waves", "Crackle": "crackling_fire",
        "Tick-tock": "clock_tick", "Sneeze": "sneezing",
    }  # fmt: skip
    parents = {
        "Bark": ["Bark", "Dog", "Domestic_animals_and_pets", "Animal"],
        "Rain": ["Rain", "Water"],
    }
    if metadata:
        vocabulary = [
            line.split(",", 2)
            for line in metadata.lines("fsd50k/ltu_class_labels_indices_fsd50k.csv")[1:]
        ]
        vocabulary = [[index, name.strip('"'), mid] for index, mid, name in vocabulary]
    else:
        names = sorted({name for kind in kinds for name in parents.get(kind, [kind])})
        vocabulary = [[str(index), name, f"/m/{index:05d}"] for index, name in enumerate(names)]
    mids = {name: mid for _, name, mid in vocabulary}
    rows = {"dev": [["fname", "labels", "mids", "split"]], "eval": [["fname", "labels", "mids"]]}
    listed, test, used, allowed = {"dev": [], "eval": []}, [], set(), set(mids)
    for part, found in listed.items():
        if metadata:
            for record in metadata.records(f"fsd50k/fsd50k_{part}_labels.jsonl.gz"):
                found.append(
                    (record["id"], [official(name) for name in record["audio_events"].split("; ")])
                )
        else:
            clips = (f"{'12'[part == 'eval']}{number:03d}" for number in range(100))
            found += [
                (clip, parents.get(kind, [kind]))
                for clip, kind in zip(clips, itertools.cycle(kinds))
            ]
    for offset, (split, part) in enumerate((("train", "dev"), ("val", "dev"), ("test", "eval"))):
        for kind, sound in kinds.items():
            own = [
                x
                for x in listed[part]
                if kind in x[1] and set(x[1]) <= allowed and x[0] not in used
            ]
            for number, (clip, labels) in enumerate(
                own[: COUNTS["valid" if split == "val" else split]]
            ):
                used.add(clip)
                rows[part].append(
                    [clip, ",".join(labels), ",".join(mids[x] for x in labels), split][
                        : len(rows[part][0])
                    ]
                )
                samples = sounds(f"esc10/{sound}", number + 10 * offset)[: 3 * SAMPLING_RATE]
                path = write_audio(folder / f"FSD50K.{part}_audio" / f"{clip}.wav", samples, 44_100)
                test += [path] if part == "eval" else []
        allowed = {
            label for row in rows["dev"][1:] if row[3] == "train" for label in row[1].split(",")
        }
    for part, table in rows.items():
        write_csv(folder / "FSD50K.ground_truth" / f"{part}.csv", table)
    write_csv(folder / "FSD50K.ground_truth" / "vocabulary.csv", vocabulary)
    return test


def make_vggsound(folder: Path, metadata: Metadata, sounds: Sounds) -> list[Path]:
    kinds = {
        "dog barking": "dog", "raining": "rain", "sea waves": "sea_waves",
        "helicopter": "helicopter", "people sneezing": "sneezing",
        "fire crackling": "crackling_fire",
    }  # fmt: skip
    if metadata:
        classes = list(csv.reader(metadata.lines("vggsound/stat.csv")))
        training = [
            (x["id"], x["event_label"])
            for x in metadata.records("vggsound/vggsound_train_labels.jsonl.gz")
        ]
        testing = [
            (name[:-4], label) for name, label in csv.reader(metadata.lines("vggsound/test.csv.gz"))
        ]
    else:
        rng = random.Random(0)
        classes = [[label, "1050", "x"] for label in [*kinds, "bird chirping, tweeting"]]
        made_up = [(f"{made_up_video(rng)}_{30:06d}", label) for label in kinds for _ in range(200)]
        training, testing = [x for n, x in enumerate(made_up) if n % 10], made_up[::10]
        training.append((f"{made_up_video(rng)}_000000", VGGSOUND_EXTRA_LABEL))
    test_videos = {clip[:11] for clip, _ in testing}
    rows, test_rows, test = [], [], []
    for label, sound in kinds.items():
        found = {"train": [], "valid": [], "test": [clip for clip, own in testing if own == label]}
        for clip, own in training:
            if own == label and clip[:11] not in test_videos:
                found[
                    (
                        "valid"
                        if held_out_for_validation(youtube_key(clip[:11], clip[12:]))
                        else "train"
                    )
                ].append(clip)
        for offset, (split, clips) in enumerate(found.items()):
            for number, clip in enumerate(clips[: COUNTS[split]]):
                samples = fitted(sounds(f"esc10/{sound}", number + 10 * offset), 10.0)
                path = write_audio(folder / "audio" / f"{clip}.wav", samples)
                rows.append(
                    [clip[:11], str(int(clip[12:])), label, "test" if split == "test" else "train"]
                )
                if split == "test":
                    test.append(path)
                    test_rows.append([f"{clip}.mp4", label])
    extra = next(clip for clip, label in training if label == VGGSOUND_EXTRA_LABEL)
    rows.append([extra[:11], str(int(extra[12:])), VGGSOUND_EXTRA_LABEL, "train"])
    rows.append([test[0].stem[:11], "599", "raining", "train"])  # another second of a test video
    rows.append(["---g-f_I2yQ", "1", "raining", "test"])  # not in test.csv
    write_csv(folder / "vggsound.csv", rows)
    write_csv(folder / "test.csv", test_rows)
    write_csv(folder / "stat.csv", classes)
    return test


def make_voxceleb2(folder: Path, metadata: Metadata, sounds: Sounds) -> list[Path]:
    videos: dict[str, dict[str, list[str]]] = {}
    if metadata:
        for record in metadata.records("paraspeechcaps/psc_train_base_ids.jsonl.gz"):
            name = record["id"].removeprefix("voxceleb2_dev_aac_")
            if name != record["id"]:
                videos.setdefault(name[:7], {}).setdefault(name[8:19], []).append(name[20:25])
        table = metadata.lines("voxceleb/vox2_meta.csv.gz")
    else:
        rng = random.Random(0)
        speakers = [f"id{number:05d}" for number in (12, 15, 18, 19)]
        videos = {
            x: {made_up_video(rng): ["00001", "00002", "00003"] for _ in range(5)} for x in speakers
        }
        table = [
            "\ufeffVoxCeleb2 ID,VGGFace2 ID,Gender,Set",
            *(f"{x} ,n0000{x[-2:]} ,m ,dev " for x in speakers),
        ]
    chosen = [
        x for x, own in videos.items() if sum(len(names) >= 2 for names in own.values()) >= 5
    ][:4]
    names = []
    for number, speaker in enumerate(chosen):
        own = [(video, found) for video, found in videos[speaker].items() if len(found) >= 2][:5]
        for count, (video, utterance) in enumerate(
            (video, x) for video, found in own for x in found[:3]
        ):
            names.append(f"{speaker}/{video}/{utterance}")
            samples = sounds(f"ravdess/*/ravdess_{number + 1:02d}", count)
            write_audio(folder / "voxceleb2/dev/aac" / f"{names[-1]}.wav", samples)
    (folder / "vox2_meta.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    held_out = vox2_identification_split(names)
    return [
        folder / "voxceleb2/dev/aac" / f"{x}.wav"
        for x in names
        if tuple(x.split("/")[:2]) in held_out
    ]


def make_cremad(folder: Path, metadata: Metadata, sounds: Sounds) -> list[Path]:
    """12 actors of train, 4 of valid, 5 of test, all six emotions of each."""
    split_of = {str(actor): split_of_actor(str(actor)) for actor in ACTORS}
    chosen = {
        x: [actor for actor in sorted(split_of) if split_of[actor] == x]
        for x in ("train", "valid", "test")
    }
    chosen = {split: actors[:count] for (split, actors), count in zip(chosen.items(), (12, 4, 5))}
    rows, test = [["Stimulus_Number", "Filename"]], []
    if metadata:
        listed = [
            row[1] for row in csv.reader(metadata.lines("cremad/SentenceFilenames.csv.gz")[1:])
        ]
    else:
        listed = [f"{actor}_DFA_{emotion}_XX" for actor in split_of for emotion in EMOTIONS]
    for number, (split, actor) in enumerate(
        (split, actor) for split, own in chosen.items() for actor in own
    ):
        for code, emotion in EMOTIONS.items():
            name = next(x for x in listed if x.startswith(f"{actor}_") and f"_{code}_" in x)
            rows.append([str(len(rows)), name])
            samples = sounds(f"ravdess/{emotion}/ravdess_{number % 16 + 1:02d}", number // 16)
            path = write_audio(folder / "AudioWAV" / f"{name}.wav", samples)
            if split == "test":
                test.append(path)
    write_csv(folder / "SentenceFilenames.csv", rows, quoting=csv.QUOTE_NONNUMERIC)
    return test


def make_magnatagatune(folder: Path, metadata: Metadata, sounds: Sounds) -> list[Path]:
    kinds = {
        "guitar": "acoustic_guitar", "piano": "acoustic_piano", "sitar": "sitar", "harp": "harp",
        "drums": "tabla", "strings": "string_section",
    }  # fmt: skip
    tags = MAGNATAGATUNE_TAGS
    if metadata:
        paths = dict(
            line.split("\t") for line in metadata.lines("magnatagatune/musicnn_index_mtt.tsv.gz")
        )
        listed = {}
        for split, part in (("valid", "val"), ("test", "test")):
            table = (
                line.split("\t")
                for line in metadata.lines(f"magnatagatune/musicnn_{part}_gt_mtt.tsv.gz")
            )
            listed[split] = [
                (clip, [t for t, x in zip(tags, json.loads(values)) if x]) for clip, values in table
            ]
        training = iter(clip for clip, path in paths.items() if path[0] in "0123456789ab")
    else:
        listed = {
            split: [(f"{n}{tag}", [tag, "slow"]) for tag in kinds for n in "123"]
            for split in ("valid", "test")
        }
        listed["test"] = [(f"9{clip}", own) for clip, own in listed["test"]]
        training = iter(str(number) for number in range(10_000, 10_100))
        paths = {clip: f"0/album-{clip}-0-29.mp3" for clip in map(str, range(10_000, 10_100))}
        paths |= {
            clip: f"{f}/album-{clip}-0-29.mp3"
            for f, split in (("c", "valid"), ("e", "test"))
            for clip, _ in listed[split]
        }
    rows, test = [["clip_id", *tags, "singer", "mp3_path"]], []

    def add(clip: str, own: list[str], kind: str, number: int) -> Path:
        rows.append([clip, *("1" if tag in own else "0" for tag in tags), "0", paths[clip]])
        return write_audio(folder / paths[clip], fitted(sounds(f"instruments/{kind}", number), 4.0))

    for tag, kind in kinds.items():
        others = set(kinds) - {tag}
        for split, offset in (("valid", 10), ("test", 20)):
            found = [
                (clip, own) for clip, own in listed[split] if tag in own and not others & set(own)
            ]
            for number, (clip, own) in enumerate(found[: COUNTS[split]]):
                path = add(clip, own, kind, offset + number)
                test += [path] if split == "test" else []
                for more in range(2):  # every combination of tags is trained on
                    add(next(training), own, kind, 2 * number + more + (offset == 20))
    add(next(training), [], "tabla", 0)  # no tag: left out by the reader
    write_csv(folder / "annotations_final.csv", rows, delimiter="\t", quoting=csv.QUOTE_ALL)
    return test


def make_nsynth(folder: Path, metadata: Metadata, sounds: Sounds) -> list[Path]:
    kinds = {
        "guitar_acoustic": "acoustic_guitar", "keyboard_acoustic": "acoustic_piano",
        "reed_acoustic": "alto_saxophone", "string_acoustic": "string_section",
        "bass_electronic": "electric_bass", "synth_lead_synthetic": "electric_piano",
    }  # fmt: skip
    test = []
    for offset, split in enumerate(COUNTS):
        notes = {}
        for kind, sound in kinds.items():
            if split != "train" and kind.startswith("synth_lead"):
                continue
            made_up = [f"{kind}_{offset:03d}-{40 + number:03d}-100" for number in range(10)]
            listed = []
            if metadata and split != "train":
                listed = [
                    x["id"]
                    for x in metadata.records(f"nsynth/nsynth_{split}.jsonl.gz")
                    if x["id"].startswith(kind)
                ]
            for number, note in enumerate((listed or made_up)[: COUNTS[split]]):
                family = kind.rpartition("_")[0]
                notes[note] = {
                    "note_str": note,
                    "instrument_family_str": family,
                    "sample_rate": 16000,
                }
                samples = sounds(f"instruments/{sound}", number + 8 * offset)[: 4 * SAMPLING_RATE]
                path = folder / f"nsynth-{split}" / "audio" / f"{note}.wav"
                write_audio(path, np.pad(samples, (0, 4 * SAMPLING_RATE - len(samples))))
                test += [path] if split == "test" else []
        (folder / f"nsynth-{split}" / "examples.json").write_text(json.dumps(notes))
    return test


def make_audioset_strong(folder: Path, metadata: Metadata, sounds: Sounds) -> list[Path]:
    kinds = {
        "Bark": "dog", "Chainsaw": "chainsaw", "Helicopter": "helicopter", "Sneeze": "sneezing",
        "Waves, surf": "sea_waves", "Tick": "clock_tick",
    }  # fmt: skip
    rng = random.Random(0)
    if metadata:
        listed = csv.reader(metadata.lines("audioset_strong/class_labels_indices_strong.csv"))
        mids = {name: mid for mid, name in listed}
        clips = {"eval": {}, "train": {}}
        for record in metadata.records("audioset_strong/eval_events.jsonl.gz"):
            events = (line.lstrip("[").split("] ", 1) for line in record["events"].splitlines())
            clips["eval"][record["id"]] = [
                (*map(float, times.split("-")), name) for times, name in events
            ]
        for record in metadata.records("audioset_strong/train_clip_events_no_times.jsonl.gz"):
            onsets = [rng.uniform(0, 8) for _ in record["events_list"]]
            events = [
                (x, x + rng.uniform(0.5, 2), name) for x, name in zip(onsets, record["events_list"])
            ]
            clips["train"][record["id"]] = events
    else:
        mids = {name: f"/m/{number:05d}" for number, name in enumerate(kinds)}
        clips = {part: {} for part in ("eval", "train")}
        for part, own in clips.items():
            for number in range(120 if part == "train" else 30):
                events = [
                    (1.0, 3.0, list(kinds)[number % 6]),
                    (5.0, 6.5, list(kinds)[(number + 1) % 6]),
                ]
                own[f"{made_up_video(rng)}_{30_000}"] = events
    test = []
    for part, own in clips.items():
        rows = [["segment_id", "start_time_seconds", "end_time_seconds", "label"]]
        quota = {
            (name, held): 3 if part == "eval" else 1 if held else 4
            for name in kinds
            for held in (False, True)
        }
        for clip, events in own.items():
            events = [event for event in events if event[2] in kinds]
            video, start = clip[:11], int(clip[12:]) // 1000
            held = part == "train" and held_out_for_validation(youtube_key(video, start))
            wanted = [event[2] for event in events if quota[event[2], held] > 0]
            if not wanted:
                continue
            quota[wanted[0], held] -= 1
            samples = 0.003 * np.random.default_rng(len(rows)).standard_normal(
                10 * SAMPLING_RATE
            ).astype(np.float32)
            for onset, offset, name in events:
                rows.append([clip, f"{onset:.3f}", f"{offset:.3f}", mids[name]])
                place = slice(
                    round(onset * SAMPLING_RATE), round(min(offset, 10.0) * SAMPLING_RATE)
                )
                samples[place] += np.resize(
                    sounds(f"esc10/{kinds[name]}", len(rows)), len(samples[place])
                )
            path = write_audio(
                folder / "audio" / f"Y{video}.wav", samples / max(1.0, np.abs(samples).max())
            )
            test += [path] if part == "eval" else []
        write_csv(folder / f"audioset_{part}_strong.tsv", rows, delimiter="\t")
    return test


MAKERS: dict[str, Callable[[Path, Metadata, Sounds], list[Path]]] = {
    "fsd50k": make_fsd50k,
    "vggsound": make_vggsound,
    "voxceleb2": make_voxceleb2,
    "cremad": make_cremad,
    "magnatagatune": make_magnatagatune,
    "nsynth": make_nsynth,
    "audioset_strong": make_audioset_strong,
}
