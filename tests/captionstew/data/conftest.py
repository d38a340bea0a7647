"""Small caption tables and a small synthetic corpus."""

import pyarrow as pa
import pytest

from captionstew.data.cuts import write_cuts
from captionstew.data.engine import connect
from captionstew.data.folder import read_folder
from captionstew.data.mini_corpus import make_mini_corpus
from captionstew.data.tables import write_rows, write_table


@pytest.fixture
def connection(tmp_path):
    with connect(tmp_path / "scratch", memory_gb=1, threads=2) as connection:
        yield connection


@pytest.fixture
def make_table(tmp_path):
    """make_table("audiocaps", [(audio_key, caption), ...], split="train") -> path of the caption table."""

    def make(name, rows, *, source=None, split="train", license="free", duration=10.0, path=None):
        complete = (
            {
                "audio_key": key,
                "caption": caption,
                "source": source or name,
                "audio_path": f"/audio/{name}/{key}.wav" if path is None else path,
                "offset": 0.0,
                "duration": duration,
                "split": split,
                "license": license,
            }
            for key, caption in rows
        )
        table = tmp_path / "tables" / f"{name}.parquet"
        write_table(table, complete)
        return table

    return make


@pytest.fixture
def make_keys(tmp_path):
    """make_keys([("audiocaps", "test", "yt:..."), ...]) -> evaluation_keys.parquet."""

    def make(keys):
        names = ("evaluation_set", "split", "key")
        schema = pa.schema([(name, pa.string()) for name in names])
        path = tmp_path / "evaluation_keys.parquet"
        write_rows(path, schema, (dict(zip(names, key, strict=True)) for key in keys))
        return path

    return make


@pytest.fixture
def make_starts(tmp_path):
    """make_starts({video: start}) -> audioset_starts.parquet."""

    def make(starts):
        schema = pa.schema([("video", pa.string()), ("start", pa.int64())])
        path = tmp_path / "audioset_starts.parquet"
        write_rows(path, schema, ({"video": video, "start": start} for video, start in starts.items()))
        return path

    return make


@pytest.fixture(scope="session")
def mini_corpus(tmp_path_factory):
    """Folder of the mini corpus with 60 clips; do not change it."""
    return make_mini_corpus(tmp_path_factory.mktemp("mini") / "corpus", num_clips=60, progress=False)


@pytest.fixture(scope="session")
def mini_manifest(mini_corpus):
    """Manifest of the 60 clips, beside the corpus."""
    cuts, _ = read_folder(mini_corpus, progress=False)
    write_cuts(mini_corpus.parent / "cuts.jsonl", cuts)
    return mini_corpus.parent / "cuts.jsonl"
