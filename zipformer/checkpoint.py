"""Loading the encoder out of a checkpoint: icefall's, Auden's or our own.

    encoder = load_pretrained("pretrained.pt")

What is read, and where the encoder lies in it:

    icefall         pickled dict, weights under "model"; `encoder_embed.*` and `encoder.*` beside a
                    tagging or ASR head
    Auden           safetensors or pickle, perhaps under "state_dict"; below `encoder.`, ...
    captionstew     pickled dict with "format": "captionstew", weights under "model", sizes under
                    "config"
    a folder        `model.safetensors` and, with the encoder's sizes under "encoder", `config.json`

A leading `module.` is dropped and heads are ignored. Pickles are read with `weights_only`: a file
cannot run code. Weights that hold a NaN are refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zipformer.config import PRESETS, ZipformerConfig
from zipformer.model import Zipformer
from zipformer.safe_load import nonfinite_names, safe_load

WEIGHTS_HASH = "weights_sha256"  # entry of config.json
_ANCHOR = "encoder_embed.conv.0.weight"
_UNUSED = re.compile(r"\.layers\.\d+\.bypass_scale$")


def load_pretrained(
    path: str | Path, config: ZipformerConfig | None = None, **overrides: Any
) -> Zipformer:
    """The encoder of a checkpoint, in evaluation mode, float32, on the CPU.

    Args:
        path: a file or folder as described above.
        config: sizes, where the checkpoint neither holds them nor has the shapes of a preset
            (number and size of heads and `encoder_unmasked_dim` cannot be read off the shapes).
        overrides: single fields of the configuration to set, such as batch_invariant=True.

    Raises FileNotFoundError, or ValueError that says what does not fit: no checkpoint, no encoder
    found, unknown sizes, keys missing, unexpected or of another shape.
    """
    path = Path(path)
    weights, stored = read_checkpoint(path)
    state = encoder_state(weights, path)
    if config is None:
        config = infer_config(state, path) if stored is None else ZipformerConfig.from_dict(stored)
    encoder = Zipformer(config.replace(**overrides))
    _load(encoder, state, path)
    return encoder.eval()


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """All weights of a checkpoint by key, and the stored encoder configuration if there is one."""
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        about = _read_about(path.with_name("config.json"))
        _verify_weights(path, about.get(WEIGHTS_HASH))
        return _read_safetensors(path), _stored_config(about)
    content = _read_pickle(path)
    config = content.get("config") if content.get("format") == "captionstew" else None
    if config is not None and not (
        isinstance(config, Mapping) and isinstance(config.get("encoder"), Mapping)
    ):
        raise ValueError(f"{path}: a file of CaptionStew, but not with the weights of an encoder")
    for name in ("model", "state_dict"):
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    weights = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise ValueError(f"{path} holds no weights; its entries are {', '.join(map(str, content))}")
    return weights, None if config is None else dict(config["encoder"])


def encoder_state(weights: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """The encoder's part of a model's weights, keys `encoder_embed.*` and `encoder.*`."""
    weights = {key.removeprefix("module."): value for key, value in weights.items()}
    prefixes = [key.removesuffix(_ANCHOR) for key in weights if key.endswith(_ANCHOR)]
    if len(prefixes) != 1:
        found = ", ".join(prefixes) or "none among " + ", ".join(
            sorted({k.split(".")[0] for k in weights})
        )
        raise ValueError(f"{path} must hold one Zipformer encoder; prefixes of {_ANCHOR}: {found}")
    parts = tuple(prefixes[0] + part for part in ("encoder_embed.", "encoder."))
    return {
        key.removeprefix(prefixes[0]): value.float()
        for key, value in weights.items()
        if key.startswith(parts)
    }


def infer_config(state: Mapping[str, Tensor], path: str | Path) -> ZipformerConfig:
    """The preset with the shapes of an encoder's weights. Raises ValueError with the sizes found if
    there is none.
    """
    try:
        found = _sizes(state)
    except (IndexError, KeyError, StopIteration) as error:
        raise ValueError(
            f"the encoder in {path} is not whole: its sizes cannot be read off its weights"
        ) from error
    for name in PRESETS:
        config = ZipformerConfig.preset(name, causal=found["causal"])
        if _sizes_of(config) == found:
            return config
    raise ValueError(
        f"the encoder in {path} has the sizes of no preset: {found}; "
        "give its configuration with config=ZipformerConfig(...)"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(f"reading {path} needs the safetensors package") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one ({error})") from error


def _read_about(path: Path) -> dict[str, Any]:
    """The object in config.json; empty without one."""
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON object ({error})") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path} is no JSON object (a {type(about).__name__})")
    return about


def _verify_weights(path: Path, expected: str | None) -> None:
    """Raises ValueError where config.json says what the bytes were and they are others."""
    if expected is None:
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is damaged, or not the one that its config.json was written with (sha256"
            f" {found[:12]}, not {str(expected)[:12]}); export it again"
        )


def _stored_config(about: Mapping[str, Any]) -> dict[str, Any] | None:
    encoder = about.get("encoder")
    # Auden writes a config.json too, in its own terms; its sizes are read off the shapes.
    return encoder if isinstance(encoder, dict) and "downsampling_factor" in encoder else None


def _read_pickle(path: Path) -> dict[str, Any]:
    content = safe_load(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dict with weights")
    return dict(content)


def _load(encoder: Zipformer, state: Mapping[str, Tensor], path: Path) -> None:
    own = encoder.state_dict()
    missing = sorted(key for key in own.keys() - state.keys() if not _UNUSED.search(key))
    unexpected = sorted(state.keys() - own.keys())
    shapes = [
        f"{key}: {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if own[key].shape != state[key].shape
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    if any(keys for _, keys in problems):
        lines = [f"{len(keys)} keys {what}: {', '.join(keys)}" for what, keys in problems if keys]
        raise ValueError(
            f"the encoder in {path} does not fit the configuration\n" + "\n".join(lines)
        )
    if bad := nonfinite_names(state):
        raise ValueError(
            f"{path}: the weights hold NaN or infinity ({', '.join(bad[:3])}); use an older"
            " checkpoint"
        )
    encoder.load_state_dict(state, strict=False)


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes of an encoder's weights tell about its configuration."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    pattern = re.compile(
        r"encoder\.encoders\.(\d+)\.(?:encoder\.)?layers\.(\d+)\.bypass\.bypass_scale$"
    )
    layers: dict[int, list[str]] = {}
    for key in sorted(shapes):
        if match := pattern.match(key):
            layers.setdefault(int(match[1]), []).append(key.removesuffix("bypass.bypass_scale"))
    firsts = [layers[stack][0] for stack in sorted(layers)]
    kernels = (
        "conv_module1.depthwise_conv.weight",
        "conv_module1.depthwise_conv.chunkwise_conv.weight",
    )
    factors = (
        shapes.get(f"encoder.encoders.{stack}.downsample.bias", (1,))[0] for stack in sorted(layers)
    )
    projections = (
        "self_attn_weights.in_proj",
        "self_attn_weights.linear_pos",
        "self_attn1.in_proj",
    )
    return {
        "causal": f"{firsts[0]}{kernels[1]}" in shapes,
        "frontend_channels": tuple(shapes[f"encoder_embed.conv.{i}.weight"][0] for i in (0, 4, 7)),
        "frontend_outputs": shapes["encoder_embed.out.weight"][1],
        "downsampling_factor": tuple(factors),
        "num_encoder_layers": tuple(len(layers[stack]) for stack in sorted(layers)),
        "encoder_dim": tuple(shapes[f"{first}bypass.bypass_scale"][0] for first in firsts),
        "feedforward_dim": tuple(
            shapes[f"{first}feed_forward2.in_proj.weight"][0] for first in firsts
        ),
        "cnn_module_kernel": tuple(
            next(shapes[f + k][2] for k in kernels if f + k in shapes) for f in firsts
        ),
        "pos_dim": shapes[f"{firsts[0]}self_attn_weights.linear_pos.weight"][1],
        "attention_projections": tuple(
            tuple(shapes[f"{f}{p}.weight"][0] for p in projections) for f in firsts
        ),
    }


def _sizes_of(config: ZipformerConfig) -> dict[str, Any]:
    """The same of a configuration."""
    names = ["causal", "frontend_channels", "downsampling_factor", "num_encoder_layers"]
    names += ["encoder_dim", "feedforward_dim", "cnn_module_kernel", "pos_dim"]
    heads = zip(config.num_heads, config.query_head_dim, config.pos_head_dim, config.value_head_dim)
    return {name: getattr(config, name) for name in names} | {
        "frontend_outputs": config.frontend_channels[2] * config.frontend_bands,
        "attention_projections": tuple(
            (h * (2 * dk + dp), h * dp, h * dv) for h, dk, dp, dv in heads
        ),
    }
