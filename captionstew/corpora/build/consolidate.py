"""Consolidation: one row per clip, with all its captions from all corpora.

Clips are the same if their keys are, and keys of YouTube clips agree when their starts do:

* A start within 1 s of the video's AudioSet segment becomes the segment's start. The segment's
  start comes from AudioSet's lists, or else from the AudioSet-family corpora that give one (if they
  agree within 1 s).
* A missing start is completed from the segment inside the AudioSet family (`keys.AUDIOSET_FAMILY`)
  only; where no segment is known, the family's clips of a video share the key `yt:<id>:*`.
* Other starts join in pairs 1 s apart, from the earliest on, never in chains: 10, 11, 12 become
  {10, 11} and {12}.

Captions of a clip that differ in white space or case alone are one caption; its source is then
"a+b".
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captionstew.corpora.keys import AUDIOSET_FAMILY
from captionstew.data.audio import MAX_DURATION
from captionstew.data.tables.caption_table import write_batches
from captionstew.data.tables.clip_table import CLIP_SCHEMA, FILE
from captionstew.data.tables.database import batches, literal, parquet


def apply_duration_rule(clips: Path, output: Path, max_duration: float = MAX_DURATION) -> dict:
    """Leave out files announced as longer than `max_duration` seconds, and clips that have no other
    file.

    Where a release does not say how long a clip is, the audio check measures it and applies the
    same rule. Returns {"kept": clips, "dropped": {sources: clips}}.
    """
    return _write_short(pq.ParquetFile(clips).iter_batches(), output, max_duration)


def _write_short(clips: Iterable[pa.RecordBatch], output: Path, max_duration: float) -> dict:
    dropped: Counter[str] = Counter()
    kept = write_batches(output, CLIP_SCHEMA, _short_clips(clips, max_duration, dropped))
    return {"kept": kept, "dropped": dict(sorted(dropped.items()))}


def _short_clips(
    clips: Iterable[pa.RecordBatch], max_duration: float, dropped: Counter[str]
) -> Iterator[pa.RecordBatch]:
    for batch in clips:
        files = batch["files"]
        too_long = pc.fill_null(pc.greater(files.flatten().field("duration"), max_duration), False)
        owners = pc.unique(pc.list_parent_indices(files).filter(too_long))
        if len(owners) == 0:
            yield batch
            continue
        shortened = []
        for clip in batch.take(owners).to_pylist():
            left = [
                f for f in clip["files"] if f["duration"] is None or f["duration"] <= max_duration
            ]
            if left:
                shortened.append({**clip, "files": left, "duration": left[0]["duration"]})
            else:
                dropped["+".join(sorted(set(clip["sources"])))] += 1
        untouched = pc.invert(pc.is_in(pa.array(range(len(batch)), owners.type), owners))
        table = pa.Table.from_batches(
            [batch.filter(untouched), pa.RecordBatch.from_pylist(shortened, schema=CLIP_SCHEMA)]
        )
        yield from table.sort_by("audio_key").combine_chunks().to_batches()


# Native sampling rates (Hz) decide between two copies of one sound; a source not named here comes
# last.
NATIVE_RATE = {
    "clotho": 44_100,
    "audiocaps": 44_100,
    "musiccaps": 44_100,
    "wavcaps_freesound": 32_000,
}


def consolidate(
    connection: duckdb.DuckDBPyConnection,
    tables: Sequence[Path],
    audioset_starts: Path,
    output: Path,
) -> int:
    """Join filtered caption tables into `output` (CLIP_SCHEMA, ordered by key). Returns the number
    of clips.
    """
    return write_batches(output, CLIP_SCHEMA, _consolidated(connection, tables, audioset_starts))


def consolidate_short(
    connection: duckdb.DuckDBPyConnection,
    tables: Sequence[Path],
    audioset_starts: Path,
    output: Path,
    max_duration: float = MAX_DURATION,
) -> dict:
    """`consolidate` and `apply_duration_rule` in one pass; the report of the latter with
    `clips`, the number before the rule.
    """
    clips = _consolidated(connection, tables, audioset_starts)
    report = _write_short(clips, output, max_duration)
    return {"clips": report["kept"] + sum(report["dropped"].values()), **report}


def _consolidated(
    connection: duckdb.DuckDBPyConnection, tables: Sequence[Path], audioset_starts: Path
) -> Iterator[pa.RecordBatch]:
    connection.execute(f"create or replace view captions as select * from {parquet(*tables)}")
    _resolve_starts(connection, audioset_starts)
    ordered = """
        select coalesce(resolved.new_key, c.audio_key) as audio_key, caption, source, license,
            audio_path,
        "offset",
            duration
        from captions c left join resolved
            on resolved.audio_key = c.audio_key and resolved.family = """
    # rows of one clip are put in order when they are merged
    ordered += f"({_in_family('c.source')}) order by 1"
    return _group(batches(connection, ordered))


def _in_family(column: str) -> str:
    return f"{column} in ({', '.join(literal(name) for name in sorted(AUDIOSET_FAMILY))})"


def _resolve_starts(connection, audioset_starts: Path) -> None:
    """resolved: (audio_key, family, new_key) of the YouTube clips whose key changes."""
    connection.execute(f"""create or replace temp table starts as
        select audio_key, {_in_family("source")} as family, min(source) as source,
            substr(audio_key, 4, 11) as video, try_cast(substr(audio_key, 16) as bigint) as start
        from captions where starts_with(audio_key, 'yt:') group by audio_key, family""")
    connection.execute(f"""create or replace temp table segments as
        select video,
            coalesce(min(listed), case when max(given) - min(given) <= 1 then min(given) end) as
        start from (select video, start as listed, null as given from {parquet(audioset_starts)}
              union all select video, null, start from starts where family and start is not null)
        group by video""")
    connection.execute(
        """create or replace temp table loose as
        select video, start,
            start - (row_number() over (partition by video, island order by start) - 1) % 2
        as first from (select video, start,
            start - row_number() over (partition by video order by start) as
        island
              from (select distinct s.video, s.start
                    from starts s left join segments g using (video)
                    where s.start is not null
                        and (g.start is null or abs(s.start - g.start) > 1)))"""
    )
    connection.execute(
        """create or replace temp table resolved as select audio_key, family, new_key from (
        select audio_key, family, 'yt:' || s.video || ':' || case
            when s.start is null and not family then '*' || s.source
            when s.start is null then coalesce(g.start::varchar, '*')
            when abs(s.start - g.start) <= 1 then g.start::varchar
            else coalesce(l.first, s.start)::varchar end as new_key
        from starts s left join segments g using (video)
            left join loose l on l.video = s.video and l.start = s.start)
        where new_key <> audio_key"""
    )


def _group(rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows ordered by key -> clips. A clip that may go on in the next batch waits for it."""
    waiting: list[pa.RecordBatch] = []
    for batch in rows:
        table = pa.Table.from_batches([*waiting, batch]).combine_chunks()
        last = table["audio_key"][-1]
        # Sorted, so the rows of the last key are the tail.
        complete = pc.index(table["audio_key"], last).as_py()
        waiting = table.slice(complete).to_batches()
        if complete:
            yield _clips(table.slice(0, complete).combine_chunks())
    if waiting:
        yield _clips(pa.Table.from_batches(waiting).combine_chunks())


