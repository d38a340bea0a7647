"""From question-answer tables to manifests: one cut per clip, all its questions in the
supervision's `custom`.

    custom["questions"] = [{"item", "task", "dataset", "question", "choices", "answer",
                            "description"}, ...]

The splits of the tables decide: `test`, `eval`, `foundation` and `chat` are for evaluation, `valid`
and `val` for validation, all others for training. Without validation clips a share of the training
clips is held out. A training clip that is evaluated on, by its name within its corpus or by its
very samples, is left out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from captionstew.corpora.keys import name_stem
from captionstew.corpora.own.read import Rejected, inspect_files, write_rejected
from captionstew.data.audio import MAX_DURATION, AudioInfo
from captionstew.data.manifests.cuts import make_cut, safe_id, write_cuts
from captionstew.data.tables.caption_table import COLUMNS, TableError, validate_table
from captionstew.data.tables.question_table import QUESTION_COLUMNS
from captionstew.files import write_json
from captionstew.hashing import stable_hash

EVALUATION_SPLITS = frozenset({"test", "eval", "foundation", "chat"})
VALIDATION_SPLITS = frozenset({"valid", "val"})
MIN_VALID_CLIPS = 2


@dataclass
class QaClip:
    """A stretch of audio and all that is asked about it in one split (train, valid, or one for
    evaluation).
    """

    audio_key: str
    path: str
    split: str
    offset: float
    duration: float | None
    questions: list[dict] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def read_qa_tables(tables: Sequence[Path]) -> list[QaClip]:
    """The clips of all tables, in order of first appearance.

    Raises TableError for a table that breaks the contract, and for two questions of one name.
    """
    clips: dict[tuple, QaClip] = {}
    seen: set[str] = set()
    for table in tables:
        validate_table(table)
        names = pq.read_schema(table).names
        if missing := [name for name in QUESTION_COLUMNS if name not in names]:
            raise TableError(f"{table}: column {missing[0]!r} is missing; not a table of questions")
        for row in pq.read_table(table, columns=[*COLUMNS, *QUESTION_COLUMNS]).to_pylist():
            if row["item"] in seen:
                raise TableError(f"{table}: two questions are called {row['item']!r}")
            seen.add(row["item"])
            role = _role(row["split"])
            new = QaClip(row["audio_key"], row["audio_path"], role, row["offset"], row["duration"])
            clip = clips.setdefault((row["audio_key"], row["offset"], role), new)
            clip.questions.append(
                {name: row[name] for name in QUESTION_COLUMNS} | {"answer": row["caption"]}
            )
            clip.sources.append(row["source"])
    return list(clips.values())


def _role(split: str) -> str:
    """The manifest that a table's split goes to."""
    if split in EVALUATION_SPLITS:
        return split
    return "valid" if split in VALIDATION_SPLITS else "train"


def hold_out(clips: Iterable[QaClip], share: float, seed: int) -> None:
    """Makes `share` of the training clips validation clips, by a hash of (seed, audio_key), unless
    there are some. A share of 0 leaves them all for training, as a user's own split has it.
    """
    clips = list(clips)
    if share == 0 or any(clip.split == "valid" for clip in clips):
        return
    train = sorted(
        (clip for clip in clips if clip.split == "train"),
        key=lambda clip: stable_hash(seed, "valid", clip.audio_key),
    )
    count = max(round(share * len(train)), MIN_VALID_CLIPS) if len(train) > MIN_VALID_CLIPS else 0
    for clip in train[:count]:
        clip.split = "valid"


