"""The caption table: one Parquet file per corpus, one row per caption.

    audio_key   canonical key of the sound (`captionstew.corpora.keys`)
    caption     cleaned text, never empty
    source      corpus that wrote the caption, e.g. `wavcaps_bbc`
    audio_path  audio file, relative to the corpus's audio folder or absolute
    offset      where the clip begins in that file (seconds)
    duration    length of the clip (seconds); null where the release does not say
    split       the release's own name of the split
    license     terms of this row's data, as the release states them

A corpus may add columns of its own after these. Files are written under another name and renamed,
and the same rows give the same bytes.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captionstew.files import atomic_path

CAPTION_FIELDS = (
    pa.field("audio_key", pa.string()),
    pa.field("caption", pa.string()),
    pa.field("source", pa.string()),
    pa.field("audio_path", pa.string()),
    pa.field("offset", pa.float64()),
    pa.field("duration", pa.float64()),
    pa.field("split", pa.string()),
    pa.field("license", pa.string()),
)
COLUMNS = tuple(field.name for field in CAPTION_FIELDS)
ROWS_PER_GROUP = 65_536


class TableError(ValueError):
    """A table that does not keep the contract; the message names the file, the row and what is
    wrong.
    """


def caption_schema(extra: Sequence[pa.Field] = ()) -> pa.Schema:
    """The contract's columns followed by a corpus's own."""
    return pa.schema([*CAPTION_FIELDS, *extra])


def write_batches(path: str | Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write Arrow batches of any size as Parquet with fixed row groups; atomic. Returns the number
    of rows.

    Row groups of a fixed size make the bytes depend on the rows alone, not on how they arrived. A
    thread writes one while the next is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    with (
        atomic_path(path) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd") as writer,
        ThreadPoolExecutor(1) as thread,
    ):
        written: Future | None = None
        for table in _row_groups(schema, batches):
            if written is not None:
                written.result()
            written = thread.submit(writer.write_table, table, row_group_size=ROWS_PER_GROUP)
            rows += len(table)
        if written is not None:
            written.result()
    return rows


def _row_groups(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting, num_waiting = [], 0
    for batch in batches:
        waiting.append(batch)
        num_waiting += batch.num_rows
        while num_waiting >= ROWS_PER_GROUP:
            table = pa.Table.from_batches(waiting, schema)
            yield table.slice(0, ROWS_PER_GROUP).combine_chunks()
            waiting = table.slice(ROWS_PER_GROUP).to_batches()
            num_waiting -= ROWS_PER_GROUP
    if num_waiting:
        yield pa.Table.from_batches(waiting, schema).combine_chunks()


def write_rows(path: str | Path, schema: pa.Schema, rows: Iterable[dict]) -> int:
    """Write dictionaries as a Parquet table (atomic, streaming). Returns the number of rows."""
    return write_batches(path, schema, _batches(schema, iter(rows)))


def _batches(schema: pa.Schema, rows: Iterator[dict]) -> Iterator[pa.RecordBatch]:
    while chunk := list(islice(rows, ROWS_PER_GROUP)):
        yield pa.RecordBatch.from_pylist(chunk, schema=schema)


def write_table(path: str | Path, rows: Iterable[dict], extra: Sequence[pa.Field] = ()) -> int:
    """Write and validate a caption table. Rows are dictionaries of the contract's columns (and
    `extra` ones).

    Returns the number of rows; raises TableError, and leaves no file, if a row breaks the contract.
    """
    path = Path(path)
    schema = caption_schema(extra)
    unchecked = path.with_name(path.name + ".unchecked")
    try:
        count = write_rows(unchecked, schema, rows)
        validate_table(unchecked, name=path)
        os.replace(unchecked, path)
    finally:
        unchecked.unlink(missing_ok=True)
    return count


def validate_table(path: str | Path, name: str | Path | None = None) -> int:
    """Check the contract column by column and row by row; returns the number of rows, raises
    TableError.
    """
    name = name or path
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{name}: not a readable Parquet file ({error})") from error
    schema = file.schema_arrow
    for field in CAPTION_FIELDS:
        if field.name not in schema.names:
            raise TableError(
                f"{name}: column {field.name!r} is missing; it has {', '.join(schema.names)}"
            )
        found = schema.field(field.name).type
        if found != field.type:
            raise TableError(f"{name}: column {field.name!r} is {found}, expected {field.type}")
    rows = 0
    for batch in file.iter_batches(columns=list(COLUMNS)):
        _validate_batch(name, rows, pa.Table.from_batches([batch]))
        rows += batch.num_rows
    return rows


def _validate_batch(name: str | Path, first_row: int, table: pa.Table) -> None:
    def reject(mask: pa.ChunkedArray, what: str) -> None:
        bad = pc.index(pc.fill_null(mask, True), True).as_py()
        if bad >= 0:
            raise TableError(
                f"{name}: row {first_row + bad}: {what}: {table.slice(bad, 1).to_pylist()[0]}"
            )

    for column in COLUMNS:
        if column != "duration":
            reject(pc.is_null(table[column]), f"{column} is null")
    reject(
        pc.invert(pc.match_substring_regex(table["audio_key"], r"^[a-z0-9_]+:\S")),
        "audio_key has no namespace",
    )
    stripped = pc.utf8_trim_whitespace(table["caption"])
    reject(pc.not_equal(stripped, table["caption"]), "caption begins or ends with a blank")
    reject(pc.equal(table["caption"], ""), "caption is empty")
    reject(
        pc.match_substring_regex(table["caption"], r"[\r\n\t\x00]"),
        "caption has a line feed, tab or NUL",
    )
    reject(
        pc.invert(pc.match_substring_regex(table["source"], r"^[\w.-]+$")),
        "source is not a plain name",
    )
    reject(pc.invert(pc.greater_equal(table["offset"], 0.0)), "offset is negative or NaN")
    known = pc.is_valid(table["duration"])
    bad_duration = pc.and_(known, pc.invert(pc.greater(pc.fill_null(table["duration"], 1.0), 0.0)))
    reject(bad_duration, "duration is not positive")


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A validated caption table in memory (tests and small corpora; large ones go through
    DuckDB).
    """
    validate_table(path)
    return pq.read_table(path, columns=list(columns) if columns else None)
