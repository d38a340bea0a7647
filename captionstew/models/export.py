"""The encoder of a checkpoint in forms that run without this repository's training code.

    safetensors   folder with model.safetensors and config.json, for `zipformer.load_pretrained`;
                  reading it takes torch
                  and safetensors alone, `captionstew.load_encoder(folder)` with its features
    onnx          features (B, T, 80), lengths (B,) to frames (B, T', D), lengths (B,), any B, T

N clips, T frames at 50 Hz, D channels.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captionstew.checkpoint import FORMAT
from captionstew.data.manifests.trained_clips import ENTRY, copy_trained_clips
from captionstew.errors import UserError
from captionstew.files import atomic_path, check_output, write_text
from captionstew.hashing import sha256_of_file
from captionstew.models.encoders.load import load_encoder
from captionstew.models.encoders.zipformer import FrozenZipformer
from zipformer import Zipformer
from zipformer.checkpoint import WEIGHTS_HASH
from zipformer.encoder import DownsampledStack
from zipformer.frontend import MIN_FEATURES, frontend_lengths
from zipformer.positions import relative_positions
from zipformer.resampling import convert_channels, full_dimension_output
from zipformer.sequences import Frames

OPSET = 18
PARITY = 1e-4  # relative to the largest value; float32 sums in another order


def export_safetensors(checkpoint: str | Path, folder: Path) -> FrozenZipformer:
    """Writes model.safetensors and config.json: encoder sizes, features, and what it was pretrained
    on; and beside them the file with its training clips, if there is one.

    Raises:
      CheckpointError: not a Zipformer checkpoint.
    """
    from safetensors.torch import save_file

    encoder = _zipformer(checkpoint)
    check_output(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "model.safetensors") as path:
        save_file(encoder.encoder.state_dict(), path, metadata={"format": "pt"})
    settings = _settings(encoder) | {WEIGHTS_HASH: sha256_of_file(folder / "model.safetensors")}
    write_text(folder / "config.json", json.dumps(settings, indent=2) + "\n")
    _copy_memory(encoder, folder)
    return encoder


def export_onnx(checkpoint: str | Path, path: Path) -> float:
    """Writes an ONNX file, runs it with onnxruntime on clips of several lengths, and returns the
    largest difference from the encoder, relative to the largest value. Its metadata has what
    config.json has of the other format.

    Raises:
      CheckpointError: not a Zipformer checkpoint.
      UserError: an optional package is missing, the model is causal, or the file's frames differ by
          more than PARITY.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise UserError(
            f"ONNX needs optional packages ({error}): pip install onnx onnxscript onnxruntime"
        ) from error
    frozen = _zipformer(checkpoint)
    encoder = frozen.encoder
    if encoder.config.causal:
        raise UserError(
            f"{checkpoint}: causal encoders draw their chunks at run time and are not exported to"
            " ONNX"
        )
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    batch, time = torch.export.Dim("batch", min=1), torch.export.Dim("time", min=MIN_FEATURES)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own code
        program = torch.onnx.export(
            ExportedZipformer(encoder).eval(),
            _clips((200, 150)),
            dynamo=True,
            opset_version=OPSET,
            input_names=["features", "lengths"],
            output_names=["frames", "frame_lengths"],
            dynamic_shapes={"features": {0: batch, 1: time}, "lengths": {0: batch}},
            verbose=False,
        )
    assert program is not None  # it is for the older exporter, without `dynamo`
    program.model.metadata_props.update(
        {name: json.dumps(value) for name, value in _settings(frozen).items()}
    )
    with atomic_path(path) as partial:
        program.save(str(partial))
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
        difference = max(
            _difference(encoder, session, lengths)
            for lengths in ((57,), (400, 9, 101), (1000, 250))
        )
        if difference > PARITY:
            raise UserError(
                f"{path}: the exported frames differ by {difference:.1g}, more than {PARITY:.0g};"
                " not written"
            )
    _copy_memory(frozen, path.parent)
    return difference


