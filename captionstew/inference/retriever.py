"""Search and zero-shot labels with a model trained with the contrastive objective.

F files, C classes, E joint embedding size.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from captionstew.checkpoint import MODEL_ENTRIES, CheckpointError, load_checkpoint
from captionstew.data.tokenizer import Tokenizer, tokenizer_from_dict
from captionstew.evaluation.retrieval import embed_texts
from captionstew.files import check_output_file
from captionstew.inference.audio_files import AudioFiles, find_audio
from captionstew.inference.embedding import BATCH_SECONDS, embed_files
from captionstew.inference.search_index import SearchIndex, load_index, stamp
from captionstew.locks import one_writer
from captionstew.models.contrastive import ContrastiveModel, load_contrastive
from captionstew.models.encoders.zipformer import FrozenZipformer, frozen_part

LABEL_TEMPLATE = "The sound of {}."
SAVE_EVERY = 2000  # new files of an index


class Retriever:
    """A two-tower model with its features and tokenizer."""

    def __init__(
        self,
        model: ContrastiveModel,
        encoder: FrozenZipformer,
        tokenizer: Tokenizer,
        dim: int,
        max_tokens: int,
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.dim = dim
        self.max_tokens = max_tokens

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """-> (len(texts), E) of length 1"""
        return embed_texts(self.model, self.tokenizer, texts, self.encoder.device, self.max_tokens)

    @torch.inference_mode()
    def embed_audio(
        self, files: AudioFiles, max_duration: float = BATCH_SECONDS, num_workers: int = 0
    ) -> np.ndarray:
        """-> (len(files.used), E) of length 1; the files that cannot be read are in
        `files.failed`
        """
        means = torch.from_numpy(embed_files(self.encoder, files, max_duration, num_workers))
        projected = self.model.audio_projection(means.to(self.encoder.device)).float()
        return F.normalize(projected, dim=-1).cpu().numpy()

    def index(
        self,
        paths: Sequence[str | Path],
        path: str | Path | None = None,
        max_duration: float = BATCH_SECONDS,
        num_workers: int = 0,
    ) -> tuple[SearchIndex, dict[str, str]]:
        """Index of the audio files at and below `paths`, by absolute path, and those that cannot be
        read, with reasons.

        Args:
          path: file of the index. If it is there, vectors of files that have not changed since are
            taken from it; it is written after every 2,000 new files, so that little is lost when
            this is interrupted.

        Raises:
          ValueError: `path` holds no index, one made with another checkpoint, or one with files
            that are still there but not among these.
        """
        if path is None:
            return self._index(paths, None, max_duration, num_workers)
        check_output_file(Path(path))
        with one_writer(Path(path), wait=True, is_file=True):
            return self._index(paths, path, max_duration, num_workers)

    def _index(
        self,
        paths: Sequence[str | Path],
        path: str | Path | None,
        max_duration: float,
        num_workers: int,
    ) -> tuple[SearchIndex, dict[str, str]]:
        files = list(dict.fromkeys(map(os.path.abspath, find_audio(paths))))
        stamps = {file: stamp(file) for file in files}
        vectors = self._unchanged(path, stamps)
        fresh = [file for file in files if file not in vectors]
        failed: dict[str, str] = {}
        for start in range(0, len(fresh), SAVE_EVERY):
            part = AudioFiles(fresh[start : start + SAVE_EVERY])
            embedded = self.embed_audio(part, max_duration, num_workers)
            vectors.update(zip(part.used, embedded))
            failed.update(part.failed)
            if path is not None and start + SAVE_EVERY < len(fresh):
                self._collect(files, vectors, stamps).save(path)
        index = self._collect(files, vectors, stamps)
        if path is not None and index.files:
            index.save(path)
        return index, failed

    def _unchanged(
        self, path: str | Path | None, stamps: dict[str, tuple[int, int]]
    ) -> dict[str, np.ndarray]:
        """Vectors of the files that are as they were when the index at `path` was made.

        Raises:
          ValueError: the index holds files that are still there but not among these; they would be
              lost.
        """
        if path is None or not Path(path).exists():
            return {}
        known = load_index(path)
        self.check(known)
        if others := [file for file in known.files if file not in stamps and Path(file).exists()]:
            raise ValueError(
                f"{path} is an index of more than these files, for example of {others[0]}: "
                "name all of its files and folders, or another index"
            )
        rows = zip(known.files, known.vectors, known.stamps.tolist())
        return {file: vector for file, vector, mark in rows if stamps.get(file) == tuple(mark)}

    def _collect(
        self,
        files: Sequence[str],
        vectors: dict[str, np.ndarray],
        stamps: dict[str, tuple[int, int]],
    ) -> SearchIndex:
        usable = tuple(file for file in files if file in vectors)
        matrix = (
            np.stack([vectors[file] for file in usable])
            if usable
            else np.zeros((0, self.dim), dtype=np.float32)
        )
        marks = np.array([stamps[file] for file in usable], dtype=np.int64).reshape(-1, 2)
        return SearchIndex(usable, matrix, marks, self.encoder.description["sha256"])

    def search(self, index: SearchIndex, text: str, k: int = 10) -> list[tuple[str, float]]:
        """At most k (file, cosine) that fit the text, the best first. Raises ValueError for another
        model's index.
        """
        self.check(index)
        return index.nearest(self.embed_texts([text])[0], k)

    def classify(
        self,
        files: AudioFiles,
        labels: Sequence[str],
        template: str = LABEL_TEMPLATE,
        max_duration: float = BATCH_SECONDS,
        num_workers: int = 0,
    ) -> np.ndarray:
        """-> (len(files.used), C): softmax over the labels of cosine / temperature

        Args:
          template: sentence for a label, with {} in its place; underscores of labels become blanks.

        Raises:
          ValueError: fewer than two labels, or a template without {}.
        """
        if len(set(labels)) < 2:
            raise ValueError(f"at least two different labels are needed, not {list(labels)}")
        if "{}" not in template:
            raise ValueError(f"the template needs {{}} where the label goes: {template!r}")
        text = self.embed_texts(
            [template.replace("{}", label.replace("_", " ")) for label in labels]
        )
        scale = float(self.model.logit_scale.detach().exp().clamp(max=100.0))
        logits = (
            torch.from_numpy(self.embed_audio(files, max_duration, num_workers) @ text.T) * scale
        )
        return logits.softmax(dim=1).numpy()

    def check(self, index: SearchIndex) -> None:
        """Raises ValueError where the index was made with another checkpoint."""
        own = self.encoder.description["sha256"]
        if index.model != own:
            raise ValueError(
                f"the index was made with another checkpoint (sha256 {index.model[:12]}, not"
                f" {own[:12]}): remove it, or name another file for this checkpoint's"
            )


def load_retriever(checkpoint: str | Path, device: str | torch.device = "cpu") -> Retriever:
    """Raises CheckpointError where there is no checkpoint of the contrastive objective."""
    path = Path(checkpoint)
    content = load_checkpoint(path, MODEL_ENTRIES)
    config = content["config"]
    if config.get("task") != "contrastive":
        raise CheckpointError(
            f"{path}: trained for {config.get('task')}; search and labels need one trained"
            " contrastively"
        )
    tokenizer = tokenizer_from_dict(config["tokenizer"])
    model = load_contrastive(config, content["model"], tokenizer, path).to(device)
    encoder = frozen_part(model.encoder, config, path)
    return Retriever(
        model, encoder.freeze(), tokenizer, config["embedding_dim"], config["max_caption_tokens"]
    )
