"""Examples to listen to: what is written, read again and shown."""

import json
import re

import numpy as np
import pytest
import soundfile

from captionstew.data.audio import inspect_audio
from captionstew.data.manifests.cuts import make_cut, open_cuts, write_cuts
from captionstew.evaluation.report.examples import (
    Example,
    best_captions,
    choose_examples,
    examples_of_cuts,
    read_examples,
    write_examples,
)
from captionstew.evaluation.report.page import example_card
from captionstew.evaluation.retrieval import EmbeddedClips

RATE = 16000


@pytest.fixture
def cuts(write_sounds, tmp_path):
    folder = write_sounds(
        {f"{number}.wav": (0.5 + number / 10, 300 + number) for number in range(4)}
    )
    made = [
        make_cut(x.name, x, inspect_audio(x), [f"tone {x.stem}"], ["tones"])
        for x in sorted(folder.iterdir())
    ]
    write_cuts(tmp_path / "cuts_test.jsonl", made)
    return open_cuts(tmp_path / "cuts_test.jsonl")


def sound(seconds):
    return np.sin(np.arange(int(seconds * RATE)) / 10)


def test_written_and_read_again(tmp_path, capsys):
    path = write_examples(tmp_path, "ours", [Example("../../x", sound(30), RATE, ["a", "b"], "c")])
    assert "1 clips to listen to" in capsys.readouterr().out and path == tmp_path / "examples.jsonl"
    (files,) = (tmp_path / "examples").iterdir()
    assert re.fullmatch(r"[0-9a-f]{12}\.mp3", files.name) and files.stat().st_size < 150_000
    assert soundfile.info(files).duration == pytest.approx(10, abs=0.2)
    ((cut_id, (row,)),) = read_examples(tmp_path).items()
    assert cut_id == "../../x" and row["audio"] == files.resolve() and row["captions"] == ["a", "b"]
    assert row["generated"] == "c" and row["retrieved"] == [] and row["system"] == "ours"


def test_systems_show_the_same_clips():
    ids = [f"cut{number}" for number in range(100)]
    assert choose_examples(ids) == choose_examples(reversed(ids)) != ids[:8]
    assert set(choose_examples(ids[:50], 3)) & set(choose_examples(ids, 20)) == set(
        choose_examples(ids[:50], 3)
    )


def test_best_captions_of_a_clip():
    text = np.eye(3)[[0, 1, 2, 0]]
    clips = EmbeddedClips(
        np.array([[0.9, 0.5, 0], [0, 0.1, 1]]), text, [0, 0, 1, 1], list("abcd"), [], [], ["x", "y"]
    )
    best = best_captions(clips)
    assert [(one.caption, one.own) for one in best["x"]] == [
        ("a", True),
        ("d", False),
        ("b", True),
        ("c", False),
    ]
    assert best["y"][0].caption == "c" and best["y"][0].score == pytest.approx(1.0)


def test_examples_of_a_manifest(cuts):
    generated = {cut.id: f"caption {number}" for number, cut in enumerate(cuts)}
    examples = examples_of_cuts(cuts, generated=generated, number=2)
    assert {example.cut_id for example in examples} == set(choose_examples(generated, 2))
    for example in examples:
        cut = next(cut for cut in cuts if cut.id == example.cut_id)
        assert (
            example.captions == cut.supervisions[0].custom["captions"]
            and example.generated == generated[cut.id]
        )
        assert len(example.waveform) == pytest.approx(cut.duration * RATE, abs=RATE // 100)


@pytest.mark.parametrize("line", ["{", "[]", '{"cut_id": "a"}', None])
def test_broken_lines_are_named(tmp_path, line):
    path = write_examples(tmp_path, "ours", [Example("x", sound(1), RATE, ["a"])])
    row = json.loads(path.read_text())
    outside = tmp_path.parent / "outside.mp3"
    outside.write_bytes(b"")
    path.write_text(line or json.dumps(row | {"audio": "../outside.mp3"}))
    with pytest.raises(
        ValueError, match=r"examples\.jsonl, line 1: not an example .* decode again"
    ):
        read_examples(tmp_path)


def test_captions_cannot_leave_their_place(tmp_path):
    bad = '<script>alert("1")</script>'
    write_examples(tmp_path, bad, [Example(bad, sound(1), RATE, [bad], bad)])
    ((cut_id, rows),) = read_examples(tmp_path).items()
    card = example_card(cut_id, rows)
    assert "<script" not in card and card.count("&lt;script&gt;") == 4
