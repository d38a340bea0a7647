"""Clips that the report plays, with their captions and what a model said of them.

    example = Example(cut_id, waveform, rate, captions, generated="a dog barks")
    write_examples(exp_dir, "captioning-scratch", [example])

writes <exp_dir>/examples.jsonl, one object per line:

    {"cut_id", "system", "audio": "examples/<name>.mp3", "captions": [...], "generated": "...",
     "retrieved": [{"caption", "score", "own"}, ...]}

Decode programs of different systems choose the same clips (`choose_examples`), so that the report
can show what each of them says beside one player.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from captionstew.files import write_text
from captionstew.hashing import hash_of, stable_hash

if TYPE_CHECKING:
    from captionstew.data.manifests.index import IndexedCuts
    from captionstew.evaluation.retrieval import EmbeddedClips

NUM_EXAMPLES = 8
MAX_SECONDS = 10.0  # of a clip that is embedded in the page
SAMPLING_RATE = 16000
RETRIEVED = 5  # best captions of a clip


@dataclass(frozen=True)
class Retrieved:
    """A caption that a model ranked high for a clip; `own`: it belongs to the clip."""

    caption: str
    score: float
    own: bool


@dataclass(frozen=True)
class Example:
    """One clip, and what one system said of it."""

    cut_id: str
    waveform: np.ndarray  # (N,) in [-1, 1]
    sampling_rate: int
    captions: Sequence[str]
    generated: str | None = None
    retrieved: Sequence[Retrieved] = ()


def choose_examples(cut_ids: Iterable[str], number: int = NUM_EXAMPLES) -> list[str]:
    """The clips to show: the same for every system that is evaluated on them."""
    return sorted(cut_ids, key=lambda cut_id: (stable_hash(cut_id), cut_id))[:number]


def examples_of_cuts(
    cuts: "IndexedCuts",
    generated: Mapping[str, str] | None = None,
    retrieved: Mapping[str, Sequence[Retrieved]] | None = None,
    number: int = NUM_EXAMPLES,
) -> list[Example]:
    """Examples with the audio and captions of their cuts.

    Args:
      generated, retrieved: by cut id, of those clips at least that are chosen from their ids.
    """
    from captionstew.data.audio import read_audio
    from captionstew.data.manifests.cuts import audio_part

    chosen = set(choose_examples({*(generated or {}), *(retrieved or {})}, number))
    examples = []
    for cut in cuts:
        if cut.id in chosen:
            waveform = read_audio(*audio_part(cut), sampling_rate=SAMPLING_RATE)
            captions = cut.supervisions[0].custom["captions"]
            own = (generated or {}).get(cut.id), (retrieved or {}).get(cut.id, ())
            examples.append(Example(cut.id, waveform, SAMPLING_RATE, captions, *own))
    return examples


def best_captions(clips: "EmbeddedClips", number: int = NUM_EXAMPLES) -> dict[str, list[Retrieved]]:
    """Cut id -> its highest captions of all, for the clips that are shown."""
    owners = np.asarray(clips.caption_clips)
    best = {}
    for cut_id in choose_examples(clips.cut_ids, number):
        clip = clips.cut_ids.index(cut_id)
        scores = clips.text @ clips.audio[clip]
        top = np.argsort(-scores, kind="stable")[:RETRIEVED]
        best[cut_id] = [
            Retrieved(clips.captions[i], float(scores[i]), bool(owners[i] == clip)) for i in top
        ]
    return best


def write_examples(exp_dir: Path, system: str, examples: Iterable[Example]) -> Path:
    """Writes <exp_dir>/examples.jsonl and the first seconds of each clip as a small MP3; says so on
    stdout.
    """
    folder = exp_dir / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for example in examples:
        audio = (
            folder / f"{hash_of(example.cut_id)}.mp3"
        )  # never the id itself: it may hold anything
        _encode(example, audio)
        row = {
            "cut_id": example.cut_id,
            "system": system,
            "audio": f"{folder.name}/{audio.name}",
            "captions": list(example.captions),
            "generated": example.generated,
            "retrieved": [vars(retrieved) for retrieved in example.retrieved],
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    path = exp_dir / "examples.jsonl"
    write_text(path, "".join(lines), errors="replace")
    print(f"wrote {path}: {len(lines)} clips to listen to")
    return path


def _encode(example: Example, path: Path) -> None:
    first = example.waveform[: int(MAX_SECONDS * example.sampling_rate)]
    soundfile.write(
        path,
        np.clip(first, -1, 1),
        example.sampling_rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=0.8,
        bitrate_mode="VARIABLE",
    )


def read_examples(exp_dir: Path) -> dict[str, list[dict]]:
    """Cut id -> the lines of every examples.jsonl below a folder; `audio` is a path that exists.

    Raises:
      ValueError: a line is not an example, or its audio lies elsewhere than in its folder.
    """
    found: dict[str, list[dict]] = {}
    for path in sorted(exp_dir.rglob("examples.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
                audio = (path.parent / row["audio"]).resolve()
                if not (audio.is_relative_to(path.parent.resolve()) and audio.is_file()):
                    raise ValueError(f"no audio {row['audio']!r} in its folder")
                row |= {
                    "audio": audio,
                    "captions": list(map(str, row["captions"])),
                    "system": str(row["system"]),
                }
                row["retrieved"] = [Retrieved(**retrieved) for retrieved in row["retrieved"]]
                found.setdefault(str(row["cut_id"]), []).append(row)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number}: not an example ({error}); decode again"
                ) from error
    return found