class ExportedZipformer(nn.Module):
    """The encoder's forward in evaluation mode without decisions on values or lengths, which a
    graph cannot take.

    The modules are the encoder's own; what is written anew is how they are joined where the
    original looks at a length: padding is always masked, and frames are taken by index instead of
    being cut or filled up.
    """

    def __init__(self, encoder: Zipformer) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T', 80), (N,) int64 -> (N, ceil(T / 2), D), (N,)"""
        model, config = self.encoder.encoder, self.encoder.config
        lengths = frontend_lengths(lengths)
        padding = torch.arange((features.shape[1] - 7) // 2) >= lengths[:, None]
        x = self.encoder.encoder_embed(features, padding)
        frames = Frames(padding, lengths=lengths)
        outputs = []
        for dim, stack in zip(config.encoder_dim, model.encoders):
            x = convert_channels(x, dim)
            if isinstance(stack, DownsampledStack):
                low = _downsample(stack.downsample.bias, x, lengths)
                low = _run_layers(
                    stack.encoder, low, frames.downsampled(stack.factor), config.pos_dim
                )
                x = stack.out_combiner(
                    x, low.index_select(1, torch.arange(x.shape[1]) // stack.factor)
                )
            else:
                x = _run_layers(stack, x, frames, config.pos_dim)
            outputs.append(x)
        return (
            _downsample(model.downsample_output.bias, full_dimension_output(outputs), lengths),
            (lengths + 1) // 2,
        )


def _run_layers(stack: nn.Module, x: Tensor, frames: Frames, pos_dim: int) -> Tensor:
    """(N, T, D) -> (N, T, D)"""
    positions = relative_positions(
        x.shape[1], pos_dim, torch.float32
    )  # runtimes lack atan in float64
    for layer in stack.get_submodule("layers").children():
        x = layer(x, positions, frames)
    return x


def _downsample(bias: Tensor, x: Tensor, lengths: Tensor) -> Tensor:
    """(factor,), (N, T, C), (N,) -> (N, ceil(T / factor), C): groups are filled up with each clip's
    last frame
    """
    factor, num_groups = len(bias), (x.shape[1] + len(bias) - 1) // len(bias)
    index = torch.minimum(torch.arange(num_groups * factor), (lengths[:, None] - 1).clamp(min=0))
    x = x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
    return torch.matmul(bias.softmax(dim=0), x.reshape(x.shape[0], num_groups, factor, x.shape[2]))


def _zipformer(checkpoint: str | Path) -> FrozenZipformer:
    encoder = load_encoder(checkpoint)
    if not isinstance(encoder, FrozenZipformer):
        raise UserError(
            f"{checkpoint}: a {type(encoder).__name__}; only Zipformer encoders are exported"
        )
    return encoder


def _settings(encoder: FrozenZipformer) -> dict[str, Any]:
    """What a user of the exported encoder has to know, and `load_encoder` reads."""
    return {
        "format": FORMAT,
        "encoder": encoder.encoder.config.to_dict(),
        "fbank": encoder.fbank_config.to_dict(),
        "preset": encoder.description["preset"],
        "task": encoder.description["pretraining"],
        "exported_from_sha256": encoder.description["sha256"],
        ENTRY: encoder.description.get(ENTRY),
    }


def _copy_memory(encoder: FrozenZipformer, folder: Path) -> None:
    """Puts what the encoder was trained on beside its exported form."""
    source = Path(encoder.description["path"])
    reference = encoder.description.get(ENTRY)
    copy_trained_clips(source if source.is_dir() else source.parent, reference, folder)


def _clips(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Feature-like noise (N, max length, 80), lengths (N,)"""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(lengths), max(lengths), 80, generator=generator) * 3 - 6, torch.tensor(
        lengths
    )


def _difference(encoder: Zipformer, session: Any, lengths: tuple[int, ...]) -> float:
    """Largest difference over valid frames, relative to the largest value."""
    features, counts = _clips(lengths)
    with torch.no_grad():
        expected, expected_counts = encoder(features, counts)
    found, found_counts = session.run(
        None, {"features": features.numpy(), "lengths": counts.numpy()}
    )
    if found.shape != tuple(expected.shape) or found_counts.tolist() != expected_counts.tolist():
        return float("inf")
    valid = torch.arange(expected.shape[1]) < expected_counts[:, None]
    return float(
        (torch.from_numpy(found) - expected)[valid].abs().max() / expected[valid].abs().max()
    )
