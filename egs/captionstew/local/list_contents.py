#!/usr/bin/env python3
"""Print what the stages depend on, a line per corpus: its name, a hash of its release (names, sizes
and times of all files but audio, names of the audio files), and a hash of its audio (names, sizes
and times).

./local/list_contents.py --corpora-dir download audiocaps clotho
"""

import argparse
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from captionstew.corpora import known
from captionstew.data.audio import AUDIO_ENDINGS
from captionstew.errors import run_main

MADE_BY_STAGE_1 = "mini"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora-dir", type=Path, required=True)
    parser.add_argument("--audio-dir", type=Path)
    parser.add_argument("corpora", nargs="*")
    args = parser.parse_args()
    for name in dict.fromkeys(args.corpora):
        release, audio = hashlib.blake2b(digest_size=8), hashlib.blake2b(digest_size=8)
        folders = [args.corpora_dir / known.folder(name)]
        folders += [args.audio_dir / name] if args.audio_dir else []
        for folder in folders if name != MADE_BY_STAGE_1 else []:
            for path, state, is_audio in contents(str(folder), set()):
                text = f"{os.path.relpath(path, folder)}\0{state.st_size}\0{state.st_mtime_ns}\n"
                (audio if is_audio else release).update(os.fsencode(text))
                if is_audio:
                    release.update(os.fsencode(f"{os.path.relpath(path, folder)}\n"))
        print(name, release.hexdigest(), audio.hexdigest())


def contents(folder: str, seen: set[str]) -> Iterator[tuple[str, os.stat_result, bool]]:
    """(path, state, whether it is audio) of all files, in a fixed order; links are followed, each
    folder once.
    """
    place = os.path.realpath(folder)
    if place in seen or not os.path.isdir(folder):
        return
    seen.add(place)
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith((".partial", ".etag")):
            continue  # of a download that goes on
        if entry.is_dir():
            yield from contents(entry.path, seen)
        elif entry.is_file():
            yield entry.path, entry.stat(), entry.name.lower().endswith(AUDIO_ENDINGS)


if __name__ == "__main__":
    run_main(main)
