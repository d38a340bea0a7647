"""From a probe's checkpoint to everything that its result file says."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captionstew.checkpoint import (
    MODEL_ENTRIES,
    CheckpointError,
    load_checkpoint,
    require_entries,
)
from captionstew.data.manifests.cuts import open_cuts
from captionstew.data.manifests.trained_clips import ENTRY, memory_of_encoder, read_trained_clips
from captionstew.evaluation.probing.fit import Probe
from captionstew.evaluation.probing.representations import Representations, load_system
from captionstew.evaluation.probing.scoring import (
    ProbeScore,
    accuracy_metrics,
    score_logits,
    score_probe,
)
from captionstew.evaluation.probing.supervised import supervised_scores
from captionstew.evaluation.probing.tasks import (
    BrokenClip,
    ProbeTask,
    broken_clips,
    clip_split,
    num_missing,
    task_clips,
)
from captionstew.evaluation.trained_clips import check_trained_clips, summed
from captionstew.hashing import sha256_of_file

PROBE_ENTRIES = (
    "task", "flags", "probe", "encoder", "classes", "trained_classes", "pooling", "num_train",
    "num_unreadable",
)  # fmt: skip


@dataclass(frozen=True)
class Decoded:
    """A scored probe: arguments of write_result, and the clips that count as wrong because nothing
    can be heard.
    """

    task: ProbeTask
    score: ProbeScore
    result: dict[str, Any]
    manifest: Path
    broken: list[BrokenClip]

    @property
    def pooling(self) -> str:
        return self.result["settings"]["pooling"]


def joined(first: Decoded, second: Decoded) -> Decoded:
    """One result for a task of accuracy whose probes were trained twice and tested on different
    clips.

    Raises:
      ValueError: not the same task, pooling, encoder and number of seeds, or a task of another
          metric.
    """
    found = (first.score.correct, second.score.correct)
    corrects = [correct for correct in found if correct is not None]
    same = (
        all(
            first.result[name] == second.result[name]
            for name in ("encoder", "variant", "trained_parameters")
        )
        and len(corrects) == 2
        and len(corrects[0]) == len(corrects[1])
    )
    if first.task != second.task or not same:
        raise ValueError(
            f"{first.result['checkpoint']} and {second.result['checkpoint']} are not probes of one"
            " task of accuracy on one encoder: their test clips cannot be joined"
        )
    correct = np.concatenate(corrects, axis=1)  # (seeds, N)
    metrics = accuracy_metrics(correct) | {
        "chance": float(np.average(
            [one.result["metrics"]["chance"] for one in (first, second)],
            weights=[one.shape[1] for one in corrects],
        ))
    }  # fmt: skip
    settings = first.result["settings"] | {
        "num_broken": len(first.broken) + len(second.broken),
        "joined": [str(first.manifest), str(second.manifest)],
    }
    result = first.result | {
        "metrics": metrics,
        "settings": settings,
        "num_clips": correct.shape[1],
        "trained_clips": summed(one.result["trained_clips"] for one in (first, second)),
    }
    score = replace(first.score, metrics=metrics, correct=correct)
    return replace(first, score=score, result=result, broken=[*first.broken, *second.broken])


class Decoder:
    """Scores probes; an encoder that several of them share is loaded once."""

    def __init__(
        self,
        split: str,
        manifest: Path | None,
        num_workers: int,
        device: torch.device,
        folder: Path,
        allow_trained_clips: bool = False,
    ) -> None:
        """`manifest` overrides the task's own of that split; `folder` takes scores of frames for a
        while; `allow_trained_clips` lets clips be scored that the encoder was trained on.
        """
        self.split = split
        self.manifest = manifest
        self.num_workers = num_workers
        self.device = device
        self.folder = folder
        self.allow_trained_clips = allow_trained_clips
        self._systems: dict[str, Any] = {}

    def decode(self, path: Path) -> Decoded:
        """Raises CheckpointError where the encoder has changed since the probe was trained, and
        TrainedOn for clips that it was trained on.
        """
        content = load_checkpoint(path)
        if "config" in content:
            require_entries(content, path, (*MODEL_ENTRIES, "flags", "num_train"))
            return self._supervised(path, content)
        require_entries(content, path, PROBE_ENTRIES)
        return self._frozen(path, content)

    def _frozen(self, path: Path, content: dict[str, Any]) -> Decoded:
        task, options, probe = (
            ProbeTask(**content["task"]),
            content["flags"],
            Probe.from_dict(content["probe"]),
        )
        name = options["embeddings"] or options["encoder"]
        if name not in self._systems:
            self._systems[name] = load_system(
                options["encoder"], options["embeddings"], self.device
            )
        system = self._systems[name]
        if system.description["sha256"] != content["encoder"]["sha256"]:
            raise CheckpointError(
                f"{path}: the encoder {name} has changed since its probe was trained"
            )
        representations = Representations(
            system, options["pooling"], options["cache"], Path(options["cache_dir"]),
            options["max_duration"], self.num_workers,
        )  # fmt: skip
        manifest = self._manifest(task, options)
        found = task_clips(open_cuts(manifest), task)
        trained = check_trained_clips(
            found.cuts, memory_of_encoder(system.description), self.allow_trained_clips, name
        )
        loaded = representations.load(found, task, content["classes"])
        broken = [*broken_clips(manifest, task), *loaded.failed]
        score = score_probe(
            probe,
            task,
            content["classes"],
            content["trained_classes"],
            loaded,
            broken,
            self.device,
            self.folder,
        )
        settings = {
            "pooling": content["pooling"],
            "learning_rate": probe.learning_rate,
            "grid": options["learning_rates"],
            "seeds": probe.num_seeds,
            "num_train": content["num_train"],
            "num_unreadable": content["num_unreadable"],
        }
        result = {
            "encoder": system.description,
            "settings": settings,
            "num_clips": len(loaded.kept.ids) + len(broken),
            "trained_clips": trained,
            "trained_parameters": probe.num_parameters,
            "frozen_parameters": representations.num_parameters,
        }
        return self._decoded(path, task, score, result, manifest, broken)

    def _supervised(self, path: Path, content: dict[str, Any]) -> Decoded:
        config, options = content["config"], content["flags"]
        task = ProbeTask(**config["probe"])
        manifest = self._manifest(task, options)
        found = task_clips(open_cuts(manifest), task)
        memory = read_trained_clips(path.parent, config.get(ENTRY))
        trained = check_trained_clips(found.cuts, memory, self.allow_trained_clips, path)
        logits, kept, failed, parameters = supervised_scores(
            content, path, task, found, options["max_duration"], self.num_workers, self.device
        )
        broken = [*broken_clips(manifest, task), *failed]
        values = [*kept.values, *(clip.value for clip in broken)]
        pretraining = (
            "none" if not config["init_encoder"] else f"started from {config['init_encoder']}"
        )
        encoder = {"path": str(path), "sha256": sha256_of_file(path), "preset": config["preset"]}
        result = {
            "encoder": encoder | {"pretraining": pretraining},
            "settings": {
                "pooling": config["pooling"],
                "train_encoder": True,
                "seeds": 1,
                "num_train": content["num_train"],
                "num_epochs": options["num_epochs"],
            },
            "num_clips": len(values),
            "trained_clips": trained,
            "trained_parameters": parameters,
        }
        score = score_logits(logits, task, config["classes"], values)
        return self._decoded(path, task, score, result, manifest, broken)

    def _manifest(self, task: ProbeTask, options: dict[str, Any]) -> Path:
        return self.manifest or task.manifest(Path(options["manifest_dir"]), self.split)

    def _decoded(
        self,
        path: Path,
        task: ProbeTask,
        score: ProbeScore,
        result: dict[str, Any],
        manifest: Path,
        broken: list[BrokenClip],
    ) -> Decoded:
        """What all probes' results have in common."""
        result["settings"] |= {
            "metric": task.metric,
            "num_broken": len(broken),
            "num_missing": num_missing(manifest),
            **clip_split(manifest),
            "windows": f"first {task.max_seconds:g} s" if task.max_seconds else "whole clip",
            **score.settings,
        }
        result |= {
            "metrics": score.metrics,
            "split": manifest.stem.removeprefix("cuts_"),
            "variant": "attention" if result["settings"]["pooling"] == "attention" else "",
            "checkpoint": str(path),
        }
        return Decoded(task, score, result, manifest, broken)
