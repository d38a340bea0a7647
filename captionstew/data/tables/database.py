"""DuckDB as the corpus programs use it: bounded memory, spilling to disk, results that do not
depend on threads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from captionstew.data.tables.caption_table import ROWS_PER_GROUP, write_batches
from captionstew.files import scratch_folder

MEMORY_GB = 2.0  # of DuckDB alone; Arrow batches and Python come on top
THREADS = 2


@contextmanager
def connect(
    folder: str | Path, memory_gb: float = MEMORY_GB, threads: int = THREADS
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose temporary files lie in a folder of their own below `folder` and vanish
    with it.

    What a killed run left in `folder` is removed.
    """
    with scratch_folder(Path(folder) / "duckdb") as scratch:
        config: dict[str, str | bool | int | float | list[str]]
        config = {"memory_limit": f"{memory_gb}GB", "threads": threads}
        config |= {
            "temp_directory": str(scratch),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
        }
        connection = duckdb.connect(config=config)
        try:
            yield connection
        finally:
            connection.close()


def batches(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.RecordBatch]:
    """The result of `query` as Arrow batches, never the whole of it in memory.

    Without ORDER BY the rows come as the threads finish them: such a result must not reach a file.
    """
    yield from connection.sql(query).to_arrow_reader(ROWS_PER_GROUP)


def write_query(
    connection: duckdb.DuckDBPyConnection, query: str, path: Path, schema: pa.Schema
) -> int:
    """Write the result of `query`, which must say ORDER BY, as Parquet (atomic); number of rows."""
    typed = (batch.cast(schema) for batch in batches(connection, query))
    return write_batches(path, schema, typed)


def literal(text: str | Path) -> str:
    """A SQL string."""
    return "'" + str(text).replace("'", "''") + "'"


def parquet(*paths: Path) -> str:
    """SQL that reads these Parquet files one after the other."""
    return f"read_parquet([{', '.join(literal(path) for path in paths)}], union_by_name = true)"
