"""No recording that the study evaluates on is trained on, whichever form the releases have.

Small releases of all corpora of the study's list, in the form of their files. For every evaluation
list there is one recording, named after it, which every training corpus that could hold it has as
well; the recording `free` is on no list.
"""

import base64
import contextlib
import csv
import gzip
import hashlib
import json
import runpy
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captionstew.corpora import known, lit_splits, urbansound8k
from captionstew.corpora.build.consolidate import consolidate
from captionstew.corpora.build.corpus_list import read_corpora
from captionstew.corpora.build.evaluation_keys import TEST_SPLITS
from captionstew.corpora.build.leakage import filter_tables
from captionstew.corpora.captioned import run
from captionstew.corpora.keys import freesound_key, group_key, paraspeech_key
from captionstew.corpora.labelled import run_labelled
from captionstew.data.tables.database import connect

pytestmark = pytest.mark.usefixtures("short_lists")
RECIPE = Path(__file__).parents[4] / "egs" / "captionstew"
ENTRIES = read_corpora(RECIPE / "corpora.csv")
LISTS = [f"{entry.name}:{entry.split}" for entry in ENTRIES if entry.role == "evaluation"]
PARTS = [f"{entry.name}:{entry.split}" for entry in ENTRIES if entry.role == "pretrain"]

FREE = "free"
VERSION_2 = " of version 2"  # AudioCaps
ON_YOUTUBE = (
    "musiccaps:eval", "vggsound:test", "audioset:eval", "audioset_strong:eval", "airbench:test",
)  # fmt: skip
IN_CLOTHO = (
    "clotho:validation", "clotho:evaluation", "clothoaqa:val", "clothoaqa:test", "airbench:test",
)  # fmt: skip
ON_FREESOUND = (*IN_CLOTHO, "fsd50k:dev", "fsd50k:eval", "urbansound8k:all")
VOICES = {  # ParaSpeechCaps' own lists are of utterances, that of VoxCeleb2 is of videos
    FREE: ["voxceleb2/dev/aac/id00001/{}/00001_voicefixer.wav"],
    "voxceleb2:eval": ["voxceleb2/dev/aac/id00001/{}/00002_voicefixer.wav"],
    "paraspeechcaps:dev": ["voxceleb1/dev/wav/id10001/{}/00003_voicefixer.wav", "p001/glad.wav"],
    "paraspeechcaps:holdout": [
        "voxceleb2/test/aac/id00017/{}/00004_voicefixer.wav",
        "audio_48khz/read/ex01/sad/base/ex01_sad_00001.wav",
        "EN/EN_B00001/EN_B00001_S00001/mp3/EN_B00001_S00001_W000001.mp3",
    ],
}


@dataclass(frozen=True)
class Form:
    """What differs from one user's releases to another's."""

    audiocaps: tuple[int, ...] = (1,)  # versions that are there; the first is trained on
    clotho_metadata: bool = True
    audioset: str = "{}_segments.csv"
    strong: str = "audioset_{}_strong.tsv"
    zipped: str = ""  # pattern of the files that are .gz

    @property
    def on_youtube(self) -> list[str]:
        """The recordings that YouTube corpora hold."""
        ends = [VERSION_2 if version == 2 else "" for version in self.audiocaps]
        audiocaps = [f"audiocaps:{split}{end}" for split in ("val", "test") for end in ends]
        return [*audiocaps, *ON_YOUTUBE]

    def planted(self, part: str) -> set[str]:
        """The evaluated recordings that are in a part of the training corpora."""
        if part.startswith("paraspeechcaps"):
            return set(VOICES) - {FREE}
        if part == "clotho:development":
            return set(ON_FREESOUND if self.clotho_metadata else IN_CLOTHO)
        if part == "wavcaps:freesound":
            return set(ON_FREESOUND)
        if part in ("wavcaps:bbc", "wavcaps:soundbible", "jamendomaxcaps:train"):
            return set()
        return set(self.on_youtube)


