"""No recording that the study evaluates on is trained on, whichever form the releases have.

Small releases (`small_releases.py`) have one recording for every evaluation list.
"""

import contextlib
import gzip
import importlib.util
import runpy
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from captionstew.corpora import known, lit_splits, urbansound8k
from captionstew.corpora.build.consolidate import consolidate
from captionstew.corpora.build.corpus_list import read_corpora
from captionstew.corpora.build.evaluation_keys import TEST_SPLITS
from captionstew.corpora.build.leakage import filter_tables
from captionstew.corpora.captioned import run
from captionstew.corpora.keys import freesound_key
from captionstew.corpora.labelled import run_labelled
from captionstew.data.tables.database import connect

pytestmark = pytest.mark.usefixtures("short_lists")
RECIPE = Path(__file__).parents[4] / "egs" / "captionstew"
ENTRIES = read_corpora(RECIPE / "corpora.csv")
LISTS = [f"{entry.name}:{entry.split}" for entry in ENTRIES if entry.role == "evaluation"]
PARTS = [f"{entry.name}:{entry.split}" for entry in ENTRIES if entry.role == "pretrain"]


def load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


small = load("small_releases")
FORMS, FREE, IN_CLOTHO, OWNERS, VOICES = (
    getattr(small, name) for name in ("FORMS", "FREE", "IN_CLOTHO", "OWNERS", "VOICES")
)
Form, list_of, recordings = small.Form, small.list_of, small.recordings


class Study:
    """The releases of one form, the caption tables of what pretrains, and the evaluation lists."""

    def __init__(self, form: Form, folder: Path) -> None:
        self.form, self.folder, self.corpora = form, folder, folder / "corpora"
        self.corpora.mkdir()
        for name, make in small.MAKERS.items():
            make(self.corpora / name, form)
        for path in list(self.corpora.glob(form.zipped)) if form.zipped else []:
            # The file of AudioSet's classes is not a list of clips.
            if path.suffix in (".csv", ".tsv", ".json", ".jsonl") and "indices" not in path.name:
                Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()
        splits = defaultdict(list)
        for part in PARTS:
            name, split = part.split(":")
            splits[name].append(split)
        self.tables = folder / "tables"
        for name, wanted in splits.items():
            self.prepare(name, self.tables, *wanted)

    def prepare(self, name: str, output: Path, *splits: str, version: int | None = None) -> Path:
        flags = ["--corpus-dir", self.corpora / name, "--output-dir", output, "--splits", *splits]
        if name == "audiocaps":
            flags += ["--version", version or self.form.audiocaps[0]]
        if (name, self.form.clotho_metadata) == ("clotho", False):
            flags += ["--allow-missing-ids"]
        return run(known.load(name).CORPUS, None, [str(flag) for flag in flags])

    def filter(self, lists: list[str], mode: str, output: Path) -> None:
        """The filtered tables, made as stages 1 and 2 of the recipe make them."""
        gather = runpy.run_path(str(RECIPE / "local" / "gather_evaluation_keys.py"))["main"]
        gather(["--corpora-dir", str(self.corpora), "--output-dir", str(output), "--sets", *lists])
        keys = output / "evaluation_keys.parquet"
        with connect(output / "scratch", memory_gb=1) as connection:
            filter_tables(connection, ENTRIES, self.tables, keys, output / "filtered", mode)

    def evaluated(self, output: Path) -> dict[str, set[str]]:
        """Recordings of every list, as the evaluations themselves read them."""
        found: dict[str, set[str]] = defaultdict(set)
        splits = {"clotho": ("validation", "evaluation"), "musiccaps": ("eval",),
                  "paraspeechcaps": ("dev", "holdout"), "clothoaqa": ("val", "test"),
                  "airbench": ("foundation", "chat")}  # fmt: skip
        tables = [self.prepare("audiocaps", output / f"audiocaps{version}", "val", "test",
                               version=version) for version in self.form.audiocaps]  # fmt: skip
        tables += [self.prepare(name, output, *wanted) for name, wanted in splits.items()]
        for table in tables:
            keys = keys_by_part(table)
            for part, listed in keys.items():
                name = "airbench:test" if table.stem == "airbench" else part
                found[name] |= recordings(listed)
            if table.stem in lit_splits.CORPORA:
                of_split = {part.split(":")[1]: listed for part, listed in keys.items()}
                chosen = lit_splits.choose_clips(of_split, table.stem, seed=0)
                adapted_for = {"musiccaps": {"musiccaps:eval"}}.get(table.stem, set(keys))
                clips = recordings(chosen["test"] | chosen["valid"])
                assert clips and {list_of(recording) for recording in clips} == adapted_for
        for name, split, listed in self.probed(output):
            found[f"{name}:{split}"] |= recordings(listed)
        clips = [row[1] for row in urbansound8k.read_urbansound8k(self.corpora / "urbansound8k")]
        found["urbansound8k:all"] = recordings(map(freesound_key, clips))
        return dict(found)

    def probed(self, output: Path):
        """(corpus, split of its list, keys) of what probes test on, and of what they validate on
        where a list has it.
        """
        for name in ("audioset", "audioset_strong", "vggsound", "fsd50k", "voxceleb2"):
            corpus_dir = self.corpora / name.replace("voxceleb2", "voxceleb")
            flags = ["--corpus-dir", corpus_dir, "--output-dir", output / name, "--lists-only"]
            run_labelled(known.load(name).CORPUS, None, [str(flag) for flag in flags])
            listed = keys_by_part(output / name / "listed.parquet")
            yield name, "test" if name == "vggsound" else "eval", listed["listed:test"]
            if name != "audioset":
                yield name, "dev" if name == "fsd50k" else "valid", listed["listed:valid"]


