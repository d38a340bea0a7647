"""Pretrained parts: encoders of every kind of checkpoint, text towers of transformers, and what the
log says.
"""

import dataclasses
import shutil

import pytest
import torch
from transformers import BartConfig, BartModel, BertConfig, BertModel, RobertaConfig, RobertaModel

from captionstew.checkpoint import save_checkpoint
from captionstew.models.contrastive import ContrastiveModel, build_contrastive
from captionstew.models.initialise import initialisation_line, initialise_encoder
from captionstew.models.tagging import build_tagger
from captionstew.models.text_tower import build_text_tower, text_tower_from_dict
from zipformer import Zipformer, ZipformerConfig
from zipformer.config import PRESETS


@pytest.fixture
def tagger(tiny_config):
    torch.manual_seed(7)
    return build_tagger({"encoder": tiny_config.to_dict(), "classes": ["a", "b"]})


@pytest.fixture
def checkpoint(tagger, tiny_config, tmp_path):
    """The tagger's checkpoint in our format."""
    path = tmp_path / "tagger.pt"
    save_checkpoint(
        path,
        {
            "model": tagger.state_dict(),
            "config": {"task": "tagging", "encoder": tiny_config.to_dict()},
        },
    )
    return path


def encoder_weights(model):
    return {
        name: value
        for name, value in model.state_dict().items()
        if name.startswith(("encoder_embed.", "encoder."))
    }


def assert_same_encoder(encoder, tagger):
    expected = encoder_weights(tagger)
    assert encoder.state_dict().keys() == expected.keys()
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_encoder_of_our_tagger(tiny_model, tagger, checkpoint):
    before = tiny_model.audio_projection.weight.clone()
    initialise_encoder(tiny_model.encoder, checkpoint)
    assert_same_encoder(tiny_model.encoder, tagger)
    assert torch.equal(tiny_model.audio_projection.weight, before)


def test_encoder_of_a_contrastive_checkpoint(tiny_model, tiny_task_config, tagger, tmp_path):
    """The other way round, into a tagger, whose head stays new."""
    path = tmp_path / "contrastive.pt"
    save_checkpoint(path, {"model": tiny_model.state_dict(), "config": tiny_task_config})
    head = tagger.classifier[1].weight.clone()
    initialise_encoder(tagger, path)
    assert_same_encoder(tiny_model.encoder, tagger)
    assert torch.equal(tagger.classifier[1].weight, head)


@pytest.mark.parametrize("layout", ["icefall", "ddp", "auden"])
def test_encoder_of_foreign_checkpoints(tiny_config, tagger, tmp_path, layout):
    """Weights without a configuration, of sizes that are no preset: the shapes decide."""
    state = tagger.state_dict()
    if layout == "auden":  # no unused scales, everything one level deeper, a buffer besides
        state = {f"encoder.{name}": value for name, value in encoder_weights(tagger).items()}
        unused = [
            name
            for name in state
            if name.endswith(".bypass_scale") and name.split(".")[-2].isdigit()
        ]
        state = {name: value for name, value in state.items() if name not in unused}
        state["encoder.model_batch_count"] = torch.tensor(1e5)
    elif layout == "ddp":
        state = {f"module.{name}": value for name, value in state.items()}
    path = tmp_path / "foreign.pt"
    torch.save({"model": state}, path)
    encoder = Zipformer(tiny_config)
    unused = {name: value.clone() for name, value in encoder.state_dict().items()}
    initialise_encoder(encoder, path)
    expected = unused | {
        name.removeprefix("module."): value for name, value in encoder_weights(tagger).items()
    }
    for name, value in encoder.state_dict().items():
        skipped = (
            layout == "auden" and name.endswith(".bypass_scale") and name.split(".")[-2].isdigit()
        )
        assert torch.equal(value, unused[name] if skipped else expected[name]), name


def test_training_options_may_differ(tiny_config, checkpoint):
    config = dataclasses.replace(
        tiny_config, batch_invariant=True, dropout=((0.0, 0.1),), warmup_batches=10.0
    )
    initialise_encoder(Zipformer(config), checkpoint)


def test_another_width_is_refused(tiny_config, checkpoint):
    wider = dataclasses.replace(tiny_config, encoder_dim=(16, 48), encoder_unmasked_dim=(16, 24))
    with pytest.raises(
        ValueError,
        match=(
            r"tagger.pt: its encoder has 32 channels out, this run's 48, .*encoder_dim 16,32, here"
            r" 16,48"
        ),
    ):
        initialise_encoder(Zipformer(wider), checkpoint)


def test_other_heads_of_equal_shape_are_refused(tiny_config, checkpoint):
    """Four heads of 4 channels have the weights' shapes of two heads of 8, but compute something
    else.
    """
    sizes = {
        "num_heads": (4, 4),
        "query_head_dim": (4, 4),
        "pos_head_dim": (2, 2),
        "value_head_dim": (2, 2),
    }
    other = dataclasses.replace(tiny_config, **sizes)
    assert {n: v.shape for n, v in Zipformer(other).state_dict().items()} == {
        n: v.shape for n, v in Zipformer(tiny_config).state_dict().items()
    }
    with pytest.raises(ValueError, match="num_heads 2,2, here 4,4"):
        initialise_encoder(Zipformer(other), checkpoint)