FORMS = {
    "as released": Form(),
    "AudioCaps 2": Form(audiocaps=(2,)),
    "AudioCaps 1, 2 there too": Form(audiocaps=(1, 2)),
    "AudioCaps 2, 1 there too": Form(audiocaps=(2, 1)),
    "Clotho without metadata": Form(clotho_metadata=False),
    "AudioSet repackaged": Form(audioset="{}_segments.repacked.csv"),
    "AudioSet-strong repackaged": Form(strong="{}_events.jsonl"),
    "all zipped": Form(zipped="**/*"),
    "AudioCaps 2 alone zipped": Form(audiocaps=(1, 2), zipped="audiocaps/dataset2.0/*"),
}


def video(recording: str) -> str:
    """A YouTube id; some begin with "-", "_" or "Y"."""
    digest = hashlib.sha256(recording.encode()).digest()
    return "-_Ya"[digest[0] % 4] + base64.urlsafe_b64encode(digest)[:10].decode()


def sound(recording: str) -> str:
    """A Freesound id."""
    return str(int.from_bytes(hashlib.sha256(recording.encode()).digest()[:3]) + 1)


def file_name(recording: str) -> str:
    """A file name of Clotho."""
    return f"Café, {recording.replace(':', ' ')}.wav"


def voices(recording: str) -> list[str]:
    """The paths of a recording in ParaSpeechCaps."""
    return [path.format(video(recording)) for path in VOICES[recording]]


def make_owners() -> dict[str, str]:
    """The recording of every group of keys."""
    owners = dict.fromkeys(("bbc:07000001", "soundbible:2219", "jamendo:1748883"), FREE)
    owners["iemocap:Ses01F_impro01_F000"] = "airbench:test"
    owners[f"airbench:musiccaps:{video('airbench:test')}"] = "airbench:test"
    for recording in (FREE, *Form(audiocaps=(1, 2)).on_youtube):
        owners[f"yt:{video(recording)}"] = recording
    for recording in (FREE, *ON_FREESOUND):
        owners[f"fs:{sound(recording)}"] = recording
        owners[f"clotho:{file_name(recording)}"] = recording
    for recording in VOICES:
        for path in voices(recording):
            owners[group_key(paraspeech_key(path))] = recording
    return owners


OWNERS = make_owners()


def recordings(keys) -> set[str]:
    return {OWNERS[group_key(key)] for key in keys}


def list_of(recording: str) -> str:
    return recording.removesuffix(VERSION_2)


def write(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def write_csv(path: Path, *rows, encoding: str = "utf-8", **form) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file, **form).writerows(rows)


def write_json_lines(path: Path, *records: dict) -> None:
    write(path, "".join(json.dumps(record) + "\n" for record in records))


def make_audiocaps(folder: Path, form: Form) -> None:
    header = ("audiocap_id", "youtube_id", "start_time", "caption")
    for version in form.audiocaps:
        place, end = {1: ("dataset", ""), 2: ("dataset2.0", VERSION_2)}[version]
        lists = {split: [f"audiocaps:{split}{end}"] for split in ("val", "test")}
        for split, listed in {"train": [FREE, *form.on_youtube], **lists}.items():
            rows = [(number, video(name), 30, "A") for number, name in enumerate(listed)]
            write_csv(folder / place / f"{split}.csv", header, *rows)


