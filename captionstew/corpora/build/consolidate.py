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
from collections.abc import Iterator, Sequence
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
    dropped: Counter[str] = Counter()
    kept = write_batches(output, CLIP_SCHEMA, _short_clips(clips, max_duration, dropped))
    return {"kept": kept, "dropped": dict(sorted(dropped.items()))}


def _short_clips(
    clips: Path, max_duration: float, dropped: Counter[str]
) -> Iterator[pa.RecordBatch]:
    for batch in pq.ParquetFile(clips).iter_batches():
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
    return write_batches(output, CLIP_SCHEMA, _group(batches(connection, ordered)))


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
    """Whole clips only. Most have one row and are converted by column; the others are merged one by
    one.
    """
    keys = table["audio_key"].combine_chunks()
    changes = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1)).to_numpy(
        zero_copy_only=False
    )
    first = np.flatnonzero(np.concatenate([[True], changes]))
    count = np.diff(np.append(first, len(keys)))
    single = _single_rows(table.take(pa.array(first[count == 1])))
    merged = [
        _merge(table.slice(start, size).to_pylist())
        for start, size in zip(first[count > 1], count[count > 1])
    ]
    clips = pa.concat_tables([single, pa.Table.from_pylist(merged, CLIP_SCHEMA)])
    order = np.argsort(
        np.concatenate([np.flatnonzero(count == 1), np.flatnonzero(count > 1)]), kind="stable"
    )
    return clips.take(pa.array(order)).combine_chunks().to_batches()[0]


def _single_rows(rows: pa.Table) -> pa.Table:
    offsets = pa.array(np.arange(len(rows) + 1), pa.int32())

    def lists(values: pa.Array) -> pa.ListArray:
        return pa.ListArray.from_arrays(offsets, values)

    column = {name: rows[name].combine_chunks() for name in rows.column_names}
    files = pa.StructArray.from_arrays(
        [column["source"], column["audio_path"], column["offset"], column["duration"]],
        fields=list(FILE),
    )
    return pa.Table.from_arrays(
        [
            column["audio_key"],
            lists(column["caption"]),
            lists(column["source"]),
            lists(column["license"]),
            lists(files),
            column["duration"],
            pa.array(np.ones(len(rows)), pa.int32()),
        ],
        schema=CLIP_SCHEMA,
    )


def _merge(rows: list[dict]) -> dict:
    """One clip from its rows, in whatever order they come."""
    captions: dict[str, str] = {}
    sources: dict[str, list[str]] = {}
    licenses: dict[str, list[str]] = {}
    files: dict[tuple, dict] = {}
    for row in sorted(rows, key=_place_in_clip):
        folded = row["caption"].lower()
        captions.setdefault(folded, row["caption"])
        for found, value in ((sources, row["source"]), (licenses, row["license"])):
            if value not in found.setdefault(folded, []):
                found[folded].append(value)
        place = (
            -NATIVE_RATE.get(row["source"], 0),
            row["source"],
            row["audio_path"],
            row["offset"],
        )
        files[place] = {
            "source": row["source"],
            "path": row["audio_path"],
            "offset": row["offset"],
            "duration": row["duration"],
        }
    ordered = [files[place] for place in sorted(files)]
    return {
        "audio_key": rows[0]["audio_key"],
        "captions": list(captions.values()),
        "sources": ["+".join(names) for names in sources.values()],
        "licenses": [" + ".join(names) for names in licenses.values()],
        "files": ordered,
        "duration": ordered[0]["duration"],
        "num_captions": len(captions),
    }


def _place_in_clip(row: dict) -> tuple:
    text = row["caption"]
    return text.lower(), row["source"], text, row["license"], row["audio_path"], row["offset"]
