"""What the alignment protocol freezes, and how it scales frames."""

import pytest
import torch

from captionstew.checkpoint import CheckpointError
from captionstew.models.captioning import CaptioningModel
from captionstew.models.encoders.load import load_encoder
from captionstew.models.lit import (
    FrozenFrames,
    audio_encoder_of,
    count_parameters,
    freeze_all_but_cross_attention,
    load_lit_captioning,
)
from captionstew.models.text_decoder import build_text_decoder


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    return CaptioningModel(FrozenFrames(5), build_text_decoder("tiny", tokenizer))


def test_frames_get_mean_0_and_deviation_1(model):
    frames = torch.randn(3, 7, 5) * torch.tensor([1.0, 2.0, 3.0, 0.1, 1.0]) + 4.0
    flat = frames.flatten(0, 1)
    scaled, lengths = FrozenFrames(5, flat.mean(0), flat.std(0))(frames, torch.tensor([7, 7, 7]))
    torch.testing.assert_close(scaled.flatten(0, 1).mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.flatten(0, 1).std(0), torch.ones(5))
    assert lengths.tolist() == [7, 7, 7]
    assert not list(FrozenFrames(5).parameters())


def test_a_step_changes_cross_attention_and_bridge_alone(model):
    before = {name: value.clone() for name, value in model.named_parameters()}
    freeze_all_but_cross_attention(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    frames, ids = torch.randn(2, 6, 5), torch.tensor([[0, 7, 8, 2], [0, 9, 10, 2]])
    logits = model(
        frames, torch.tensor([6, 4]), ids, torch.tensor([4, 4]), torch.tensor([False, False])
    )
    logits.square().mean().backward()
    optimizer.step()
    changed = {
        name for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }
    assert {"bridge.weight", "bridge.bias"} <= changed
    assert all(name.startswith("bridge.") or ".encoder_attn" in name for name in changed)
    assert any(".encoder_attn.v_proj.weight" in name for name in changed)
    assert any(".encoder_attn_layer_norm.weight" in name for name in changed)


def test_a_loaded_model_counts_trained_and_frozen_parts(model):
    config = {"frame_dim": 5, "text_decoder": model.decoder.to_dict()}
    loaded = load_lit_captioning(config, model.state_dict(), "x.pt")
    counts = count_parameters(loaded, load_encoder("logmel", torch.device("cpu")))
    total = sum(p.numel() for p in model.parameters())
    assert counts["trained_parameters"] + counts["frozen_parameters"] == total
    assert 0 < counts["trained_parameters"] < counts["frozen_parameters"]
    assert not loaded.training


def test_another_encoder_is_refused(tmp_path):
    cpu = torch.device("cpu")
    description = load_encoder("logmel", cpu).description
    assert (
        audio_encoder_of({"audio_encoder": description}, "", cpu, "x.pt").description == description
    )
    with pytest.raises(
        CheckpointError, match="x.pt was adapted to another encoder than logmel is now"
    ):
        audio_encoder_of({"audio_encoder": description | {"sha256": "0"}}, "", cpu, "x.pt")
