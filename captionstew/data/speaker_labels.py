"""Emotion, gender and age of the speakers of five speech corpora, in one vocabulary.

    clips = speaker_clips("cremad", Path("download/cremad"), report)

Every reader takes the corpus as it is released and yields a SpeakerClip per utterance; a label that the release does
not give, or that is none of the vocabulary, is None.
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from captionstew.data.corpus_cli import AudioFolder, ReleaseError, Report, find_release_file, open_text, read_csv
from captionstew.data.identity import name_stem

EMOTIONS = ("angry", "calm", "disgusted", "excited", "fearful", "frustrated", "happy", "neutral", "sad", "surprised")
GENDERS = ("female", "male")
# AIR-Bench asks in these words (its "fourties" included), two decades at a time.
AGES = ("teens to twenties", "thirties to fourties", "fifties to sixties", "seventies to eighties")
DECADES = ("teens", "twenties", "thirties", "fourties", "fifties", "sixties", "seventies", "eighties")

HOMES = {
    "commonvoice": "https://commonvoice.mozilla.org/datasets (13.0, English)",
    "iemocap": "https://sail.usc.edu/iemocap (licence form)",
    "cremad": "https://github.com/CheyneyComputerScience/CREMA-D",
    "ravdess": "https://zenodo.org/records/1188976",
    "meld": "https://github.com/declare-lab/MELD",
}
LICENSES = {
    "commonvoice": "CC0-1.0",
    "iemocap": "IEMOCAP licence form (research)",
    "cremad": "ODbL-1.0 / DbCL-1.0",
    "ravdess": "CC-BY-NC-SA-4.0",
    "meld": "GPL-3.0",
}
CREMAD_EMOTIONS = {
    "ANG": "angry", "DIS": "disgusted", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad",
}  # fmt: skip
RAVDESS_EMOTIONS = dict(
    zip(
        ("01", "02", "03", "04", "05", "06", "07", "08"),
        ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised"),
        strict=True,
    )
)
MELD_EMOTIONS = {
    "anger": "angry", "disgust": "disgusted", "fear": "fearful", "joy": "happy", "neutral": "neutral",
    "sadness": "sad", "surprise": "surprised",
}  # fmt: skip
IEMOCAP_EMOTIONS = {
    "ang": "angry", "dis": "disgusted", "exc": "excited", "fea": "fearful", "fru": "frustrated", "hap": "happy",
    "neu": "neutral", "sad": "sad", "sur": "surprised",
}  # fmt: skip
# The six main characters speak 83 % of MELD's training utterances; of the others the release says nothing.
MELD_GENDERS = {
    "Chandler": "male", "Joey": "male", "Ross": "male", "Monica": "female", "Phoebe": "female", "Rachel": "female",
}  # fmt: skip
COMMONVOICE_GENDERS = {
    "male": "male", "female": "female", "male_masculine": "male", "female_feminine": "female",
}  # fmt: skip


@dataclass(frozen=True)
class SpeakerClip:
    """One utterance and what is known of its speaker: labels of EMOTIONS, GENDERS, AGES, or None."""

    corpus: str
    audio_key: str
    audio_path: str
    emotion: str | None = None
    gender: str | None = None
    age: str | None = None

    def label(self, attribute: str) -> str | None:
        """The label of `emotion`, `gender` or `age`."""
        return getattr(self, attribute)


def age_of_decade(decade: str) -> str | None:
    """`twenties` -> `teens to twenties`; None for anything that is no decade of AGES."""
    return AGES[DECADES.index(decade) // 2] if decade in DECADES else None


def age_of_years(years: int) -> str | None:
    """10 to 89 years -> the AGES they belong to."""
    return age_of_decade(DECADES[years // 10 - 1]) if 10 <= years < 90 else None


def speaker_clips(corpus: str, folder: Path, report: Report, commonvoice_list: str = "train") -> Iterator[SpeakerClip]:
    """The corpus's utterances in the order of the release; raises ReleaseError for what is not there."""
    if not folder.is_dir():
        raise ReleaseError(
            f"{folder} is missing; get {corpus} from {HOMES[corpus]} and put it there, or leave it out of --corpora"
        )
    options = {"name": commonvoice_list} if corpus == "commonvoice" else {}
    return READERS[corpus](folder, report, **options)


def _commonvoice(folder: Path, report: Report, name: str) -> Iterator[SpeakerClip]:
    """<name>.tsv, tab-separated without quoting, and clips/; only speakers with a gender or an age."""
    path = find_release_file(folder, [f"{name}.tsv", f"en/{name}.tsv"], HOMES["commonvoice"])
    audio = AudioFolder(path.parent / "clips")
    with open_text(path) as stream:
        reader = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        if missing := {"path", "age", "gender"} - set(reader.fieldnames or ()):
            raise ReleaseError(f"{path}: column {sorted(missing)[0]!r} is missing; it has {reader.fieldnames}")
        for row in reader:
            age = age_of_decade((row["age"] or "").strip())
            gender = COMMONVOICE_GENDERS.get((row["gender"] or "").strip())
            if age is None and gender is None:
                report.drop("Common Voice: neither age nor gender", row["path"])
                continue
            key = f"commonvoice:{name_stem(row['path'])}"
            yield SpeakerClip("commonvoice", key, audio.path(row["path"]), gender=gender, age=age)


