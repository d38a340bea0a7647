"""Diversity equals the reference counts, exactly."""

import csv
import gzip
import json

import pytest

from captionstew.corpora.build.diversity import TOKENISATIONS, diversity, tokenise


@pytest.fixture
def golden(golden_dir):
    return json.loads((golden_dir("metric_golden") / "diversity.json").read_text())["cases"]


def files_of(corpus):
    if corpus == "clotho/train + val + test":
        return ["clotho/train.csv.gz", "clotho/val.csv.gz", "clotho/test.csv.gz"]
    parts = [part.split(" (")[0] for part in corpus.split(" + ")]
    folder = parts[0].split("/")[0]
    return [part if "/" in part else f"{folder}/{part}" for part in parts]


def captions_of(metadata, name):
    path = metadata / name
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as f:
        if ".jsonl" in name:
            return [json.loads(line)["caption"] for line in f]
        if name.endswith(".json"):
            return [clip["caption"] for clip in json.load(f)["data"]]
        rows = list(csv.DictReader(f))
    if "caption_1" in rows[0]:
        return [row[f"caption_{i}"] for row in rows for i in range(1, 6)]
    return [row["caption"] for row in rows]


@pytest.mark.slow
def test_every_reference_count(golden, shared_dir):
    metadata = shared_dir / "metadata"
    checked = 0
    for case in golden:
        if "text" in case:
            texts = case["text"]
        else:
            texts = [
                text for name in files_of(case["corpus"]) for text in captions_of(metadata, name)
            ]
        for tokenisation in TOKENISATIONS:
            assert diversity(texts, tokenisation) == case[tokenisation], (
                case.get("corpus"),
                tokenisation,
            )
            checked += 1
    assert checked == 2 * len(golden) > 10


def naive(texts, order):
    grams = [
        tuple(words[i : i + order])
        for words in map(tokenise, texts)
        for i in range(len(words) - order + 1)
    ]
    return len(grams), len(set(grams))


def test_chunks_do_not_matter(monkeypatch):
    texts = [
        f"the {a} dog {b} barks, isn't it" if a % 3 else "" for a in range(20) for b in range(7)
    ]
    whole = diversity(texts)
    monkeypatch.setattr("captionstew.corpora.build.diversity.CHUNK", 3)
    monkeypatch.setattr("captionstew.corpora.build.diversity.COMPACT_AT", 10)
    assert diversity(texts) == whole
    for order in (1, 2, 3, 4):
        assert (whole[f"ngrams{order}"], whole[f"unique{order}"]) == naive(texts, order)


def test_nothing_and_short_texts():
    assert diversity([])["mean_length"] == 0.0 and diversity([])["distinct1"] is None
    assert diversity(["one"])["distinct2"] is None and diversity(["one"])["vocabulary"] == 1
    with pytest.raises(ValueError, match="none of words, whitespace"):
        tokenise("a", "characters")