def make_clotho(folder: Path, form: Form) -> None:
    header = ("file_name", *(f"caption_{number}" for number in range(1, 6)))
    splits = {
        "development": [FREE, *sorted(form.planted("clotho:development"))],
        "validation": ["clotho:validation"],
        "evaluation": ["clotho:evaluation"],
    }
    for split, listed in splits.items():
        names = [file_name(recording) for recording in listed]
        captions = folder / f"clotho_captions_{split}.csv"
        write_csv(captions, header, *((name, *"ABCDE") for name in names))
        if form.clotho_metadata:
            rows = [(name, f"0{sound(recording)}") for name, recording in zip(names, listed)]
            metadata = folder / f"clotho_metadata_{split}.csv"
            write_csv(metadata, ("file_name", "sound_id"), *rows, encoding="iso-8859-1")
    if not form.clotho_metadata:
        ids = ["Not found", *(sound(recording) for recording in IN_CLOTHO)]
        write(folder / "blacklist_clotho.full.v2.csv", "\n".join(["id", *ids]) + "\n")


def make_musiccaps(folder: Path, form: Form) -> None:
    header = (
        "ytid", "start_s", "end_s", "audioset_positive_labels", "aspect_list", "caption",
        "author_id", "is_balanced_subset", "is_audioset_eval",
    )  # fmt: skip
    rows = [
        (video(recording), 30, 40, "/m/a", "['low']", "A", 4, False, evaluated)
        for evaluated, listed in ((False, [FREE, *form.on_youtube]), (True, ["musiccaps:eval"]))
        for recording in listed
    ]
    write_csv(folder / "musiccaps-public.csv", header, *rows)


def make_wavcaps(folder: Path, form: Form) -> None:
    ids = {
        "AudioSet_SL/as": [f"Y{video(name)}.wav" for name in (FREE, *form.on_youtube)],
        "FreeSound/fsd": [sound(name) for name in (FREE, *ON_FREESOUND)],
        "BBC_Sound_Effects/bbc": ["07000001"],
        "SoundBible/sb": ["2219"],
    }
    for name, listed in ids.items():
        data = [{"id": clip, "caption": "A", "duration": 10.0} for clip in listed]
        text = json.dumps({"num_captions_per_audio": 1, "data": data})
        write(folder / "json_files" / f"{name}_final.json", text)


def make_audiosetcaps(folder: Path, form: Form) -> None:
    forms = {"AudioSetCaps": "Y{}", "VGGSound_AudioSetCaps": "{}_000200"}
    for name, clip in (forms | {"YouTube-8M_AudioSetCaps": "{}_84_10"}).items():
        rows = [(clip.format(video(recording)), "A") for recording in (FREE, *form.on_youtube)]
        write_csv(folder / "Dataset" / f"{name}_caption.csv", ("id", "caption"), *rows)


def make_fusionaudio(folder: Path, form: Form) -> None:
    records = [
        {"audio_id": f"audioset/Y{video(x)}_30_40.wav", "task": "captioning", "output": "A"}
        for x in (FREE, *form.on_youtube)
    ]
    write(folder / "FusionAudio.json", json.dumps(records))


def make_jamendomaxcaps(folder: Path, form: Form) -> None:
    record = {"id": "1748883", "start_time": 90.0, "end_time": 120.0, "caption": "A"}
    write_json_lines(folder / "final_caption30sec.jsonl", record)


def make_paraspeechcaps(folder: Path, form: Form) -> None:
    folder.mkdir()
    both = ["train_base", "train_scaled"]
    splits = dict.fromkeys(both, list(VOICES))
    splits |= {split: [f"paraspeechcaps:{split}"] for split in ("dev", "holdout")}
    for split, listed in splits.items():
        paths = [path for recording in listed for path in voices(recording)]
        if split in both:  # the original recording where the lists name a denoised copy
            paths = [path.replace("_voicefixer", "") for path in paths]
        table = {
            "source": ["x"] * len(paths),
            "relative_audio_path": paths,
            "text_description": [["A"]] * len(paths),
            "speakerid": ["x"] * len(paths),
            "duration": [5.0] * len(paths),
            "gender": ["f"] * len(paths),
            "all_tags": pa.array([["low"]] * len(paths), pa.list_(pa.string())),
        }
        pq.write_table(pa.table(table), folder / f"{split}-00000-of-00001.parquet")


