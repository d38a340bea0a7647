"""Captions that a model writes for clips, their scores, and the scores of captions that know
nothing of the clip.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captionstew.data.captions import normalise_caption
from captionstew.data.manifests.index import IndexedCuts
from captionstew.data.tokenizer import Tokenizer, warn_of_cut
from captionstew.distributed import gather_objects, sum_over_ranks
from captionstew.evaluation.metrics.bootstrap import bootstrap_interval
from captionstew.evaluation.metrics.caption_scores import caption_scores, rouge_l_per_clip
from captionstew.files import atomic_write, parse_json
from captionstew.models.captioning import CaptioningModel, token_losses

BASELINE_CLIPS = 100_000  # training clips whose captions the baselines know
RANDOM_DRAWS = (
    10  # captions drawn per clip, whose scores are averaged: one draw would itself be a lottery
)


@dataclass
class CaptionedClips:
    """Clips by id, the caption written for each, and all captions that people (or models) gave
    it.
    """

    cut_ids: list[str]
    candidates: list[str]
    references: list[list[str]]
    failed: list[tuple[str, str]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """One JSON object per line: cut_id, candidate, references."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "w", encoding="utf-8") as file:
            for cut_id, candidate, references in zip(
                self.cut_ids, self.candidates, self.references
            ):
                row = {"cut_id": cut_id, "candidate": candidate, "references": references}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def joined(self, other: "CaptionedClips") -> "CaptionedClips":
        """These clips and those; none may be in both."""
        return CaptionedClips(
            self.cut_ids + other.cut_ids,
            self.candidates + other.candidates,
            self.references + other.references,
            self.failed + other.failed,
        )


def read_captioned(path: Path) -> CaptionedClips:
    """What `CaptionedClips.write` left. Raises ValueError where the file holds something else."""
    clips = CaptionedClips([], [], [])
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = parse_json(line)
                clips.cut_ids.append(row["cut_id"])
                clips.candidates.append(row["candidate"])
                clips.references.append(row["references"])
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{path}:{number}: not a caption as decode.py writes it ({error!r})"
                ) from error
    return clips


CaptionedRow = tuple[str, str, list[str]]  # cut id, hypothesis, references


@torch.inference_mode()
def caption_clips(
    model: CaptioningModel,
    batches: Iterable[dict[str, Any]],
    tokenizer: Tokenizer,
    max_tokens: int,
    device: torch.device,
    num_beams: int = 1,
) -> CaptionedClips:
    """Captions every clip, greedily or by beam search; of several processes each passes its share,
    and all get the whole.
    """
    rows: list[CaptionedRow] = []
    failed: list[tuple[str, str]] = []
    for batch in batches:
        failed.extend(batch.get("failed", ()))
        if not batch["cut_ids"]:
            continue
        memory, lengths = model.encode_audio(
            batch["features"].to(device), batch["feature_lengths"].to(device)
        )
        ids = model.decoder.generate(memory, lengths, num_beams, max_tokens)
        rows.extend(zip(batch["cut_ids"], _texts(tokenizer, ids), batch["all_captions"]))
    return _gathered(rows, failed)


