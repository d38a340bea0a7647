"""Caption metrics equal pycocoevalcap and rouge-score, and worked cases."""

import csv
import importlib.util
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from captionstew.corpora.release import open_text
from captionstew.evaluation.metrics.caption_scores import (
    bleu,
    caption_scores,
    caption_units,
    cider,
    longest_common_subsequence,
    rouge_l_coco,
    rouge_l_hf,
    rouge_l_per_clip,
)
from captionstew.evaluation.metrics.ptb_tokenizer import ptb_tokenize

EXACT = 1e-9


def split_case(case, key):
    return [row["hyp"] for row in case[key]], [row["refs"] for row in case[key]]


def test_coco_metrics_equal_the_reference(metric_golden, full_golden):
    cases = metric_golden("captions.json")
    assert len(cases) > (20 if full_golden else 15)
    for name, case in cases.items():
        candidates, references = split_case(case, "tokenised")
        golden = case["coco"]
        assert rouge_l_coco(candidates, references) == pytest.approx(
            golden["rouge_l_each"], abs=EXACT
        ), name
        assert np.mean(rouge_l_coco(candidates, references)) == pytest.approx(
            golden["rouge_l"], abs=EXACT
        ), name
        assert bleu(candidates, references) == pytest.approx(golden["bleu"], abs=EXACT), name
        assert cider(candidates, references) == pytest.approx(golden["cider_each"], abs=EXACT), name
        assert np.mean(cider(candidates, references)) == pytest.approx(
            golden["cider"], abs=EXACT
        ), name
        each = np.array([bleu([own], [others]) for own, others in zip(candidates, references)]).T
        assert each == pytest.approx(np.array(golden["bleu_each"]), abs=EXACT), name


def test_rouge_score_equals_the_reference(metric_golden):
    for name, case in metric_golden("captions.json").items():
        candidates, references = split_case(case, case["rouge_score_on"])
        for kind, stem in (("plain", False), ("stemmed", True)):
            scores = rouge_l_hf(candidates, references, use_stemmer=stem)
            assert scores == pytest.approx(
                [row[kind]["best_f"] for row in case["rouge_score"]], abs=EXACT
            ), name
            assert scores.mean() == pytest.approx(case["rouge_score_mean"][kind], abs=EXACT), name


