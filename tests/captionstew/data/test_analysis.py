"""The analysis: samples, counts, embeddings, figure and page."""

import pytest

from captionstew.data.analysis import (
    as_markdown,
    as_page,
    count_corpora,
    draw_sources,
    embed_captions,
    lexical_statistics,
    project,
    sample_captions,
    table_rows,
)


@pytest.fixture
def tables(make_table):
    events = [(f"fs:{i // 2}", f"a dog barks {i} times in the rain") for i in range(60)]
    music = [(f"jamendo:{i}:0", f"slow piano music number {i} in C minor") for i in range(40)]
    return {"audiocaps": make_table("audiocaps", events), "mine": make_table("mine", music)}


def test_sample_is_seeded_and_whole_when_small(tables):
    assert sorted(sample_captions(tables["mine"], 100, 0)) == sorted(
        f"slow piano music number {i} in C minor" for i in range(40)
    )
    assert len(sample_captions(tables["mine"], 7, 0)) == 7
    assert (
        sample_captions(tables["mine"], 7, 0)
        == sample_captions(tables["mine"], 7, 0)
        != sample_captions(tables["mine"], 7, 1)
    )


def test_tables_show_the_papers_numbers_beside_ours(tables, tmp_path):
    (tmp_path / "text.txt").write_text("A line of text.\n\nAnother <b>line</b>.\n")
    statistics = lexical_statistics(tables, [tmp_path / "text.txt"], seed=0)
    counts = count_corpora(tables)
    assert counts == {"audiocaps": {"clips": 30, "captions": 60}, "mine": {"clips": 40, "captions": 40}}
    rows = table_rows(statistics, counts)
    table_1 = {row[0]: row for row in rows["Table 1: captions and vocabulary"][1]}
    assert table_1["audiocaps"][1:] == ["60", "67", "46K", "4844"] and table_1["mine"][3:] == ["-", "-"]
    table_4 = {row[0]: row for row in rows["Table 4: lexical diversity"][1]}
    assert table_4["audiocaps"][-6:] == ["5,572", "8.46", "0.011", "0.113", "0.309", "0.519"]
    assert table_4["text:text.txt"][1:4] == ["2", "6", "4.00"]
    assert all(len(row) == len(header) for header, body in rows.values() for row in body)
    assert "| mine | 40 / 40 | - |" in as_markdown(rows, ["note"])


def test_figure_and_page(tables, tmp_path):
    samples = [(text, name) for name in tables for text in sample_captions(tables[name], 30, 0)]
    vectors, method = embed_captions([text for text, _ in samples], None, 0)
    assert vectors.shape[0] == 60 and method.startswith("TF-IDF, SVD to")
    points = project(vectors, 0)
    draw_sources(points, [name for _, name in samples], method, tmp_path / "figure.png")
    page = as_page({"T <1>": (["a"], [["<script>alert(1)</script>"]])}, ["note"], tmp_path / "figure.png")
    assert "<script>" not in page and "&lt;script&gt;" in page and "data:image/png;base64," in page
    centres = [points[[name == source for _, name in samples]].mean(axis=0) for source in tables]
    spread = max(points[[name == source for _, name in samples]].std() for source in tables)
    assert abs(centres[0] - centres[1]).max() > spread  # two kinds of captions lie apart


def test_sentence_model_that_is_not_there_is_named():
    with pytest.raises((ImportError, OSError), match="sentence"):
        embed_captions(["a", "b"], "no-such-folder/sentence-model", 0)
