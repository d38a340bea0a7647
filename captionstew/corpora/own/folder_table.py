"""Rows of the caption table from a folder of one's own: captions.csv, and metadata.csv if there is
one.

    captions.csv   file,caption                      several rows per file allowed
    metadata.csv   file,[split,][fold,][licence,]... one row per file

The split of a clip is the column `split`, or `fold<k>` from the column `fold`, or else `train`.

A folder of such folders is one corpus whose subfolders are its sources.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from captionstew.corpora.release import ReleaseError, Report, find_release_file, read_csv

HOME = "your own data: a table with the columns file,caption"


def is_folder_corpus(folder: Path) -> bool:
    """Has `captions.csv`, or a subfolder that has."""
    return (folder / "captions.csv").is_file() or any(folder.glob("*/captions.csv"))


def folder_rows(folder: Path, report: Report | None = None) -> Iterator[dict]:
    """One row per caption; files that do not lie in the folder are dropped and counted."""
    report = report or Report()
    if not is_folder_corpus(folder):
        find_release_file(folder, ["captions.csv"], HOME)
    single = (folder / "captions.csv").is_file()
    for source in (
        [folder] if single else sorted(path.parent for path in folder.glob("*/captions.csv"))
    ):
        prefix = "" if single else f"{source.name}/"
        about = _metadata(source)
        for row in read_csv(source / "captions.csv", ("file", "caption")):
            name = row["file"].strip()
            if not name or name.startswith("/") or ".." in PurePosixPath(name).parts:
                report.drop("file is not inside the folder", name)
                continue
            facts = about.get(name, {})
            yield from report.row(
                row["caption"],
                plain_name(source.name),
                audio_key=f"{plain_name(folder.name).lower()}:{prefix}{name}",
                audio_path=str((source / name).absolute()),
                split=_split(facts),
                license=facts.get("licence") or facts.get("license") or "unknown",
            )


def _split(facts: dict[str, str]) -> str:
    if facts.get("split"):
        return facts["split"]
    return f"fold{facts['fold']}" if facts.get("fold") else "train"


def plain_name(name: str) -> str:
    """A folder's name as a source: letters, digits and _ only."""
    return "".join(
        character if character.isalnum() and character.isascii() else "_" for character in name
    )


def _metadata(source: Path) -> dict[str, dict[str, str]]:
    path = source / "metadata.csv"
    if not path.is_file():
        return {}
    rows = {}
    for row in read_csv(path, ("file",)):
        name = row["file"].strip()
        if name in rows:
            raise ReleaseError(f"{path}: {name} has two rows; every file may have one")
        rows[name] = {
            key: (value or "").strip()
            for key, value in row.items()
            if isinstance(key, str) and not isinstance(value, list)
        }
    return rows
