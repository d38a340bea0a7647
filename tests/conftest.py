"""Fixtures that more than one test folder uses."""

import importlib.util
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


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory):
    """small_encoder("wav2vec2") -> folder or file with a small random-weight encoder of that kind, made once."""
    import torch

    from captionstew.data.programs import UserError

    spec = importlib.util.spec_from_file_location("encoder_folders", Path(__file__).parent / "encoder_folders.py")
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
