"""Training, validation and test clips of the corpora that the alignment protocol adapts to (paper
Table 2).

    corpus           train                       validation        test
    audiocaps        train      49,838           val     495       test     975
    paraspeechcaps   train_base 116,516          dev     500       holdout  500
    musiccaps        outside AudioSet eval 2,663 eval    500       eval     500

The paper does not publish its 500 clips of MusicCaps and ParaSpeechCaps. Ours are the first by a
hash of (seed, clip); validation takes the next ones where it shares the release's split with the
test.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captionstew.corpora import audiocaps, musiccaps, paraspeechcaps
from captionstew.corpora.captioned import Part
from captionstew.data.tables.caption_table import write_batches
from captionstew.hashing import key_hash

SPLITS = ("test", "valid", "train")  # a clip can only be drawn once, in this order


CORPORA: dict[str, dict[str, Part]] = {
    "audiocaps": audiocaps.LIT_PARTS,
    "paraspeechcaps": paraspeechcaps.LIT_PARTS,
    "musiccaps": musiccaps.LIT_PARTS,
}


def choose_clips(keys: dict[str, set[str]], corpus: str, seed: int) -> dict[str, set[str]]:
    """Clips of each release split -> clips of train, valid and test, no clip in two of them.

    Raises:
      ValueError: the release has the same clip in two of the splits that are used whole.
    """
    chosen: dict[str, set[str]] = {}
    for split in SPLITS:
        part = CORPORA[corpus][split]
        taken = set().union(*chosen.values()) if chosen else set()
        candidates = keys.get(part.release_split, set())
        if part.clips is not None:
            ranked = sorted(candidates - taken, key=lambda key: (key_hash(key, seed), key))
            candidates = set(ranked[: part.clips])
        elif both := candidates & taken:
            raise ValueError(
                f"{corpus}: {min(both)} and {len(both) - 1} more clips of {split} are held out as"
                " well"
            )
        chosen[split] = candidates
    return chosen


def split_table(table: Path, corpus: str, output: Path, seed: int) -> dict[str, int]:
    """Writes <output>/{train,valid,test}.parquet, caption tables; returns the clips in each.

    Raises:
      ValueError: a split is empty, or the release has a clip in two of them.
    """
    names = pq.read_table(table, columns=["audio_key", "split"]).to_pydict()
    keys: dict[str, set[str]] = {}
    for key, split in zip(names["audio_key"], names["split"]):
        keys.setdefault(split, set()).add(key)
    chosen = choose_clips(keys, corpus, seed)
    schema = pq.read_schema(table)
    for split, clips in chosen.items():
        release_split = CORPORA[corpus][split].release_split
        if not clips:
            raise ValueError(
                f"{table}: no clip of split {release_split}; make it with --splits {release_split}"
            )
        wanted = pa.array(sorted(clips))
        rows = (
            batch.filter(
                pc.and_(
                    pc.is_in(batch["audio_key"], value_set=wanted),
                    pc.equal(batch["split"], release_split),
                )
            )
            for batch in pq.ParquetFile(table).iter_batches()
        )
        write_batches(output / f"{split}.parquet", schema, rows)
    return {split: len(chosen[split]) for split in reversed(SPLITS)}