def test_scores_of_real_captions_from_their_text(metric_golden, full_golden):
    cases = {name: case for name, case in metric_golden("captions.json").items() if "raw" in case}
    if not full_golden:
        pytest.skip("reference data not found: captions as written are in the full set alone")
    assert len(cases) >= 5
    for name, case in cases.items():
        candidates, references = split_case(case, "raw")
        scores = caption_scores(candidates, references)
        assert (
            scores["rouge_l"]
            == scores["rouge_l_coco"]
            == pytest.approx(case["coco"]["rouge_l"], abs=EXACT)
        ), name
        assert scores["rouge_l_hf"] == pytest.approx(
            case["rouge_score_mean"]["plain"], abs=EXACT
        ), name
        assert [scores[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(
            case["coco"]["bleu"], abs=EXACT
        ), name
        assert scores["cider"] == pytest.approx(case["coco"]["cider"], abs=EXACT), name
        assert rouge_l_per_clip(candidates, references) == pytest.approx(
            case["coco"]["rouge_l_each"], abs=EXACT
        )


def test_words_equal_stanfords(metric_golden, full_golden):
    cases = metric_golden("ptb.json")
    wrong = [case["text"] for case in cases if ptb_tokenize(case["text"]) != case["tokens"]]
    assert len(cases) > (250 if full_golden else 20) and not wrong


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A dog barks, then a man says: 'Hello!'", "a dog barks then a man says hello"),
        ("The speaker’s low-pitched voice can't be heard (50% noise)...", None),
        ("  ", ""),
        ("Dr. Who, at 4/4 and 84.5 bpm.", "dr. who at 4/4 and 84.5 bpm"),
        ("rain \U0001f327 falls", "rain falls"),
        ("one\ttwo\nthree", "one two three"),
    ],
)
def test_words(caption, words):
    expected = (
        "the speaker 's low-pitched voice ca n't be heard -lrb- 50 % noise -rrb-"
        if words is None
        else words
    )
    assert ptb_tokenize(caption) == expected


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("This is instrumental.The end", "this is instrumental.the end"),
        ("what!no, what?no. c.h.e.e.s.e", "what!no what?no c.h.e.e.s.e"),
        ("He's.And d.j.-ing, speed.and-then", "he 's and d.j.-ing speed.and-then"),
        ("dog barks.. then .... and .....", "dog barks then and"),
        ("a c# major, f#3, a g#4, the g#major", "a c# major f# 3 a g # 4 the g #major"),
        ("push 'em, an 'emotional mood 'cause", "push 'em an 'em otional mood 'cause"),
        ("dogs, cats, etc. (rain, etc.)", "dogs cats etc. -lrb- rain etc. -rrb-"),
        ("no. 3, no. Then ca. 5", "no. 3 no then ca. 5"),
        ("so do I. The dog, plan b. x, by J. Smith", "so do i the dog plan b. x by j. smith"),
        ("on Mon. or so., and Mass. in mass.", "on mon. or so. and mass. in mass"),
        ("the crowd's欢呼声 is loud, crowd’s too", "the crowd 's 欢呼声 is loud crowd 's too"),
        ("y'know, y’know, d'you, O’Brien, 8 o’clock", "y' know y’ know d'you o’brien 8 o’clock"),
        ("don't-don't, c'mon; a '70s song", "do n't do n't c'mon a '70s song"),
        ("hip-hop/rap, post-grunge/pop at .5 or -40", "hip-hop/rap post-grunge/pop at .5 or -40"),
        ("It works :) or :D", "it works :-rrb- or :d"),
        ("He has a Ph.D. in R&B", "he has a ph.d. in r&b"),
    ],
)
def test_words_as_stanford_counts_them(caption, words):
    assert ptb_tokenize(caption) == words


def real_captions(folder):
    """Every caption and sentence of the metadata of real releases, each once."""
    key = re.compile("caption|description|utterance|value|transcript|text|sentence", re.I)

    def strings(value, name=""):
        if isinstance(value, dict):
            for inner, content in value.items():
                yield from strings(content, str(inner))
        elif isinstance(value, list):
            for content in value:
                yield from strings(content, name)
        elif isinstance(value, str) and key.search(name):
            yield " ".join(value.split())

    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.name.removesuffix(".gz")
        if name.endswith((".csv", ".json", ".jsonl")):
            with open_text(path) as stream:
                if name.endswith(".csv"):
                    rows = list(csv.DictReader(stream))
                elif name.endswith(".json"):
                    rows = json.load(stream)
                else:
                    rows = [json.loads(line) for line in stream]
            found.update(dict.fromkeys(strings(rows)))
    return [caption for caption in found if caption]


@pytest.mark.slow
def test_words_of_all_real_captions_equal_stanfords(shared_dir, tmp_path):
    """Where Java and the tokeniser's archive are there: all but five captions split alike."""
    package = importlib.util.find_spec("pycocoevalcap")
    if shutil.which("java") is None or package is None:
        pytest.skip("needs java and `pip install --no-deps pycocoevalcap`")
    (archive,) = Path(package.submodule_search_locations[0]).glob("tokenizer/*.jar")
    captions = real_captions(shared_dir / "metadata")
    assert len(captions) > 131_602
    # A line between them, since Stanford's looks at the beginning of the next one.
    (tmp_path / "captions").write_text("\nnext\n".join(captions), encoding="utf-8")
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(archive)]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    shown = subprocess.run([*command, str(tmp_path / "captions")], capture_output=True, check=True)
    lines = shown.stdout.decode().split("\n")[::2]
    dropped = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
    different = []
    for caption, line in zip(captions, lines, strict=True):
        expected = " ".join(word for word in line.split() if word not in dropped)
        if ptb_tokenize(caption) != expected:
            different.append((caption, expected))
    assert len(different) <= 5, different[:20]


