"""From the table of clips with audio to training and validation manifests, one folder per
subset.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captionstew.corpora.build.corpus_list import ALL_SPLITS, Entry
from captionstew.corpora.build.subsets import add_subset_ranks, parse_size
from captionstew.corpora.keys import group_key
from captionstew.data.audio import AudioInfo
from captionstew.data.manifests.cuts import cut_row, write_cuts
from captionstew.data.tables.audio_check import CHECKED_SCHEMA
from captionstew.data.tables.caption_table import write_batches
from captionstew.files import write_json
from captionstew.hashing import key_hash

MIN_VALID_CLIPS = 20
MAX_VALID_SHARE = 0.1


def hold_out(
    checked: Path, training: Path, validation: Path, share: float, seed: int
) -> tuple[int, int]:
    """Split the clips into training and validation by a hash of (seed, recording): no video is in
    both.

    `share` of the recordings go to validation, more in a small corpus (about 20 clips, at most a
    tenth). Returns (training clips, validation clips).
    """
    clips = pq.ParquetFile(checked).metadata.num_rows
    if clips < 2:
        raise ValueError(
            f"{checked}: {clips} clips with audio are too few to train and validate on"
        )
    share = max(share, min(MAX_VALID_SHARE, MIN_VALID_CLIPS / clips))
    smallest = min(_hashes(checked, seed))
    limit = max(int(share * 2**64), smallest + 1)

    def batches(wanted: bool) -> Iterator[pa.RecordBatch]:
        for batch in pq.ParquetFile(checked).iter_batches():
            held = [
                (key_hash(group_key(key), seed) < limit) == wanted
                for key in batch["audio_key"].to_pylist()
            ]
            yield batch.filter(pa.array(held, pa.bool_()))

    return (
        write_batches(training, CHECKED_SCHEMA, batches(False)),
        write_batches(validation, CHECKED_SCHEMA, batches(True)),
    )


def _hashes(checked: Path, seed: int) -> Iterator[int]:
    for batch in pq.ParquetFile(checked).iter_batches(columns=["audio_key"]):
        yield from (key_hash(group_key(key), seed) for key in batch["audio_key"].to_pylist())


def cuts_of(clips: Path, max_rank: int | None = None) -> Iterator[dict]:
    """Cuts, as rows, of a table of checked clips; with `max_rank` those of the subset with that
    many captions.
    """
    for batch in pq.ParquetFile(clips).iter_batches():
        for clip in batch.to_pylist():
            if max_rank is not None and clip["subset_rank"] > max_rank:
                continue
            info = AudioInfo(
                duration=clip["file_duration"],
                sampling_rate=clip["sampling_rate"],
                channels=clip["channels"],
                num_samples=clip["num_samples"],
                fingerprint=clip["fingerprint"],
            )
            labels = {"licenses": clip["licenses"], "fingerprint": clip["fingerprint"]}
            yield cut_row(
                clip["audio_key"],
                clip["path"],
                info,
                clip["captions"],
                clip["sources"],
                labels,
                offset=clip["offset"],
                duration=clip["clip_duration"],
            )


def write_manifests(
    ranked: Path,
    validation: Path,
    output: Path,
    subsets: Sequence[str],
    coverage: Mapping,
    strata: Mapping,
) -> dict[str, int]:
    """`output`/<subset>/cuts_train.jsonl, cuts_valid.jsonl and report.json; returns training clips
    per subset.

    The validation clips are the same for all subsets.
    """
    counts = {}
    for name in subsets:
        folder = output / name
        counts[name] = write_cuts(
            folder / "cuts_train.jsonl", cuts_of(ranked, parse_size(name)), progress=True
        )
        if counts[name] == 0:
            raise ValueError(f"subset {name}: no clip has so few captions; ask for a larger subset")
        write_cuts(folder / "cuts_valid.jsonl", cuts_of(validation))
        write_json(
            folder / "report.json",
            {"subset": name, "clips": counts[name], "strata": strata, **coverage},
        )
    return counts


def source_weights(entries: Sequence[Entry], filtered: Path) -> dict[str, float]:
    """Source -> weight of its line in the list of corpora (a table may hold several sources)."""
    weights = {}
    for entry in entries:
        if entry.role != "pretrain" or entry.weight == 0:
            continue
        table = pq.read_table(filtered / f"{entry.name}.parquet", columns=["source", "split"])
        for pair in table.group_by(["source", "split"]).aggregate([]).to_pylist():
            if entry.split in (ALL_SPLITS, pair["split"]):
                weights[pair["source"]] = entry.weight
    return weights


def rank_and_write(
    training: Path,
    validation: Path,
    output: Path,
    subsets: Sequence[str],
    coverage: Mapping,
    seed: int,
    weights: Mapping[str, float],
) -> dict[str, int]:
    """Subset ranks, then the manifests of all `subsets`."""
    ranked = training.with_name("ranked.parquet")
    strata = add_subset_ranks(training, ranked, seed, weights)
    return write_manifests(ranked, validation, output, subsets, coverage, strata)
