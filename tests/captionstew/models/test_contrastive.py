"""The symmetric InfoNCE loss, alone and over processes, and the two towers."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from captionstew.checkpoint import CheckpointError
from captionstew.models.contrastive import (
    MAX_LOGIT_SCALE,
    build_contrastive,
    caption_keys,
    info_nce,
    load_contrastive,
)
from zipformer import ZipformerConfig


def naive_info_nce(audio, text, scale, captions=None):
    """Equation 1 with loops and float64: both directions, summed over the clips."""
    losses = [0.0, 0.0]
    for direction, (queries, items) in enumerate([(audio, text), (text, audio)]):
        for i in range(len(queries)):
            terms = []
            for j in range(len(items)):
                duplicate = captions is not None and j != i and captions[j] == captions[i]
                if not duplicate:
                    terms.append(math.exp(scale * float(queries[i] @ items[j])))
            losses[direction] -= math.log(
                math.exp(scale * float(queries[i] @ items[i])) / sum(terms)
            )
    return losses


def unit_vectors(count, dim, seed):
    x = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=-1)


@pytest.mark.parametrize(
    "captions", [None, list("abcabd")], ids=["all negatives", "duplicates ignored"]
)
def test_info_nce_equals_the_formula(captions):
    audio, text, scale = (
        unit_vectors(6, 5, 0),
        unit_vectors(6, 5, 1),
        torch.tensor(9.0, dtype=torch.float64),
    )
    keys = None if captions is None else caption_keys(captions, torch.device("cpu"))
    ours = info_nce(audio, text, scale, keys)
    for value, expected in zip(ours, naive_info_nce(audio, text, 9.0, captions)):
        assert value.item() == pytest.approx(expected, rel=1e-12)


def test_duplicates_ignored_changes_the_loss():
    audio, text, scale = (
        unit_vectors(6, 5, 0),
        unit_vectors(6, 5, 1),
        torch.tensor(9.0, dtype=torch.float64),
    )
    keys = caption_keys(list("abcabd"), torch.device("cpu"))
    assert sum(info_nce(audio, text, scale, keys)) < sum(info_nce(audio, text, scale))
    different = caption_keys(list("abcdef"), torch.device("cpu"))
    assert torch.equal(
        sum(info_nce(audio, text, scale, different)), sum(info_nce(audio, text, scale))
    )


def test_a_batch_of_one_caption_costs_nothing():
    audio, text = unit_vectors(4, 5, 0), unit_vectors(4, 5, 1)
    keys = caption_keys(["Rain  falls"] * 3 + ["rain falls"], torch.device("cpu"))
    assert len(set(keys.tolist())) == 1
    assert sum(info_nce(audio, text, torch.tensor(5.0, dtype=torch.float64), keys)) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("ignore", [True, False], ids=["duplicates ignored", "all negatives"])
def test_two_processes_equal_one(tmp_path, free_port, tiny_task_config, make_batch, ignore):
    """5 + 3 clips on two processes give the loss and the gradients of 8 clips on one, negatives
    included.
    """
    batch = make_batch(0, 8, longest=90)
    batch["captions"][6] = batch["captions"][1]  # the same caption on both processes
    encoder = dataclasses.replace(
        ZipformerConfig.from_dict(tiny_task_config["encoder"]), batch_invariant=True
    )
    config = tiny_task_config | {"encoder": encoder.to_dict()}
    torch.save({"batch": batch, "config": config, "ignore": ignore}, tmp_path / "batch.pt")
    program = Path(__file__).with_name("half_batches.py")
    for world_size in ("1", "2"):
        subprocess.run(
            [sys.executable, program, tmp_path, world_size, str(free_port())], check=True
        )
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert first["loss"] + second["loss"] == pytest.approx(one["loss"], rel=1e-5)
    # DistributedDataParallel leaves the sum of both losses' gradients on both processes.
    assert first["gradients"].keys() == second["gradients"].keys() == one["gradients"].keys()
    for name, expected in one["gradients"].items():
        assert torch.equal(first["gradients"][name], second["gradients"][name]), name
        error = (first["gradients"][name] - expected).abs().max()
        assert error <= 1e-4 * expected.abs().max() + 1e-6, (
            f"{name}: {error:.3g} of {expected.abs().max():.3g}"
        )
    halves = [naive_loss(config, batch, rows) for rows in (slice(0, 5), slice(5, None))]
    assert sum(halves) < 0.9 * one["loss"], "the other process's clips are no negatives"


def naive_loss(config, batch, rows):
    """Loss of some clips on their own, evaluation mode (only its size matters here)."""
    from captionstew.data.tokenizer import tokenizer_from_dict

    tokenizer = tokenizer_from_dict(config["tokenizer"])
    torch.manual_seed(0)
    model = build_contrastive(config, tokenizer).eval()
    with torch.no_grad():
        ids = tokenizer.encode(batch["captions"][rows], 32)
        audio, text, scale = model(batch["features"][rows], batch["feature_lengths"][rows], *ids)
        return 0.5 * sum(info_nce(audio, text, scale)).item()


def test_embeddings_are_unit_vectors_and_the_scale_is_bounded(
    tiny_model, tokenizer, make_batch, captions
):
    batch = make_batch(0, 4)
    ids, lengths = tokenizer.encode(batch["captions"], 32)
    tiny_model.eval()
    with torch.no_grad():
        audio, text, scale = tiny_model(batch["features"], batch["feature_lengths"], ids, lengths)
        assert audio.shape == text.shape == (4, 16)
        assert torch.allclose(audio.norm(dim=1), torch.ones(4)) and torch.allclose(
            text.norm(dim=1), torch.ones(4)
        )
        assert scale.item() == pytest.approx(1 / 0.07)
        tiny_model.logit_scale.fill_(MAX_LOGIT_SCALE + 1)
        assert tiny_model(batch["features"], batch["feature_lengths"], ids, lengths)[
            2
        ].item() == pytest.approx(100)


def test_loaded_models_are_batch_invariant(tiny_model, tiny_task_config, tokenizer, make_batch):
    loaded = load_contrastive(tiny_task_config, tiny_model.state_dict(), tokenizer, "a.pt")
    assert not loaded.training and loaded.encoder.config.batch_invariant
    batch = make_batch(0, 3)
    with torch.no_grad():
        together = loaded.embed_audio(batch["features"], batch["feature_lengths"])
        for row, length in enumerate(batch["feature_lengths"]):
            alone = loaded.embed_audio(
                batch["features"][row : row + 1, :length], length.unsqueeze(0)
            )
            torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-5)
    with pytest.raises(CheckpointError, match="missing: logit_scale"):
        weights = {
            name: value for name, value in tiny_model.state_dict().items() if name != "logit_scale"
        }
        load_contrastive(tiny_task_config, weights, tokenizer, "a.pt")


def test_padding_does_not_change_a_text_vector(tiny_model, tokenizer, captions):
    tiny_model.eval()
    texts = ["dog", *captions[:3], " and ".join(captions[:2])]
    ids, lengths = tokenizer.encode(texts, 64)
    with torch.no_grad():
        together = tiny_model.embed_text(ids, lengths)
        other_padding = ids.masked_fill(
            torch.arange(ids.size(1)) >= lengths.unsqueeze(1), tokenizer.mask_id
        )
        torch.testing.assert_close(
            tiny_model.embed_text(other_padding, lengths), together, rtol=0, atol=1e-6
        )
        for row, text in enumerate(texts):
            alone = tiny_model.embed_text(*tokenizer.encode([text], 64))
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 0.01
