"""Captions of files by a model trained with the captioning objective."""

from dataclasses import dataclass
from pathlib import Path

import torch

from captionstew.checkpoint import MODEL_ENTRIES, CheckpointError, load_checkpoint
from captionstew.data.captions import normalise_caption
from captionstew.data.tokenizer import Tokenizer, tokenizer_from_dict
from captionstew.inference.audio_files import AudioFiles, find_audio
from captionstew.inference.embedding import BATCH_SECONDS, encoded
from captionstew.models.captioning import CaptioningModel, load_captioning
from captionstew.models.encoders.zipformer import FrozenZipformer, frozen_part


@dataclass(frozen=True)
class FileCaption:
    """What the model writes for the part of a file that begins at `start` seconds (0 up to 60 s of
    audio).
    """

    file: str
    start: float
    caption: str


class Captioner:
    """A captioning model with its features and tokenizer."""

    def __init__(
        self,
        model: CaptioningModel,
        encoder: FrozenZipformer,
        tokenizer: Tokenizer,
        max_tokens: int,
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def caption(self, paths: list[str | Path], num_beams: int = 1) -> list[FileCaption]:
        """Captions of files, and of the audio files below folders.

        Raises:
          BadAudio: a file cannot be read. `caption_files` goes on without it.
        """
        files = AudioFiles(find_audio(paths))
        captions = self.caption_files(files, num_beams)
        files.raise_if_any_failed()
        return captions

    @torch.inference_mode()
    def caption_files(
        self,
        files: AudioFiles,
        num_beams: int = 1,
        max_duration: float = BATCH_SECONDS,
        num_workers: int = 0,
    ) -> list[FileCaption]:
        """Captions of the files that can be read, in their order; the others are in
        `files.failed`.
        """
        rows: list[FileCaption] = []
        for pieces, frames, lengths in encoded(self.encoder, files, max_duration, num_workers):
            ids = self.model.decoder.generate(
                self.model.bridge(frames), lengths, num_beams, self.max_tokens
            )
            texts = map(normalise_caption, self.tokenizer.decode(ids))
            rows.extend(
                FileCaption(piece.file, piece.start, text) for piece, text in zip(pieces, texts)
            )
        place = {file: number for number, file in enumerate(files.files)}
        rows = [row for row in rows if row.file not in files.failed]  # of a long one, some pieces
        return sorted(rows, key=lambda row: (place[row.file], row.start))


def load_captioner(checkpoint: str | Path, device: str | torch.device = "cpu") -> Captioner:
    """Raises CheckpointError where there is no checkpoint of the captioning objective."""
    path = Path(checkpoint)
    content = load_checkpoint(path, MODEL_ENTRIES)
    config = content["config"]
    if config.get("task") != "captioning":
        raise CheckpointError(
            f"{path}: trained for {config.get('task')}; captions need a checkpoint of captioning"
        )
    model = load_captioning(config, content["model"], path).to(device)
    encoder = frozen_part(model.encoder, config, path)
    tokenizer = tokenizer_from_dict(config["tokenizer"])
    return Captioner(model, encoder.freeze(), tokenizer, config["max_caption_tokens"])
