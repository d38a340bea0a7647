"""Damaged releases end in one line with file, row and remedy; a few bad rows cost themselves."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captionstew.corpora.release import ReleaseError

HEADER = "audiocap_id,youtube_id,start_time,caption\n"
ROWS = [f'{n},vid{n:08d},{n},"Water runs, then stops {n} times"\n' for n in range(300)]
WHOLE = HEADER + "".join(ROWS)
AGAIN = "download it again from https://github.com/cdjkim/audiocaps"


def zipped(text, keep=None):
    return gzip.compress(text.encode())[:keep]


def swapped(rows):
    return "".join(f"{n},{row.split(',', 3)[3].strip()},{n},vid{n:08d}\n" for n, row in rows)


# name of the file, its content, what the one line says
STOPS = {
    "an HTML page": ("train.csv", "\n<!DOCTYPE html><html>gone</html>", "row 1 looks like an HTML"),
    "a page in place of gzip": ("train.csv.gz", "<html>gone</html>", "row 1 looks like an HTML"),
    "a page in gzip": ("train.csv.gz", zipped("<html>gone</html>"), "row 1 looks like an HTML"),
    "an LFS pointer": (
        "train.csv",
        "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n",
        "row 1 looks like a Git LFS pointer",
    ),
    "an XML message": ("train.csv", '<?xml version="1.0"?><Error>', "looks like an XML message"),
    "empty": ("train.csv", "", "is empty"),
    "empty gzip": ("train.csv.gz", zipped(""), "is empty"),
    "header only": ("train.csv", HEADER, "has a header and no row"),
    "cut gzip": ("train.csv.gz", zipped(WHOLE, 500), "cut off: the compressed data ends early"),
    "text called gzip": ("train.csv.gz", WHOLE, "is not gzip data"),
    "gzip called text": ("train.csv", zipped(WHOLE), "is gzip data; call it train.csv.gz"),
    "another delimiter": ("train.csv", WHOLE.replace(",", ";"), "separated by ';', not by ','"),
    "tabs": ("train.csv", WHOLE.replace(",", "\t"), r"separated by '\\t', not by ','"),
    "no header": ("train.csv", "".join(ROWS), "column 'audiocap_id' is missing"),
    "a missing column": (
        "train.csv",
        WHOLE.replace("start_time,", ""),
        "column 'start_time' is missing",
    ),
    "commas without quotes": (
        "train.csv",
        WHOLE.replace('"', ""),
        r"300 of 300 rows cannot be used, more than 1 %; the first is row 2: too many fields",
    ),
    "swapped columns": (
        "train.csv",
        HEADER + swapped(enumerate(ROWS)),
        r"300 of 300 rows cannot be used.*the first is row 2: no identity.*Water runs",
    ),
    "a few rows too many": (
        "train.csv",
        WHOLE + "1,2\n" * 5,
        r"5 of 305 rows cannot be used, more than 1 %; the first is row 302: too few fields",
    ),
    "pasted twice": (
        "train.csv",
        WHOLE + WHOLE,
        r"300 of 601 rows are there twice, more than 1 %; the first is the 302th",
    ),
    "rows pasted twice": ("train.csv", WHOLE + "".join(ROWS), "300 of 600 rows are there twice"),
    "another encoding": (
        "train.csv",
        (WHOLE + "x,vidABCDEFGH,0,café\n").encode("latin-1"),
        "line 302: not utf-8 text",
    ),
    "an open quote": (
        "train.csv",
        WHOLE + '8,vidABCDEFGH,0,"open\n',
        "line 302: not a well-formed",
    ),
}


@pytest.mark.parametrize("kind", STOPS)
def test_damaged_tables_stop_with_file_row_and_remedy(prepare, tmp_path, kind):
    name, content, message = STOPS[kind]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ReleaseError, match=message) as stop:
        prepare("audiocaps", tmp_path, "--splits", "train")
    line = str(stop.value)
    assert "\n" not in line and str(path) in line and line.endswith(AGAIN)
    assert not (tmp_path / "tables" / "audiocaps.parquet").exists()


def test_up_to_the_stated_share_bad_rows_cost_themselves(prepare, tmp_path):
    bad = ["broken,row,here\n", "1,no video id,0,A\n", "1,vidABCDEFGH,soon,A\n"]
    (tmp_path / "train.csv").write_text(WHOLE + "".join(bad))
    flags = ["--splits", "train", "--max-dropped-share"]
    rows = prepare("audiocaps", tmp_path, "--splits", "train", "--max-dropped-share", "0.01")
    assert len(rows) == 300 and rows[0]["caption"] == "Water runs, then stops 0 times"
    report = json.loads((tmp_path / "tables" / "audiocaps.report.json").read_text())
    assert {reason: entry["examples"][0][:19] for reason, entry in report["dropped"].items()} == {
        "too few fields": "train.csv, row 302:",
        "no identity": "train.csv, row 303:",
        "a value that cannot be read": "train.csv, row 304:",
    }
    with pytest.raises(ReleaseError, match="3 of 303 rows cannot be used, more than 0.1 %"):
        prepare("audiocaps", tmp_path, *flags, "0.001")


def test_a_row_of_several_captions_is_one_row(prepare, tmp_path):
    header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    rows = [f"{n}.wav,A,B,C,D,E\n" for n in range(299)]
    (tmp_path / "clotho_captions_development.csv").write_text(
        header + "x.wav,,,,,E\n" + "".join(rows)
    )
    flags = ["--splits", "development", "--allow-missing-ids"]
    assert len(prepare("clotho", tmp_path, *flags)) == 5 * 299 + 1


CLIP = {"caption": "A bell rings.", "id": "1", "duration": 2.0}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([CLIP, {"id": "2"}], "1 of 2 rows cannot be used.*row 2: a record without 'caption'"),
        ([CLIP, "text"], "row 2: no record of names and values: text"),
        ([{**CLIP, "id": str(n)} for n in range(200)] * 2, "200 of 400 rows are there twice"),
        ([], "has no record"),
    ],
)
def test_damaged_json_lists(prepare, tmp_path, data, message):
    path = tmp_path / "sb_final.json"
    path.write_text(json.dumps({"num_captions_per_audio": 1, "data": data}))
    with pytest.raises(ReleaseError, match=message) as stop:
        prepare("wavcaps", tmp_path, "--splits", "soundbible")
    assert str(path) in str(stop.value) and "again from https://hugging" in str(stop.value)


def test_a_cut_off_json_list_and_json_lines(prepare, tmp_path):
    (tmp_path / "sb_final.json").write_text(json.dumps({"data": [CLIP] * 9})[:-30])
    with pytest.raises(ReleaseError, match=r"sb_final\.json: the list is cut off"):
        prepare("wavcaps", tmp_path, "--splits", "soundbible")
    lines = "".join(json.dumps({"id": f"{n}_0", "caption": "A"}) + "\n" for n in range(200))
    path = tmp_path / "jamendo" / "final_caption30sec.jsonl"
    path.parent.mkdir()
    path.write_text(lines[:-5])
    with pytest.raises(ReleaseError, match="line 200: not JSON .* the file is cut off"):
        prepare("jamendomaxcaps", path.parent)
    path.write_text(lines + "no record\n")
    assert len(prepare("jamendomaxcaps", path.parent)) == 200


def test_damaged_parquet_and_missing_shards(prepare, tmp_path):
    table = pa.table(
        {
            "source": ["ears"],
            "relative_audio_path": ["p002/emo.wav"],
            "text_description": [["A."]],
            "speakerid": ["p002"],
            "duration": [8.0],
            "gender": ["f"],
            "all_tags": pa.array([None], pa.list_(pa.string())),
        }
    )
    first = tmp_path / "train_base-00000-of-00002.parquet"
    pq.write_table(table, first)
    flags = ["--splits", "train_base"]
    with pytest.raises(ReleaseError, match="train_base-00001-of-00002.parquet: 1 of the 2 files"):
        prepare("paraspeechcaps", tmp_path, *flags)
    second = tmp_path / "train_base-00001-of-00002.parquet"
    second.write_bytes(first.read_bytes()[:-20])
    with pytest.raises(ReleaseError, match="00001-of-00002.parquet: not a whole Parquet file"):
        prepare("paraspeechcaps", tmp_path, *flags)
    second.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ReleaseError, match="looks like a Git LFS pointer"):
        prepare("paraspeechcaps", tmp_path, *flags)


CASES = {  # of the reference data: what the one line says, or the captions that are left
    "audiocaps_empty": "is empty",
    "audiocaps_header_only": "has a header and no row",
    "audiocaps_html": "row 1 looks like an HTML page",
    "audiocaps_lfs_pointer": "row 1 looks like a Git LFS pointer",
    "audiocaps_pasted_twice": "rows are there twice",
    "audiocaps_swapped_columns": "the first is row 2: no identity",
    "audiocaps_unquoted_commas": "the first is row 2: too many fields",
    "audiocaps_v2_rows_of_three_fields": 40,
    "wavcaps_record_without_caption": "row 2: a record without 'caption'",
}


@pytest.mark.parametrize("case", CASES)
def test_the_cases_that_went_wrong(prepare, shared_dir, case):
    folder, expected = shared_dir / "cases" / "corpus" / case, CASES[case]
    name, flags = case.split("_")[0], ["--splits", "val"]
    if name == "wavcaps":
        flags = ["--splits", "soundbible"]
    elif "v2" in case:
        flags = ["--splits", "train", "--version", "2"]
    if isinstance(expected, int):
        rows = prepare(name, folder, *flags)
        assert len(rows) == expected and all(row["caption"].endswith("closes") for row in rows)
        return
    with pytest.raises(ReleaseError, match=expected) as stop:
        prepare(name, folder, *flags)
    assert "\n" not in str(stop.value) and "download it again from" in str(stop.value)
