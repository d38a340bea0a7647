"""Loads the programs of local/ without making them a package."""

import importlib.util

import pyarrow.parquet as pq
import pytest

from captionstew.data.corpus_cli import run
from captionstew.data.labelled import run_labelled


@pytest.fixture
def program(repository):
    """program("prepare_audiocaps") -> the module."""

    def load(name: str):
        spec = importlib.util.spec_from_file_location(name, repository / "local" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def prepare(program, tmp_path):
    """prepare("audiocaps", corpus_dir, "--splits", "train") -> rows of the table that the program writes."""

    def prepare(name: str, corpus_dir, *flags: str) -> list[dict]:
        module = program(f"prepare_{name}")
        table = run(
            module.CORPUS,
            module.__doc__,
            ["--corpus-dir", str(corpus_dir), "--output-dir", str(tmp_path / "tables"), *flags],
        )
        return pq.read_table(table).to_pylist()

    return prepare


@pytest.fixture
def prepare_labelled(program, tmp_path):
    """prepare_labelled("nsynth", corpus_dir, "--lists-only") -> folder that the program wrote."""

    def prepare(name: str, corpus_dir, *flags: str):
        module, output = program(f"prepare_{name}"), tmp_path / "manifests" / name
        flags = ["--corpus-dir", str(corpus_dir), "--output-dir", str(output), "--num-jobs", "1", *map(str, flags)]
        run_labelled(module.CORPUS, module.__doc__, flags)
        return output

    return prepare
