"""Which recordings may not be in pretraining: the keys of every evaluation set of the study.

Each reader takes the folder that holds one folder per corpus and the name of a split, and yields keys as the
leakage filter compares them: a group (`yt:<video>`, `vox:<v>:<speaker>:<video>`), or one clip's key
(`fs:<id>`, ParaSpeechCaps utterances).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from captionstew.data.corpus_cli import (
    ReleaseError,
    find_release_file,
    open_text,
    read_csv,
    read_json_list,
    read_jsonl,
    read_parquet,
)
from captionstew.data.folder_table import folder_rows, is_folder_corpus
from captionstew.data.identity import (
    IdentityError,
    freesound_key,
    group_key,
    paraspeech_key,
    youtube_id,
    youtube_key,
)
from captionstew.data.label_lists import (
    AUDIOSET_HOME,
    STRONG_HOME,
    read_audioset_segments,
    read_audioset_strong,
    read_fsd50k,
    read_urbansound8k,
    read_vggsound_test,
    read_vox2_utterances,
    vox2_identification_split,
)

AUDIOCAPS_HOME = "https://github.com/cdjkim/audiocaps"
CLOTHO_HOME = "https://zenodo.org/records/4783391"
CLOTHOAQA_HOME = "https://zenodo.org/records/6473207"
AIRBENCH_HOME = "https://huggingface.co/datasets/qyang1021/AIR-Bench-Dataset"
MUSICCAPS_HOME = "https://www.kaggle.com/datasets/googleai/musiccaps"
PARASPEECHCAPS_HOME = "https://huggingface.co/datasets/ajd12342/paraspeechcaps"
WAVCAPS_HOME = "https://huggingface.co/datasets/cvssp/WavCaps"

CLOTHO_OTHER_NAMES = {"development": "train", "validation": "val", "evaluation": "test"}
CLOTHO_IDS = "blacklist_clotho.full.v2.csv"
# Splits on which numbers are reported; every other split (val, dev, ...) counts under `--leakage strict`
# alone.
TEST_SPLITS = frozenset({"test", "eval", "evaluation", "holdout", "all"})


def video_key(video: str) -> str:
    """The whole video: `yt:<id>`."""
    return group_key(youtube_key(youtube_id(video), None))


def read_musiccaps(folder: Path) -> Iterator[dict[str, str]]:
    """Rows of musiccaps-public.csv (five captions span lines) with `split`: eval if in AudioSet eval, else
    train.
    """
    path = find_release_file(folder, ["musiccaps-public.csv"], MUSICCAPS_HOME)
    splits = {"True": "eval", "False": "train"}
    for row in read_csv(path, ("ytid", "start_s", "end_s", "aspect_list", "caption", "is_audioset_eval")):
        if row["is_audioset_eval"] not in splits:
            raise ReleaseError(f"{path}: is_audioset_eval is {row['is_audioset_eval']!r}, expected True or False")
        yield {**row, "split": splits[row["is_audioset_eval"]]}


def read_clotho_metadata(folder: Path, split: str) -> dict[str, dict[str, str]]:
    """File name -> row of clotho_metadata_<split>.csv (Latin-1, "," or ";" between fields); empty if not
    there.
    """
    try:
        path = find_release_file(folder, [f"clotho_metadata_{split}.csv"], CLOTHO_HOME)
    except ReleaseError:
        return {}
    delimiter = ";" if _first_line(path).count(";") > _first_line(path).count(",") else ","
    rows = read_csv(path, ("file_name", "sound_id"), encoding="iso-8859-1", delimiter=delimiter)
    return {row["file_name"].strip(): row for row in rows}


def _first_line(path: Path) -> str:
    with open_text(path, "iso-8859-1") as stream:
        return stream.readline()


def clotho_key(file_name: str, metadata: dict[str, str]) -> str:
    """`fs:<sound id>` where the metadata knows it (some rows say "Not found"), else `clotho:<file name>`."""
    sound_id = (metadata.get("sound_id") or "").strip()
    return freesound_key(sound_id) if sound_id.isdigit() else f"clotho:{file_name}"


def _audiocaps(corpora: Path, split: str) -> Iterator[str]:
    path = find_release_file(corpora / "audiocaps", [f"dataset/{split}.csv", f"{split}.csv"], AUDIOCAPS_HOME)
    for row in read_csv(path, ("youtube_id",)):
        yield video_key(row["youtube_id"])


def _musiccaps(corpora: Path, split: str) -> Iterator[str]:
    for row in read_musiccaps(corpora / "musiccaps"):
        if row["split"] == split:
            yield video_key(row["ytid"])


def _vggsound(corpora: Path, split: str) -> Iterator[str]:
    for video, _, _ in read_vggsound_test(corpora / "vggsound"):
        yield video_key(video)


def _audioset(corpora: Path, split: str) -> Iterator[str]:
    names = [f"{split}_segments.csv", f"{split}_segments.repacked.csv"]
    for segment in read_audioset_segments(find_release_file(corpora / "audioset", names, AUDIOSET_HOME)):
        yield video_key(segment.video)


def _audioset_strong(corpora: Path, split: str) -> Iterator[str]:
    names = [f"audioset_{split}_strong.tsv", f"{split}_events.jsonl"]
    for clip in read_audioset_strong(find_release_file(corpora / "audioset_strong", names, STRONG_HOME)):
        yield video_key(clip.video)


def _fsd50k(corpora: Path, split: str) -> Iterator[str]:
    for sound_id, _, _ in read_fsd50k(corpora / "fsd50k", split):
        yield freesound_key(sound_id)


def _urbansound8k(corpora: Path, split: str) -> Iterator[str]:
    for _, sound_id, _, _ in read_urbansound8k(corpora / "urbansound8k"):
        yield freesound_key(sound_id)


def _clotho(corpora: Path, split: str) -> Iterator[str]:
    folder = corpora / "clotho"
    names = [f"clotho_captions_{split}.csv", f"{CLOTHO_OTHER_NAMES[split]}.csv"]
    metadata = read_clotho_metadata(folder, split)
    for row in read_csv(find_release_file(folder, names, CLOTHO_HOME), ("file_name",)):
        name = row["file_name"].strip()
        yield f"clotho:{name}"
        yield clotho_key(name, metadata.get(name, {}))
    if not metadata:
        # Without the metadata the Freesound ids of one split are unknown; this list has those of all splits.
        folders = [corpora / "clotho", corpora / "wavcaps"]
        listed = next((x for x in folders if any(x.glob(CLOTHO_IDS + "*"))), corpora / "clotho")
        home = "github.com/Labbeti/aac-datasets (data/wavcaps)"
        try:
            path = find_release_file(listed, [CLOTHO_IDS], home)
        except ReleaseError as error:
            raise ReleaseError(f"{error}; better: clotho_metadata_{split}.csv from {CLOTHO_HOME}") from error
        for row in read_csv(path, ("id",)):
            if row["id"] != "Not found":  # Clotho's own word for a sound that left Freesound
                yield freesound_key(row["id"])


def _clotho_ids(corpora: Path) -> dict[str, dict[str, str]]:
    return {
        name: row
        for split in CLOTHO_OTHER_NAMES
        for name, row in read_clotho_metadata(corpora / "clotho", split).items()
    }


def _clothoaqa(corpora: Path, split: str) -> Iterator[str]:
    path = find_release_file(corpora / "clothoaqa", [f"clotho_aqa_{split}.csv"], CLOTHOAQA_HOME)
    metadata = _clotho_ids(corpora)
    for row in read_csv(path, ("file_name",), encoding="iso-8859-1"):
        name = row["file_name"].strip()
        yield f"clotho:{name}"
        yield clotho_key(name, metadata.get(name, {}))


def _airbench(corpora: Path, split: str) -> Iterator[str]:
    metadata = _clotho_ids(corpora)
    for part in ("Foundation", "Chat"):
        path = find_release_file(corpora / "airbench", [f"{part}/{part}_meta.json", f"{part}_meta.json"], AIRBENCH_HOME)
        for record in read_json_list(path):
            name = Path(record["path"]).name
            yield f"clotho:{name}"
            if name in metadata:
                yield clotho_key(name, metadata[name])
            try:
                yield video_key(name)
            except IdentityError:
                continue  # a file of a corpus that is not on YouTube


def read_paraspeech_split(folder: Path, split: str, columns: tuple[str, ...] = ()) -> Iterator[dict]:
    """Records of one ParaSpeechCaps split: the release's Parquet files, or the JSON lines of a mirror (`id`,
    `caption`).
    """
    files = sorted(folder.glob(f"**/{split}-*.parquet")) or sorted(folder.glob(f"**/{split}.parquet"))
    if files:
        for file in files:
            yield from read_parquet(file, ("relative_audio_path", *columns))
        return
    names = [f"{split}.parquet", f"psc_{split}_captions.jsonl", f"psc_{split}_ids.jsonl"]
    for record in read_jsonl(find_release_file(folder, names, PARASPEECHCAPS_HOME)):
        texts = [record["caption"]] if "caption" in record else []
        yield {**record, "relative_audio_path": record["id"], "text_description": texts}


def _paraspeechcaps(corpora: Path, split: str) -> Iterator[str]:
    for record in read_paraspeech_split(corpora / "paraspeechcaps", split):
        yield paraspeech_key(record["relative_audio_path"])


def _voxceleb2(corpora: Path, split: str) -> Iterator[str]:
    for speaker, video in sorted(vox2_identification_split(read_vox2_utterances(corpora / "voxceleb"))):
        yield f"vox:v2:{speaker}:{video}"


EVALUATION_READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    "audiocaps": _audiocaps,
    "musiccaps": _musiccaps,
    "vggsound": _vggsound,
    "audioset": _audioset,
    "audioset_strong": _audioset_strong,
    "fsd50k": _fsd50k,
    "urbansound8k": _urbansound8k,
    "clotho": _clotho,
    "clothoaqa": _clothoaqa,
    "airbench": _airbench,
    "paraspeechcaps": _paraspeechcaps,
    "voxceleb2": _voxceleb2,
}


def evaluation_keys(corpora: Path, name: str, split: str) -> Iterator[str]:
    """Distinct keys of one evaluation list, in the order of the release."""
    if name in EVALUATION_READERS:
        keys = EVALUATION_READERS[name](corpora, split)
    elif is_folder_corpus(corpora / name):
        keys = (row["audio_key"] for row in folder_rows(corpora / name) if row["split"] == split)
    else:
        known = ", ".join(EVALUATION_READERS)
        raise ReleaseError(f"{name} is neither a folder with captions.csv in {corpora} nor one of {known}")
    yield from dict.fromkeys(keys)


def audioset_starts(corpora: Path) -> Iterator[tuple[str, int]]:
    """(video, start second) from every AudioSet segment list at hand; they complete starts that releases
    leave out.
    """
    for path in sorted((corpora / "audioset").glob("*_segments*.csv*")):
        for segment in read_audioset_segments(path):
            yield segment.video, int(segment.start)
    strong = corpora / "audioset_strong"
    for path in [*sorted(strong.glob("audioset_*_strong.tsv*")), *sorted(strong.glob("*_events*.jsonl*"))]:
        for clip in read_audioset_strong(path):
            yield clip.video, clip.start
