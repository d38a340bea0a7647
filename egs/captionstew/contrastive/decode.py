#!/usr/bin/env python3
"""Retrieval in both directions, and zero-shot classification where the cuts carry a class label.

    ./decode.py --exp-dir exp/contrastive --epoch 30 --avg 10 --manifest data/mine/cuts_test.jsonl

The weights are chosen as in icefall (--epoch or --iter, --avg, --use-averaged-model), or named with
--checkpoint. Writes <exp-dir>/results/retrieval-<split>-<strict|match>.json and
zero_shot-<split>-<set>.json; and examples.jsonl, clips to listen to for the report.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captionstew.data.batches.captioned import feature_batches
from captionstew.data.features.fbank import FbankConfig
from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.tokenizer import tokenizer_from_dict
from captionstew.distributed import pick_device
from captionstew.errors import run_main
from captionstew.evaluation.report.examples import best_captions, examples_of_cuts, write_examples
from captionstew.evaluation.results import sized_system, write_result
from captionstew.evaluation.retrieval import embed_clips, retrieval_report, zero_shot_accuracy
from captionstew.evaluation.weights import SelectionFlags, select_weights
from captionstew.flags import flag, parse_flags
from captionstew.models.contrastive import load_contrastive
from captionstew.training.flags import RankingFlags


@dataclass(frozen=True)
class Flags(SelectionFlags, RankingFlags):
    exp_dir: Path = flag(Path("exp/contrastive"), "folder of the training run; results go below it")
    manifest: Path = flag(Path("data/cuts_test.jsonl"), "clips to evaluate on")
    system: str = flag("", "name in the report (default: the experiment folder's)")
    label_template: str = flag(
        "The sound of {}.", "sentence for a class in zero-shot classification"
    )
    max_duration: float = flag(100.0, "seconds of audio per batch; results do not depend on it")
    num_workers: int = flag(2, "data-loading processes")
    device: str = flag("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    seed: int = flag(42, "seed of the bootstrap")


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    device = pick_device(flags.device, 0)
    selected = select_weights(flags, "contrastive")
    config = selected.config
    tokenizer = tokenizer_from_dict(config["tokenizer"])
    model = load_contrastive(config, selected.weights, tokenizer, selected.source).to(device)
    fbank = FbankConfig.from_dict(config["fbank"])
    cuts = open_cuts(flags.manifest)
    trained = selected.count_trained(cuts, flags.allow_trained_clips)
    batches = feature_batches(cuts, fbank, flags.max_duration, flags.num_workers)
    clips = embed_clips(model, tokenizer, batches, device, config["max_caption_tokens"])

    encoder = selected.describe_encoder()
    common: dict[str, Any] = {
        "split": flags.manifest.stem.removeprefix("cuts_"),
        "system": flags.system or flags.exp_dir.name,
        "encoder": encoder,
        "checkpoint": str(selected.source),
        "trained_clips": trained,
        "frozen_parameters": sum(p.numel() for p in model.parameters()),
    }
    settings = {
        "duplicate_captions": flags.duplicate_captions,
        "weights": selected.choice,
        "windows": "whole clip",
    }
    for name, subset in clips.labelled_subsets().items():
        write_result(
            flags.exp_dir,
            task="zero_shot",
            metrics=zero_shot_accuracy(
                subset,
                model,
                tokenizer,
                device,
                config["max_caption_tokens"],
                flags.label_template,
                flags.seed,
            ),
            num_clips=len(subset.cut_ids),
            settings={"subset": name, "template": flags.label_template, "weights": selected.choice},
            variant=name,
            **common,
        )
    shown = sized_system(common["system"], encoder["data_size"])
    write_examples(flags.exp_dir, shown, examples_of_cuts(cuts, retrieved=best_captions(clips)))
    write_result(
        flags.exp_dir,
        task="retrieval",
        metrics=retrieval_report(clips, flags.duplicate_captions, flags.seed),
        num_clips=len(clips.cut_ids),
        num_captions=len(clips.captions),
        settings=settings | {"seed": flags.seed},
        variant=flags.duplicate_captions,
        **common,
    )


if __name__ == "__main__":
    run_main(main)
