"""The baselines against their originals: same numbers, every weight accounted for."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from captionstew.checkpoint import CheckpointError
from captionstew.errors import UserError
from captionstew.models.encoders.load import load_encoder

SPEECH = ("wav2vec2", "wav2vec2-large", "hubert", "hubert-large", "wavlm", "mert")


def noise(seconds, sampling_rate):
    generator = torch.Generator().manual_seed(1)
    return 0.3 * torch.randn(round(seconds * sampling_rate), generator=generator) + 0.05


@pytest.fixture
def copy_of(small_encoder, tmp_path):
    """copy_of("hubert") -> a folder of one's own with that small encoder."""
    return lambda kind: shutil.copytree(small_encoder(kind), tmp_path / kind)


@pytest.mark.parametrize("kind", SPEECH)
def test_speech_models_equal_transformers(kind, small_encoder):
    """Library's own pre-processing and forward of the whole model on one clip, which therefore has
    no padding.
    """
    from transformers import (
        HubertConfig,
        HubertModel,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Model,
        WavLMModel,
    )

    folder = small_encoder(kind)
    encoder = load_encoder(folder)
    if kind == "mert":  # the original's class is a HubertModel under another name
        settings = json.loads((folder / "config.json").read_text())
        model = HubertModel(HubertConfig.from_dict(settings))
        model.load_state_dict(torch.load(folder / "pytorch_model.bin", weights_only=True))
    else:
        classes = {"wav2vec2": Wav2Vec2Model, "hubert": HubertModel, "wavlm": WavLMModel}
        model = classes[kind.removesuffix("-large")].from_pretrained(folder)
    clip = noise(1.3, encoder.sampling_rate)
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    values = extractor(
        clip.numpy(), sampling_rate=encoder.sampling_rate, return_tensors="pt"
    ).input_values
    with torch.inference_mode():
        expected = model.eval()(values).last_hidden_state
    frames, lengths = encoder(clip.unsqueeze(0), [len(clip)])
    assert frames.shape == expected.shape and lengths.tolist() == [expected.size(1)]
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=1e-5)


def test_mert_runs_at_24_kilohertz_with_75_frames(small_encoder):
    encoder = load_encoder(small_encoder("mert"))
    assert (encoder.sampling_rate, encoder.frame_rate, encoder.description["preset"]) == (
        24_000,
        75.0,
        "mert",
    )


@pytest.mark.parametrize("option", ["feature_extractor_cqt", "deepnorm"])
def test_mert_options_that_change_the_network_are_refused(option, copy_of):
    folder = copy_of("mert")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {option: True}))
    with pytest.raises(CheckpointError, match=f"MERT with {option} is another network"):
        load_encoder(folder)


@pytest.mark.parametrize("kind", ["hubert", "mert", "wav2vec2", "clap"])
def test_every_weight_is_accounted_for(kind, copy_of):
    folder = copy_of(kind)
    if kind == "mert":
        weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    else:
        weights = load_file(folder / "model.safetensors")

    def load_with(changed):
        if kind == "mert":
            torch.save(changed, folder / "pytorch_model.bin")
        else:
            save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        return load_encoder(folder)

    part = "batch_norm.weight" if kind == "clap" else "encoder.layers.1.attention.k_proj.weight"
    key = next(key for key in weights if key.endswith(part))
    name = key.removeprefix("wav2vec2.")
    with pytest.raises(CheckpointError, match=rf"do not fit config\.json; 1 missing: {name}"):
        load_with({other: value for other, value in weights.items() if other != key})
    with pytest.raises(CheckpointError, match=rf"1 of another shape: {name}"):
        load_with(weights | {key: torch.zeros(7, 5)})
    more = key.replace("layers.1", "layers.2").replace("batch_norm.weight", "batch_norm.scale")
    with pytest.raises(CheckpointError, match=r"1 unexpected: .*(layers\.2|scale)"):
        load_with(weights | {more: torch.zeros(2)})
    load_with(weights | {"classifier.weight": torch.zeros(2)})  # a head is no part of the encoder


def test_missing_files_are_named(copy_of):
    folder = copy_of("hubert")
    (folder / "preprocessor_config.json").rename(folder / "moved.json")
    with pytest.raises(
        CheckpointError, match=r"preprocessor_config\.json: missing; it belongs to the weights"
    ):
        load_encoder(folder)
    (folder / "moved.json").rename(folder / "preprocessor_config.json")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"hubert: weights cannot be loaded \(.*model\.safetensors"
    ):
        load_encoder(folder)


