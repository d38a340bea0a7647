"""Configurations, presets, initial values, keys and shapes."""

import json
import math

import pytest
import torch

from zipformer import AudioTagger, Zipformer, ZipformerConfig

PUBLISHED = {
    "icefall_medium": "medium",
    "icefall_small": "small",
    "icefall_large": "large",
    "auden_base": "auden-base",
    "auden_large": "auden-large",
    "project_768": "captionstew",
}


def meta_tagger(preset, classes=527):
    with torch.device("meta"):
        return AudioTagger(ZipformerConfig.preset(preset), classes)


@pytest.mark.parametrize("golden_name, preset", PUBLISHED.items())
def test_presets(golden, golden_name, preset):
    entry = golden.json("presets.json")[golden_name]
    config = ZipformerConfig.preset(preset)
    assert config == ZipformerConfig(**entry["config"])
    model = meta_tagger(preset)

    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    expected = entry["parameters"]
    assert count(model.encoder_embed) == expected["encoder_embed"]
    assert count(model.encoder) == expected["encoder"]
    assert count(model.encoder_embed, model.encoder) == expected["encoder_embed+encoder"]
    assert count(model) == expected["total_with_classifier_527"]
    assert [count(stack) for stack in model.encoder.encoders] == entry["per_stack"]
    assert len(model.state_dict()) == entry["tensors_in_state_dict"]


@pytest.mark.parametrize(
    "file, preset", [("keys.icefall_medium", "medium"), ("keys.project_768", "captionstew")]
)
def test_keys_and_shapes(golden, file, preset):
    expected = golden.json(f"{file}.json")
    assert {
        key: list(value.shape) for key, value in meta_tagger(preset).state_dict().items()
    } == expected


def test_captionstew_preset(golden):
    with torch.device("meta"):
        encoder = Zipformer(ZipformerConfig.preset("captionstew"))
    assert sum(p.numel() for p in encoder.parameters()) == 121_295_927
    expected = golden.json("keys.project_768.json")
    encoder_part = {
        k: v for k, v in expected.items() if k.startswith(("encoder_embed.", "encoder."))
    }
    assert {key: list(value.shape) for key, value in encoder.state_dict().items()} == encoder_part
    assert encoder.output_dim == 768


def test_initial_values(golden):
    config, classes = golden.config("model_a")
    state = AudioTagger(config, classes).state_dict()
    laws = golden.json("init.json")["keys"]
    assert set(state) == set(laws)
    for key, law in laws.items():
        value = state[key]
        assert list(value.shape) == law["shape"]
        if "constant" in law:
            assert torch.all(value == law["constant"]), key
        elif "uniform" in law:
            check_uniform(value, law["uniform"], key)
        else:
            check_normal(value, law["normal_std"], key)


def check_uniform(value, bound, key):
    assert value.abs().max() <= bound * (1 + 1e-6), key
    # The largest of n draws stays below (1 - x) of the bound with probability (1 - x)^n: here under
    # 1e-9.
    assert value.abs().max() >= bound * (1 - min(1.0, 21 / value.numel())), key


def check_normal(value, std, key):
    assert value.abs().max() <= 7 * std, key
    assert abs(value.std() / std - 1) <= 6 / math.sqrt(2 * value.numel()), key


def test_scalars_are_repeated_for_every_stack():
    config = ZipformerConfig.preset("medium", num_heads=4, cnn_module_kernel=[15])
    assert config.num_heads == (4,) * 6 and config.cnn_module_kernel == (15,) * 6


def test_dict_round_trip_through_json():
    config = ZipformerConfig.preset(
        "mini", causal=True, chunk_size=(16, -1), left_context_frames=(128,)
    )
    assert ZipformerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"encoder_dim": (1, 2)}, "encoder_dim has 2 entries for 6 stacks"),
        ({"cnn_module_kernel": 30}, "cnn_module_kernel must be odd"),
        ({"encoder_unmasked_dim": 1000}, "exceeds encoder_dim"),
        ({"pos_dim": 47}, "pos_dim must be even"),
        ({"output_downsampling_factor": 4}, "must be 2"),
        ({"swoosh_backend": "numpy"}, "swoosh_backend"),
        ({"frontend_channels": (8, 32)}, "three numbers"),
        ({"num_heads": 0}, "num_heads must be positive"),
        ({"causal": True, "chunk_size": 12}, "not divisible"),
        ({"causal": True, "chunk_size": 16, "left_context_frames": 16}, "left context"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ZipformerConfig.preset("medium", **changes)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown encoder preset 'huge'; choose one of mini"):
        ZipformerConfig.preset("huge")
    with pytest.raises(ValueError, match="unknown fields.*encoder_dims"):
        ZipformerConfig.from_dict({"encoder_dims": 3})
