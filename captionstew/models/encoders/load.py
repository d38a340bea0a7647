"""Frozen audio encoders behind one contract, for every evaluation.

    encoder = load_encoder("exp/contrastive/pretrained.pt")
    frames, lengths = encoder(waveforms, num_samples)  # (B, N), (B,) -> (B, T, dim), (B,)
    vector = encoder.embed("dog.wav")                   # (dim,)

An encoder is named by

    a file              a Zipformer checkpoint (ours, icefall's, Auden's), or BEATs' own
    a folder            what its config.json says: wav2vec2, hubert, wavlm, mert_model, clap;
                        anything else must hold a Zipformer (`captionstew export`, Auden)
    hf:OWNER/NAME       such a folder on the Hugging Face Hub; the only name that downloads
    logmel              80 log-mel bands: a floor
    random:PRESET[:SEED], random:CHECKPOINT[:SEED]   a Zipformer with random weights: a control

Systems whose code cannot be run here take part by files of vectors: see
captionstew.models.encoders.stored.
"""

from pathlib import Path
from typing import Any

import torch

from captionstew.checkpoint import CheckpointError
from captionstew.models.encoders.base import FrozenEncoder, checkpoint_entries, read_json
from captionstew.models.encoders.beats import load_beats
from captionstew.models.encoders.zipformer import LogMel, pretrained_zipformer, random_zipformer

SPEECH_TYPES = (
    "wav2vec2",
    "hubert",
    "wavlm",
    "mert_model",
)  # `model_type` in transformers' config.json


def load_encoder(path_or_name: str | Path, device: str | torch.device = "cpu") -> FrozenEncoder:
    """The frozen encoder that a name stands for (the names are listed at the top of this module).

    Raises:
      CheckpointError: no such file, not an encoder, of a newer format, or weights that do not fit.
      ValueError: an unknown preset after `random:`.
      UserError: an optional package is missing; the message says which to install.
    """
    return _load(str(path_or_name)).freeze().to(device)


def _load(name: str) -> FrozenEncoder:
    if name == "logmel":
        return LogMel()
    if name.startswith("random:") and len(name) > len("random:"):
        return random_zipformer(name)
    if name.startswith("hf:"):
        return _from_folder(_download(name.removeprefix("hf:")), name)
    path = Path(name)
    if path.is_dir():
        return _from_folder(path, name)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file or folder; give a checkpoint, hf:OWNER/NAME, `logmel` or"
            " `random:<preset>`"
        )
    if path.suffix == ".safetensors":
        return pretrained_zipformer(path)
    entries = checkpoint_entries(path)
    return load_beats(path) if _is_beats(entries) else pretrained_zipformer(path, entries)


def _from_folder(folder: Path, name: str) -> FrozenEncoder:
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if (
        config.get("model_type") in SPEECH_TYPES
    ):  # transformers takes seconds to import, and not all encoders need it
        from captionstew.models.encoders.speech import load_speech_transformer

        return load_speech_transformer(folder, name)
    if config.get("model_type") == "clap" and "audio_config" in config:
        from captionstew.models.encoders.clap import load_clap

        return load_clap(folder, name)
    if not (folder / "model.safetensors").is_file():
        kind = f"model_type {config['model_type']!r}" if "model_type" in config else "no model_type"
        known = ", ".join((*SPEECH_TYPES, "clap"))
        raise CheckpointError(
            f"{folder}: neither a transformers folder that is known here ({kind}; known: {known})"
            " nor one with a Zipformer in model.safetensors"
        )
    return pretrained_zipformer(folder)


def _is_beats(entries: dict[str, Any]) -> bool:
    weights = entries.get("model")
    return "cfg" in entries and isinstance(weights, dict) and "patch_embedding.weight" in weights


def _download(name: str) -> Path:
    """The folder of a model on the Hub, from the cache if it is there; safetensors where the model
    has them.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.npz"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=["*.json", "pytorch_model*.bin"]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"hf:{name}: not in the cache and cannot be downloaded ({reason}); download its folder"
            " elsewhere and give the folder's path"
        ) from error
    return folder
