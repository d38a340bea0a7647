"""Fetching what a script can fetch of a release; for the rest, the steps.

A corpus' module says in `FETCH` where the parts of its release are. Files come under their name
when they are whole: of the announced size, of the known checksum, and no error page. What a cut
connection left is gone on with. Nothing else in the library reaches the network for data.
"""

import fnmatch
import hashlib
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from tqdm import tqdm

from captionstew.corpora.damage import ReleaseError, refuse_foreign

METADATA, AUDIO = "metadata", "audio"
ATTEMPTS = 6  # without any progress
PER_HOST = 2  # connections at a time
BLOCK = 1 << 20
# The audio check knows what is missing, and where in a video it is.
YOUTUBE_STEPS = (
    "fetch from YouTube what stage 4 lists in audio_check/missing_youtube.tsv.gz: address, section"
    " and name of each clip, for yt-dlp"
)
HEADERS = {"User-Agent": "captionstew (corpus preparation)", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class File:
    """A file at an address; `path` is below the corpus' folder, `checksum` as `sha256:<hex>`."""

    url: str
    path: str
    what: str = METADATA
    size: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Zenodo:
    """The files of a Zenodo record whose names fit one of `patterns`; sizes and checksums are
    Zenodo's.
    """

    record: int
    patterns: tuple[str, ...]
    what: str = METADATA
    api: str = "https://zenodo.org/api/records"


@dataclass(frozen=True)
class Hub:
    """Files of a data set on the Hugging Face Hub, at a revision (None: the newest)."""

    repo: str
    patterns: tuple[str, ...]
    what: str = METADATA
    revision: str | None = None
    folder: str = "."  # below the corpus' folder


@dataclass(frozen=True)
class Steps:
    """What a person has to do."""

    text: str
    what: str = AUDIO


Source = File | Zenodo | Hub | Steps


class FetchError(ReleaseError):
    """A file that could not be fetched; the message names the address and what to do."""


def fetch(
    sources: Sequence[Source],
    folder: Path,
    what: Sequence[str],
    *,
    limit: int | None = None,
    num_jobs: int = 4,
) -> tuple[list[Path], list[str], list[str]]:
    """Fetch the parts `what` of a release into `folder`: (files, errors, steps that are left).

    `limit`: at most so many files of every source, for a trial.
    """
    wanted = [source for source in sources if source.what in what]
    steps = [source.text for source in wanted if isinstance(source, Steps)]
    errors: list[str] = []
    done: list[Path] = []
    files: list[File] = []
    for source in wanted:
        try:
            if isinstance(source, Hub):
                done += _from_hub(source, folder / source.folder, limit, num_jobs)
            elif not isinstance(source, Steps):
                files += list(_files(source))[:limit]
        except FetchError as error:
            errors.append(str(error))
    slots: dict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(PER_HOST))
    hosts = {file.url: slots[urlsplit(file.url).netloc] for file in files}

    def get(file: File) -> Path | str:
        with hosts[file.url]:
            try:
                return download(file, folder)
            except FetchError as error:
                return str(error)

    with ThreadPoolExecutor(num_jobs) as pool:
        for found in tqdm(
            pool.map(get, files), total=len(files), desc=folder.name, disable=not files
        ):
            (done if isinstance(found, Path) else errors).append(found)
    return done, errors, steps


def _files(source: File | Zenodo) -> Iterator[File]:
    if isinstance(source, File):
        yield source
        return
    url = f"{source.api}/{source.record}"
    with _request(url, {}) as answer:
        try:
            listed = json.loads(answer.read())["files"]
        except (ValueError, KeyError, TypeError) as error:
            raise FetchError(f"{url}: no list of files ({error})") from error
    for file in listed:
        if any(fnmatch.fnmatch(file["key"], pattern) for pattern in source.patterns):
            link, size = file["links"]["self"], file["size"]
            yield File(link, file["key"], source.what, size, file["checksum"])