def make_audioset(folder: Path, form: Form) -> None:
    write_csv(
        folder / "class_labels_indices.csv", ("index", "mid", "display_name"), (0, "/m/a", "Hum")
    )
    for part, recording in (("eval", "audioset:eval"), ("balanced_train", FREE)):
        if "repacked" in form.audioset:
            text = (
                f'YTID,start_seconds,end_seconds,positive_labels\n{video(recording)},30,40,"/m/a"\n'
            )
        else:
            text = f'# YTID, start_seconds\n{video(recording)}, 30.000, 40.000, "/m/a"\n'
        write(folder / form.audioset.format(part), text)


def make_audioset_strong(folder: Path, form: Form) -> None:
    for part, recording in (("eval", "audioset_strong:eval"), ("train", FREE)):
        path, segment = folder / form.strong.format(part), f"{video(recording)}_30000"
        if path.suffix == ".jsonl":
            write_json_lines(path, {"id": segment, "events": "[0.50-2.00] Hum"})
        else:
            header = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
            write_csv(path, header, (segment, 0.5, 2.0, "/m/a"), delimiter="\t")


def make_vggsound(folder: Path, form: Form) -> None:
    tested = video("vggsound:test")
    write_csv(
        folder / "vggsound.csv", (video(FREE), 30, "hum", "train"), (tested, 30, "hum", "test")
    )
    write_csv(folder / "test.csv", (f"{tested}_000030.mp4", "hum"))
    write_csv(folder / "stat.csv", ("hum", 1, "others"))


def make_fsd50k(folder: Path, form: Form) -> None:
    truth = folder / "FSD50K.ground_truth"
    header, label = ("fname", "labels", "mids"), ("Hum", "/m/a")
    write_csv(truth / "vocabulary.csv", (0, *label))
    write_csv(truth / "dev.csv", (*header, "split"), (sound("fsd50k:dev"), *label, "val"))
    write_csv(truth / "eval.csv", header, (sound("fsd50k:eval"), *label))


def make_urbansound8k(folder: Path, form: Form) -> None:
    clip, path = sound("urbansound8k:all"), folder / "metadata" / "UrbanSound8K.csv"
    header = ("slice_file_name", "fsID", "fold", "class")
    write_csv(path, header, *((f"{clip}-3-0-{n}.wav", clip, n, "hum") for n in (1, 10)))


def make_voxceleb(folder: Path, form: Form) -> None:
    """Of a speaker's two videos the one with fewer utterances is tested on."""
    utterances = [f"id00001/{video('voxceleb2:eval')}/00002"]
    utterances += [f"id00001/{video(FREE)}/0000{number}" for number in (1, 2, 3)]
    write(folder / "vox2_dev_utterances.txt", "\n".join(utterances) + "\n")
    write(
        folder / "vox2_meta.csv",
        "\ufeffVoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00001 ,n000001 ,f ,dev \n",
    )


def make_clothoaqa(folder: Path, form: Form) -> None:
    for split in ("val", "test"):
        row = (file_name(f"clothoaqa:{split}"), "Is it loud?", "yes")
        path = folder / f"clotho_aqa_{split}.csv"
        write_csv(path, ("file_name", "QuestionText", "answer"), row, encoding="iso-8859-1")


def make_airbench(folder: Path, form: Form) -> None:
    clips = {
        "Foundation": [("Speaker_Emotion_Recontion", "iemocap", "Ses01F_impro01_F000.wav")],
        "Chat": [
            ("sound_QA", "clotho", file_name("airbench:test")),
            ("music_QA", "musiccaps", f"{video('airbench:test')}.wav"),
        ],
    }
    for part, listed in clips.items():
        records = [
            {"task_name": task, "dataset_name": corpus, "path": path, "uniq_id": number,
             "question": "What is it?", "answer_gt": "sad"}
            for number, (task, corpus, path) in enumerate(listed)
        ]  # fmt: skip
        write(folder / part / f"{part}_meta.json", json.dumps(records))


