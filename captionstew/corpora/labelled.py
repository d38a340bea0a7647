"""From the release of a labelled corpus to the manifests of a probing task.

A module describes its corpus in a `LabelledCorpus`; `run_labelled` finds and decodes the audio and
writes

    cuts_<split>.jsonl     the usable clips in the release's order, with their labels in `custom`
    broken_<split>.jsonl   unusable clips with their labels: a test set counts them as wrong
    missing_<split>.txt    clips of YouTube videos that are not there; they do not count
    classes.json           the classes of the task, in their order
    listed.parquet         the lists as they were read
    report.json            per split listed, found, missing, broken; what was dropped and why

for the splits train, valid and test. A line of broken_<split>.jsonl is {"cut_id": str,
"audio_path": str, "reason": str, "custom": {...}}. `custom` has `label` (one class), `labels` (a
list) or `events` (a list of [onset, offset, class], seconds). The audio check goes on where an
earlier one was interrupted.
"""

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captionstew.corpora.captioned import Corpus, get_parser
from captionstew.corpora.damage import Damaged
from captionstew.corpora.keys import IdentityError, group_key
from captionstew.corpora.release import ReleaseError, Report
from captionstew.data.audio import MAX_DURATION, AudioInfo
from captionstew.data.manifests.cuts import cut_row, safe_id, write_cuts
from captionstew.data.tables.audio_check import FOUND, MISSING, inspect_clips, remove_shares
from captionstew.data.tables.caption_table import write_rows
from captionstew.data.tables.clip_table import FILE
from captionstew.files import atomic_write, write_json
from captionstew.hashing import key_hash

SPLITS = ("train", "valid", "test")
VALID_SHARE = 0.05  # of the training recordings, where a release has no validation part
VALID_SEED = 2025
LISTED_SCHEMA = pa.schema(
    [
        ("audio_key", pa.string()),
        ("split", pa.string()),
        ("files", pa.list_(FILE)),
        ("labels", pa.string()),  # JSON
    ]
)


@dataclass(frozen=True)
class LabelledClip:
    """A clip of a release: canonical key, where its audio should be, split, `custom`, seconds as
    announced.
    """

    key: str
    path: str
    split: str
    labels: dict
    duration: float | None = None


@dataclass(frozen=True)
class LabelledCorpus:
    """A labelled corpus; `read` gives its classes and its clips."""

    name: str
    home: str  # where the release is to be had, shown when a file is missing
    read: Callable[[argparse.Namespace, Report], tuple[Sequence[str], Iterator[LabelledClip]]]
    ships_audio: bool = (
        True  # False: audio is on YouTube, and what has vanished there is no defect of a copy
    )
    # Where the study's split is not the public one (`--split`): `public` by default, and `paper`,
    # of the paper's sizes as far as they can be had, since its clips are not published.
    has_paper_split: bool = False


def held_out_for_validation(key: str, share: float = VALID_SHARE) -> bool:
    """Whether a training clip is to validate on: a seeded hash of its recording decides, so no
    video is in both.
    """
    return key_hash(group_key(key), VALID_SEED) < share * 2**64


def paper_split(keys: Iterable[str], valid: int, test: int) -> dict[str, str]:
    """Key -> train | valid | test, `test` and then `valid` of them in the order of a seeded hash:
    the paper's sizes, not its clips.
    """
    order = sorted(keys, key=lambda key: key_hash(key, VALID_SEED))
    held_out = dict.fromkeys(order[:test], "test")
    held_out |= dict.fromkeys(order[test : test + valid], "valid")
    return {key: held_out.get(key, "train") for key in order}


def class_names_of(labels: dict) -> list[str]:
    """The classes that a clip's `label`, `labels` or `events` name."""
    if "label" in labels:
        return [labels["label"]]
    return (
        labels["labels"]
        if "labels" in labels
        else list(dict.fromkeys(label for *_, label in labels["events"]))
    )


def run_labelled(
    corpus: LabelledCorpus, description: str | None, argv: Sequence[str] | None = None
) -> None:
    """The program: reads the lists, checks the audio, writes the files named above.

    Raises ReleaseError for a release that is not there or not in its form, or whose audio is not
    there at all.
    """
    args = _parse(corpus, description, argv)
    if not args.corpus_dir.is_dir():
        raise ReleaseError(f"{args.corpus_dir} is not a folder; get the release from {corpus.home}")
    output, dropped = args.output_dir, Report()
    listed = output / "listed.parquet"
    counts: Counter[str] = Counter()
    try:
        classes, clips = corpus.read(args, dropped)
        rows = _listed_rows(corpus, clips, set(classes), args.splits, counts)
        write_rows(listed, LISTED_SCHEMA, rows)
    except Damaged as error:
        raise ReleaseError(f"{error}; download it again from {corpus.home}") from error
    except IdentityError as error:
        raise ReleaseError(
            f"{args.corpus_dir}: {error}; download its lists again from {corpus.home}"
        ) from error
    if not counts:
        raise ReleaseError(f"{args.corpus_dir} lists no clip of {', '.join(args.splits)}")
    write_json(output / "classes.json", list(classes))
    report = {
        "corpus": corpus.name,
        "classes": len(classes),
        "dropped": dropped.as_dict()["dropped"],
    }
    if corpus.has_paper_split:
        report["split"] = args.split
    if args.lists_only:
        report["splits"] = {split: {"listed": counts[split]} for split in args.splits}
    else:
        parts = inspect_clips(listed, output, args.max_duration, args.num_jobs, args.dask_scheduler)
        report["splits"] = {
            split: _write_split(corpus, parts, split, output) for split in args.splits
        }
        remove_shares(output)
        write_json(output / "report.json", report | {"audio": dropped.audio_summary()})
    _print_report(report, dropped, output)
    if not args.lists_only and not any(row["found"] for row in report["splits"].values()):
        expected = (
            pq.ParquetFile(listed)
            .read_row_group(0, ["files"])
            .slice(0, 1)
            .to_pylist()[0]["files"][0]["path"]
        )
        raise ReleaseError(
            f"no audio of {sum(counts.values())} clips can be used, the first is {expected}; get it"
            f" from {corpus.home}, or name its folder with --audio-dir"
        )


