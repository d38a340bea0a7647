#!/usr/bin/env python3
"""Mean average precision of a tagger, over all classes and class by class.

    ./decode.py --exp-dir exp/tagging --epoch 40 --avg 10 --manifest data/audioset/cuts_test.jsonl

The weights are chosen as in icefall (--epoch or --iter, --avg, --use-averaged-model), or named with
--checkpoint, which may be one of icefall's (with --class-list class_labels_indices.csv: it does not
name its classes). Writes <exp-dir>/results/tagging_<corpus>-<split>.json, and the classes to
tagging_<corpus>-<split>-classes.csv.
"""

from dataclasses import dataclass
from pathlib import Path

from captionstew.data.batches.captioned import feature_batches
from captionstew.data.batches.tagging import labelled_cuts
from captionstew.data.features.fbank import FbankConfig
from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.manifests.labels import read_class_list
from captionstew.distributed import pick_device
from captionstew.errors import run_main
from captionstew.evaluation.results import result_path, write_result
from captionstew.evaluation.tagging import tag_clips, tagging_report, write_class_table
from captionstew.evaluation.weights import SelectedWeights, SelectionFlags, select_weights
from captionstew.flags import flag, parse_flags
from captionstew.models.tagging import load_tagger, read_tagger


@dataclass(frozen=True)
class Flags(SelectionFlags):
    exp_dir: Path = flag(Path("exp/tagging"), "folder of the training run; results go below it")
    class_list: Path | None = flag(
        None,
        "classes of a --checkpoint that does not name them, JSON or CSV",
        only_with="checkpoint",
    )
    manifest: Path = flag(
        Path("data/cuts_test.jsonl"), "clips to evaluate on; those without labels are left out"
    )
    label_field: str = flag(
        "", "entry of a clip's `custom` with its classes (default: as in training)"
    )
    corpus: str = flag("", "name of the clips in the report (default: the manifest's folder)")
    system: str = flag("", "name in the report (default: the experiment folder's)")
    max_duration: float = flag(100.0, "seconds of audio per batch; results do not depend on it")
    num_workers: int = flag(2, "data-loading processes")
    device: str = flag("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    seed: int = flag(42, "seed of the bootstrap")


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    device = pick_device(flags.device, 0)
    if flags.checkpoint is not None:
        classes = read_class_list(flags.class_list) if flags.class_list else None
        config, weights = read_tagger(flags.checkpoint, classes)
        selected = SelectedWeights(weights, config, flags.checkpoint, "file")
    else:
        selected = select_weights(flags, "tagging")
    config, source = selected.config, selected.source
    model = load_tagger(config, selected.weights, source).to(device)
    label_field = flags.label_field or config["label_field"]
    cuts, table = labelled_cuts(open_cuts(flags.manifest), label_field, config["classes"])
    trained = selected.count_trained(cuts, flags.allow_trained_clips)
    batches = feature_batches(
        cuts, FbankConfig.from_dict(config["fbank"]), flags.max_duration, flags.num_workers
    )
    clips = tag_clips(model, batches, config["classes"], label_field, device)

    split = flags.manifest.stem.removeprefix("cuts_")
    task = f"tagging_{flags.corpus or flags.manifest.resolve().parent.name}"
    path = result_path(flags.exp_dir, task, split, "classes").with_suffix(".csv")
    write_class_table(path, clips)
    print(f"wrote {path}: average precision of each class")
    write_result(
        flags.exp_dir,
        task=task,
        split=split,
        system=flags.system or flags.exp_dir.name,
        encoder=selected.describe_encoder(),
        metrics=tagging_report(clips, flags.seed),
        num_clips=len(clips.cut_ids),
        trained_clips=trained,
        settings={
            "classes": len(config["classes"]),
            "label_field": label_field,
            "unknown_labels": table.unknown.total(),
            "weights": selected.choice,
            "windows": "whole clip",
            "seed": flags.seed,
        },
        frozen_parameters=sum(p.numel() for p in model.parameters()),
        checkpoint=str(source),
    )


if __name__ == "__main__":
    run_main(main)
