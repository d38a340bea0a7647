#!/usr/bin/env python3
"""Retrieval by a system's own two towers, without adaptation (paper Table 10).

    ./own.py --checkpoint exp/contrastive/pretrained.pt --manifest data/audiocaps/cuts_test.jsonl \\
        --exp-dir exp/own/audiocaps
    ./own.py --audio-embeddings audio.npz --text-embeddings text.npz \\
        --manifest data/audiocaps/cuts_test.jsonl \\
        --exp-dir exp/own/other --system other

The second form is for systems whose code is not here. Both files are as
captionstew.models.encoders.stored describes; the ids are those of the cuts for audio, and <cut
id>#<number of the caption, from 0> for text. Writes
<exp-dir>/results/own_retrieval_<corpus>-<split>-<strict|match>.json; the corpus is the manifest's
folder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captionstew.data.batches.captioned import feature_batches
from captionstew.data.features.fbank import FbankConfig
from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.manifests.index import IndexedCuts
from captionstew.data.tokenizer import tokenizer_from_dict
from captionstew.distributed import pick_device
from captionstew.errors import run_main
from captionstew.evaluation.lit import corpus_name
from captionstew.evaluation.results import write_result
from captionstew.evaluation.retrieval import EmbeddedClips, embed_clips, retrieval_report
from captionstew.evaluation.trained_clips import Count, TrainedClipsFlags
from captionstew.evaluation.weights import SelectionFlags, select_weights
from captionstew.flags import flag, parse_flags
from captionstew.models.contrastive import load_contrastive
from captionstew.models.encoders.stored import load_embeddings
from captionstew.training.flags import RankingFlags


@dataclass(frozen=True)
class Flags(RankingFlags, TrainedClipsFlags):
    exp_dir: Path = flag(Path("exp"), "results go below it")
    checkpoint: Path | None = flag(None, "a contrastive model")
    audio_embeddings: Path | None = flag(None, "vectors of the clips, in the place of --checkpoint")
    text_embeddings: Path | None = flag(None, "vectors of all captions")
    manifest: Path = flag(Path("data/cuts_test.jsonl"), "clips to evaluate on")
    system: str = flag("", "name in the report (default: the experiment folder's)")
    max_duration: float = flag(
        100.0,
        "seconds of audio per batch; results do not depend on it",
        only_with="audio_embeddings=",
    )
    num_workers: int = flag(2, "data-loading processes", only_with="audio_embeddings=")
    device: str = flag(
        "auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"), only_with="audio_embeddings="
    )
    seed: int = flag(42, "seed of the bootstrap")

    def check(self) -> None:
        given = [
            path is not None
            for path in (self.checkpoint, self.audio_embeddings, self.text_embeddings)
        ]
        if given not in ([True, False, False], [False, True, True]):
            raise ValueError(
                "give either --checkpoint, or both --audio-embeddings and --text-embeddings"
            )


def stored_clips(cuts: IndexedCuts, flags: Flags) -> tuple[EmbeddedClips, dict[str, Any], None]:
    """The clips and captions of the manifest, with vectors from the two files; what made these was
    trained on is unknown.
    """
    if flags.audio_embeddings is None or flags.text_embeddings is None:
        raise ValueError("--audio-embeddings and --text-embeddings go together")
    audio, text = load_embeddings(flags.audio_embeddings), load_embeddings(flags.text_embeddings)
    if audio.dim != text.dim:
        raise ValueError(
            f"{flags.audio_embeddings} has vectors of {audio.dim}, {flags.text_embeddings} of"
            f" {text.dim}"
        )
    captions = [cut.supervisions[0].custom["captions"] for cut in cuts]
    ids = [cut.id for cut in cuts]
    numbers = [
        (clip, number) for clip, texts in enumerate(captions) for number in range(len(texts))
    ]
    clips = EmbeddedClips(
        audio=unit(audio.select(ids)),
        text=unit(text.select([f"{ids[clip]}#{number}" for clip, number in numbers])),
        caption_clips=[clip for clip, _ in numbers],
        captions=[captions[clip][number] for clip, number in numbers],
        labels=[None] * len(ids),
        sources=[""] * len(ids),
        cut_ids=ids,
    )
    return clips, audio.description, None


def own_clips(
    cuts: IndexedCuts, flags: Flags
) -> tuple[EmbeddedClips, dict[str, Any], Count | None]:
    """The clips and captions of the manifest, embedded by the checkpoint's two towers, and how many
    of them these were trained on.
    """
    device = pick_device(flags.device, 0)
    selected = select_weights(SelectionFlags(checkpoint=flags.checkpoint), "contrastive")
    config, trained = selected.config, selected.count_trained(cuts, flags.allow_trained_clips)
    tokenizer = tokenizer_from_dict(config["tokenizer"])
    model = load_contrastive(config, selected.weights, tokenizer, selected.source).to(device)
    batches = feature_batches(
        cuts, FbankConfig.from_dict(config["fbank"]), flags.max_duration, flags.num_workers
    )
    clips = embed_clips(model, tokenizer, batches, device, config["max_caption_tokens"])
    return clips, selected.describe_encoder(), trained


def unit(vectors: np.ndarray) -> np.ndarray:
    """(N, D) -> unit vectors (N, D); one of length zero stays so."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    cuts = open_cuts(flags.manifest)
    embed = own_clips if flags.checkpoint is not None else stored_clips
    clips, encoder, trained = embed(cuts, flags)
    write_result(
        flags.exp_dir,
        task=f"own_retrieval_{corpus_name(flags.manifest)}",
        split=flags.manifest.stem.removeprefix("cuts_"),
        variant=flags.duplicate_captions,
        system=flags.system or flags.exp_dir.name,
        encoder=encoder,
        metrics=retrieval_report(clips, flags.duplicate_captions, flags.seed),
        num_clips=len(clips.cut_ids),
        trained_clips=trained,
        num_captions=len(clips.captions),
        settings={
            "corpus": corpus_name(flags.manifest),
            "duplicate_captions": flags.duplicate_captions,
            "windows": "whole clip",
            "seed": flags.seed,
        },
        checkpoint=str(flags.checkpoint or flags.audio_embeddings),
    )


if __name__ == "__main__":
    run_main(main)