def _clips(table: pa.Table) -> pa.RecordBatch:
    """Whole clips only. Most have one row, and need no sorting."""
    keys = table["audio_key"].combine_chunks()
    first = np.flatnonzero(np.concatenate([[True], _changes(keys)]))
    count = np.diff(np.append(first, len(keys)))
    single, several = np.flatnonzero(count == 1), np.flatnonzero(count > 1)
    clip = np.repeat(np.arange(len(several)), count[several])
    rows = np.flatnonzero(np.repeat(count > 1, count))
    clips = pa.concat_tables(
        [
            _single_rows(table.take(pa.array(first[single]))),
            _merged_rows(table.take(pa.array(rows)), clip),
        ]
    )
    order = np.argsort(np.concatenate([single, several]), kind="stable")
    return clips.take(pa.array(order)).combine_chunks().to_batches()[0]


def _changes(values: pa.Array) -> np.ndarray:
    """(N - 1,) bool: whether a value differs from the one before it."""
    changes = pc.not_equal(values.slice(1), values.slice(0, max(len(values) - 1, 0)))
    return changes.to_numpy(zero_copy_only=False)


def _single_rows(rows: pa.Table) -> pa.Table:
    column = {name: rows[name].combine_chunks() for name in rows.column_names}
    ones = np.ones(len(rows), np.int64)
    texts = (column[name] for name in ("caption", "source", "license"))
    return _clip_table(column["audio_key"], ones, texts, ones, _files(column))


