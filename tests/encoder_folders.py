"""Small random-weight instances of other projects' encoders, saved as the real ones are (fixture
`small_encoder`).
"""

import json
from pathlib import Path

import torch

SPEECH = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
LARGE = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}  # as the published large models
BEATS = {
    "embed_dim": 12,
    "encoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "encoder_attention_heads": 2,
    "conv_pos": 16,
    "conv_pos_groups": 2,
    "deep_norm": True,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "num_buckets": 32,
    "max_distance": 80,
}


def save_wav2vec2(folder: Path, **changes) -> None:
    """As facebook/wav2vec2-base and -large: the pretraining model with its quantiser."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

    config = Wav2Vec2Config(
        **SPEECH | changes,
        codevector_dim=8,
        proj_codevector_dim=8,
        num_codevectors_per_group=4,
        vocab_size=4,
    )
    Wav2Vec2ForPreTraining(config).save_pretrained(folder)
    save_preprocessing(
        folder, sampling_rate=16000, return_attention_mask="feat_extract_norm" in changes
    )


def save_hubert(folder: Path, **changes) -> None:
    from transformers import HubertConfig, HubertModel

    HubertModel(HubertConfig(**SPEECH | changes)).save_pretrained(folder)
    save_preprocessing(folder, sampling_rate=16000)


def save_wavlm(folder: Path) -> None:
    from transformers import WavLMConfig, WavLMModel

    WavLMModel(WavLMConfig(**SPEECH, num_buckets=32, max_bucket_distance=80)).save_pretrained(
        folder
    )
    save_preprocessing(folder, sampling_rate=16000, do_normalize=False)


def save_mert(folder: Path) -> None:
    """As m-a-p/MERT-v1-95M: a pickle with the weight norm's old names, and a model type of its
    own.
    """
    from transformers import HubertConfig, HubertModel

    config = HubertConfig(**SPEECH)
    names = {
        "parametrizations.weight.original0": "weight_g",
        "parametrizations.weight.original1": "weight_v",
    }
    weights = HubertModel(config).state_dict()
    for new, old in names.items():
        weights = {key.replace(new, old): value for key, value in weights.items()}
    folder.mkdir()
    torch.save(weights, folder / "pytorch_model.bin")
    own = {
        "model_type": "mert_model",
        "architectures": ["MERTModel"],
        "auto_map": {"AutoModel": "modeling_MERT.MERTModel"},
        "sample_rate": 24000,
        "feature_extractor_cqt": False,
        "feature_extractor_cqt_bins": 336,
        "deepnorm": False,
        "attention_relax": -1.0,
    }
    (folder / "config.json").write_text(json.dumps(config.to_dict() | own))
    save_preprocessing(folder, sampling_rate=24000, return_attention_mask=True)


def save_preprocessing(folder: Path, **settings) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    Wav2Vec2FeatureExtractor(**settings).save_pretrained(folder)


def save_clap(folder: Path, fused: bool = False) -> None:
    """As laion/clap-htsat-unfused and -fused."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    audio = {
        "patch_embeds_hidden_size": 8,
        "depths": (1, 1),
        "num_attention_heads": (2, 2),
        "hidden_size": 16,
    }
    if fused:
        audio |= {"enable_fusion": True, "fusion_type": "aff_2d"}
    text = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ClapConfig(
        audio_config=audio,
        text_config=text | {"intermediate_size": 24},
        projection_dim=12,
        num_hidden_layers=2,
    )
    ClapModel(config).save_pretrained(folder)
    ClapFeatureExtractor(truncation="fusion" if fused else "rand_trunc").save_pretrained(folder)


def save_beats(path: Path) -> None:
    """As BEATs_iter3.pt. Raises UserError where speechbrain is missing."""
    from captionstew.models.encoders.beats import FrozenBeats, _speechbrain_classes

    config_class, encoder_class = _speechbrain_classes()
    cfg = config_class(BEATS)
    identity = dict.fromkeys(("path", "sha256", "preset", "pretraining"), "")
    torch.save(
        {"cfg": BEATS, "model": FrozenBeats(cfg, encoder_class(cfg), **identity).state_dict()}, path
    )


SAVE = {
    "wav2vec2": save_wav2vec2,
    "wav2vec2-large": lambda folder: save_wav2vec2(folder, **LARGE),
    "hubert": save_hubert,
    "hubert-large": lambda folder: save_hubert(folder, **LARGE),
    "wavlm": save_wavlm,
    "mert": save_mert,
    "clap": save_clap,
    "clap-fused": lambda folder: save_clap(folder, fused=True),
    "beats": save_beats,
}