def _iemocap(folder: Path, report: Report) -> Iterator[SpeakerClip]:
    """Session*/dialog/EmoEvaluation/<dialog>.txt; the speaker's gender is the letter before the turn's number."""
    audio = AudioFolder(folder)
    line_form = re.compile(r"\[[\d.]+ - [\d.]+\]\t(Ses\w+_([FM])\d+)\t(\w+)\t")
    tables = sorted(folder.glob("Session*/dialog/EmoEvaluation/Ses*.txt"))  # leaves out the ._*.txt of macOS
    if not tables:
        raise ReleaseError(f"{folder}: no Session*/dialog/EmoEvaluation/*.txt; get it from {HOMES['iemocap']}")
    for table in tables:
        for line in open_text(table, "iso-8859-1"):
            found = line_form.match(line)
            if found is None:
                continue
            turn, letter, code = found.groups()
            emotion = IEMOCAP_EMOTIONS.get(code)
            if emotion is None:
                report.drop(f"IEMOCAP: no emotion for code {code}", turn)
            path = audio.path_in_tree(f"{table.parts[-4]}/sentences/wav/{turn.rpartition('_')[0]}/{turn}.wav")
            yield SpeakerClip("iemocap", f"iemocap:{turn}", path, emotion, {"F": "female", "M": "male"}[letter])


def _cremad(folder: Path, report: Report) -> Iterator[SpeakerClip]:
    """The intended emotion of the file name; sex and age from VideoDemographics.csv."""
    audio = AudioFolder(folder)
    columns = ("ActorID", "Age", "Sex")
    actors = {
        row["ActorID"]: row
        for row in read_csv(find_release_file(folder, ["VideoDemographics.csv"], HOMES["cremad"]), columns)
    }
    clips = read_csv(find_release_file(folder, ["SentenceFilenames.csv"], HOMES["cremad"]), ("Filename",))
    for name in (row["Filename"] for row in clips):
        actor, _, code, _ = f"{name}___".split("_")[:4]
        about = actors.get(actor)
        if about is None or code not in CREMAD_EMOTIONS:
            report.drop("CREMA-D: unknown actor or emotion in the file name", name)
            continue
        path = audio.path_in_tree(f"AudioWAV/{name}.wav")
        age = age_of_years(int(about["Age"]))
        yield SpeakerClip("cremad", f"cremad:{name}", path, CREMAD_EMOTIONS[code], about["Sex"].lower(), age)


def _ravdess(folder: Path, report: Report) -> Iterator[SpeakerClip]:
    """Actor_*/<modality>-<channel>-<emotion>-...-<actor>.wav, speech only; odd actors are men."""
    names = sorted(path for path in folder.rglob("*.wav") if re.fullmatch(r"\d\d(-\d\d){6}", path.stem))
    if not names:
        raise ReleaseError(f"{folder}: no file like Actor_01/03-01-01-01-01-01-01.wav; see {HOMES['ravdess']}")
    for path in names:
        _, channel, emotion, *_, actor = path.stem.split("-")
        if channel != "01" or emotion not in RAVDESS_EMOTIONS:
            report.drop("RAVDESS: not speech", path.name)
            continue
        gender = "male" if int(actor) % 2 else "female"
        yield SpeakerClip("ravdess", f"ravdess:{path.stem}", str(path), RAVDESS_EMOTIONS[emotion], gender)


def _meld(folder: Path, report: Report) -> Iterator[SpeakerClip]:
    """The training split; take the sound out of train_splits/dia*_utt*.mp4 first (ffmpeg -i x.mp4 x.wav)."""
    audio = AudioFolder(folder)
    columns = ("Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
    for row in read_csv(find_release_file(folder, ["train_sent_emo.csv"], HOMES["meld"]), columns):
        stem = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
        emotion, gender = MELD_EMOTIONS.get(row["Emotion"].strip()), MELD_GENDERS.get(row["Speaker"].strip())
        if emotion is None and gender is None:
            report.drop("MELD: neither emotion nor gender", stem)
            continue
        yield SpeakerClip("meld", f"meld:{stem}", audio.path_in_tree(f"train_splits/{stem}.wav"), emotion, gender)


READERS: dict[str, Callable[..., Iterator[SpeakerClip]]] = {
    "commonvoice": _commonvoice,
    "iemocap": _iemocap,
    "cremad": _cremad,
    "ravdess": _ravdess,
    "meld": _meld,
}
