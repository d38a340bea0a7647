"""The caption table: contract, messages, atomic and reproducible writing."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captionstew.data.tables.caption_table import (
    COLUMNS,
    ROWS_PER_GROUP,
    TableError,
    caption_schema,
    read_table,
    validate_table,
    write_batches,
    write_table,
)


def caption_row(**changes) -> dict:
    row = {
        "audio_key": "yt:r1nicOVtvkQ:130",
        "caption": "A woman talks nearby as water pours",
        "source": "audiocaps",
        "audio_path": "audio/r1nicOVtvkQ_130.flac",
        "offset": 0.0,
        "duration": 10.0,
        "split": "train",
        "license": "MIT",
    }
    return {**row, **changes}


def test_round_trip_with_columns_of_its_own(tmp_path):
    rows = [caption_row(tags=["a", "b"]), caption_row(caption="Water", duration=None, tags=[])]
    assert write_table(tmp_path / "t.parquet", rows, [pa.field("tags", pa.list_(pa.string()))]) == 2
    table = read_table(tmp_path / "t.parquet")
    assert table.column_names == [*COLUMNS, "tags"]
    assert table.to_pylist() == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio_key": "r1nicOVtvkQ"}, "no namespace"),
        ({"audio_key": None}, "audio_key is null"),
        ({"caption": ""}, "caption is empty"),
        ({"caption": " A woman"}, "begins or ends with a blank"),
        ({"caption": "two\nlines"}, "line feed"),
        ({"offset": -1.0}, "offset is negative"),
        ({"offset": float("nan")}, "offset is negative or NaN"),
        ({"duration": 0.0}, "duration is not positive"),
        ({"duration": float("nan")}, "duration is not positive"),
        ({"source": "two+sources"}, "source is not a plain name"),
        ({"license": None}, "license is null"),
    ],
)
def test_a_broken_row_is_named_and_leaves_no_file(tmp_path, change, message):
    path = tmp_path / "t.parquet"
    with pytest.raises(TableError, match=message) as caught:
        write_table(path, [caption_row(), caption_row(**change)])
    assert str(path) in str(caught.value) and "row 1" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_column_and_a_wrong_type_are_named(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"audio_key": ["yt:a"]}), path)
    with pytest.raises(TableError, match="column 'caption' is missing"):
        validate_table(path)
    columns = {name: [value] for name, value in caption_row(duration=10).items()}
    pq.write_table(pa.table(columns), path)
    with pytest.raises(TableError, match="'duration' is int64, expected double"):
        validate_table(path)
    path.write_text("not parquet")
    with pytest.raises(TableError, match="not a readable Parquet file"):
        validate_table(path)


def test_bytes_depend_on_the_rows_alone(tmp_path):
    schema = caption_schema()
    rows = [
        caption_row(audio_key=f"fs:{i}", caption=f"caption {i}")
        for i in range(ROWS_PER_GROUP + 1000)
    ]
    whole = pa.RecordBatch.from_pylist(rows, schema=schema)
    pieces = [whole.slice(start, 7001) for start in range(0, len(rows), 7001)]
    assert write_batches(tmp_path / "a.parquet", schema, [whole]) == len(rows)
    assert write_batches(tmp_path / "b.parquet", schema, pieces) == len(rows)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.read_table(tmp_path / "b.parquet").num_rows == len(rows)