def keys_by_part(*tables: Path) -> dict[str, set[str]]:
    found = defaultdict(set)
    for table in tables:
        for row in pq.read_table(table, columns=["audio_key", "split"]).to_pylist():
            found[f"{table.stem}:{row['split']}"].add(row["audio_key"])
    return dict(found)


def trained(folder: Path) -> dict[str, set[str]]:
    """Recordings of every training part in the tables of a folder."""
    parts = keys_by_part(*folder.glob("*.parquet"))
    return {part: recordings(keys) for part, keys in parts.items()}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """study("as released"): the releases of that form; made once."""
    made = {}

    def get(form: str) -> Study:
        if form not in made:
            with contextlib.redirect_stdout(None):
                made[form] = Study(FORMS[form], tmp_path_factory.mktemp("study"))
        return made[form]

    return get


def test_every_list_of_the_study_has_a_recording_here():
    assert {list_of(name) for name in (*OWNERS.values(), *VOICES)} - {FREE} == set(LISTS)


@pytest.mark.parametrize("form", FORMS)
def test_without_the_filter_the_leak_is_there(study, form, tmp_path):
    unfiltered = trained(study(form).tables)
    assert unfiltered == {part: {FREE} | FORMS[form].planted(part) for part in PARTS}
    evaluated = study(form).evaluated(tmp_path)
    assert set(evaluated) == set(LISTS)
    everywhere = set().union(*unfiltered.values())
    for name, clips in evaluated.items():
        assert clips == {recording for recording in everywhere if list_of(recording) == name}


@pytest.mark.parametrize("mode", ["strict", "test-only"])
@pytest.mark.parametrize("form", FORMS)
def test_no_evaluated_recording_is_trained_on(study, form, mode, tmp_path):
    study(form).filter(LISTS, mode, tmp_path)
    filtered = trained(tmp_path / "filtered")
    tested = {name for name in LISTS if mode == "strict" or name.split(":")[1] in TEST_SPLITS}
    for name, clips in study(form).evaluated(tmp_path).items():
        for part, heard in filtered.items():
            assert name not in tested or not clips & heard, (name, part)
    for part in PARTS:
        allowed = {name for name in FORMS[form].planted(part) if list_of(name) not in tested}
        if part == "wavcaps:freesound" and not FORMS[form].clotho_metadata:
            allowed -= set(IN_CLOTHO)  # which sound is of which split is not known then
        assert filtered[part] == {FREE} | allowed, part


@pytest.mark.parametrize("left_out", LISTS)
def test_a_list_that_is_not_read_leaks(study, left_out, tmp_path):
    """Each list protects on its own: what it holds is in training as soon as it is left out."""
    study("as released").filter([name for name in LISTS if name != left_out], "strict", tmp_path)
    heard = set().union(*trained(tmp_path / "filtered").values())
    assert heard == {FREE, left_out}


def test_consolidation_brings_nothing_back(study, tmp_path):
    study("as released").filter(LISTS, "strict", tmp_path)
    tables = sorted((tmp_path / "filtered").glob("*.parquet"))
    clips = tmp_path / "clips.parquet"
    with connect(tmp_path / "scratch", memory_gb=1) as connection:
        consolidate(connection, tables, tmp_path / "audioset_starts.parquet", clips)
    assert recordings(pq.read_table(clips)["audio_key"].to_pylist()) == {FREE}