@pytest.mark.parametrize("kind", ["clap", "clap-fused"])
def test_the_mean_of_a_window_is_claps_own_vector(kind, small_encoder):
    from transformers import ClapFeatureExtractor, ClapModel

    folder = small_encoder(kind)
    model, extractor = (
        ClapModel.from_pretrained(folder).eval(),
        ClapFeatureExtractor.from_pretrained(folder),
    )
    encoder = load_encoder(folder)
    clip = noise(10, 48_000)
    inputs = extractor(clip.numpy(), sampling_rate=48_000, return_tensors="pt")
    with torch.inference_mode():
        outputs = model.audio_model(
            inputs.input_features.float(), is_longer=torch.zeros(1, 1, dtype=torch.bool)
        )
    frames, lengths = encoder(clip.unsqueeze(0), [len(clip)])
    assert lengths.tolist() == [round(10 * encoder.frame_rate)]
    torch.testing.assert_close(frames.mean(1), outputs.pooler_output, atol=1e-5, rtol=1e-5)

    half = clip[:240_000]  # repeated to fill the window, of which the first half is the clip itself
    inputs = extractor(half.numpy(), sampling_rate=48_000, return_tensors="pt")
    with torch.inference_mode():
        hidden = model.audio_model(
            inputs.input_features.float(), is_longer=torch.zeros(1, 1, dtype=torch.bool)
        )[0]
    frames, lengths = encoder(half.unsqueeze(0), [len(half)])
    assert lengths.tolist() == [round(5 * encoder.frame_rate)]
    torch.testing.assert_close(
        frames, hidden.mean(2).transpose(1, 2)[:, : lengths[0]], atol=1e-5, rtol=1e-5
    )


def test_long_clips_are_windows_one_after_the_other_every_time_the_same(small_encoder):
    encoder = load_encoder(small_encoder("clap"))
    clip = noise(25, 48_000)
    frames, lengths = encoder(clip.unsqueeze(0), [len(clip)])
    assert lengths.tolist() == [round(25 * encoder.frame_rate)]
    parts = [encoder(part.unsqueeze(0), [len(part)])[0][0] for part in clip.split(480_000)]
    torch.testing.assert_close(frames[0], torch.cat(parts), atol=1e-6, rtol=1e-6)
    assert torch.equal(frames, encoder(clip.unsqueeze(0), [len(clip)])[0])
    one_sample_more = torch.cat([clip[:480_000], clip[:1]])
    assert encoder(one_sample_more.unsqueeze(0), [480_001])[1].tolist() == [
        round(10 * encoder.frame_rate)
    ]


def test_beats_equals_speechbrains(small_encoder):
    """speechbrain's BEATs with its own pre-processing by torchaudio, on clips without padding."""
    path = small_encoder("beats")
    try:
        import torchaudio.compliance.kaldi  # noqa: F401
        from speechbrain.lobes.models.beats import BEATs
    except (ImportError, OSError) as error:
        pytest.skip(f"needs speechbrain and a torchaudio that imports: {error}")
    encoder = load_encoder(path)
    clips = torch.stack([noise(2.0, 16_000), noise(2.0, 16_000).flip(0)])
    with torch.inference_mode():
        tokens = BEATs(str(path)).extract_features(clips, torch.ones(2))[
            0
        ]  # (B, T * 8, D), bands fastest
    frames, lengths = encoder(clips, [32_000, 32_000])
    assert lengths.tolist() == [12, 12]
    torch.testing.assert_close(frames, tokens.unflatten(1, (-1, 8)).mean(2), atol=1e-3, rtol=1e-3)


def test_beats_weights_must_fit_their_cfg(small_encoder, tmp_path):
    content = torch.load(small_encoder("beats"), weights_only=True)
    content["model"].pop("layer_norm.weight")
    torch.save(content, tmp_path / "beats.pt")
    with pytest.raises(
        CheckpointError, match=r"beats\.pt: does not fit the model; missing: layer_norm\.weight"
    ):
        load_encoder(tmp_path / "beats.pt")


def test_a_fine_tuned_beats_loses_its_classifier(small_encoder, tmp_path):
    content = torch.load(small_encoder("beats"), weights_only=True)
    content["model"]["predictor.weight"], content["cfg"]["finetuned_model"] = (
        torch.zeros(5, 16),
        True,
    )
    torch.save(content, tmp_path / "beats.pt")
    assert (
        load_encoder(tmp_path / "beats.pt")
        .description["pretraining"]
        .endswith("fine-tuned on labels")
    )


def test_without_speechbrain_one_line_says_what_to_install(tmp_path, monkeypatch):
    torch.save(
        {"cfg": {}, "model": {"patch_embedding.weight": torch.zeros(1)}},
        tmp_path / "BEATs_iter3.pt",
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "speechbrain"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "speechbrain", None)  # as if it were not installed
    with pytest.raises(
        UserError, match="BEATs needs speechbrain .*pip install --no-deps speechbrain"
    ):
        load_encoder(tmp_path / "BEATs_iter3.pt")
    assert "torchaudio" not in sys.modules or hasattr(sys.modules["torchaudio"], "functional")


def test_normalisation_looks_at_the_clips_own_samples(small_encoder):
    """Louder and shifted by a constant is the same clip to a model with zero mean and unit
    variance.
    """
    encoder = load_encoder(small_encoder("hubert-large"))
    clip = noise(0.5, 16_000)
    batch = torch.zeros(2, 16_000)
    batch[0, : len(clip)] = clip
    batch[1] = noise(1.0, 16_000)
    frames, lengths = encoder(batch, [len(clip), 16_000])
    louder = torch.nn.functional.pad(0.5 * clip + 0.2, (0, 8_000))
    again, _ = encoder(torch.stack([louder, batch[1]]), [len(clip), 16_000])
    np.testing.assert_allclose(frames[0, : lengths[0]], again[0, : lengths[0]], atol=1e-3)