def test_the_advice_names_the_preset(monkeypatch, tiny_config, tagger, tmp_path):
    """icefall's public tagger is 512 wide: a 768-channel run is told the preset that fits it."""
    monkeypatch.setitem(
        PRESETS, "tiny", {n: v for n, v in tiny_config.to_dict().items() if n != "batch_invariant"}
    )
    path = tmp_path / "icefall.pt"
    torch.save({"model": tagger.state_dict()}, path)
    with pytest.raises(
        ValueError, match="32 channels out, this run's 256.*use --encoder-preset tiny without"
    ):
        initialise_encoder(Zipformer(ZipformerConfig.preset("mini")), path)
    monkeypatch.delitem(PRESETS, "tiny")
    with pytest.raises(ValueError, match="the shapes of no preset and not of this run's"):
        initialise_encoder(Zipformer(ZipformerConfig.preset("mini")), path)


def test_files_without_an_encoder(tiny_config, tmp_path):
    encoder = Zipformer(tiny_config)
    with pytest.raises(OSError, match="absent.pt"):
        initialise_encoder(encoder, tmp_path / "absent.pt")
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="other.pt must hold one Zipformer encoder"):
        initialise_encoder(encoder, tmp_path / "other.pt")


def test_the_log_line_counts_what_is_loaded_and_what_is_new(tiny_model):
    counts = {
        name: f"{sum(p.numel() for p in part.parameters()):,}"
        for name, part in tiny_model.named_children()
    }
    line = initialisation_line(tiny_model, {"encoder": "tagger.pt"})
    assert (
        line == f"loaded: encoder ({counts['encoder']}) from tagger.pt; new: text_tower"
        f" ({counts['text_tower']}), audio_projection ({counts['audio_projection']}),"
        f" text_projection ({counts['text_projection']}), logit_scale (1)"
    )
    assert initialisation_line(tiny_model, {}).startswith("loaded: nothing; new: encoder (")
    both = initialisation_line(tiny_model, {"encoder": "a", "text_tower": "a"})
    assert (
        f"loaded: encoder ({counts['encoder']}), text_tower ({counts['text_tower']}) from a; new:"
        " audio" in both
    )


SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 120,
}


@pytest.fixture(params=["bert", "roberta", "bert without pooler"])
def pretrained(request, tmp_path):
    """Folder of a text encoder as transformers saves it, and the model."""
    torch.manual_seed(5)
    if request.param == "roberta":
        model = RobertaModel(RobertaConfig(**SIZES, type_vocab_size=1, max_position_embeddings=66))
    else:
        model = BertModel(BertConfig(**SIZES), add_pooling_layer=request.param == "bert")
    model.save_pretrained(tmp_path / "text")
    return tmp_path / "text", model.eval()


def test_text_tower_of_a_checkpoint(pretrained):
    folder, model = pretrained
    tower = build_text_tower(str(folder), vocab_size=120, pad_id=1).eval()
    ids, lengths = torch.randint(3, 120, (2, 7)), torch.tensor([7, 4])
    with torch.inference_mode():
        expected = model(ids[1:, :4]).last_hidden_state.mean(1)
        torch.testing.assert_close(tower(ids, lengths)[1:], expected, atol=1e-5, rtol=1e-5)
    assert tower.dim == 32 and not any("pooler" in name for name in tower.state_dict())


def test_text_tower_is_rebuilt_without_its_folder(
    pretrained, tiny_config, tokenizer, tiny_task_config, tmp_path
):
    """A whole contrastive checkpoint: configuration and weights in one file, loaded with
    weights_only.
    """
    folder, _ = pretrained
    tower = build_text_tower(str(folder), vocab_size=120, pad_id=1)
    model = ContrastiveModel(Zipformer(tiny_config), tower, 16)
    config = tiny_task_config | {"text_tower": tower.to_dict()}
    torch.save({"config": config, "model": model.state_dict()}, tmp_path / "model.pt")
    for file in folder.iterdir():
        file.unlink()
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    again = build_contrastive(content["config"], tokenizer)
    again.load_state_dict(content["model"])
    assert again.text_tower.to_dict() == tower.to_dict()
    ids, lengths = torch.randint(3, 120, (2, 7)), torch.tensor([7, 4])
    assert torch.equal(again.eval().embed_text(ids, lengths), model.eval().embed_text(ids, lengths))


def test_text_tower_from_scratch_is_rebuilt():
    tower = build_text_tower("tiny", vocab_size=50, pad_id=1)
    again = text_tower_from_dict(tower.to_dict())
    again.load_state_dict(tower.state_dict())
    assert again.to_dict() == tower.to_dict()


def test_text_checkpoints_that_do_not_fit(pretrained, tmp_path):
    folder, model = pretrained
    with pytest.raises(ValueError, match="knows 120 tokens, the tokenizer has 2000"):
        build_text_tower(str(folder), vocab_size=2000, pad_id=1)
    with pytest.raises(ValueError, match="neither tiny, small, bert-base nor a checkpoint"):
        build_text_tower(str(tmp_path / "absent"), vocab_size=120, pad_id=1)
    bart = BartModel(
        BartConfig(
            vocab_size=120,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
        )
    )
    bart.save_pretrained(tmp_path / "bart")
    with pytest.raises(ValueError, match="a bart model has a decoder"):
        build_text_tower(str(tmp_path / "bart"), vocab_size=120, pad_id=1)
    state = {
        name: value for name, value in model.state_dict().items() if "layer.1.output" not in name
    }
    model.save_pretrained(tmp_path / "partial", state_dict=state)
    with pytest.raises(ValueError, match="weights are missing, e.g. encoder.layer.1.output"):
        build_text_tower(str(tmp_path / "partial"), vocab_size=120, pad_id=1)


def test_broken_weights_of_a_text_tower_are_one_line(pretrained, tmp_path):
    shutil.copytree(pretrained[0], tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    for content in (weights.read_bytes()[: weights.stat().st_size // 2], b"", b"<html>404</html>"):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match="name another with --text-tower") as error:
            build_text_tower(str(tmp_path / "broken"), vocab_size=120, pad_id=1)
        assert "\n" not in str(error.value)
