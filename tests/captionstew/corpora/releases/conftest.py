"""Reads releases with the module of their corpus."""

import importlib
import runpy
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from captionstew.corpora import clotho
from captionstew.corpora.build import evaluation_keys, shipped_keys
from captionstew.corpora.captioned import run
from captionstew.corpora.labelled import run_labelled

MODULES = {
    "own": "captionstew.corpora.own.caption_rows",
    "ownqa": "captionstew.corpora.own.question_rows",
}


@pytest.fixture
def prepare(tmp_path):
    """prepare("audiocaps", corpus_dir, "--splits", "train") -> rows of the table that it writes."""

    def prepare(name: str, corpus_dir, *flags: str) -> list[dict]:
        module = importlib.import_module(MODULES.get(name, f"captionstew.corpora.{name}"))
        table = run(
            module.CORPUS,
            module.__doc__,
            ["--corpus-dir", str(corpus_dir), "--output-dir", str(tmp_path / "tables"), *flags],
        )
        return pq.read_table(table).to_pylist()

    return prepare


@pytest.fixture
def prepare_labelled(tmp_path):
    """prepare_labelled("nsynth", corpus_dir, "--lists-only") -> folder that it wrote."""

    def prepare(name: str, corpus_dir, *flags: str):
        module = importlib.import_module(MODULES.get(name, f"captionstew.corpora.{name}"))
        output = tmp_path / "manifests" / name
        flags = [
            "--corpus-dir",
            str(corpus_dir),
            "--output-dir",
            str(output),
            "--num-jobs",
            "1",
            *map(str, flags),
        ]
        run_labelled(module.CORPUS, module.__doc__, flags)
        return output

    return prepare


@pytest.fixture
def short_lists(monkeypatch):
    """Evaluation lists of one clip are whole, and no keys come with the code."""
    find_list = evaluation_keys.find_list
    monkeypatch.setattr(
        evaluation_keys, "find_list", lambda *names: replace(find_list(*names), size=1)
    )
    monkeypatch.setattr(clotho, "ALL_IDS_SIZE", 1)
    monkeypatch.setattr(shipped_keys, "FILE", Path("no keys come with the code"))


@pytest.fixture
def gather_evaluation_keys(repository):
    """gather_evaluation_keys(["--corpora-dir", ...]): the program in this process."""
    path = repository / "egs" / "captionstew" / "local" / "gather_evaluation_keys.py"
    return runpy.run_path(str(path))["main"]
