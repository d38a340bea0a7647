"""Made-up caption tables of the size and shape of the real eight corpora, to test the corpus
programs at scale.

The default, 10.7M captions, has the proportions, key forms and overlaps of the releases: AudioSet
videos shared by five corpora, missing starts, YouTube-8M and VGGSound cuts of AudioSet videos at
other seconds, evaluation clips inside the training lists, Clotho sounds inside WavCaps. Texts are
random sentences of the corpora's lengths. It writes the files that `egs/captionstew/prepare.sh`
expects after its first stage:

    OUTPUT_DIR/tables/<name>.parquet   OUTPUT_DIR/evaluation_keys.parquet
    OUTPUT_DIR/audioset_starts.parquet
    OUTPUT_DIR/corpora.csv

    python benchmarks/make_scale_tables.py --output-dir data/scale --num-captions 1000000
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from captionstew.data.tables.caption_table import caption_schema
from captionstew.data.tables.database import connect, literal, write_query
from captionstew.errors import run_main

FULL_SIZE = 10_700_000
AUDIOSET = 2_084_320  # videos, of which the first 20,371 are AudioSet's evaluation list


@dataclass(frozen=True)
class Part:
    """One split of one corpus. `key` and `keep` are SQL over the clip's number `i`; `sentences`
    sets the length.
    """

    name: str
    split: str
    source: str
    clips: int
    key: str
    sentences: int
    captions: int = 1
    duration: str = "10.0"


def video(space: str, number: str) -> str:
    """SQL: an 11-character id from a number, with "-", "Y" and "_" in every place, as real ones
    have.
    """
    code = f"base64(unhex(md5('{space}' || ({number})::varchar)))"
    return f"replace(replace(substr({code}, 1, 11), '+', '-'), '/', '_')"


AS_VIDEO = video("as", "{n}")
AS_START = "(hash(({n})::varchar) % 60 * 10)::varchar"


def audioset_key(number: str, start: str = AS_START) -> str:
    return f"'yt:' || {AS_VIDEO.format(n=number)} || ':' || {start.format(n=number)}"


def parts() -> list[Part]:
    """The eight corpora at full size; every fifth VGGSound and fiftieth YouTube-8M clip is of an
    AudioSet video.
    """
    own = (
        "'yt:' || "
        + video("vgg", "i * 100 // 113")
        + " || ':' || (hash(i::varchar) % 300)::varchar"
    )
    vggsound = f"case when i % 5 = 0 then {audioset_key('i * 7')} else {own} end"
    own = "'yt:' || " + video("yt8m", "i") + " || ':' || (hash(i::varchar) % 500)::varchar"
    shared = audioset_key("i // 2", "(hash(({n})::varchar) % 599)::varchar")
    youtube8m = f"case when i % 50 = 0 then {shared} else {own} end"
    vox = (
        "'vox:v2:id' || lpad((i % 5994)::varchar, 5, '0') || ':' || "
        + video("vox", "i // 7")
        + " || ':00001'"
    )
    return [
        Part("audiocaps", "train", "audiocaps", 49_838, audioset_key("i * 40"), 1),
        Part("clotho", "development", "clotho", 3_839, "'fs:' || (i * 60)::varchar",
             1, 5, "20.0 + i % 10"),
        Part("musiccaps", "train", "musiccaps", 2_663, audioset_key("22000 + i * 3"), 6),
        Part("wavcaps", "audioset", "wavcaps_audioset", 108_317, audioset_key("i * 18", "'*'"), 1),
        Part("wavcaps", "bbc", "wavcaps_bbc", 31_201, "'bbc:' || lpad(i::varchar, 8, '0')", 1, 1,
             "5.0 + i % 150"),
        Part("wavcaps", "freesound", "wavcaps_freesound", 262_300, "'fs:' || i::varchar", 1, 1,
             "1.0 + i % 90"),
        Part("wavcaps", "soundbible", "wavcaps_soundbible", 1_232, "'soundbible:' || i::varchar",
             1),
        Part("audiosetcaps", "audioset", "audiosetcaps_audioset", 1_910_920,
             audioset_key("i", "'*'"),
             4),
        Part("audiosetcaps", "vggsound", "audiosetcaps_vggsound", 182_189, vggsound, 4),
        Part("audiosetcaps", "youtube8m", "audiosetcaps_youtube8m", 4_023_990, youtube8m, 4),
        Part("fusionaudio", "train", "fusionaudio", 1_220_000,
             audioset_key("22000 + i * 5 // 3"), 5),
        Part("jamendomaxcaps", "train", "jamendomaxcaps", 1_800_000,
             "'jamendo:' || (i // 5)::varchar || ':' || (i % 5 * 30)::varchar", 7, 1, "30.0"),
        Part("paraspeechcaps", "train_base", "paraspeechcaps_base", 116_516, vox,
             4, 1, "3.0 + i % 20"),
        Part("paraspeechcaps", "train_scaled", "paraspeechcaps_scaled", 924_651,
             "'emilia:EN_B' || lpad(i::varchar, 9, '0')", 4, 1, "3.0 + i % 20"),
    ]  # fmt: skip


EVALUATION = {  # list -> SQL of its keys over a number i, and how many at full size
    "audioset:eval": ("'yt:' || " + AS_VIDEO.format(n="i"), 20_371),
    "audiocaps:test": ("'yt:' || " + AS_VIDEO.format(n="i * 40 * 50"), 975),
    "musiccaps:eval": ("'yt:' || " + AS_VIDEO.format(n="i * 7"), 2_858),
    "vggsound:test": ("'yt:' || " + video("vgg", "i * 9"), 14_851),
    "fsd50k:eval": ("'fs:' || (i * 25)::varchar", 10_231),
    "urbansound8k:all": ("'fs:' || (i * 190)::varchar", 1_297),
    "voxceleb2:eval": (
        "'vox:v2:id' || lpad((i * 98 % 5994)::varchar, 5, '0') || ':' || " + video("vox", "i * 14"),
        1_000
    ),
}  # fmt: skip


def sentence_table(connection: duckdb.DuckDBPyConnection) -> None:
    """fragments: a list of 4,096 random clauses of about eight words."""
    connection.execute("create temp macro pick(n, size) as (hash(n) % size)::bigint + 1")
    connection.execute("""create temp table words as select list(w order by n) as w from (
        select n, substr(translate(md5(n::varchar), '0123456789', 'ghijklmnop'), 1, 2 + n % 7) as w
        from range(3000) t(n))""")
    connection.execute("""create temp table fragments as select list(text order by n) as f from (
        select n, array_to_string([w[pick(n * 31 + k, 3000)] for k in range(8)], ' ') as text
        from range(4096) t(n), words)""")


def write_part_query(part: Part, clips: int) -> str:
    """SQL of one part's rows. `i` numbers clips over the full size, so that a small corpus keeps
    the overlaps.
    """
    text = " || ' ' || ".join(
        f"f[pick(i * 10 + c + {1000 * k}, 4096)]" for k in range(part.sentences)
    )
    return f"""select {part.key} as audio_key, {text} as caption, {literal(part.source)} as source,
        '/audio/{part.name}/' || i::varchar || '.flac' as audio_path, 0.0 as "offset",
        ({part.duration})::double as duration, {literal(part.split)} as split, 'made up' as license
        from range({clips}) t(i), range({part.captions}) u(c), fragments"""


def write_tables(output: Path, num_captions: int, memory_gb: float = 3.0) -> int:
    """Write everything; returns the number of captions, close to `num_captions`."""
    scale = num_captions / FULL_SIZE
    total = 0
    with connect(
        output, memory_gb, threads=1
    ) as connection:  # one thread: the same rows in the same order
        sentence_table(connection)
        for name in dict.fromkeys(part.name for part in parts()):
            queries = [
                write_part_query(part, max(1, round(part.clips * scale)))
                for part in parts()
                if part.name == name
            ]
            path = output / "tables" / f"{name}.parquet"
            total += write_query(connection, " union all ".join(queries), path, caption_schema())
        lists = [
            f"select {literal(entry.split(':')[0])} as evaluation_set,"
            f" {literal(entry.split(':')[1])} as split, {key} as key from"
            f" range({max(1, round(count * scale))}) t(i)"
            for entry, (key, count) in EVALUATION.items()
        ]
        keys = pa.schema([(name, pa.string()) for name in ("evaluation_set", "split", "key")])
        write_query(connection, " union all ".join(lists), output / "evaluation_keys.parquet", keys)
        starts = (
            f"select {AS_VIDEO.format(n='i')} as video, {AS_START.format(n='i')}::bigint as start "
        )
        starts += f"from range({round(AUDIOSET * min(1.0, scale * 1.05))}) t(i) where i % 10 > 0"
        schema = pa.schema([("video", pa.string()), ("start", pa.int64())])
        write_query(connection, starts, output / "audioset_starts.parquet", schema)
    lines = [f"{part.name},{part.split},pretrain,1" for part in parts()]
    lines += [f"{entry.replace(':', ',')},evaluation," for entry in EVALUATION]
    (output / "corpora.csv").write_text("\n".join(["name,split,role,weight", *lines]) + "\n")
    return total


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--num-captions", type=int, default=FULL_SIZE)
    args = parser.parse_args(argv)
    print(f"{write_tables(args.output_dir, args.num_captions)} captions in {args.output_dir}")


if __name__ == "__main__":
    run_main(main)
