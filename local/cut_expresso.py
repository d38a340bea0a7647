#!/usr/bin/env python3
"""Cut Expresso's conversations into the utterances that ParaSpeechCaps describes.

A conversation has a speaker in each channel; VAD_segments.txt says who speaks when. Writes
EXPRESSO_DIR/audio_48khz/conversational_vad_segmented/<pair>/<style>/ with one mono file per
segment, beside audio_48khz/conversational/. Segments that are there already are left alone.

    ex04-ex02_disgusted_012/channel1<TAB>(50.0, 59.58) (61.2, 63.0)

    python local/cut_expresso.py --expresso-dir download/paraspeechcaps/audio
"""

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path

import soundfile
from tqdm import tqdm

from captionstew.errors import UserError, run_main

SEGMENT = re.compile(r"\(\s*([\d.]+)\s*,\s*([\d.]+)\s*\)")
NAME = re.compile(r"(?:.*/)?((ex\d\d-ex\d\d)_([a-z_]+?)_\d+[^/]*)/channel([12])")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--expresso-dir", type=Path, required=True, help="has audio_48khz/ and VAD_segments.txt"
    )
    args = parser.parse_args()
    table = args.expresso_dir / "VAD_segments.txt"
    if not table.is_file():
        raise UserError(f"{table} is missing; it comes with the release of Expresso")
    counts = {"cut": 0, "there already": 0, "of conversations that are not there": 0}
    for line in tqdm(list(read_segments(table)), desc="conversations"):
        for what, count in cut(args.expresso_dir / "audio_48khz", *line).items():
            counts[what] += count
    print("segments: " + ", ".join(f"{count:,} {what}" for what, count in counts.items()))


def read_segments(table: Path) -> Iterator[tuple[str, str, str, int, list[tuple[str, str]]]]:
    """(file, pair, style, channel from 0, [(start, end) as they are written]) of every line that is
    no comment and no longform recording.
    """
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#") or "longform" in line:
            continue
        name, _, times = line.partition("\t")
        match = NAME.fullmatch(name.strip())
        segments = SEGMENT.findall(times)
        if match is None or not segments:
            raise UserError(
                f"{table}, line {number}: not <name>/channel<N><TAB>(start, end) ...: {line[:90]!r}"
            )
        yield match[1], match[2], match[3], int(match[4]) - 1, segments


def cut(
    audio: Path, file: str, pair: str, style: str, channel: int, segments: list[tuple[str, str]]
) -> dict[str, int]:
    """Writes the segments of one channel; returns what happened to how many."""
    source = audio / "conversational" / pair / style / f"{file}.wav"
    if not source.is_file():
        return {"of conversations that are not there": len(segments)}
    folder = audio / "conversational_vad_segmented" / pair / style
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    with soundfile.SoundFile(source) as conversation:
        rate = conversation.samplerate
        for start, end in segments:
            output = folder / f"{file}_channel{channel + 1}_segment_{start}_{end}.wav"
            if output.is_file():
                continue
            conversation.seek(min(round(float(start) * rate), conversation.frames))
            samples = conversation.read(round((float(end) - float(start)) * rate), always_2d=True)
            partial = output.with_name(f".{output.name}.partial")
            soundfile.write(
                partial, samples[:, channel], rate, format="WAV", subtype=conversation.subtype
            )
            os.replace(partial, output)
            done += 1
    return {"cut": done, "there already": len(segments) - done}


if __name__ == "__main__":
    run_main(main)
