"""The whole audio encoder: log-mel features in, frames at 25 Hz out.

encoder = Zipformer(ZipformerConfig.preset("medium"))
frames, frame_lengths = encoder(features, lengths)
"""

from __future__ import annotations

from torch import Tensor, nn

from zipformer.config import ZipformerConfig
from zipformer.encoder import ZipformerEncoder
from zipformer.frontend import MIN_FEATURES, Frontend, frontend_lengths
from zipformer.randomness import Randomness, share_randomness
from zipformer.sequences import padding_mask


class Zipformer(nn.Module):
    """Frontend and encoder, with the state-dict keys of the original: `encoder_embed.*` and
    `encoder.*`.
    """

    def __init__(self, config: ZipformerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder_embed = Frontend(config)
        self.encoder = ZipformerEncoder(config)
        share_randomness(self, Randomness())

    @property
    def output_dim(self) -> int:
        """Channels of the output."""
        return self.config.output_dim

    @property
    def batch_invariant(self) -> bool:
        """Whether each clip gets the frames that it would get alone; may be changed at any time."""
        return self.encoder.batch_invariant

    @batch_invariant.setter
    def batch_invariant(self, value: bool) -> None:
        self.encoder.batch_invariant = value

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 80) log-mel at 100 Hz, (B,) -> (B, T', output_dim) at 25 Hz, (B,)

        T may exceed the longest length. Lengths are best left on the CPU: batches without padding
        are then recognised, and lengths are checked. Raises ValueError for shapes that do not fit
        and clips under 9 frames (0.1 s).
        """
        self._check(features, lengths)
        lengths = frontend_lengths(lengths)
        padding = None
        if self.batch_invariant:
            num_frames = (features.shape[1] - 7) // 2
            padding = padding_mask(lengths, num_frames, features.device)
        return self.encoder(self.encoder_embed(features, padding), lengths)

    def _check(self, features: Tensor, lengths: Tensor) -> None:
        if features.ndim != 3 or features.shape[2] != self.config.feature_dim:
            expected = f"(batch, frames, {self.config.feature_dim})"
            raise ValueError(f"features have shape {tuple(features.shape)}; expected {expected}")
        if lengths.shape != features.shape[:1]:
            raise ValueError(
                f"lengths have shape {tuple(lengths.shape)} for features {tuple(features.shape)}"
            )
        if features.shape[1] < MIN_FEATURES:
            raise ValueError(
                f"features have {features.shape[1]} frames; the encoder needs at least"
                f" {MIN_FEATURES}"
            )
        if lengths.device.type == "cpu" and lengths.numel():
            shortest, longest = int(lengths.min()), int(lengths.max())
            if shortest < MIN_FEATURES or longest > features.shape[1]:
                raise ValueError(
                    f"lengths lie between {shortest} and {longest}; they must lie between"
                    f" {MIN_FEATURES} and the features' {features.shape[1]} frames"
                )
