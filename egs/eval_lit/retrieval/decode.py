#!/usr/bin/env python3
"""Retrieval in both directions by an adapted text encoder over frozen audio, on the whole test set.

    ./decode.py --exp-dir exp/lit_retrieval/mini --manifest data/mini/cuts_test.jsonl

Validation chooses the epoch (--epoch 0) by text-to-audio R@10. Writes
<exp-dir>/results/lit_retrieval_<corpus>-<split>-<strict|match>.json, where the corpus is the
manifest's folder; and examples.jsonl, clips to listen to for the report.
"""

from dataclasses import dataclass

from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.tokenizer import tokenizer_from_dict
from captionstew.distributed import Rank, pick_device
from captionstew.errors import run_main
from captionstew.evaluation.lit import (
    AlignmentFlags,
    choose_weights,
    corpus_name,
    evaluation_batches,
    result_fields,
)
from captionstew.evaluation.report.examples import best_captions, examples_of_cuts, write_examples
from captionstew.evaluation.results import sized_system, write_result
from captionstew.evaluation.retrieval import embed_clips, retrieval_report
from captionstew.flags import parse_flags
from captionstew.models.lit import audio_encoder_of, load_lit_retrieval
from captionstew.training.flags import RankingFlags


@dataclass(frozen=True)
class Flags(AlignmentFlags, RankingFlags):
    pass


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    device = pick_device(flags.device, 0)
    selected = choose_weights(flags, "lit_retrieval", "text_to_audio_r10")
    config = selected.config
    encoder = audio_encoder_of(config, flags.encoder, device, selected.source)
    model = load_lit_retrieval(config, selected.weights, selected.source).to(device)
    cuts = open_cuts(flags.manifest)
    fields = result_fields(flags, selected, encoder, model, cuts)
    fields["settings"] |= {"duplicate_captions": flags.duplicate_captions, "pooling": "mean"}
    batches = evaluation_batches(flags, encoder, cuts, Rank(0, 0, 1, device))
    clips = embed_clips(
        model,
        tokenizer_from_dict(config["tokenizer"]),
        batches,
        device,
        config["max_caption_tokens"],
    )
    shown = sized_system(fields["system"], encoder.description.get("data_size"))
    write_examples(flags.exp_dir, shown, examples_of_cuts(cuts, retrieved=best_captions(clips)))
    write_result(
        flags.exp_dir,
        task=f"lit_retrieval_{corpus_name(flags.manifest)}",
        metrics=retrieval_report(clips, flags.duplicate_captions, flags.seed),
        num_captions=len(clips.captions),
        variant=flags.duplicate_captions,
        **fields,
    )


if __name__ == "__main__":
    run_main(main)