MAKERS = {
    name.removeprefix("make_"): maker
    for name, maker in list(globals().items())
    if name.startswith("make_") and name != "make_owners"
}


class Study:
    """The releases of one form, the caption tables of what pretrains, and the evaluation lists."""

    def __init__(self, form: Form, folder: Path) -> None:
        self.form, self.folder, self.corpora = form, folder, folder / "corpora"
        self.corpora.mkdir()
        for name, make in MAKERS.items():
            make(self.corpora / name, form)
        for path in list(self.corpora.glob(form.zipped)) if form.zipped else []:
            # The file of AudioSet's classes is not a list of clips.
            if path.suffix in (".csv", ".tsv", ".json", ".jsonl") and "indices" not in path.name:
                Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()
        splits = defaultdict(list)
        for part in PARTS:
            name, split = part.split(":")
            splits[name].append(split)
        self.tables = folder / "tables"
        for name, wanted in splits.items():
            self.prepare(name, self.tables, *wanted)

    def prepare(self, name: str, output: Path, *splits: str, version: int | None = None) -> Path:
        flags = ["--corpus-dir", self.corpora / name, "--output-dir", output, "--splits", *splits]
        if name == "audiocaps":
            flags += ["--version", version or self.form.audiocaps[0]]
        if (name, self.form.clotho_metadata) == ("clotho", False):
            flags += ["--allow-missing-ids"]
        return run(known.load(name).CORPUS, None, [str(flag) for flag in flags])

    def filter(self, lists: list[str], mode: str, output: Path) -> None:
        """The filtered tables, made as stages 1 and 2 of the recipe make them."""
        gather = runpy.run_path(str(RECIPE / "local" / "gather_evaluation_keys.py"))["main"]
        gather(["--corpora-dir", str(self.corpora), "--output-dir", str(output), "--sets", *lists])
        keys = output / "evaluation_keys.parquet"
        with connect(output / "scratch", memory_gb=1) as connection:
            filter_tables(connection, ENTRIES, self.tables, keys, output / "filtered", mode)

    def evaluated(self, output: Path) -> dict[str, set[str]]:
        """Recordings of every list, as the evaluations themselves read them."""
        found: dict[str, set[str]] = defaultdict(set)
        splits = {"clotho": ("validation", "evaluation"), "musiccaps": ("eval",),
                  "paraspeechcaps": ("dev", "holdout"), "clothoaqa": ("val", "test"),
                  "airbench": ("foundation", "chat")}  # fmt: skip
        tables = [self.prepare("audiocaps", output / f"audiocaps{version}", "val", "test",
                               version=version) for version in self.form.audiocaps]  # fmt: skip
        tables += [self.prepare(name, output, *wanted) for name, wanted in splits.items()]
        for table in tables:
            keys = keys_by_part(table)
            for part, listed in keys.items():
                name = "airbench:test" if table.stem == "airbench" else part
                found[name] |= recordings(listed)
            if table.stem in lit_splits.CORPORA:
                of_split = {part.split(":")[1]: listed for part, listed in keys.items()}
                chosen = lit_splits.choose_clips(of_split, table.stem, seed=0)
                adapted_for = {"musiccaps": {"musiccaps:eval"}}.get(table.stem, set(keys))
                clips = recordings(chosen["test"] | chosen["valid"])
                assert clips and {list_of(recording) for recording in clips} == adapted_for
        for name, split, listed in self.probed(output):
            found[f"{name}:{split}"] |= recordings(listed)
        clips = [row[1] for row in urbansound8k.read_urbansound8k(self.corpora / "urbansound8k")]
        found["urbansound8k:all"] = recordings(map(freesound_key, clips))
        return dict(found)

    def probed(self, output: Path):
        """(corpus, split of its list, keys) of what probes test on, and of FSD50K's validation."""
        for name in ("audioset", "audioset_strong", "vggsound", "fsd50k", "voxceleb2"):
            corpus_dir = self.corpora / name.replace("voxceleb2", "voxceleb")
            flags = ["--corpus-dir", corpus_dir, "--output-dir", output / name, "--lists-only"]
            run_labelled(known.load(name).CORPUS, None, [str(flag) for flag in flags])
            listed = keys_by_part(output / name / "listed.parquet")
            yield name, "test" if name == "vggsound" else "eval", listed["listed:test"]
            if name == "fsd50k":
                yield name, "dev", listed["listed:valid"]


