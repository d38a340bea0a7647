"""The clip table: one row per clip with all its captions, their sources and its files."""

import pyarrow as pa

FILE = pa.struct(
    [
        ("source", pa.string()),
        ("path", pa.string()),
        ("offset", pa.float64()),
        ("duration", pa.float64()),
    ]
)


CLIP_SCHEMA = pa.schema(
    [
        ("audio_key", pa.string()),
        ("captions", pa.list_(pa.string())),
        (
            "sources",
            pa.list_(pa.string()),
        ),  # of each caption; "a+b" where two corpora wrote the same
        ("licenses", pa.list_(pa.string())),  # of each caption
        ("files", pa.list_(FILE)),  # where the audio may lie, best quality first
        ("duration", pa.float64()),  # seconds, as announced for the first file
        ("num_captions", pa.int32()),
    ]
)