def write_qa_manifests(
    tables: Sequence[Path],
    output_dir: Path,
    *,
    valid_share: float,
    seed: int,
    num_jobs: int = 1,
    max_duration: float = MAX_DURATION,
    allow_missing: bool = False,
) -> dict:
    """Writes cuts_train.jsonl, cuts_valid.jsonl, cuts_<split>.jsonl per evaluation split,
    rejected.csv and report.json; returns the report.

    Raises ValueError if clips of an evaluation split cannot be used and `allow_missing` is not set,
    or if no clip is left at all.
    """
    clips = read_qa_tables(tables)
    paths = sorted({clip.path for clip in clips})
    infos = dict(zip(paths, inspect_files([Path(path) for path in paths], num_jobs), strict=True))
    rejected: list[tuple[QaClip, Rejected]] = []
    kept = [
        clip
        for clip in clips
        if not _reject_unusable(clip, infos[clip.path], max_duration, rejected)
    ]
    usable = {path: info for path, info in infos.items() if not isinstance(info, str)}
    kept = _without_evaluated(kept, usable, rejected)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_rejected(output_dir / "rejected.csv", [item for _, item in rejected])
    lost = Counter(clip.split for clip, _ in rejected if clip.split in EVALUATION_SPLITS)
    if lost and not allow_missing:
        raise ValueError(
            f"{sum(lost.values())} clips to evaluate on cannot be used, the first: "
            f"{next(item for clip, item in rejected if clip.split in EVALUATION_SPLITS)}; "
            "--allow-missing true goes on without them"
        )
    hold_out(kept, valid_share, seed)
    by_split: dict[str, list[QaClip]] = defaultdict(list)
    for clip in kept:
        by_split[clip.split].append(clip)
    if not by_split:
        raise ValueError(
            f"{', '.join(map(str, tables))}: no clip has usable audio; see"
            f" {output_dir / 'rejected.csv'}"
        )
    for split, members in sorted(by_split.items()):
        write_cuts(
            output_dir / f"cuts_{split}.jsonl", (_cut(clip, usable[clip.path]) for clip in members)
        )
    report = {
        "tables": [str(table) for table in tables],
        "splits": {split: _counts(members) for split, members in sorted(by_split.items())},
        "rejected": dict(Counter(item.kind for _, item in rejected)),
        "clips_lost_for_evaluation": dict(lost),
    }
    write_json(output_dir / "report.json", report)
    return report


def _reject_unusable(
    clip: QaClip, info: AudioInfo | str, max_duration: float, rejected: list
) -> bool:
    if isinstance(info, str):
        rejected.append((clip, Rejected(clip.path, info, "missing or broken")))
    elif (clip.duration or info.duration) > max_duration:
        rejected.append((clip, Rejected(clip.path, f"longer than {max_duration} s", "too long")))
    else:
        return False
    return True


def _without_evaluated(
    clips: list[QaClip], infos: dict[str, AudioInfo], rejected: list
) -> list[QaClip]:
    """Training and validation clips that are no evaluation clip under this or another name."""
    evaluated = [clip for clip in clips if clip.split in EVALUATION_SPLITS]
    names = {_name(clip) for clip in evaluated}
    prints = {infos[clip.path].fingerprint for clip in evaluated}
    kept = []
    for clip in clips:
        found = _name(clip) in names or infos[clip.path].fingerprint in prints
        if found and clip.split not in EVALUATION_SPLITS:
            rejected.append(
                (clip, Rejected(clip.path, f"{clip.audio_key} is evaluated on", "evaluated on"))
            )
        else:
            kept.append(clip)
    return kept


def _name(clip: QaClip) -> tuple[str, str]:
    """(corpus, file name): AIR-Bench names a recording as its source does, whatever folder it lies
    in.
    """
    return clip.audio_key.split(":")[0], name_stem(clip.audio_key.split(":", 1)[1])


def _cut(clip: QaClip, info: AudioInfo):
    captions = [question["answer"] for question in clip.questions]
    return make_cut(
        clip.audio_key,
        clip.path,
        info,
        captions,
        clip.sources,
        {"questions": clip.questions, "fingerprint": info.fingerprint},
        cut_id=safe_id(f"{clip.audio_key}@{clip.offset:g}" if clip.offset else clip.audio_key),
        offset=clip.offset,
        duration=clip.duration,
    )


def _counts(clips: Sequence[QaClip]) -> dict:
    questions = [question for clip in clips for question in clip.questions]
    return {
        "clips": len(clips),
        "questions": len(questions),
        "with_choices": sum(bool(question["choices"]) for question in questions),
        "tasks": dict(sorted(Counter(question["task"] for question in questions).items())),
        "sources": dict(
            sorted(Counter(source for clip in clips for source in clip.sources).items())
        ),
    }
