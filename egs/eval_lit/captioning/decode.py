#!/usr/bin/env python3
"""Captions by an adapted BART decoder over frozen audio, and their scores.

    ./decode.py --exp-dir exp/lit_captioning/mini --manifest data/mini/cuts_test.jsonl --num-beams 4

Validation chooses the epoch (--epoch 0) by ROUGE-L. Writes
<exp-dir>/results/lit_captioning_<corpus>-<split>-<decoding> .json, where the corpus is the
manifest's folder, and the captions as .jsonl; and examples.jsonl, clips to listen to for the
report.

    ./decode.py --exp-dir exp/lit_captioning/mine \\
        --also exp/lit_captioning/mine-swapped/results/lit_captioning_...jsonl

scores the captions of another decoding together with these, as when validation and test were
exchanged (local/swap_held_out.py): twice the clips, each captioned by a model that never met it.
The result file beside those captions must be of the same encoder, text model and decoding; the
joint one is called ...-<decoding>-joined.json.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.manifests.index import IndexedCuts
from captionstew.data.tokenizer import tokenizer_from_dict
from captionstew.distributed import Rank, pick_device
from captionstew.errors import run_main
from captionstew.evaluation.captioning import (
    CaptionedClips,
    caption_clips,
    captioning_report,
    read_captioned,
    training_captions,
)
from captionstew.evaluation.lit import (
    AlignmentFlags,
    choose_weights,
    corpus_name,
    evaluation_batches,
    result_fields,
)
from captionstew.evaluation.metrics.caption_scores import caption_units
from captionstew.evaluation.report.examples import examples_of_cuts, write_examples
from captionstew.evaluation.results import result_path, sized_system, write_result
from captionstew.evaluation.trained_clips import summed
from captionstew.flags import flag, parse_flags
from captionstew.models.lit import audio_encoder_of, load_lit_captioning

SAME_SETTINGS = (
    "text_model",
    "max_caption_tokens",
    "decoding",
)  # of captions that are scored together


@dataclass(frozen=True)
class Flags(AlignmentFlags):
    num_beams: int = flag(4, "1: greedy; more: beam search")
    also: Path | None = flag(
        None, "captions (.jsonl) of another test set, which are scored together with these"
    )
    train_manifest: Path | None = flag(
        None,
        "training clips whose captions are the baselines (default: cuts_train.jsonl beside"
        " --manifest)",
    )

    def check(self) -> None:
        if self.num_beams < 1:
            raise ValueError(f"--num-beams must be at least 1, not {self.num_beams}")


def read_joinable(path: Path, fields: dict[str, Any], cuts: IndexedCuts) -> CaptionedClips:
    """Captions of other clips than `cuts`, of which `fields` will be the result; their count of
    trained clips joins the one there.

    Raises:
      ValueError: a clip is in both, or the result file beside the captions is of something else.
    """
    clips = read_captioned(path)
    if both := set(clips.cut_ids) & {cut.id for cut in cuts}:
        raise ValueError(f"--also {path}: clip {min(both)} is in --manifest, too")
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    for name in SAME_SETTINGS:
        other, own = about["settings"].get(name), fields["settings"][name]
        if other != own:
            raise ValueError(f"--also {path}: its {name} is {other}, here it is {own}")
    if about["encoder"]["sha256"] != fields["encoder"]["sha256"]:
        other, own = about["encoder"]["path"], fields["encoder"]["path"]
        raise ValueError(f"--also {path}: its encoder, {other}, has other weights than {own}")
    fields["trained_clips"] = summed([fields["trained_clips"], about.get("trained_clips")])
    return clips


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    device = pick_device(flags.device, 0)
    variant = "greedy" if flags.num_beams == 1 else f"beam{flags.num_beams}"
    known = training_captions(
        open_cuts(flags.train_manifest or flags.manifest.with_name("cuts_train.jsonl")), flags.seed
    )
    selected = choose_weights(flags, "lit_captioning", "rouge_l")
    config = selected.config
    encoder = audio_encoder_of(config, flags.encoder, device, selected.source)
    model = load_lit_captioning(config, selected.weights, selected.source).to(device)
    cuts = open_cuts(flags.manifest)
    fields = result_fields(flags, selected, encoder, model, cuts)
    fields["settings"] |= {
        "decoding": variant,
        "baseline_captions": len(known),
        "also": str(flags.also or ""),
    }
    other = None if flags.also is None else read_joinable(flags.also, fields, cuts)
    batches = evaluation_batches(flags, encoder, cuts, Rank(0, 0, 1, device))
    tokenizer = tokenizer_from_dict(config["tokenizer"])
    clips = caption_clips(
        model, batches, tokenizer, config["max_caption_tokens"], device, flags.num_beams
    )
    task = f"lit_captioning_{corpus_name(flags.manifest)}"
    clips.write(result_path(flags.exp_dir, task, fields["split"], variant).with_suffix(".jsonl"))
    if other is not None:
        clips, variant = clips.joined(other), f"{variant}-joined"
    fields["settings"]["caption_units"] = caption_units(clips.references)
    fields["num_clips"] = len(clips.cut_ids)
    generated = dict(zip(clips.cut_ids, clips.candidates))
    shown = sized_system(fields["system"], encoder.description.get("data_size"))
    write_examples(flags.exp_dir, shown, examples_of_cuts(cuts, generated=generated))
    write_result(
        flags.exp_dir,
        task=task,
        metrics=captioning_report(clips, known, flags.seed),
        num_captions=sum(map(len, clips.references)),
        variant=variant,
        **fields,
    )


if __name__ == "__main__":
    run_main(main)