def keys_by_part(*tables: Path) -> dict[str, set[str]]:
    found = defaultdict(set)
    for table in tables:
        for row in pq.read_table(table, columns=["audio_key", "split"]).to_pylist():
            found[f"{table.stem}:{row['split']}"].add(row["audio_key"])
    return dict(found)


def trained(folder: Path) -> dict[str, set[str]]:
    """Recordings of every training part in the tables of a folder."""
    parts = keys_by_part(*folder.glob("*.parquet"))
    return {part: recordings(keys) for part, keys in parts.items()}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """study("as released"): the releases of that form; made once."""
    made = {}

    def get(form: str) -> Study:
        if form not in made:
            with contextlib.redirect_stdout(None):
                made[form] = Study(FORMS[form], tmp_path_factory.mktemp("study"))
        return made[form]

    return get


def test_every_list_of_the_study_has_a_recording_here():
    assert {list_of(name) for name in (*OWNERS.values(), *VOICES)} - {FREE} == set(LISTS)


@pytest.mark.parametrize("form", FORMS)
def test_without_the_filter_the_leak_is_there(study, form, tmp_path):
    unfiltered = trained(study(form).tables)
    assert unfiltered == {part: {FREE} | FORMS[form].planted(part) for part in PARTS}
    evaluated = study(form).evaluated(tmp_path)
    assert set(evaluated) == set(LISTS)
    everywhere = set().union(*unfiltered.values())
    for name, clips in evaluated.items():
        assert clips == {recording for recording in everywhere if list_of(recording) == name}


@pytest.mark.parametrize("mode", ["strict", "test-only"])
@pytest.mark.parametrize("form", FORMS)
def test_no_evaluated_recording_is_trained_on(study, form, mode, tmp_path):
    study(form).filter(LISTS, mode, tmp_path)
    filtered = trained(tmp_path / "filtered")
    tested = {name for name in LISTS if mode == "strict" or name.split(":")[1] in TEST_SPLITS}
    for name, clips in study(form).evaluated(tmp_path).items():
        for part, heard in filtered.items():
            assert name not in tested or not clips & heard, (name, part)
    for part in PARTS:
        allowed = {name for name in FORMS[form].planted(part) if list_of(name) not in tested}
        if part == "wavcaps:freesound" and not FORMS[form].clotho_metadata:
            allowed -= set(IN_CLOTHO)  # which sound is of which split is not known then
        assert filtered[part] == {FREE} | allowed, part


@pytest.mark.parametrize("left_out", LISTS)
def test_a_list_that_is_not_read_leaks(study, left_out, tmp_path):
    """Each list protects on its own: what it holds is in training as soon as it is left out."""
    study("as released").filter([name for name in LISTS if name != left_out], "strict", tmp_path)
    heard = set().union(*trained(tmp_path / "filtered").values())
    assert heard == {FREE, left_out}


def test_consolidation_brings_nothing_back(study, tmp_path):
    study("as released").filter(LISTS, "strict", tmp_path)
    tables = sorted((tmp_path / "filtered").glob("*.parquet"))
    clips = tmp_path / "clips.parquet"
    with connect(tmp_path / "scratch", memory_gb=1) as connection:
        consolidate(connection, tables, tmp_path / "audioset_starts.parquet", clips)
    assert recordings(pq.read_table(clips)["audio_key"].to_pylist()) == {FREE}
