"""Captions of clips, their scores, and the baselines."""

import json

import numpy as np
import pytest
import torch

from captionstew.evaluation.captioning import (
    CaptionedClips,
    caption_clips,
    captioning_report,
    captioning_validation,
    most_frequent_caption,
    read_captioned,
)
from captionstew.evaluation.metrics.caption_scores import rouge_l_per_clip
from captionstew.models.captioning import CaptioningModel, token_losses
from captionstew.models.text_decoder import build_text_decoder
from zipformer import Zipformer

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_config, tokenizer):
    torch.manual_seed(0)
    model = CaptioningModel(
        Zipformer(tiny_config), build_text_decoder("tiny", tokenizer, 23)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@pytest.fixture
def batches(make_batch):
    """Two batches, the clips of the second before those of the first by id, and an empty one."""
    empty = {"cut_ids": [], "failed": [("clip-99", "broken")]}
    found = [make_batch(5, 3), empty, make_batch(0, 4)]
    for batch in (found[0], found[2]):
        batch["all_captions"] = [[text, text + " again"] for text in batch["captions"]]
    return found


def test_every_clip_gets_a_caption_in_the_order_of_the_ids(model, batches, tokenizer, tmp_path):
    clips = caption_clips(model, batches, tokenizer, 24, CPU)
    assert clips.cut_ids == [f"clip-{n}" for n in range(4)] + [f"clip-{n}" for n in (5, 6, 7)]
    assert clips.failed == [("clip-99", "broken")]
    with torch.no_grad():
        memory = model.encode_audio(batches[2]["features"], batches[2]["feature_lengths"])
        own = tokenizer.decode(model.decoder.generate(*memory, 1, 24))
    assert clips.candidates[:4] == [" ".join(text.split()) for text in own]
    assert clips.references[4] == batches[0]["all_captions"][0]
    clips.write(tmp_path / "results" / "a.jsonl")
    rows = [
        json.loads(line) for line in (tmp_path / "results" / "a.jsonl").read_text().splitlines()
    ]
    assert rows[4] == {
        "cut_id": "clip-5",
        "candidate": clips.candidates[4],
        "references": clips.references[4],
    }


def test_validation_gives_both_losses_of_every_clip(model, batches, tokenizer):
    metrics, captions = captioning_validation(model, batches, tokenizer, 24, 5, CPU)
    sums, tokens = [0.0, 0.0], 0
    for batch in (batches[0], batches[2]):
        ids, lengths = tokenizer.encode(batch["captions"], 24)
        tokens += int((lengths - 1).sum())
        for mode in (0, 1):
            modes = torch.full((len(ids),), bool(mode))
            with torch.no_grad():
                logits = model(batch["features"], batch["feature_lengths"], ids, lengths, modes)
            sums[mode] += float(token_losses(logits, ids, lengths).sum())
    for name, value in zip(("autoregressive", "parallel"), sums):
        assert metrics[name] == pytest.approx(value / 7, rel=1e-5)
        assert metrics[f"{name}_per_token"] == pytest.approx(value / tokens, rel=1e-5)
    assert len(captions.cut_ids) == 5
    expected = rouge_l_per_clip(captions.candidates, captions.references).mean()
    assert metrics["rouge_l"] == pytest.approx(expected)


def test_validation_without_clips_says_nothing_of_rouge(model, tokenizer):
    metrics, captions = captioning_validation(model, [], tokenizer, 24, 5, CPU)
    assert "rouge_l" not in metrics and captions.cut_ids == []


def test_the_report_holds_scores_baselines_and_intervals(captions):
    known = [*captions, "rain falls", "Rain  falls"]
    references = [[text] for text in captions]
    right = captioning_report(
        CaptionedClips([f"{n}" for n in range(48)], list(captions), references), known, seed=1
    )
    assert right["rouge_l"] == pytest.approx(1.0) and right["distinct_captions"] == 1.0
    assert right["rouge_l_frequent"] == pytest.approx(
        rouge_l_per_clip(["rain falls"] * 48, references).mean()
    )
    low, high = right["rouge_l_random_interval"]
    assert low < right["rouge_l_random"] < high < right["rouge_l"] and {
        "cider",
        "bleu_4",
        "rouge_l_hf",
    } < set(right)
    # an independent estimate of what a random caption scores: all pairs
    pairs = [rouge_l_per_clip([text] * 48, references).mean() for text in known]
    assert right["rouge_l_random"] == pytest.approx(np.mean(pairs), abs=0.03)
    assert right["rouge_l_shuffled"] == pytest.approx(np.mean(pairs[:48]), abs=0.03)
    same = captioning_report(
        CaptionedClips([f"{n}" for n in range(48)], ["rain falls"] * 48, references), known, 1
    )
    assert same["rouge_l"] == pytest.approx(right["rouge_l_frequent"])
    assert same["rouge_l_shuffled"] == pytest.approx(same["rouge_l"])
    assert (
        same["rouge_l_interval"] == right["rouge_l_frequent_interval"]
        and same["distinct_captions"] == 1 / 48
    )


def test_captions_of_two_test_sets_are_joined(tmp_path):
    first = CaptionedClips(["a", "b"], ["rain", "wind"], [["rain falls"], ["wind blows", "wind"]])
    CaptionedClips(["c"], ["snow"], [["snow"]]).write(tmp_path / "other.jsonl")
    other = read_captioned(tmp_path / "other.jsonl")
    both = first.joined(other)
    assert both.cut_ids == ["a", "b", "c"] and both.candidates == ["rain", "wind", "snow"]
    assert both.references[2] == ["snow"]
    (tmp_path / "other.jsonl").write_text('{"cut_id": "a"}\n')
    with pytest.raises(ValueError, match="other.jsonl:1: not a caption"):
        read_captioned(tmp_path / "other.jsonl")


def test_the_most_frequent_caption():
    assert most_frequent_caption(["b", "A dog", "a  dog", "b", "A DOG", "c"]) == "a dog"
    assert most_frequent_caption(["z", "b", "c"]) == "b"
