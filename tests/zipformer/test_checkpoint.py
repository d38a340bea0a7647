"""load_pretrained on every layout it promises, and on files that do not fit."""

import ast
import json

import pytest
import torch
from safetensors.torch import save_file

from zipformer import AudioTagger, Zipformer, ZipformerConfig, load_pretrained

MINI = ZipformerConfig.preset("mini")
FEATURES, LENGTHS = torch.randn(1, 100, 80), torch.tensor([100])


@pytest.fixture(scope="module")
def tagger():
    torch.manual_seed(1)
    return AudioTagger(MINI, 5).eval()


@pytest.fixture(scope="module")
def state(tagger):
    return tagger.state_dict()


def prefixed(state, prefix):
    return {
        prefix + key: value for key, value in state.items() if not key.startswith("classifier.")
    }


def check(encoder, tagger):
    assert not encoder.training
    with torch.no_grad():
        assert torch.equal(encoder(FEATURES, LENGTHS)[0], tagger.encode(FEATURES, LENGTHS)[0])


def test_icefall_tagging(tmp_path, tagger, state):
    torch.save(
        {"model": state, "model_avg": state, "optimizer": {}, "batch_idx_train": 3},
        tmp_path / "a.pt",
    )
    check(load_pretrained(tmp_path / "a.pt"), tagger)


def test_icefall_recogniser_behind_data_parallel(tmp_path, tagger, state):
    heads = {
        "decoder.embedding.weight": torch.zeros(3, 3),
        "joiner.output_linear.weight": torch.zeros(3, 3),
    }
    torch.save({"model": prefixed(state | heads, "module.")}, tmp_path / "a.pt")
    check(load_pretrained(str(tmp_path / "a.pt")), tagger)


@pytest.mark.parametrize("prefix", ["", "encoder.", "audio_encoder.", "speech_encoder."])
@pytest.mark.parametrize("layout", ["safetensors", "pickle", "wrapped"])
def test_auden(tmp_path, tagger, state, prefix, layout):
    weights = prefixed(state, prefix) | {f"{prefix}model_batch_count": torch.tensor(100000.0)}
    if layout == "safetensors":
        save_file(weights, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps({"encoder": {"model_type": "zipformer"}}))
        check(load_pretrained(tmp_path), tagger)
    else:
        torch.save(
            {"state_dict": weights} if layout == "wrapped" else weights, tmp_path / "model.pt"
        )
        check(load_pretrained(tmp_path / "model.pt"), tagger)


def own_config():
    return ZipformerConfig.preset("mini", num_heads=2, query_head_dim=8, encoder_unmasked_dim=64)


def test_own_checkpoint_carries_its_configuration(tmp_path):
    model = torch.nn.ModuleDict({"encoder": Zipformer(own_config()), "text": torch.nn.Linear(2, 2)})
    content = {"format": "captionstew", "version": 1, "model": model.state_dict()}
    torch.save(content | {"config": {"encoder": own_config().to_dict()}}, tmp_path / "epoch-1.pt")
    encoder = load_pretrained(tmp_path / "epoch-1.pt", batch_invariant=True)
    assert encoder.batch_invariant and encoder.config == own_config().replace(batch_invariant=True)
    encoder.batch_invariant = False
    model.eval()
    assert torch.equal(encoder(FEATURES, LENGTHS)[0], model["encoder"](FEATURES, LENGTHS)[0])


def test_own_folder(tmp_path):
    model = Zipformer(own_config()).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"encoder": own_config().to_dict()}))
    encoder = load_pretrained(tmp_path)
    assert torch.equal(encoder(FEATURES, LENGTHS)[0], model(FEATURES, LENGTHS)[0])


def test_half_precision_weights_become_float32(tmp_path, state):
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "a.pt")
    assert all(p.dtype == torch.float32 for p in load_pretrained(tmp_path / "a.pt").parameters())


def test_the_unused_parameter_may_be_absent(tmp_path, tagger, state):
    used = {key: value for key, value in state.items() if not key.endswith("layers.0.bypass_scale")}
    assert len(used) < len(state)
    torch.save(used, tmp_path / "a.pt")
    check(load_pretrained(tmp_path / "a.pt"), tagger)


def test_errors_list_missing_unexpected_and_misshapen_keys(tmp_path, state):
    wrong = dict(state)
    wrong["encoder.extra.weight"] = wrong.pop("encoder.downsample_output.bias")
    wrong["encoder_embed.out.bias"] = torch.zeros(3)
    torch.save({"model": wrong}, tmp_path / "a.pt")
    with pytest.raises(ValueError) as error:
        load_pretrained(tmp_path / "a.pt")
    text = str(error.value)
    assert "1 keys missing: encoder.downsample_output.bias" in text
    assert "1 keys unexpected: encoder.extra.weight" in text
    assert "encoder_embed.out.bias: (3,) instead of (" in text and "a.pt" in text


def test_sizes_of_no_preset_need_a_configuration(tmp_path):
    config = ZipformerConfig.preset("mini", feedforward_dim=40)
    torch.save(Zipformer(config).state_dict(), tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"sizes of no preset.*'feedforward_dim': \(40, 40.*config="
    ):
        load_pretrained(tmp_path / "a.pt")
    assert load_pretrained(tmp_path / "a.pt", config).config == config


def test_files_without_an_encoder(tmp_path):
    torch.save({"model": {"decoder.weight": torch.zeros(2)}}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="must hold one Zipformer encoder.*none among decoder"):
        load_pretrained(tmp_path / "a.pt")
    torch.save({"epoch": 3}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match="holds no weights; its entries are epoch"):
        load_pretrained(tmp_path / "b.pt")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_pretrained(tmp_path / "c.pt")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"hello there", b"\x00\x01" * 100, b"PK\x03\x04 cut short"]
)
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_files_of_another_kind(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is no .*damaged"):
        load_pretrained(tmp_path / name)


def test_a_part_of_an_encoder_is_refused(tmp_path, state):
    torch.save(
        {key: value for key, value in state.items() if "encoder_embed" in key}, tmp_path / "a.pt"
    )
    with pytest.raises(ValueError, match=r"the encoder in .*a\.pt is not whole"):
        load_pretrained(tmp_path / "a.pt")


def test_pickles_with_other_objects_are_refused(tmp_path, state):
    torch.save({"model": state, "params": ast.Load()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="more than tensors and plain values: it refers to ast"):
        load_pretrained(tmp_path / "a.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, state, value):
    weights = {key: tensor.clone() for key, tensor in state.items()}
    weights["encoder_embed.out.bias"][3] = value
    torch.save({"model": weights}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt.*NaN or infinity \(encoder_embed\.out\.bias\)"):
        load_pretrained(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "name", ["small", "medium", "large", "captionstew", "auden-base", "auden-large"]
)
def test_published_sizes_are_recognised(name):
    from zipformer.checkpoint import infer_config

    config = ZipformerConfig.preset(name)
    with torch.device("meta"):
        weights = Zipformer(config).state_dict()
    assert infer_config(weights, "a.pt") == config