def _parse(
    corpus: LabelledCorpus, description: str | None, argv: Sequence[str] | None
) -> argparse.Namespace:
    flags: dict[str, dict] = {
        "--num-jobs": {"type": int, "default": 2, "help": "processes that decode the audio"},
        "--dask-scheduler": {"help": "tcp://... of a Dask cluster that decodes it, or local"},
        "--max-duration": {
            "type": float,
            "default": MAX_DURATION,
            "help": "seconds; longer clips are broken",
        },
        "--lists-only": {"action": "store_true", "help": "read labels and splits, no audio"},
    }
    if corpus.has_paper_split:
        flags["--split"] = {
            "choices": ("public", "paper"),
            "default": "public",
            "help": "the split in common use, or a random one of the paper's sizes",
        }
    common = Corpus(corpus.name, corpus.home, SPLITS, SPLITS, rows=lambda *_: iter(()), flags=flags)
    parser = get_parser(common, description, audio="CORPUS_DIR", output="the manifests")
    args = parser.parse_args(argv)
    args.audio_dir = Path(os.path.abspath(args.audio_dir or args.corpus_dir))
    args.dask_scheduler = args.dask_scheduler or None
    return args


def _listed_rows(
    corpus: LabelledCorpus,
    clips: Iterator[LabelledClip],
    classes: set[str],
    splits: Sequence[str],
    counts: Counter,
) -> Iterator[dict]:
    for clip in clips:
        unknown = set(class_names_of(clip.labels)) - classes
        if unknown:
            raise ReleaseError(
                f"{corpus.name}: {clip.key} has the label {min(unknown)!r}, which is not of its"
                " classes"
            )
        if clip.split in splits:
            counts[clip.split] += 1
            file = {
                "source": corpus.name,
                "path": clip.path,
                "offset": 0.0,
                "duration": clip.duration,
            }
            labels = json.dumps(clip.labels, ensure_ascii=False)
            yield {"audio_key": clip.key, "split": clip.split, "files": [file], "labels": labels}


def _write_split(corpus: LabelledCorpus, parts: Sequence[Path], split: str, output: Path) -> dict:
    """The three files of a split; returns how many clips are in which."""
    counts = Counter(listed=0, found=0, missing=0, broken=0)
    seconds, broken, missing = 0.0, [], []

    def usable() -> Iterator[dict]:
        nonlocal seconds
        for clip in _clips(parts, split):
            counts["listed"] += 1
            if clip["status"] == FOUND:
                row = _row(corpus, clip)
                seconds += row["duration"]
                yield row
            elif clip["status"] == MISSING and not corpus.ships_audio:
                missing.append(f"{clip['audio_key']}\t{clip['path']}\t{clip['reason']}\n")
            else:
                custom = _custom(corpus, clip)
                row = {
                    "cut_id": safe_id(clip["audio_key"]),
                    "audio_path": clip["path"],
                    "reason": clip["reason"],
                }
                broken.append(json.dumps(row | {"custom": custom}, ensure_ascii=False) + "\n")

    counts["found"] = write_cuts(output / f"cuts_{split}.jsonl", usable(), progress=True)
    counts["missing"], counts["broken"] = len(missing), len(broken)
    for name, lines in ((f"broken_{split}.jsonl", broken), (f"missing_{split}.txt", missing)):
        with atomic_write(output / name, "w", encoding="utf-8") as file:
            file.writelines(lines)
    return dict(counts) | {"hours": round(seconds / 3600, 4)}


def _clips(parts: Sequence[Path], split: str) -> Iterator[dict]:
    for part in parts:
        for batch in pq.ParquetFile(part).iter_batches():
            yield from batch.filter(pc.equal(batch["split"], split)).to_pylist()


def _custom(corpus: LabelledCorpus, clip: dict) -> dict:
    """The contract asks for a caption: the classes as text (MIDs stay as they are)."""
    labels = json.loads(clip["labels"])
    names = [
        name if name.startswith("/") else name.replace("_", " ") for name in class_names_of(labels)
    ]
    return {
        "captions": [", ".join(names)],
        "sources": [corpus.name],
        "audio_key": clip["audio_key"],
    } | labels


def _row(corpus: LabelledCorpus, clip: dict) -> dict:
    names = ("sampling_rate", "channels", "num_samples", "fingerprint")
    info = AudioInfo(duration=clip["file_duration"], **{name: clip[name] for name in names})
    custom = _custom(corpus, clip)
    captions, sources, key = (custom.pop(name) for name in ("captions", "sources", "audio_key"))
    labels = custom | {"fingerprint": clip["fingerprint"]}
    return cut_row(
        key, clip["path"], info, captions, sources, labels, duration=clip["clip_duration"]
    )


def _print_report(report: dict, dropped: Report, output: Path) -> None:
    print(f"{report['corpus']}: {report['classes']} classes; {output}")
    for split, row in report["splits"].items():
        print(f"  {split}: " + ", ".join(f"{count} {name}" for name, count in row.items()))
    if str(dropped):
        print(dropped)
    for split, row in report["splits"].items():
        if row.get("broken"):
            print(
                f"  {row['broken']} clips of {split} cannot be used; see"
                f" {output / f'broken_{split}.jsonl'}"
            )
        if row.get("found", row["listed"]) == 0:
            print(f"  {split} has no clip")