def _from_hub(source: Hub, folder: Path, limit: int | None, num_jobs: int) -> list[Path]:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    names = None
    try:
        if limit is not None:
            listed = HfApi().list_repo_files(
                source.repo, revision=source.revision, repo_type="dataset"
            )
            fitting = (
                name for name in listed if any(fnmatch.fnmatch(name, x) for x in source.patterns)
            )
            names = sorted(fitting)[:limit]
        snapshot_download(
            source.repo,
            repo_type="dataset",
            revision=source.revision,
            allow_patterns=names or list(source.patterns),
            local_dir=folder,
            max_workers=num_jobs,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FetchError(f"data set {source.repo} on the Hub: {reason}") from error
    return [
        path
        for pattern in names or source.patterns
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    ]


def download(file: File, folder: Path) -> Path:
    """The file below `folder`, whole; raises FetchError. One that is there already, of the right
    size and checksum, is left alone; a part of one is gone on with.
    """
    path = folder / file.path
    as_large = path.is_file() and file.size in (None, path.stat().st_size)
    if as_large and _checksum_fits(file, path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    _get_all(file, partial)
    size = partial.stat().st_size
    if file.size is not None and size != file.size:
        partial.unlink()
        raise FetchError(
            f"{file.url}: {size:,} bytes came, expected {file.size:,}; try again later"
        )
    with open(partial, "rb") as stream:
        try:
            refuse_foreign(path, stream.read(512))
        except ReleaseError as error:
            partial.unlink()
            raise FetchError(f"{file.url}: {error}") from error
    if not _checksum_fits(file, partial):
        partial.unlink()
        raise FetchError(
            f"{file.url}: the checksum is not {file.checksum}; the file changed or was damaged on"
            f" the way: fetch it again, or put it by hand into {path.parent}"
        )
    os.replace(partial, path)
    return path


def _checksum_fits(file: File, path: Path) -> bool:
    if file.checksum is None:
        return True
    kind, _, value = file.checksum.partition(":")
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest() == value


def _get_all(file: File, partial: Path) -> None:
    """Fetches until the server has nothing more, over as many connections as it takes."""
    tag = partial.with_name(partial.name + ".etag")
    failures = 0
    while True:
        have = partial.stat().st_size if partial.is_file() else 0
        headers = {}
        version = tag.read_text(encoding="utf-8") if tag.is_file() else ""
        if have and version:  # the rest of the same file, or the whole of a new one
            headers = {"Range": f"bytes={have}-", "If-Range": version}
        with _request(file.url, headers) as answer:
            goes_on = answer.status == 206
            if answer.status == 416:  # nothing is left, or the file is another one by now
                partial.unlink()
                tag.unlink(missing_ok=True)
                continue
            if not goes_on:
                named = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
                tag.write_text(named, encoding="utf-8")
            try:
                with open(partial, "ab" if goes_on else "wb") as stream:
                    while block := answer.read1(BLOCK):  # what came before a cut is kept
                        stream.write(block)
                tag.unlink(missing_ok=True)
                return
            except (urllib3.exceptions.HTTPError, OSError) as error:
                failures = 0 if partial.stat().st_size > have else failures + 1
                if failures >= ATTEMPTS:
                    raise FetchError(
                        f"{file.url}: the connection was cut {failures} times ({error}); run the"
                        " same command again to go on"
                    ) from error


def _request(url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    """An open answer of status 200, 206 or 416. Servers that are busy are asked again, when they
    say or ever more seldom. Raises FetchError.
    """
    retries = urllib3.Retry(
        total=ATTEMPTS,
        backoff_factor=0.5,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
    )
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=30, read=120), retries=retries)
    try:
        answer = pool.request("GET", url, headers=HEADERS | headers, preload_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise FetchError(f"{url}: no connection ({error})") from error
    if answer.status not in (200, 206, 416):
        answer.close()
        hint = "it is not there any more" if answer.status in (404, 410) else "try again later"
        raise FetchError(f"{url}: status {answer.status}; {hint}")
    return answer
