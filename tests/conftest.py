"""Fixtures that more than one test folder uses."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder of reference data (golden numbers, real recordings, real metadata); absent on a user's machine."""
    folder = Path(os.environ.get("CAPTIONSTEW_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "zipformer_golden").is_dir():
        pytest.skip(f"reference data not found in {folder}; set CAPTIONSTEW_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY
