"""From a folder of recordings to training, validation and test manifests.

    prepare_folder("my_recordings", "data/mine", num_jobs=8)

writes into the output folder `cuts_train.jsonl`, `cuts_valid.jsonl`, `cuts_test.jsonl`,
`rejected.csv`, `report.json` and, last, `done.json`: while that is there and names the same tables
and settings, a second run does nothing.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from captionstew.corpora.own.csv_rows import FolderError
from captionstew.corpora.own.read import FolderReport, Rejected, read_folder, write_rejected
from captionstew.corpora.own.split import SPLITS, choose_splits
from captionstew.data.audio import MAX_DURATION
from captionstew.data.manifests.cuts import write_cuts
from captionstew.files import atomic_write
from captionstew.hashing import sha256_of_file
from captionstew.locks import one_writer

if TYPE_CHECKING:
    from lhotse import MonoCut


def prepare_folder(
    corpus_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    valid_folds: Sequence[int] | None = None,
    test_folds: Sequence[int] | None = None,
    num_jobs: int = 1,
    max_duration: float = MAX_DURATION,
) -> dict:
    """Reads, checks and splits a corpus; returns the report (see `report.json`).

    Without `valid_folds` or `test_folds` the second highest or the highest fold is held out.

    Raises FolderError when the corpus cannot be used, ValueError when a fold is asked for twice.
    """
    with one_writer(Path(output_dir), wait=True):
        return _prepare(
            Path(corpus_dir), Path(output_dir), valid_folds, test_folds, num_jobs, max_duration
        )


def _prepare(
    corpus_dir: Path,
    output_dir: Path,
    valid_folds: Sequence[int] | None,
    test_folds: Sequence[int] | None,
    num_jobs: int,
    max_duration: float,
) -> dict:
    settings = {
        "corpus": str(corpus_dir.resolve()),
        "tables": _tables(corpus_dir),
        "valid_folds": None if valid_folds is None else sorted(valid_folds),
        "test_folds": None if test_folds is None else sorted(test_folds),
        "max_duration": max_duration,
    }
    marker = output_dir / "done.json"
    if _is_done(marker, settings):
        print(f"{output_dir}: already prepared from {corpus_dir}; delete {marker} to do it again")
        return json.loads((output_dir / "report.json").read_text(encoding="utf-8"))
    marker.unlink(missing_ok=True)
    cuts, found = read_folder(corpus_dir, num_jobs, max_duration)
    splits = split_cuts(cuts, valid_folds, test_folds)
    drop_repeated(splits, found)
    if not splits["train"]:
        raise FolderError(
            f"{corpus_dir}: all clips are held out; --valid-folds and --test-folds leave none to"
            " train on"
        )
    for split, part in splits.items():
        write_cuts(output_dir / f"cuts_{split}.jsonl", part)
    unnamed = [Rejected(file, "no table names it", "no row") for file in found.without_row]
    write_rejected(output_dir / "rejected.csv", [*found.rejected, *unnamed])
    report = found.to_dict() | {
        "splits": {split: count_sources(part) for split, part in splits.items()}
    }
    _write_json(output_dir / "report.json", report)
    _write_json(marker, settings)
    print_report(report, found, output_dir)
    return report


def split_cuts(
    cuts: Sequence["MonoCut"],
    valid_folds: Sequence[int] | None = None,
    test_folds: Sequence[int] | None = None,
) -> dict[str, list["MonoCut"]]:
    """Each clip to one of SPLITS, in order, by the rule of `split.py`."""
    customs = [cut.supervisions[0].custom for cut in cuts]
    clips = [(custom["sources"][0], custom["audio_key"], custom) for custom in customs]
    splits: dict[str, list] = {split: [] for split in SPLITS}
    for cut, split in zip(cuts, choose_splits(clips, valid_folds, test_folds), strict=True):
        splits[split].append(cut)
    return splits


def drop_repeated(splits: dict[str, list["MonoCut"]], report: FolderReport) -> None:
    """Leaves out the clips whose very recording is held out as well, and reports them.

    Training loses what validation or test has, validation what test has.
    """
    seen: set[str] = set()
    for split in reversed(SPLITS):
        kept = []
        for cut in splits[split]:
            custom = cut.supervisions[0].custom
            if custom["fingerprint"] in seen:
                report.reject(
                    custom["audio_key"],
                    f"held out under another name, not used to {split}",
                    "repeated audio",
                )
            else:
                kept.append(cut)
        seen |= {cut.supervisions[0].custom["fingerprint"] for cut in kept}
        splits[split] = kept


def count_sources(cuts: Sequence["MonoCut"]) -> dict[str, dict]:
    """source (and "total") -> clips, captions and hours."""
    counts: dict[str, Counter] = {}
    for cut in cuts:
        custom = cut.supervisions[0].custom
        for source in (custom["sources"][0], "total"):
            row = counts.setdefault(source, Counter())
            row["clips"] += 1
            row["captions"] += len(custom["captions"])
            row["hours"] += cut.duration / 3600
    return {
        source: dict(row) | {"hours": round(row["hours"], 4)}
        for source, row in sorted(counts.items())
    }


def print_report(report: dict, found: FolderReport, output_dir: Path) -> None:
    """The table of clips per source and split, and what was left out."""
    print(f"{'source':24s}" + "".join(f"{split:>10s}" for split in SPLITS))
    for source in [*sorted(report["clips"]), "total"]:
        counts = [report["splits"][split].get(source, {}).get("clips", 0) for split in SPLITS]
        print(f"{source:24s}" + "".join(f"{count:10d}" for count in counts))
    for split in SPLITS[1:]:
        if not report["splits"][split]:
            print(
                f"{split} has no clip: no split or fold of metadata.csv, and no hash of a name,"
                " sends one there"
            )
    for folder in report["skipped_folders"]:
        print(f"skipped folder {folder}: it has no captions.csv")
    if found.without_row:
        print(found.without_row_line())
    if found.cleaned:
        print(found.cleaned_line())
    if found.cancelling:
        print(found.cancelling_line())
    left_out = (
        ", ".join(f"{count} {kind}" for kind, count in report["rejected"].items()) or "nothing"
    )
    print(f"left out: {left_out} (listed in {output_dir / 'rejected.csv'})")


def _tables(corpus_dir: Path) -> dict[str, str]:
    """Checksums of the corpus's tables: when they change, the corpus has to be prepared again."""
    names = ("captions.csv", "metadata.csv", "*/captions.csv", "*/metadata.csv")
    paths = sorted(path for name in names for path in corpus_dir.glob(name))
    return {str(path.relative_to(corpus_dir)): sha256_of_file(path) for path in paths}


def _is_done(marker: Path, settings: dict) -> bool:
    files = [
        marker,
        marker.with_name("report.json"),
        *(marker.with_name(f"cuts_{name}.jsonl") for name in SPLITS),
    ]
    return (
        all(file.is_file() for file in files)
        and json.loads(marker.read_text(encoding="utf-8")) == settings
    )


def _write_json(path: Path, value: dict) -> None:
    with atomic_write(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
