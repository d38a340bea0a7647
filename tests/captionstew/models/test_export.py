"""The encoder in other formats gives the same frames."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from captionstew.checkpoint import CheckpointError, save_checkpoint
from captionstew.cli import main
from captionstew.data.manifests.trained_clips import (
    ENTRY,
    TrainedClips,
    memory_of_encoder,
    read_trained_clips,
)
from captionstew.errors import UserError
from captionstew.models.encoders.load import load_encoder
from captionstew.models.export import ExportedZipformer, export_onnx, export_safetensors
from zipformer import Zipformer, ZipformerConfig, load_pretrained


@pytest.fixture
def checkpoint(tmp_path, tiny_model, tiny_task_config):
    path = tmp_path / "pretrained.pt"
    save_checkpoint(path, {"model": tiny_model.state_dict(), "config": tiny_task_config})
    return path


def features(*lengths):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(lengths), max(lengths), 80, generator=generator) * 3 - 6, torch.tensor(
        lengths
    )


def test_safetensors_holds_encoder_features_and_origin(checkpoint, tmp_path, capsys):
    folder = tmp_path / "encoder"
    assert main(["export", str(checkpoint), "--output", str(folder)]) == 0
    assert f"wrote {folder}" in capsys.readouterr().out
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    before, after = load_encoder(checkpoint), load_encoder(folder)
    settings = json.loads((folder / "config.json").read_text())
    assert settings["exported_from_sha256"] == before.description["sha256"]
    assert [after.description[name] for name in ("preset", "pretraining")] == [
        "tiny",
        "contrastive",
    ]
    assert after.fbank_config == before.fbank_config
    waveforms = 0.1 * torch.randn(2, 30_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(before(waveforms, [30_000, 9_000])[0], after(waveforms, [30_000, 9_000])[0])


@pytest.mark.parametrize("form", ["safetensors", pytest.param("onnx", marks=pytest.mark.slow)])
def test_what_was_trained_on_comes_along(tiny_model, tiny_task_config, tmp_path, form):
    hashes = np.array([3, 5], dtype=np.uint64)
    (tmp_path / "run").mkdir()
    reference = TrainedClips(hashes, hashes).write(tmp_path / "run")
    config = tiny_task_config | {ENTRY: reference}
    path = tmp_path / "run" / "pretrained.pt"
    save_checkpoint(path, {"model": tiny_model.state_dict(), "config": config})
    output = tmp_path / ("encoder" if form == "safetensors" else "encoder/encoder.onnx")
    assert main(["export", str(path), "--format", form, "--output", str(output)]) == 0
    assert read_trained_clips(tmp_path / "encoder", reference).keys.tolist() == [3, 5]
    if form == "safetensors":
        again = tmp_path / "again"
        main(["export", str(output), "--output", str(again)])
        memory = memory_of_encoder(load_encoder(again).description)
        assert memory.keys.tolist() == [3, 5] and memory.complete


@pytest.mark.slow
def test_safetensors_needs_zipformer_and_torch_only(checkpoint, tmp_path):
    """In a process where neither this library nor anything that it brings can be imported."""
    main(["export", str(checkpoint), "--output", str(tmp_path / "encoder")])
    x, lengths = features(120, 90)
    with torch.no_grad():
        expected = load_encoder(checkpoint).encoder(x, lengths)[0]
    torch.save({"x": x, "lengths": lengths, "expected": expected}, tmp_path / "case.pt")
    program = f"""
import sys
for name in ("captionstew", "lhotse", "transformers"):
    sys.modules[name] = None
import torch
from zipformer import load_pretrained
case = torch.load({str(tmp_path / "case.pt")!r})
with torch.no_grad():
    frames, _ = load_pretrained({str(tmp_path / "encoder")!r})(case["x"], case["lengths"])
assert torch.equal(frames, case["expected"])
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


@pytest.mark.parametrize("lengths", [(200, 150), (57,), (9, 400, 101), (250, 250)])
def test_the_exported_forward_is_the_encoders(tiny_config, lengths):
    """Before any export: without decisions on values, at lengths that do and do not divide by the
    factors.
    """
    torch.manual_seed(0)
    config = ZipformerConfig.preset("mini", num_encoder_layers=1, batch_invariant=True)
    for encoder in (
        Zipformer(tiny_config.replace(batch_invariant=True)).eval(),
        Zipformer(config).eval(),
    ):
        with torch.no_grad():
            expected, expected_lengths = encoder(*features(*lengths))
            frames, frame_lengths = ExportedZipformer(encoder)(*features(*lengths))
        assert torch.equal(frame_lengths, expected_lengths) and frames.shape == expected.shape
        for row, length in enumerate(frame_lengths):
            np.testing.assert_allclose(frames[row, :length], expected[row, :length], atol=2e-5)


@pytest.mark.slow
def test_onnx_gives_the_same_frames_at_any_size(checkpoint, tmp_path, capsys):
    pytest.importorskip("onnxscript", reason="ONNX export needs onnx, onnxscript and onnxruntime")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "encoder.onnx"
    assert main(["export", str(checkpoint), "--format", "onnx", "--output", str(path)]) == 0
    assert f"wrote {path}: frames equal the encoder's" in capsys.readouterr().out
    session, encoder = onnxruntime.InferenceSession(str(path)), load_encoder(checkpoint).encoder
    metadata = session.get_modelmeta().custom_metadata_map
    assert (
        json.loads(metadata["fbank"])["num_mel_bins"] == 80
        and json.loads(metadata["task"]) == "contrastive"
    )
    for lengths in ((300,), (9,), (31, 700, 64, 65), (128, 128)):
        x, counts = features(*lengths)
        frames, frame_lengths = session.run(
            None, {"features": x.numpy(), "lengths": counts.numpy()}
        )
        with torch.no_grad():
            expected, expected_lengths = encoder(x, counts)
        assert frame_lengths.tolist() == expected_lengths.tolist() and frames.shape == tuple(
            expected.shape
        )
        for row, length in enumerate(frame_lengths):
            np.testing.assert_allclose(frames[row, :length], expected[row, :length], atol=1e-4)


def test_what_cannot_be_exported(tmp_path, small_encoder):
    with pytest.raises(UserError, match="only Zipformer encoders are exported"):
        main(["export", str(small_encoder("hubert")), "--output", str(tmp_path / "x")])
    with pytest.raises(CheckpointError, match="no such file or folder"):
        main(["export", str(tmp_path / "absent.pt"), "--output", str(tmp_path / "x")])


def test_without_onnx_one_line_says_what_to_install(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnx onnxscript onnxruntime"):
        export_onnx(checkpoint, tmp_path / "a.onnx")


def test_causal_encoders_are_refused(tmp_path):
    pytest.importorskip("onnxscript", reason="ONNX export needs onnx, onnxscript and onnxruntime")
    pytest.importorskip("onnxruntime")
    config = ZipformerConfig.preset("mini", causal=True, num_encoder_layers=1)
    settings = {"task": "contrastive", "preset": "mini", "encoder": config.to_dict(), "fbank": {}}
    path = tmp_path / "causal.pt"
    save_checkpoint(
        path,
        {
            "model": {f"encoder.{k}": v for k, v in Zipformer(config).state_dict().items()},
            "config": settings,
        },
    )
    with pytest.raises(UserError, match="causal encoders"):
        export_onnx(path, tmp_path / "a.onnx")


def test_a_flipped_bit_of_exported_weights_is_found(checkpoint, tmp_path):
    folder = tmp_path / "encoder"
    export_safetensors(checkpoint, folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, or not the one"):
        load_pretrained(folder)