CHINESE = ["一只狗在叫，然后下雨。", "人们在大厅里鼓掌。", "汽车驶过湿滑的街道。"]
JAPANESE = ["犬が二回吠えます。", "カフェで音楽が流れる", "雨の中を車が走る。"]
THAI = ["สุนัขเห่าสองครั้ง", "ฝนตกบนหลังคา", "คนปรบมือในห้องโถง"]


@pytest.mark.parametrize("captions", [CHINESE, JAPANESE, THAI])
def test_scripts_without_blanks_count_characters(captions, caplog):
    references = [[caption] for caption in captions]
    assert caption_units(references) == "characters"
    same = caption_scores(captions, references)
    assert "count characters" in caplog.text
    assert all(same[name] == pytest.approx(1) for name in same if name != "cider")
    assert same["cider"] == pytest.approx(10)
    changed = [captions[0][:5] + captions[1][3:], *captions[1:]]
    part = caption_scores(changed, references)
    assert all(0 < part[name] < same[name] for name in same)
    other = caption_scores([captions[1], captions[2], captions[0]], references)
    assert other["bleu_4"] < 0.1 and other["rouge_l_hf"] < 0.5


def test_captions_of_other_alphabets_count_words():
    russian = ["Собака громко лает", "Дождь стучит по крыше"]
    scores = caption_scores(russian, [[text] for text in russian])
    assert caption_units([[text] for text in russian]) == "words"
    assert scores["rouge_l_hf"] == scores["rouge_l"] == pytest.approx(1)


def test_some_foreign_letters_in_english_captions_change_nothing(caplog):
    references = [["a crowd's 欢呼声 is heard"], ["rain falls"]]
    assert caption_units(references) == "words"
    assert caption_scores(["a crowd 欢呼", "rain"], references)["rouge_l"] < 0.6
    assert not caplog.text


def test_worked_rouge_l():
    """Of `a dog barks`, `a dog is barking` keeps two words in order: P = 2/3, R = 2/4. `dog`: P =
    1/3, R = 1.

    The best P is 2/3 and the best R is 1, so F = 2.44 x 2/3 / (1 + 1.44 x 2/3) = 0.8299...; F1 of
    the first reference alone is 4/7 and of the second 1/2.
    """
    scores = caption_scores(["A dog barks."], [["A dog is barking", "Dog"]])
    assert scores["rouge_l"] == pytest.approx(2.44 * 2 / 3 / (1 + 1.44 * 2 / 3))
    assert scores["rouge_l_hf"] == pytest.approx(4 / 7)


def test_worked_bleu_and_cider():
    """`the the the` against `the cat`: one of three unigrams counts, no bigram. CIDEr of one clip
    is 0.
    """
    scores = caption_scores(["the the the"], [["the cat"]])
    assert scores["bleu_1"] == pytest.approx(1 / 3) and scores["bleu_2"] == pytest.approx(
        0, abs=1e-6
    )
    assert scores["cider"] == 0.0
    short = caption_scores(["rain"], [["rain falls on tin"]])
    assert short["bleu_1"] == pytest.approx(math.exp(1 - 4))
    # Two clips of one word each, told apart by it: the cosine of unigrams is 1, there are no longer
    # n-grams.
    assert caption_scores(["dog", "rain"], [["dog"], ["rain"]])["cider"] == pytest.approx(10 / 4)


def test_longest_common_subsequence_equals_the_table():
    generator = np.random.default_rng(0)
    for _ in range(50):
        first, second = (
            list(map(str, generator.integers(0, 4, generator.integers(0, 80)))) for _ in range(2)
        )
        table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                table[i + 1, j + 1] = (
                    table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
                )
        assert longest_common_subsequence(first, second) == table[-1, -1]


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ([], [], "0 captions cannot be scored"),
        (["a"], [["a"], ["b"]], "1 captions cannot be scored against the references of 2"),
        (["a", "b"], [["a"], []], "clip 1: expected a list"),
        (["a"], ["a"], "clip 0: expected a list"),
    ],
)
def test_what_cannot_be_scored(candidates, references, message):
    for score in (caption_scores, rouge_l_per_clip):
        with pytest.raises(ValueError, match=message):
            score(candidates, references)
