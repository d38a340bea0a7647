#!/usr/bin/env python3
"""Captions for every clip of a manifest, and their scores beside two baselines that do not listen.

    ./decode.py --exp-dir exp/captioning --epoch 24 --avg 4 --manifest data/mini/cuts_test.jsonl \\
        --num-beams 4

The weights are chosen as in icefall (--epoch or --iter, --avg, --use-averaged-model), or named with
--checkpoint. Writes <exp-dir>/results/captioning-<split>-<greedy|beam<n>>.json and, with the
captions, .jsonl; and examples.jsonl, clips to listen to for the report.
"""

from dataclasses import dataclass
from pathlib import Path

from captionstew.data.batches.captioned import feature_batches
from captionstew.data.features.fbank import FbankConfig
from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.tokenizer import tokenizer_from_dict
from captionstew.distributed import pick_device
from captionstew.errors import run_main
from captionstew.evaluation.captioning import caption_clips, captioning_report, training_captions
from captionstew.evaluation.metrics.caption_scores import caption_units
from captionstew.evaluation.report.examples import examples_of_cuts, write_examples
from captionstew.evaluation.results import result_path, sized_system, write_result
from captionstew.evaluation.weights import SelectionFlags, select_weights
from captionstew.flags import flag, parse_flags
from captionstew.models.captioning import load_captioning


@dataclass(frozen=True)
class Flags(SelectionFlags):
    exp_dir: Path = flag(Path("exp/captioning"), "folder of the training run; results go below it")
    manifest: Path = flag(Path("data/cuts_test.jsonl"), "clips to caption")
    train_manifest: Path | None = flag(
        None,
        "training clips whose captions are the baselines (default: cuts_train.jsonl beside"
        " --manifest)",
    )
    num_beams: int = flag(1, "1: greedy; more: beam search")
    system: str = flag("", "name in the report (default: the experiment folder's)")
    max_duration: float = flag(100.0, "seconds of audio per batch; results do not depend on it")
    num_workers: int = flag(2, "data-loading processes")
    device: str = flag("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    seed: int = flag(42, "seed of the baselines and of the bootstrap")

    def check(self) -> None:
        if self.num_beams < 1:
            raise ValueError(f"--num-beams must be at least 1, not {self.num_beams}")


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    device = pick_device(flags.device, 0)
    cuts = open_cuts(flags.manifest)
    train_manifest = flags.train_manifest or flags.manifest.with_name("cuts_train.jsonl")
    known = training_captions(open_cuts(train_manifest), flags.seed)

    selected = select_weights(flags, "captioning")
    trained = selected.count_trained(cuts, flags.allow_trained_clips)
    config = selected.config
    model = load_captioning(config, selected.weights, selected.source).to(device)
    tokenizer = tokenizer_from_dict(config["tokenizer"])
    batches = feature_batches(
        cuts, FbankConfig.from_dict(config["fbank"]), flags.max_duration, flags.num_workers
    )
    clips = caption_clips(
        model, batches, tokenizer, config["max_caption_tokens"], device, flags.num_beams
    )

    system, split = flags.system or flags.exp_dir.name, flags.manifest.stem.removeprefix("cuts_")
    variant = "greedy" if flags.num_beams == 1 else f"beam{flags.num_beams}"
    captions = result_path(flags.exp_dir, "captioning", split, variant).with_suffix(".jsonl")
    clips.write(captions)
    print(f"wrote {captions}: {len(clips.cut_ids)} captions")
    generated = dict(zip(clips.cut_ids, clips.candidates))
    encoder = selected.describe_encoder()
    write_examples(
        flags.exp_dir,
        sized_system(system, encoder["data_size"]),
        examples_of_cuts(cuts, generated=generated),
    )
    write_result(
        flags.exp_dir,
        task="captioning",
        split=split,
        variant=variant,
        system=system,
        encoder=encoder,
        metrics=captioning_report(clips, known, flags.seed),
        num_clips=len(clips.cut_ids),
        trained_clips=trained,
        num_captions=sum(map(len, clips.references)),
        settings={
            "corpus": flags.manifest.resolve().parent.name,
            "decoding": variant,
            "caption_units": caption_units(clips.references),
            "max_caption_tokens": config["max_caption_tokens"],
            "parallel_fraction": config["parallel_fraction"],
            "baseline_captions": len(known),
            "weights": selected.choice,
            "windows": "whole clip",
            "seed": flags.seed,
        },
        checkpoint=str(selected.source),
        frozen_parameters=sum(p.numel() for p in model.parameters()),
    )


if __name__ == "__main__":
    run_main(main)
