"""Batches of labelled clips, for the tagger."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from captionstew.data.batches.captioned import Batch, TrainingBatches
from captionstew.data.batches.flags import TaggingFlags
from captionstew.data.batches.weighted import WeightedDraw, inverse_frequency_weights
from captionstew.data.features.mixup import mixup
from captionstew.data.features.noise import NoiseMixer
from captionstew.data.manifests.index import IndexedCuts
from captionstew.data.manifests.labels import (
    LabelTable,
    clip_labels,
    multi_hot,
    read_class_list,
    read_labels,
)


class TaggingBatches(TrainingBatches):
    """Training batches have `targets` (B, C) float32: zeros and ones, with mixup what lies between.

    Clips without a label of the class list are left out, of training and of validation.

    Attributes:
      classes: C names, those of --class-list, else of classes.json beside the manifests, else those
          of training.
    """

    _flags: TaggingFlags

    def __init__(self, flags: TaggingFlags, rank: int, world_size: int) -> None:
        self._labelled: dict[str, tuple[IndexedCuts, LabelTable]] = {}
        beside = flags.manifest_dir / "classes.json"
        listed = flags.class_list or (beside if beside.is_file() else None)
        self._listed = read_class_list(listed) if listed else None
        super().__init__(flags, rank, world_size)
        self.classes = self._labelled["train"][1].classes
        self.clips("valid")

    def clips(self, split: str) -> IndexedCuts:
        """The labelled cuts of a split.

        Raises:
          ValueError: there are none.
        """
        if split not in self._labelled:
            self._labelled[split] = labelled_cuts(
                super().clips(split), self._flags.label_field, self._listed
            )
        cuts, table = self._labelled[split]
        self._listed = table.classes
        return cuts

    def draw(self, cuts: IndexedCuts) -> WeightedDraw | None:
        """With --weighted-sampler clips come by the inverse frequency of their classes."""
        if not self._flags.weighted_sampler:
            return None
        weights = inverse_frequency_weights(self._labelled["train"][1])
        return WeightedDraw(weights, self._flags.num_samples or len(cuts))

    def noise(self) -> NoiseMixer | None:
        """With --enable-musan, which needs --musan-dir, half of the clips get noise."""
        folder = self._flags.musan_dir
        if not self._flags.enable_musan or folder is None:
            return None
        noise = NoiseMixer(folder, seed=self._flags.seed)
        logging.info(
            "noise from %s: %d recordings, %.2f h",
            folder,
            len(noise.files),
            noise.hours,
        )
        return noise

    def transform(self) -> Callable[[Batch], Batch]:
        """Targets, then mixup, then SpecAugment."""
        classes = self._labelled["train"][1].classes
        places = {name: place for place, name in enumerate(classes)}
        flags = self._flags
        return TargetsAndMixup(
            places, flags.label_field, flags.mixup, flags.mixup_alpha, super().transform()
        )


@dataclass(frozen=True)
class TargetsAndMixup:
    """Adds `targets` to a batch and mixes its clips, before `then`; `places` are those of the
    classes.
    """

    places: dict[str, int]
    label_field: str
    probability: float
    alpha: float
    then: Callable[[Batch], Batch] | None

    def __call__(self, batch: Batch) -> Batch:
        labels = [clip_labels(custom, self.label_field) for custom in batch["custom"]]
        batch = batch | {"targets": multi_hot(labels, self.places)}
        if self.probability > 0:
            features, lengths, targets = mixup(
                batch["features"],
                batch["feature_lengths"],
                batch["targets"],
                self.probability,
                self.alpha,
            )
            batch |= {"features": features, "feature_lengths": lengths, "targets": targets}
        return batch if self.then is None else self.then(batch)


def labelled_cuts(
    cuts: IndexedCuts, label_field: str, classes: list[str] | None = None
) -> tuple[IndexedCuts, LabelTable]:
    """The cuts with a label among `classes` (default: with any), and their labels; says what is
    left out.

    Raises:
      ValueError: there are none.
    """
    table = read_labels(cuts, label_field, classes)
    if table.unknown:
        logging.warning(
            "%s: %d labels are not among the %d classes and left out, e.g. %s", cuts.path,
            table.unknown.total(), len(table.classes), ", ".join(sorted(table.unknown)[:5]),
        )  # fmt: skip
    rows = table.per_clip.nonzero()[0]
    if len(rows) == 0:
        raise ValueError(
            f"{cuts.path}: no cut has a known label in its {label_field!r}; look at --label-field"
            " and --class-list"
        )
    logging.info(
        "%s: %d of %d cuts have labels, of %d classes",
        cuts.path,
        len(rows),
        len(cuts),
        len(table.classes),
    )
    return (cuts, table) if len(rows) == len(cuts) else (cuts.select(rows), table.select(rows))
