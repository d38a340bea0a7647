"""Fixtures that more than one test folder uses."""

import contextlib
import importlib.util
import io
import itertools
import os
import runpy
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


SHARED = Path(os.environ.get("CAPTIONSTEW_SHARED", REPOSITORY.parent / "shared"))
FULL_GOLDEN = (SHARED / "zipformer_golden").is_dir()
ABSENT = "reference data not found"


@pytest.fixture(scope="session")
def golden_dir():
    """golden_dir("metric_golden") -> the folder of these reference numbers: all of them where the
    reference data is at hand, else the part that the repository keeps.
    """
    return lambda name: (SHARED if FULL_GOLDEN else REPOSITORY / "tests" / "golden") / name


@pytest.fixture(scope="session")
def full_golden() -> bool:
    """Whether golden_dir holds all reference numbers."""
    return FULL_GOLDEN


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder of reference data (golden numbers, real recordings, real metadata); absent on a user's
    machine.
    """
    if not FULL_GOLDEN:
        pytest.skip(f"{ABSENT} in {SHARED}; set CAPTIONSTEW_SHARED to its folder")
    return SHARED


def pytest_terminal_summary(terminalreporter):
    """One line for all tests that need the reference data."""
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    absent = sum(ABSENT in reason for reason in skipped)
    if absent:
        terminalreporter.write_line(
            f"{absent} tests skipped: {ABSENT} in {SHARED} (CAPTIONSTEW_SHARED); the encoder, the"
            " optimiser, the schedules and the metrics are proven by tests/golden"
        )


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory):
    """small_encoder("wav2vec2") -> folder or file with a small random-weight encoder of that kind,
    made once.
    """
    import torch

    from captionstew.errors import UserError

    spec = importlib.util.spec_from_file_location(
        "encoder_folders", Path(__file__).parent / "encoder_folders.py"
    )
    folders = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(folders)
    root = tmp_path_factory.mktemp("encoders")

    def make(kind: str) -> Path:
        if not (root / kind).exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                try:
                    folders.SAVE[kind](root / kind)
                except UserError as error:
                    pytest.skip(str(error))
        return root / kind

    return make


@pytest.fixture(scope="session")
def free_port():
    """free_port() -> a port for processes to meet on, outside the range that the system hands to
    anybody who asks.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = itertools.count(12_000 + 2_000 * worker + os.getpid() % 1_000)

    def find():
        for port in ports:
            with socket.socket() as one, contextlib.suppress(OSError):
                one.bind(("localhost", port))
                return port

    return find


def help_of(command: list[str]) -> str:
    """What the program of a command (a script, or `-m module`) prints with --help."""
    if command[0].endswith(".sh"):
        return subprocess.run(
            [command[0], "--help"], capture_output=True, text=True, check=True
        ).stdout
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        if command[0] == "-m":
            runpy.run_module(command[1], run_name="__main__")
        else:
            runpy.run_path(command[0], run_name="__main__")
    assert ended.value.code in (0, None)
    return printed.getvalue()


def flags_class(path: Path):
    """The Flags of a program that reads its command line with parse_flags; None for others."""
    if path.suffix != ".py" or "parse_flags" not in path.read_text():
        return None
    spec = importlib.util.spec_from_file_location(f"program_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module.Flags


@pytest.fixture
def takes_flags(monkeypatch):
    """takes_flags("egs/a/train.py --x 1", folder) fails unless the program, run in `folder`, takes
    this command.

    A command that ends in `...` is not complete: only the names of its flags are checked.
    """
    from captionstew.flags import parse_flags

    known = {}

    def check(line: str, folder: Path) -> None:
        monkeypatch.chdir(folder)
        command = shlex.split(line, comments=True)
        by_python = command[0] == "python"
        command = command[1:] if by_python else command
        program = folder / command[0]
        if command[0] == "captionstew":
            command = ["-m", "captionstew.cli", *command[1:]]
        elif command[0] != "-m":
            assert program.is_file() and (by_python or os.access(program, os.X_OK)), line
        subcommand = command[2:3] if command[1:2] == ["captionstew.cli"] else []
        if program.name == "prepare_corpus.py":
            subcommand = command[1:2]
        key = (
            (str(program), *command[1:2], *subcommand)
            if command[0] == "-m"
            else (str(program.resolve()), *subcommand)
        )
        if key not in known:
            monkeypatch.setattr(sys, "argv", [command[0], *subcommand, "--help"])
            known[key] = help_of(command), flags_class(program) if command[0] != "-m" else None
        printed, flags = known[key]
        if flags is not None and "..." not in command:
            parse_flags(flags, None, command[1:])
        given = {word for word in command if word.startswith("--")}
        assert all(f"{flag} " in printed for flag in given), (line, sorted(given))

    return check