def _merged_rows(rows: pa.Table, clip: np.ndarray) -> pa.Table:
    """Clips of several rows, which come in any order; `clip` (rows,) counts the clips from 0."""
    if len(rows) == 0:
        return CLIP_SCHEMA.empty_table()
    keys = (
        rows["audio_key"]
        .combine_chunks()
        .filter(pa.array(np.concatenate([[True], np.diff(clip) > 0])))
    )
    rows = rows.append_column("clip", pa.array(clip))
    rows = rows.append_column("folded", pc.utf8_lower(rows["caption"]))
    column = _sorted(
        rows, "clip", "folded", "source", "caption", "license", "audio_path", "offset", "duration"
    )
    new = np.concatenate([[True], _changes(column["clip"]) | _changes(column["folded"])])
    caption = np.cumsum(new) - 1
    texts = (
        column["caption"].filter(pa.array(new)),
        _joined(column["source"], caption, "+"),
        _joined(column["license"], caption, " + "),
    )
    num_captions = np.bincount(column["clip"].filter(pa.array(new)).to_numpy())
    rates = pc.dictionary_encode(column["source"])
    rate = np.array([-NATIVE_RATE.get(x, 0) for x in rates.dictionary.to_pylist()], np.int64)
    column |= {
        "rate": pa.array(rate[rates.indices.to_numpy()]),
        "row": pa.array(np.arange(len(rows))),
    }
    column = _sorted(pa.table(column), "clip", "rate", "source", "audio_path", "offset", "row")
    new = np.zeros(len(rows) - 1, bool)
    for name in ("clip", "source", "audio_path", "offset"):
        new |= _changes(column[name])
    last = pa.array(np.append(new, True))  # of several rows of one file the last one counts
    column = {name: values.filter(last) for name, values in column.items()}
    num_files = np.bincount(column["clip"].to_numpy())
    return _clip_table(keys, num_captions, texts, num_files, _files(column))


def _sorted(rows: pa.Table, *names: str) -> dict[str, pa.Array]:
    order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in names])
    rows = rows.take(order)
    return {name: rows[name].combine_chunks() for name in rows.column_names}


def _joined(values: pa.Array, group: np.ndarray, separator: str) -> pa.Array:
    """Of each group (numbered from 0, in order) its distinct values, as they first come."""
    encoded = values.dictionary_encode()
    pairs = group.astype(np.int64) * len(encoded.dictionary) + encoded.indices.to_numpy()
    first = np.sort(np.unique(pairs, return_index=True)[1])
    found = values.take(pa.array(first))
    counts = np.bincount(group[first])
    return found if counts.max() == 1 else pc.binary_join(_lists(found, counts), separator)


def _lists(values: pa.Array, counts: np.ndarray) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _files(column: dict[str, pa.Array]) -> pa.StructArray:
    names = ("source", "audio_path", "offset", "duration")
    return pa.StructArray.from_arrays([column[name] for name in names], fields=list(FILE))


def _clip_table(
    keys: pa.Array,
    num_captions: np.ndarray,
    texts: Iterable[pa.Array],
    num_files: np.ndarray,
    files: pa.StructArray,
) -> pa.Table:
    """CLIP_SCHEMA from flat columns: captions, sources and licenses; files, best first."""
    best = np.cumsum(num_files) - num_files
    columns = [
        keys,
        *(_lists(values, num_captions) for values in texts),
        _lists(files, num_files),
        files.field("duration").take(pa.array(best)),
        pa.array(num_captions, pa.int32()),
    ]
    return pa.Table.from_arrays(columns, schema=CLIP_SCHEMA)