@torch.inference_mode()
def captioning_validation(
    model: CaptioningModel,
    batches: Iterable[dict[str, Any]],
    tokenizer: Tokenizer,
    max_tokens: int,
    num_captions: int,
    device: torch.device,
) -> tuple[dict[str, float], CaptionedClips]:
    """Both losses of every clip, per clip and per token, in nats; ROUGE-L of the first clips'
    greedy captions.

    Args:
      num_captions: clips to caption, per process.

    Returns:
      metrics, and the captions.
    """
    sums = dict.fromkeys(("clips", "tokens", "autoregressive", "parallel"), 0.0)
    rows: list[CaptionedRow] = []
    failed: list[tuple[str, str]] = []
    texts_seen: list[str] = []
    for batch in batches:
        failed.extend(batch.get("failed", ()))
        if not batch["cut_ids"]:
            continue
        memory, lengths = model.encode_audio(
            batch["features"].to(device), batch["feature_lengths"].to(device)
        )
        texts_seen.extend(batch["captions"])
        ids, id_lengths = (
            part.to(device) for part in tokenizer.encode(batch["captions"], max_tokens)
        )
        for name, parallel in (("autoregressive", False), ("parallel", True)):
            modes = torch.full((len(ids),), parallel, device=device)
            logits = model.decoder(memory, lengths, ids, id_lengths, modes)
            sums[name] += float(token_losses(logits, ids, id_lengths).sum())
        sums["clips"] += len(ids)
        sums["tokens"] += float((id_lengths - 1).sum())
        if (missing := num_captions - len(rows)) > 0:
            texts = _texts(
                tokenizer,
                model.decoder.generate(memory[:missing], lengths[:missing], 1, max_tokens),
            )
            rows.extend(zip(batch["cut_ids"], texts, batch["all_captions"]))
    warn_of_cut(tokenizer, texts_seen, max_tokens)
    clips, tokens, *losses = sum_over_ranks(list(sums.values()), device)
    captions = _gathered(rows, failed)
    metrics: dict[str, float] = {}
    for name, value in zip(("autoregressive", "parallel"), losses):
        metrics |= {name: value / max(clips, 1.0), f"{name}_per_token": value / max(tokens, 1.0)}
    if captions.cut_ids:
        metrics["rouge_l"] = float(
            rouge_l_per_clip(captions.candidates, captions.references).mean()
        )
    return metrics, captions


def captioning_report(
    clips: CaptionedClips, train_captions: Sequence[str], seed: int
) -> dict[str, Any]:
    """Scores of the captions; ROUGE-L of captions that do not listen; 95 % bootstrap intervals over
    clips.

    `rouge_l_random`: a training caption drawn at random; `rouge_l_frequent`: the most frequent
    training caption; `rouge_l_shuffled`: what the model wrote for another clip, hence what its
    language alone is worth. `distinct_captions`: share of the captions that differ; near 0, the
    model writes one caption for everything.
    """
    generator, count = np.random.default_rng(seed), len(clips.references)
    random_rows = generator.integers(0, len(train_captions), (RANDOM_DRAWS, count))
    draws = {
        "rouge_l": [clips.candidates],
        "rouge_l_random": [[train_captions[i] for i in row] for row in random_rows],
        "rouge_l_frequent": [[most_frequent_caption(train_captions)] * count],
        "rouge_l_shuffled": [
            [clips.candidates[i] for i in generator.permutation(count)] for _ in range(RANDOM_DRAWS)
        ],
    }
    report: dict[str, Any] = caption_scores(clips.candidates, clips.references)
    for name, drawn in draws.items():
        per_clip = np.mean([rouge_l_per_clip(texts, clips.references) for texts in drawn], axis=0)
        report[name] = float(per_clip.mean())
        report[f"{name}_interval"] = bootstrap_interval(per_clip, seed=seed)
    return report | {"distinct_captions": len(set(clips.candidates)) / count}


def training_captions(cuts: IndexedCuts, seed: int) -> list[str]:
    """All captions of the clips, or of 100,000 clips drawn at random if there are more."""
    if len(cuts) > BASELINE_CLIPS:
        rows = np.random.default_rng(seed).choice(len(cuts), BASELINE_CLIPS, replace=False)
        cuts = cuts.select(np.sort(rows))
    captions = [caption for cut in cuts for caption in cut.supervisions[0].custom["captions"]]
    if not captions:
        raise ValueError(f"{cuts.path}: no captions, which the baselines are made of")
    return captions


def most_frequent_caption(captions: Sequence[str]) -> str:
    """The caption that occurs most often, upper and lower case alike; of several the first in the
    alphabet.
    """
    counts = Counter(normalise_caption(caption).lower() for caption in captions)
    return min(counts, key=lambda caption: (-counts[caption], caption))


def _texts(tokenizer: Tokenizer, ids: torch.Tensor) -> list[str]:
    return [normalise_caption(text) for text in tokenizer.decode(ids)]


def _gathered(rows: list[CaptionedRow], failed: list[tuple[str, str]]) -> CaptionedClips:
    """Every rank's rows, in the order of the clips' ids: nothing may change with batches or
    processes.
    """
    shares = gather_objects((rows, failed))
    rows, failed = (list(itertools.chain(*parts)) for parts in zip(*shares))
    rows.sort(key=lambda row: row[0])
    cut_ids, candidates, references = map(list, zip(*rows)) if rows else ([], [], [])
    return CaptionedClips(cut_ids, candidates, references, failed)
