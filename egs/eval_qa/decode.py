#!/usr/bin/env python3
"""Answers the questions of a manifest, greedily, with a trained adaptor.

    ./decode.py --exp-dir exp/qa/contrastive --epoch 2 --manifest data/cuts_foundation.jsonl

Writes <exp-dir>/answers/<split>.jsonl, one reply per line, and <split>.json beside it: what gave
them. score.py reads both.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from captionstew.checkpoint import CheckpointError, load_weights
from captionstew.data.batches.questions import qa_batches, qa_items
from captionstew.data.manifests.cuts import open_cuts
from captionstew.distributed import pick_device
from captionstew.errors import run_main
from captionstew.evaluation.frames.cache import cached_frames
from captionstew.evaluation.qa.scores import answer_questions, write_replies
from captionstew.evaluation.weights import SelectionFlags, select_weights
from captionstew.files import write_json
from captionstew.flags import flag, parse_flags
from captionstew.hashing import sha256_of_file
from captionstew.models.encoders.load import load_encoder
from captionstew.models.language_model import load_language_model
from captionstew.models.qa import build_adaptor


@dataclass(frozen=True)
class Flags(SelectionFlags):
    manifest: Path = flag(Path("data/cuts_test.jsonl"), "questions to answer")
    epoch: int = flag(2, "take epoch-<epoch>.pt", only_with=("iter=", "checkpoint="))
    encoder: str = flag("", "where the audio encoder lies now (default: where it lay in training)")
    llm: str = flag("", "where the language model lies now (default: where it lay in training)")
    allow_download: bool = flag(
        False, "fetch the language model from the Hub if it is not on this machine"
    )
    system: str = flag("", "name in the report (default: the experiment folder's)")
    max_answer_tokens: int = flag(256, "longer replies are cut to this many tokens")
    max_duration: float = flag(
        200.0, "seconds per batch: audio, and text at the training run's --token-rate"
    )
    cache_dir: Path = flag(Path("exp/embeddings"), "where frames are kept")
    num_workers: int = flag(2, "data-loading processes")
    device: str = flag("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))


def require_same(what: str, found: str, trained: str, flag_name: str) -> None:
    """An adaptor speaks to one language model about one encoder's frames."""
    if found != trained:
        raise CheckpointError(
            f"the adaptor was trained with another {what} (sha256 {trained}, not {found}):"
            f" {flag_name}"
        )


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    device = pick_device(flags.device, 0)
    selected = select_weights(flags)
    config = selected.config
    cuts = open_cuts(flags.manifest)
    if config.get("task") != "qa":
        raise CheckpointError(
            f"{selected.source}: a checkpoint of {config.get('task')}, not of egs/eval_qa/train.py"
        )
    trained = selected.count_trained(cuts, flags.allow_trained_clips)
    encoder = load_encoder(flags.encoder or config["audio_encoder"]["path"], device)
    require_same(
        "encoder",
        encoder.description["sha256"],
        config["audio_encoder"]["sha256"],
        "give it by --encoder",
    )
    llm = load_language_model(
        flags.llm or config["llm"]["path"],
        device,
        bits=config["llm"]["bits"],
        allow_download=flags.allow_download,
    )
    require_same(
        "language model", llm.description["sha256"], config["llm"]["sha256"], "give it by --llm"
    )
    adaptor = build_adaptor(config, 1.0)
    load_weights(adaptor, selected.weights, selected.source)
    adaptor.to(device).eval()

    table = cached_frames(
        encoder, cuts, flags.cache_dir, flags.max_duration, flags.num_workers, strict=True
    )
    encode = partial(llm.encode, max_answer_tokens=flags.max_answer_tokens)
    questions = qa_items(cuts, table, encode, config["token_rate"], llm.fixed_tokens)
    batches = qa_batches(questions, table, flags.max_duration, flags.num_workers)
    split = flags.manifest.stem.removeprefix("cuts_")
    path = flags.exp_dir / "answers" / f"{split}.jsonl"
    (flags.exp_dir / "scored.done").unlink(missing_ok=True)
    with torch.inference_mode():
        replies = answer_questions(adaptor, llm, batches, device, flags.max_answer_tokens)
        count = write_replies(
            path, tqdm(replies, total=len(questions), desc="answer", disable=len(questions) < 200)
        )
    about = {
        "split": split,
        "system": flags.system or flags.exp_dir.name,
        "encoder": config["audio_encoder"],
        "llm": config["llm"],
        "checkpoint": str(selected.source),
        "weights": selected.choice,
        "manifest_sha256": cuts.sha256,
        "trained_clips": trained,
        "answers_sha256": sha256_of_file(path),
        "max_answer_tokens": flags.max_answer_tokens,
        "token_rate": config["token_rate"],
        "num_train": config.get("num_train"),
        "trained_parameters": sum(p.numel() for p in adaptor.parameters()),
        "frozen_parameters": llm.num_parameters + sum(p.numel() for p in encoder.parameters()),
    }
    write_json(path.with_suffix(".json"), about)
    print(f"wrote {path}: {count} replies; score them with score.py --exp-dir {flags.exp_dir}")


if __name__ == "__main__":
    run_main(main)
