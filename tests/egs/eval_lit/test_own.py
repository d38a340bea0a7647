"""Retrieval by a system's own two towers: a contrastive checkpoint, or vectors from files."""

import json

import numpy as np
import pytest
import torch

from captionstew.checkpoint import save_checkpoint
from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.tokenizer import load_tokenizer
from captionstew.models.contrastive import build_contrastive
from captionstew.models.encoders.stored import save_embeddings
from zipformer import ZipformerConfig

OWN = "egs/eval_lit/retrieval/own.py"
METRICS = {
    "text_to_audio_r1",
    "text_to_audio_map10",
    "audio_to_text_r10",
    "audio_to_text_r1_interval",
}


@pytest.fixture
def vectors(mini_data, tmp_path):
    """vectors(mistaken=n) -> files for the test clips, where n captions have the vector of the next
    clip.
    """

    def write(mistaken=0, captions=None):
        cuts = list(open_cuts(mini_data / "cuts_test.jsonl"))
        generator = np.random.default_rng(0)
        audio = generator.normal(size=(len(cuts), 32))
        ids, text = [], []
        for clip, cut in enumerate(cuts):
            for number in range(len(cut.supervisions[0].custom["captions"])):
                shown = (clip + 1) % len(cuts) if len(ids) < mistaken else clip
                ids.append(f"{cut.id}#{number}")
                text.append(5 * audio[shown])  # of another length: what counts is the angle
        files = tmp_path / "audio.npz", tmp_path / "text.npz"
        save_embeddings(files[0], [cut.id for cut in cuts], audio)
        save_embeddings(files[1], ids[:captions], np.array(text)[:captions])
        return ["--audio-embeddings", files[0], "--text-embeddings", files[1]], len(ids)

    return write


def flags_of(mini_data, tmp_path):
    return ["--manifest", mini_data / "cuts_test.jsonl", "--exp-dir", tmp_path / "exp"]


def result_of(mini_data, tmp_path):
    name = f"own_retrieval_{mini_data.name}-test-strict.json"
    return json.loads((tmp_path / "exp" / "results" / name).read_text())


@pytest.mark.slow
def test_stored_vectors_are_ranked_by_their_angle(program, mini_data, vectors, tmp_path):
    files, captions = vectors(mistaken=3)
    program(OWN, *files, *flags_of(mini_data, tmp_path), "--system", "other")
    result = result_of(mini_data, tmp_path)
    assert (
        result["system"] == "other"
        and result["num_captions"] == captions
        and result["num_clips"] == 18
    )
    assert result["metrics"].keys() >= METRICS
    assert result["metrics"]["text_to_audio_r1"] == pytest.approx(1 - 3 / captions)


@pytest.mark.slow
def test_a_caption_without_a_vector_is_named(program, mini_data, vectors, tmp_path):
    files, captions = vectors(captions=-1)
    done = program(OWN, *files, *flags_of(mini_data, tmp_path), check=False)
    assert done.returncode == 1 and f"no vector for 1 of {captions} clips" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_source_of_vectors_is_needed(program, tmp_path):
    for given in (
        [],
        ["--audio-embeddings", "a.npz"],
        ["--checkpoint", "a.pt", "--text-embeddings", "b.npz"],
    ):
        done = program(OWN, *given, "--exp-dir", tmp_path, check=False)
        assert done.returncode == 2 and "give either --checkpoint, or both" in done.stderr


@pytest.mark.slow
def test_both_towers_of_a_checkpoint(program, mini_data, tmp_path):
    tokenizer = load_tokenizer(str(mini_data / "bpe.model"))
    encoder = ZipformerConfig(
        downsampling_factor=(1, 2), encoder_dim=(16, 32), num_encoder_layers=1,
        encoder_unmasked_dim=(16, 24), query_head_dim=8, value_head_dim=4, num_heads=2,
        feedforward_dim=(32, 48), cnn_module_kernel=7, pos_dim=12, frontend_channels=(2, 4, 8),
    )  # fmt: skip
    config = {
        "task": "contrastive", "preset": "tiny", "encoder": encoder.to_dict(), "fbank": {},
        "text_tower": "tiny", "embedding_dim": 16, "temperature": 0.07, "max_caption_tokens": 32,
        "tokenizer": tokenizer.to_dict(),
    }  # fmt: skip
    torch.manual_seed(0)
    content = {"model": build_contrastive(config, tokenizer).state_dict(), "config": config}
    save_checkpoint(tmp_path / "a.pt", content)
    program(OWN, "--checkpoint", tmp_path / "a.pt", *flags_of(mini_data, tmp_path))
    result = result_of(mini_data, tmp_path)
    assert result["metrics"].keys() >= METRICS and result["encoder"]["pretraining"] == "contrastive"

    save_checkpoint(tmp_path / "b.pt", content | {"config": config | {"task": "captioning"}})
    done = program(
        OWN, "--checkpoint", tmp_path / "b.pt", *flags_of(mini_data, tmp_path), check=False
    )
    assert (
        done.returncode == 1
        and "trained for captioning" in done.stderr
        and "Traceback" not in done.stderr
    )
