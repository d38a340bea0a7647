"""The duration rule: audio of more than 60 s is left out (the paper's limit, appendix A.2)."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captionstew.data.audio import MAX_DURATION
from captionstew.data.consolidate import CLIP_SCHEMA
from captionstew.data.tables import write_batches


def apply_duration_rule(clips: Path, output: Path, max_duration: float = MAX_DURATION) -> dict:
    """Leave out files announced as longer than `max_duration` seconds, and clips that have no other file.

    Where a release does not say how long a clip is, the audio check measures it and applies the same rule.
    Returns {"kept": clips, "dropped": {sources: clips}}.
    """
    dropped: Counter[str] = Counter()
    kept = write_batches(output, CLIP_SCHEMA, _short_clips(clips, max_duration, dropped))
    return {"kept": kept, "dropped": dict(sorted(dropped.items()))}


def _short_clips(clips: Path, max_duration: float, dropped: Counter[str]) -> Iterator[pa.RecordBatch]:
    for batch in pq.ParquetFile(clips).iter_batches():
        files = batch["files"]
        too_long = pc.fill_null(pc.greater(files.flatten().field("duration"), max_duration), False)
        owners = pc.unique(pc.list_parent_indices(files).filter(too_long))
        if len(owners) == 0:
            yield batch
            continue
        shortened = []
        for clip in batch.take(owners).to_pylist():
            left = [f for f in clip["files"] if f["duration"] is None or f["duration"] <= max_duration]
            if left:
                shortened.append({**clip, "files": left, "duration": left[0]["duration"]})
            else:
                dropped["+".join(sorted(set(clip["sources"])))] += 1
        untouched = pc.invert(pc.is_in(pa.array(range(len(batch)), owners.type), owners))
        table = pa.Table.from_batches(
            [batch.filter(untouched), pa.RecordBatch.from_pylist(shortened, schema=CLIP_SCHEMA)]
        )
        yield from table.sort_by("audio_key").combine_chunks().to_batches()
