"""Subsets of the corpus, counted in captions: whole clips, nested, stratified by source, drawn by a
hash.

A clip's stratum is the set of corpora that captioned it. Inside a stratum clips follow the hash of
(seed, audio_key), and a clip's position is the share of the stratum's captions that lie before its
end. Ordering all clips by position gives one list whose every beginning is a stratified sample: a
subset of N captions is its longest beginning with at most N, so subsets are nested and miss N by
less than one clip.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captionstew.data.tables.caption_table import write_batches

SUBSET_SIZES = {"400k": 400_000, "1M": 1_000_000, "4M": 4_000_000, "all": None}
RANK = pa.field("subset_rank", pa.int64())


def parse_size(name: str) -> int | None:
    """Number of captions that a subset's name asks for: `400k`, `1M`, `2500`; `all` gives None."""
    if name == "all":
        return None
    factor = {"k": 1_000, "M": 1_000_000}.get(name[-1:], 1)
    digits = name if factor == 1 else name[:-1]
    if not digits.isdigit() or int(digits) == 0:
        raise ValueError(
            f"subset {name!r} is neither a number of captions (2500, 400k, 1M) nor all"
        )
    return int(digits) * factor


def add_subset_ranks(
    clips: Path, output: Path, seed: int = 0, weights: Mapping[str, float] | None = None
) -> dict:
    """Copy the clip table with a column `subset_rank`: a subset of N captions is every clip with
    rank <= N.

    `weights`: source -> share relative to its number of captions (default 1); with weight 2 a
    source fills small subsets twice as fast. Returns clips and captions per stratum.
    """
    hashes, sizes, strata, names = _read_strata(clips, seed)
    totals = np.bincount(strata, weights=sizes, minlength=len(names))
    shares = np.array([_weight(name, weights or {}) for name in names])
    order = np.lexsort((hashes, strata))
    ends = np.cumsum(sizes[order])
    before = np.concatenate([[0], np.cumsum(totals)])[:-1]
    position = np.empty(len(order))
    position[order] = (ends - before[strata[order]]) / (totals * shares)[strata[order]]
    order = np.lexsort((hashes, position))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.cumsum(sizes[order])
    schema = pq.read_schema(clips).append(RANK)
    write_batches(output, schema, _with_ranks(clips, schema, ranks))
    counts = np.bincount(strata, minlength=len(names))
    return {
        name: {"clips": int(count), "captions": int(total)}
        for name, count, total in zip(names, counts, totals)
    }


def _weight(stratum: str, weights: Mapping[str, float]) -> float:
    return max(weights.get(source, 1.0) for source in stratum.split("+"))


def _read_strata(clips: Path, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """(clips,) uint64 hashes, int64 captions, int64 stratum indices; the names of the strata,
    sorted.
    """
    hashes, sizes, labels = [], [], []
    strata: dict[str, int] = {}
    prefix = hashlib.blake2b(f"{seed}:".encode(), digest_size=8)
    for batch in pq.ParquetFile(clips).iter_batches(
        columns=["audio_key", "sources", "num_captions"]
    ):
        keys = pc.cast(batch["audio_key"], pa.binary()).to_pylist()
        hashes.append(np.fromiter((_hash(prefix, key) for key in keys), np.uint64, len(keys)))
        sizes.append(batch["num_captions"].to_numpy().astype(np.int64))
        labels.append(_stratum_of_each(batch["sources"], strata))
    if not hashes:
        raise ValueError(f"{clips}: no clips to draw subsets from")
    used = np.unique(
        np.concatenate(labels)
    )  # a source of merged clips alone is no stratum of its own
    names = sorted(name for name, number in strata.items() if number in used)
    index = np.array([names.index(name) if name in names else -1 for name in strata])
    return np.concatenate(hashes), np.concatenate(sizes), index[np.concatenate(labels)], names


def _hash(prefix: "hashlib.blake2b", key: bytes) -> int:
    digest = prefix.copy()
    digest.update(key)
    return int.from_bytes(digest.digest(), "big")


def _stratum_of_each(sources: pa.ListArray, strata: dict[str, int]) -> np.ndarray:
    """(clips,) int64; a new stratum gets the next number in `strata`. Most clips have one caption:
    by column.
    """
    encoded = sources.flatten().dictionary_encode()
    numbers = np.array(
        [_number(strata, [name]) for name in encoded.dictionary.to_pylist()], np.int64
    )
    starts = sources.offsets.to_numpy()
    labels = numbers[encoded.indices.to_numpy()][starts[:-1] - starts[0]]
    for clip in np.flatnonzero(np.diff(starts) > 1):
        labels[clip] = _number(strata, sources[clip].as_py())
    return labels


def _number(strata: dict[str, int], sources: list[str]) -> int:
    name = "+".join(sorted({source for names in sources for source in names.split("+")}))
    return strata.setdefault(name, len(strata))


def _with_ranks(clips: Path, schema: pa.Schema, ranks: np.ndarray) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in pq.ParquetFile(clips).iter_batches():
        column = pa.array(ranks[start : start + len(batch)])
        start += len(batch)
        yield pa.RecordBatch.from_arrays([*batch.columns, column], schema=schema)
