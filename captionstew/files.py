"""Files and folders that are there as a whole or not at all.

What is being written has the name `.<name>.<random>.tmp` beside its target and is locked by its
writer. So the next writer of the same target can tell what a killed one left, and removes it.
"""

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, AnyStr

from captionstew.errors import UserError

SUFFIX = ".tmp"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_locks: set[int] = set()
LONGEST_LINE = 1 << 20  # characters
SPACE = 1 << 20  # bytes without which no work is begun


def parse_json(text: str | bytes) -> Any:
    """json.loads that raises ValueError for whatever is no JSON, nesting without end among it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write_json(path: Path, content: object) -> None:
    """JSON with sorted keys under its final name only when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """A UTF-8 file under its final name only when complete."""
    with atomic_write(path, "w", encoding="utf-8", errors=errors) as file:
        file.write(text)


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """A file that takes the name `path` when the block ends well, and vanishes when it does not.

    Raises:
      OSError: it cannot be written, a full disk for example; the error names `path`.
    """
    with atomic_path(path) as temporary, open(temporary, mode, **options) as file:
        yield file


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """The same for what is written by name: the path of an empty file, which takes the name `path`.

    Its bytes are on the disk before it does, so a machine that loses power leaves no empty file.
    """
    path = Path(path)
    remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{SUFFIX}")
    with _naming(path):
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL, 0o666))
        try:
            with _locked(temporary):
                yield temporary
                sync(temporary)
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The path of an empty folder, which takes the name `path` when the block ends well.

    A complete folder that another process put there in the meantime stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{SUFFIX}")
    with _naming(path):
        temporary.mkdir()
        try:
            with _locked(temporary):
                yield temporary
                for file in temporary.rglob("*"):
                    if file.is_file():
                        sync(file)
                try:
                    os.rename(temporary, path)
                except OSError:
                    if not path.is_dir():
                        raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """The path of an empty folder beside `path` that vanishes with the block; those of killed
    programs go before.
    """
    remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{SUFFIX}")
    temporary.mkdir(parents=True)
    try:
        with _locked(temporary):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Removes what killed writers of `path` left beside it; what is being written stays."""
    prefix = f".{path.name}."
    try:
        names = os.listdir(path.parent)
    except OSError:  # the writer that follows says what is wrong with the folder
        return
    for name in names:
        if not (name.startswith(prefix) and name.endswith(SUFFIX)):
            continue
        leftover = path.with_name(name)
        if leftover.is_symlink():
            leftover.unlink(missing_ok=True)
            continue
        try:
            lock = os.open(leftover, os.O_RDONLY)
        except FileNotFoundError:
            continue
        if _try_lock(lock):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        os.close(lock)


def sync(path: Path) -> None:
    """Waits until a file's bytes are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def bounded_lines(file: IO[AnyStr], path: Path, limit: int = LONGEST_LINE) -> Iterator[AnyStr]:
    """Lines of a file, none of which is held in memory if it is longer than `limit`.

    Raises:
      UserError: a line is, which no table of clips has; the message has its number.
    """
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        if len(line) > limit:
            raise UserError(
                f"{path}, line {number}: longer than {limit} characters, so this is no table of"
                " clips, or a quotation mark or line break is missing"
            )
        yield line


def check_output(path: Path, needed: int = SPACE) -> None:
    """Raises UserError where `path` cannot be written, or the disk lacks `needed` bytes, before any
    work is done for it.

    Folders that are missing on the way are made by whoever writes.
    """
    there = path.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() and there != path.absolute():
        raise UserError(f"{path}: cannot be written, {there} is no folder")
    if not os.access(there, os.W_OK) or os.statvfs(there).f_flag & os.ST_RDONLY:
        raise UserError(f"{path}: cannot be written, {there} is read-only; name another place")
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{path}: needs {needed / 1e6:.1f} MB, the disk of {there} has {free / 1e6:.1f} MB free"
        )


def check_output_file(path: Path) -> None:
    """check_output for a file whose folder must be there: a mistyped one is not made.

    Raises:
      UserError: `path` is a folder, its folder is missing, or it cannot be written.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")
    check_output(path)


@contextmanager
def _locked(temporary: Path) -> Iterator[None]:
    """Tells other writers that this one is alive."""
    lock = os.open(temporary, os.O_RDONLY)
    _locks.add(lock)
    try:
        _try_lock(lock)
        yield
    finally:
        _locks.discard(lock)
        os.close(lock)


def _forget_in_child() -> None:
    """A process that was forked meanwhile may outlive the writer: it must not seem to write."""
    for lock in _locks:
        os.close(lock)
    _locks.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def _try_lock(descriptor: int) -> bool:
    """Whether this one has it now; where the file system has no locks, nobody can know."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of the disk while `path` is written name it: a failed write has no name of its own,
    and that of a temporary file tells nobody anything.
    """
    try:
        yield
    except OSError as error:
        ours = error.filename is not None and str(error.filename).endswith(SUFFIX)
        if ours or (error.filename is None and error.errno in DISK_ERRORS):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
