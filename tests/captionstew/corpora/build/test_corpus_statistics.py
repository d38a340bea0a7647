"""The analysis: samples, counts, embeddings, figure and page."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from captionstew.corpora.build.corpus_statistics import (
    NoFigure,
    as_markdown,
    as_page,
    count_before_filter,
    count_corpora,
    draw_sources,
    embed_captions,
    lexical_statistics,
    project,
    sample_captions,
    table_rows,
)
from captionstew.errors import UserError


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
    assert counts == {
        "audiocaps": {"clips": 30, "recordings": 30, "captions": 60},
        "mine": {"clips": 40, "recordings": 40, "captions": 40},
    }
    rows = table_rows(statistics, counts)
    table_1 = {row[0]: row for row in rows["Table 1: captions and vocabulary"][1]}
    assert table_1["audiocaps"][1:] == ["60", "67", "46K", "4,844"] and table_1["mine"][3:] == [
        "-",
        "-",
    ]
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
    page = as_page(
        {"T <1>": (["a"], [["<script>alert(1)</script>"]])}, ["note"], tmp_path / "figure.png"
    )
    assert "<script>" not in page and "&lt;script&gt;" in page and "data:image/png;base64," in page
    centres = [points[[name == source for _, name in samples]].mean(axis=0) for source in tables]
    spread = max(points[[name == source for _, name in samples]].std() for source in tables)
    assert abs(centres[0] - centres[1]).max() > spread  # two kinds of captions lie apart


def test_sentence_model_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # as if it were not installed
    with pytest.raises(UserError, match="--sentence-model needs pip install sentence-transformers"):
        embed_captions(list("abcd"), "no-such-folder/sentence-model", 0)


@pytest.fixture
def sentence_model(tmp_path):
    """Folder of a real sentence-transformers model: a small BERT with random weights and mean
    pooling.
    """
    models = pytest.importorskip("sentence_transformers.models")
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = sorted(
        {word for number in range(60) for word in f"a dog barks {number} times in the rain".split()}
    )
    words += sorted({"slow", "piano", "music", "number", "in", "c", "minor"} - set(words))
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])
    )
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    BertModel(BertConfig(vocab_size=len(words) + 5, **sizes)).save_pretrained(tmp_path / "bert")
    from sentence_transformers import SentenceTransformer

    bert = models.Transformer(str(tmp_path / "bert"))
    model = SentenceTransformer(
        modules=[bert, models.Pooling(bert.get_word_embedding_dimension())], device="cpu"
    )
    model.save(str(tmp_path / "model"))
    return tmp_path / "model"


def test_figure_from_a_real_sentence_transformers_model(tables, sentence_model):
    captions = sample_captions(tables["mine"], 30, 0)
    vectors, method = embed_captions(captions, str(sentence_model), 0)
    assert vectors.shape == (30, 16) and method == f"sentence model {sentence_model}"
    again, _ = embed_captions(captions, str(sentence_model), 1)
    np.testing.assert_allclose(vectors, again, atol=1e-6)  # the model decides, not the seed
    assert project(vectors, 0).shape == (30, 2)


def test_figure_from_a_sentence_model_of_the_same_interface(tables, monkeypatch):
    """Where the package is absent: what is asked of it, and that its vectors reach the figure."""

    class SentenceTransformer:
        def __init__(self, name):
            self.name = name

        def encode(self, sentences):
            assert self.name == "some/model" and isinstance(sentences, list)
            return np.array(
                [[len(text), text.count("a"), 1.0] for text in sentences], dtype=np.float32
            )

    monkeypatch.setitem(
        sys.modules,
        "sentence_transformers",
        SimpleNamespace(SentenceTransformer=SentenceTransformer),
    )
    captions = sample_captions(tables["audiocaps"], 20, 0)
    vectors, method = embed_captions(captions, "some/model", 0)
    assert method == "sentence model some/model" and vectors.shape == (20, 3)
    assert vectors[:, 0].tolist() == [len(text) for text in captions]


@pytest.mark.parametrize("captions", [["a dog"] * 3, list("abcdef"), ["dog"] * 5])
def test_captions_that_are_too_few_for_a_figure(captions, tmp_path):
    with pytest.raises(NoFigure, match="too few"):
        embed_captions(captions, None, 0)
    page = as_page({"T": (["a"], [["1"]])}, ["note"], None)
    assert "Figure 3" not in page and "<td>1</td>" in page


def test_texts_of_the_papers_names_fill_its_rows(tables, tmp_path):
    for name in ("cc12m", "autoacd"):
        (tmp_path / f"{name}.txt").write_text("A line of text.\nAnother line.\n")
    texts = [tmp_path / "cc12m.txt", tmp_path / "autoacd.txt"]
    statistics = lexical_statistics(tables, texts, seed=0)
    rows = table_rows(statistics, count_corpora(tables))
    table_1 = {row[0]: row for row in rows["Table 1: captions and vocabulary"][1]}
    assert table_1["autoacd"] == ["autoacd", "2", "5", "1.5M", "20,491"] and "cc12m" not in table_1
    table_4 = {row[0]: row for row in rows["Table 4: lexical diversity"][1]}
    assert table_4["cc12m"][1:3] == ["2", "5"] and table_4["cc12m"][-6] == "366,175"


def test_segments_of_a_track_are_clips_of_one_recording(make_table):
    segments = [(f"jamendo:7:{start}", "slow piano") for start in (0, 30, 60)]
    table = make_table("jamendomaxcaps", [*segments, ("jamendo:8:0", "a loud guitar")])
    counts = count_corpora({"jamendomaxcaps": table})
    assert counts == {"jamendomaxcaps": {"clips": 4, "recordings": 2, "captions": 4}}
    before = count_before_filter({"jamendomaxcaps": table})
    assert before == {"jamendomaxcaps": {"captions": 4, "vocabulary": 5}}
