"""Log-mel filter bank features: defined once, stored in every checkpoint.

    from captionstew.data.fbank import Fbank, FbankConfig
    features = Fbank(FbankConfig()).extract(samples)     # (N,) in [-1, 1] -> (T, 80)

T = round(N / 160): a frame every 10 ms, the edges mirrored (`snip_edges` False). A clip's features
are computed from that clip alone, so they never depend on what it is batched with.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from captionstew.data.resampling import one_thread

# Log-mel value of digital silence, ln(2^-23) (the energy floor is float32's epsilon): what padding
# is made of.
PADDING_VALUE = -15.942385

BACKENDS = ("lhotse", "kaldifeat")


@dataclass(frozen=True)
class FbankConfig:
    """Kaldi-compatible filter bank: seconds, hertz; `high` <= 0 counts from half the sampling
    rate.
    """

    num_mel_bins: int = 80
    frame_length: float = 0.025
    frame_shift: float = 0.01
    sampling_rate: int = 16000
    low: float = 20.0
    high: float = -400.0
    dither: float = 0.0
    snip_edges: bool = False
    backend: str = "lhotse"

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(
                f"unknown --fbank-backend {self.backend!r}: choose one of {', '.join(BACKENDS)}"
            )

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "FbankConfig":
        """Raises ValueError that names unknown fields."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"unknown fbank settings: {', '.join(unknown)}")
        return cls(**values)

    def hash(self) -> str:
        """Sixteen hexadecimal digits that name this configuration."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip of `num_samples` samples (snip_edges False: half a shift makes the last
        frame).
        """
        shift = round(self.frame_shift * self.sampling_rate)
        if self.snip_edges:
            length = round(self.frame_length * self.sampling_rate)
            return 0 if num_samples < length else 1 + (num_samples - length) // shift
        return (num_samples + shift // 2) // shift


class Fbank:
    """Features of float samples in [-1, 1] at `config.sampling_rate`, computed on `device`."""

    def __init__(
        self, config: FbankConfig | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.config = config or FbankConfig()
        self.device = torch.device(device)
        build = _lhotse_extractor if self.config.backend == "lhotse" else _kaldifeat_extractor
        self._extractor = build(self.config, self.device)

    @torch.no_grad()
    def extract(self, samples: Tensor) -> Tensor:
        """samples (N,) -> (T, num_mel_bins) on the extractor's device."""
        if samples.ndim != 1:
            raise ValueError(f"expected samples of shape (N,), got {tuple(samples.shape)}")
        with one_thread():
            return self._extractor(samples.to(self.device, torch.float32))

    def extract_batch(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B clips (N_i,) -> features (B, T, num_mel_bins) padded with PADDING_VALUE, lengths (B,)
        int64.

        Clip by clip: padding waveforms first would change the last frame of every shorter clip
        (zeros instead of the mirrored edge).
        """
        return pad_features([self.extract(clip) for clip in clips])


def pad_features(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """B matrices (T_i, F) -> (B, max T_i, F) padded with PADDING_VALUE, lengths (B,) int64."""
    lengths = torch.tensor(
        [len(clip) for clip in features], dtype=torch.int64, device=features[0].device
    )
    shape = (len(features), max(map(len, features)), features[0].shape[1])
    with one_thread():  # copying is not worth waking other threads
        padded = features[0].new_full(shape, PADDING_VALUE)
        for row, clip in zip(padded, features, strict=True):
            row[: len(clip)] = clip
    return padded, lengths


def _lhotse_extractor(config: FbankConfig, device: torch.device):
    from lhotse.features.kaldi.layers import Wav2LogFilterBank

    layer = Wav2LogFilterBank(
        sampling_rate=config.sampling_rate,
        frame_length=config.frame_length,
        frame_shift=config.frame_shift,
        dither=config.dither,
        snip_edges=config.snip_edges,
        low_freq=config.low,
        high_freq=config.high,
        num_filters=config.num_mel_bins,
    )
    layer = layer.to(device).eval()
    return lambda samples: layer(samples.unsqueeze(0)).squeeze(0)


def _kaldifeat_extractor(config: FbankConfig, device: torch.device):
    try:
        import kaldifeat
    except (ImportError, OSError) as error:
        raise ImportError(
            f"--fbank-backend kaldifeat: kaldifeat cannot be imported ({error}). Install the wheel"
            " that matches your torch from its wheel page, or use --fbank-backend lhotse, which"
            " agrees to 2e-3"
        ) from error
    options = kaldifeat.FbankOptions()
    options.device = device
    options.mel_opts.num_bins = config.num_mel_bins
    options.mel_opts.low_freq = config.low
    options.mel_opts.high_freq = config.high
    options.frame_opts.samp_freq = config.sampling_rate
    options.frame_opts.frame_length_ms = config.frame_length * 1000
    options.frame_opts.frame_shift_ms = config.frame_shift * 1000
    options.frame_opts.dither = config.dither
    options.frame_opts.snip_edges = config.snip_edges
    return kaldifeat.Fbank(options)
