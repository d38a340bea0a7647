"""The leakage filter: whole videos, both modes, licenses, its report, and bytes that repeat."""

import pyarrow.parquet as pq
import pytest

from captionstew.corpora.build.corpus_list import Entry, read_corpora
from captionstew.corpora.build.leakage import filter_tables, report_as_markdown, survivors
from captionstew.corpora.release import ReleaseError
from captionstew.data.tables.database import connect

A, B, C, D = "-aaaaaaaaaa", "Ybbbbbbbbbb", "cc_ccccc_cc", "ddddddddddd"
VOX = "vox:v2:id03757:ufAcwmC_vD8"


def entries(*names):
    return [Entry(name, "*", "pretrain", 1.0) for name in names]


def keys_of(folder, name):
    return pq.read_table(folder / f"{name}.parquet")["audio_key"].to_pylist()


@pytest.fixture
def case(make_table, make_keys, tmp_path):
    make_table(
        "vgg", [(f"yt:{A}:30", "a"), (f"yt:{A}:200", "b"), (f"yt:{B}:0", "c"), (f"yt:{C}:0", "d")]
    )
    make_table(
        "psc",
        [(f"{VOX}:00001", "e"), (f"{VOX}:00002", "f"), ("vox:v2:id03757:_fAcwmC_vD8:00001", "g")],
    )
    make_table("sounds", [("fs:77", "h"), ("fs:78", "i"), ("fs:77", "j"), ("bbc:77", "k")])
    evaluation = make_keys(
        [
            ("audiocaps", "test", f"yt:{A}"),
            ("vggsound", "test", f"yt:{A}"),
            ("audiocaps", "val", f"yt:{B}"),
            ("fsd50k", "eval", "fs:77"),
            ("paraspeechcaps", "dev", f"{VOX}:00001"),
            ("voxceleb2", "eval", "vox:v2:id03757:_fAcwmC_vD8"),
        ]
    )
    return tmp_path / "tables", evaluation, tmp_path / "filtered"


def test_strict_drops_whole_videos_and_single_utterances(case, connection):
    tables, evaluation, output = case
    report = filter_tables(connection, entries("vgg", "psc", "sounds"), tables, evaluation, output)
    assert keys_of(output, "vgg") == [f"yt:{C}:0"]
    assert keys_of(output, "psc") == [f"{VOX}:00002"]
    assert keys_of(output, "sounds") == ["fs:78", "bbc:77"]
    assert report["sources"]["vgg"] == {
        "clips": 4,
        "captions": 4,
        "kept_clips": 1,
        "kept_captions": 1,
        "leaked_clips": 3,
        "refused_captions": 0,
        "by_list": {"audiocaps:test": 2, "audiocaps:val": 1, "vggsound:test": 2},
    }
    assert report["sources"]["sounds"]["by_list"] == {
        "fsd50k:eval": 1
    }  # one clip, though with two captions
    assert report["total"]["leaked_clips"] == 6
    assert survivors(connection, sorted(output.glob("*.parquet")), evaluation, "strict") == 0
    assert survivors(connection, [tables / "vgg.parquet"], evaluation, "strict") == 3
    page = report_as_markdown(report)
    assert "| vgg | 4 | 1 | 3 | 4 | 1 | 0 |" in page and "| fsd50k:eval | 1 | 0 | 0 | 1 |" in page


def test_test_only_keeps_development_recordings(case, connection):
    tables, evaluation, output = case
    filter_tables(connection, entries("vgg", "psc"), tables, evaluation, output, mode="test-only")
    assert keys_of(output, "vgg") == [f"yt:{B}:0", f"yt:{C}:0"]
    assert keys_of(output, "psc") == [f"{VOX}:00001", f"{VOX}:00002"]
    with pytest.raises(ValueError, match="'loose' is none of strict, test-only"):
        filter_tables(connection, entries("vgg"), tables, evaluation, output, mode="loose")


def test_license_filter(make_table, make_keys, connection, tmp_path):
    make_table("free", [("fs:1", "a")], license="CC-BY-4.0")
    make_table("closed", [("fs:2", "b")], license="CC-BY-NC-SA-4.0")
    evaluation = make_keys([("fsd50k", "eval", "fs:9")])
    report = filter_tables(
        connection,
        entries("free", "closed"),
        tmp_path / "tables",
        evaluation,
        tmp_path / "out",
        license_filter=["*-nc*", "*academic*"],
    )
    assert (
        keys_of(tmp_path / "out", "free") == ["fs:1"] and keys_of(tmp_path / "out", "closed") == []
    )
    assert (
        report["sources"]["closed"]["refused_captions"] == 1
        and report["sources"]["closed"]["kept_clips"] == 0
    )


def test_splits_weights_and_missing_tables(make_table, make_keys, connection, tmp_path):
    make_table("two", [("fs:1", "a")], split="train")
    evaluation = make_keys([])
    arguments = (tmp_path / "tables", evaluation, tmp_path / "out")
    filter_tables(connection, [Entry("two", "train", "pretrain", 1.0)], *arguments)
    with pytest.raises(ValueError, match="no row of split 'dev'; it has train"):
        filter_tables(connection, [Entry("two", "dev", "pretrain", 1.0)], *arguments)
    with pytest.raises(FileNotFoundError, match="prepare the corpus three first"):
        filter_tables(connection, [Entry("three", "*", "pretrain", 1.0)], *arguments)
    assert (
        filter_tables(connection, [Entry("three", "*", "pretrain", 0.0)], *arguments)["sources"]
        == {}
    )


@pytest.mark.slow
def test_order_and_bytes_do_not_depend_on_threads(make_table, make_keys, tmp_path):
    rows = [(f"fs:{i * 7919 % 200_003}", f"caption {i}") for i in range(200_000)]
    make_table("many", rows)
    evaluation = make_keys([("fsd50k", "eval", f"fs:{i}") for i in range(0, 200_003, 10)])
    contents = []
    for threads in (1, 2, 4):
        with connect(tmp_path / "scratch", memory_gb=1, threads=threads) as connection:
            output = tmp_path / f"out{threads}"
            filter_tables(connection, entries("many"), tmp_path / "tables", evaluation, output)
        contents.append((output / "many.parquet").read_bytes())
    assert contents[0] == contents[1] == contents[2]
    assert keys_of(tmp_path / "out2", "many") == [key for key, _ in rows if int(key[3:]) % 10]


HEADER = "name,split,role,weight\n"


def test_list_of_corpora(tmp_path):
    path = tmp_path / "corpora.csv"
    path.write_text(
        HEADER + "audiocaps,train,pretrain,2\nmine,*,pretrain,\nfsd50k,eval,evaluation,\n"
    )
    assert read_corpora(path) == [
        Entry("audiocaps", "train", "pretrain", 2.0),
        Entry("mine", "*", "pretrain", 1.0),
        Entry("fsd50k", "eval", "evaluation", 1.0),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../x,train,pretrain,1", "not a plain name"),
        ("mine,train,training,1", "role 'training' is none of pretrain, evaluation"),
        ("mine,train,pretrain,-1", "weight '-1' is not a number from 0 up"),
        ("mine,train,pretrain,much", "weight 'much'"),
        ("mine,test,evaluation,", "no corpus has the role pretrain"),
        ("mine,a,pretrain,1\nmine,a,pretrain,1", "listed twice"),
    ],
)
def test_broken_lists_of_corpora_are_named(tmp_path, line, message):
    path = tmp_path / "corpora.csv"
    path.write_text(HEADER + line + "\n")
    with pytest.raises(ReleaseError, match=message) as caught:
        read_corpora(path)
    assert str(path) in str(caught.value)
