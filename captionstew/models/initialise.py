"""Starting from pretrained parts: the audio encoder of any checkpoint; what a log says about it.

Text sides are built from their checkpoints by `build_text_tower` and `build_text_decoder`.
"""

from pathlib import Path

from torch import nn

from zipformer import Zipformer, ZipformerConfig
from zipformer.checkpoint import encoder_state, infer_config, read_checkpoint
from zipformer.config import PRESETS

# What decides the shapes of the weights, or what they mean.
ARCHITECTURE = (
    "downsampling_factor",
    "encoder_dim",
    "num_encoder_layers",
    "num_heads",
    "query_head_dim",
    "value_head_dim",
    "pos_head_dim",
    "pos_dim",
    "feedforward_dim",
    "cnn_module_kernel",
    "frontend_channels",
    "output_downsampling_factor",
    "feature_dim",
    "causal",
)
# per layer, beside bypass.bypass_scale: icefall keeps it without using it, Auden dropped it
UNUSED = ".bypass_scale"


def initialise_encoder(encoder: Zipformer, path: Path | str) -> None:
    """Copies the weights of a checkpoint's encoder (icefall, Auden, ours: any objective) into
    `encoder`.

    Heads and text sides of the checkpoint are left alone.

    Raises:
      ValueError: no encoder there, or one of other sizes; the message says which flags would fit.
      OSError: no such file.
    """
    weights, stored = read_checkpoint(path)
    state = encoder_state(weights, path)
    own = {
        name: value.shape
        for name, value in encoder.state_dict().items()
        if _belongs_to_encoder(name)
    }
    found = {name: value.shape for name, value in state.items()}
    needed = {name: shape for name, shape in own.items() if name in found or not _is_unused(name)}
    config = ZipformerConfig.from_dict(stored) if stored is not None else None
    # Number and size of the heads leave the shapes as they are: a stored configuration tells them
    # apart.
    if found != needed or (config is not None and _differences(config, encoder.config)):
        raise ValueError(_misfit(path, config or _guess(state, path), encoder.config))
    encoder.load_state_dict(state, strict=False)


def initialisation_line(model: nn.Module, sources: dict[str, str]) -> str:
    """Which parts of a model come from where, and which are new, each with its number of
    parameters.

    Args:
      sources: top-level part of the model -> checkpoint.
    """
    parts: dict[str, list[str]] = {}
    for name, part in model.named_children():
        count = sum(parameter.numel() for parameter in part.parameters())
        if count:
            parts.setdefault(sources.get(name, ""), []).append(f"{name} ({count:,})")
    own = [
        f"{name} ({parameter.numel():,})"
        for name, parameter in model.named_parameters(recurse=False)
    ]
    new = [*parts.pop("", []), *own]
    loaded = [f"{', '.join(names)} from {source}" for source, names in parts.items()]
    return f"loaded: {'; '.join(loaded) or 'nothing'}; new: {', '.join(new) or 'nothing'}"


def _belongs_to_encoder(name: str) -> bool:
    return name.startswith(("encoder_embed.", "encoder."))


def _is_unused(name: str) -> bool:
    return name.endswith(UNUSED) and name.split(".")[-2].isdigit()


def _guess(state: dict, path: Path | str) -> ZipformerConfig | None:
    """The preset of a checkpoint that does not say its sizes."""
    try:
        return infer_config(state, path)
    except ValueError:
        return None


def _differences(theirs: ZipformerConfig, ours: ZipformerConfig) -> list[str]:
    return [name for name in ARCHITECTURE if getattr(theirs, name) != getattr(ours, name)]


def _misfit(path: Path | str, theirs: ZipformerConfig | None, ours: ZipformerConfig) -> str:
    """What differs, and what to do."""
    if theirs is None:
        return (
            f"{path}: its encoder has the shapes of no preset and not of this run's"
            f" ({ours.output_dim} channels out); give the flags that it was trained with"
            " (--encoder-dim, --num-encoder-layers, ...)"
        )
    names = _differences(theirs, ours)
    values = "; ".join(
        f"{name} {_shown(theirs, name)}, here {_shown(ours, name)}" for name in names[:3]
    )
    preset = next(
        (name for name in PRESETS if not _differences(ZipformerConfig.preset(name), theirs)), None
    )
    advice = (
        f"use --encoder-preset {preset} without other sizes"
        if preset
        else "use the flags it was trained with"
    )
    return (
        f"{path}: its encoder has {theirs.output_dim} channels out, this run's {ours.output_dim},"
        f" and they differ in {values}: {advice}, or start from a tagger trained at this run's"
        " sizes"
    )


def _shown(config: ZipformerConfig, name: str) -> str:
    value = getattr(config, name)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
