"""wav2vec 2.0, HuBERT, WavLM and MERT under the contract of frozen encoders.

All four are a stack of strided convolutions over the waveform and a transformer (transformers'
Wav2Vec2Model, HubertModel, WavLMModel). MERT-v1 was published with code of its own, which current
transformers cannot run; its weights are those of a HubertModel at 24 kHz, key by key, so they load
into that class and no remote code is run. Two options of that code would change the network and are
refused: `feature_extractor_cqt`, `deepnorm`. A third, `attention_relax`, subtracts each row's
maximum before the softmax, which changes nothing.

B clips, N samples, T frames, C channels of the convolutions, D channels of the transformer.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    HubertConfig,
    HubertModel,
    PreTrainedConfig,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMModel,
)
from transformers.utils import logging as transformers_logging

from captionstew.checkpoint import CheckpointError
from captionstew.models.encoders.base import FrozenEncoder, folder_hash, read_json
from captionstew.models.pooling import frame_mask

ModelT = TypeVar("ModelT", bound=PreTrainedModel)
SpeechModel = Wav2Vec2Model | HubertModel | WavLMModel
MODELS: dict[str, type[SpeechModel]] = {
    "wav2vec2": Wav2Vec2Model,
    "hubert": HubertModel,
    "wavlm": WavLMModel,
    "mert_model": HubertModel,
}
NAMES = {"mert_model": "mert"}  # in result files, where transformers calls them otherwise
BACKBONE = ("feature_extractor.", "feature_projection.", "encoder.")
UNUSED = "masked_spec_embed"  # only for masking in training; some checkpoints lack it


class SpeechTransformer(FrozenEncoder):
    """Last transformer layer of a wav2vec2-like model."""

    def __init__(
        self, model: SpeechModel, sampling_rate: int, normalise: bool, **identity: str
    ) -> None:
        super().__init__()
        self.model = model
        self.sampling_rate = sampling_rate
        self.frame_rate = sampling_rate / math.prod(model.config.conv_stride)
        self.dim = model.config.hidden_size
        self.normalise = normalise
        self.describe(
            layer=f"last transformer layer ({model.config.num_hidden_layers})",
            preprocessing=(
                "waveform, zero mean and unit variance per clip" if normalise else "waveform"
            ),
            **identity,
        )

    def encode_clips(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B clips (N_i,) -> frames (B, T, D), lengths (B,)"""
        if self.normalise:
            clips = [
                (clip - clip.mean()) / (clip.var(correction=0) + 1e-7).sqrt() for clip in clips
            ]
        features, lengths = self._convolve(clips)
        hidden = self.model.feature_projection(features)
        if isinstance(hidden, tuple):  # wav2vec2 and WavLM return their normalised input as well
            hidden = hidden[0]
        mask = (
            None
            if bool((lengths == features.size(1)).all())
            else frame_mask(lengths, features.size(1))
        )
        return self.model.encoder(hidden, attention_mask=mask).last_hidden_state, lengths

    def _convolve(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B clips (N_i,) -> (B, T, C) zero-padded, lengths (B,)

        Where the first layer normalises over time ("group"), padding would change every frame: such
        clips run together only with clips of their own length. Without padding in the convolutions,
        nothing else can leak.
        """
        over_time = self.model.config.feat_extract_norm == "group"
        groups: dict[int, list[int]] = {}
        for row, clip in enumerate(clips):
            groups.setdefault(len(clip) if over_time else 0, []).append(row)
        counts = torch.LongTensor([len(clip) for clip in clips])
        lengths = self.model._get_feat_extract_output_lengths(counts).tolist()
        features: list[Tensor] = [clips[0]] * len(clips)
        for rows in groups.values():
            batch = pad_sequence([clips[row] for row in rows], batch_first=True)
            for row, values in zip(rows, self.model.feature_extractor(batch).transpose(1, 2)):
                features[row] = values[: lengths[row]]
        return pad_sequence(features, batch_first=True), torch.tensor(
            lengths, device=clips[0].device
        )


def load_speech_transformer(folder: Path, name: str) -> SpeechTransformer:
    """The model in a transformers folder: config.json, preprocessor_config.json and weights.

    Raises:
      CheckpointError: files are missing, or weights are missing, unexpected or of another shape.
    """
    settings = read_json(folder / "config.json")
    read_json(
        folder / "preprocessor_config.json"
    )  # without it sampling rate and normalisation would be guesses
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder, local_files_only=True)
    kind = settings["model_type"]
    config = _hubert_config(settings, folder) if kind == "mert_model" else None
    return SpeechTransformer(
        load_transformers(MODELS[kind], folder, config, BACKBONE),
        extractor.sampling_rate,
        extractor.do_normalize,
        path=name,
        sha256=folder_hash(folder),
        preset=NAMES.get(kind, kind),
        pretraining="self-supervised",
    )


def load_transformers(
    kind: type[ModelT], folder: Path, config: PreTrainedConfig | None, backbone: tuple[str, ...]
) -> ModelT:
    """A transformers model in float32, every weight of it accounted for; heads beside `backbone`
    are left out.

    Raises:
      CheckpointError: no weights, or some missing, unexpected or of another shape.
    """
    options: dict[str, Any] = {"config": config} if config is not None else {}
    try:
        with _quiet():
            loaded = kind.from_pretrained(
                folder,
                **options,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: weights cannot be loaded ({str(error).splitlines()[0]})"
        ) from error
    # A pair, because the loading info is asked for.
    model, loading = cast(tuple[ModelT, dict[str, list[Any]]], loaded)
    missing = sorted(key for key in loading["missing_keys"] if key != UNUSED)
    names = [key.removeprefix(f"{kind.base_model_prefix}.") for key in loading["unexpected_keys"]]
    unexpected = sorted(key for key in names if key.startswith(backbone))
    shapes = sorted(str(entry[0]) for entry in loading["mismatched_keys"])
    problems = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    if found := [f"{len(keys)} {what}: {', '.join(keys[:5])}" for what, keys in problems if keys]:
        raise CheckpointError(f"{folder}: weights do not fit config.json; {'; '.join(found)}")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' table of the keys that belong to heads: what matters of it is
    raised.
    """
    verbosity, bars = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _hubert_config(settings: dict[str, Any], folder: Path) -> HubertConfig:
    for option in ("feature_extractor_cqt", "deepnorm"):
        if settings.get(option):
            raise CheckpointError(
                f"{folder}: MERT with {option} is another network than HubertModel; use MERT-v1"
            )
    known = HubertConfig().to_dict().keys() - {
        "model_type",
        "architectures",
        "transformers_version",
        "dtype",
    }
    return HubertConfig(**{key: value for key, value in settings.items() if key in known})
