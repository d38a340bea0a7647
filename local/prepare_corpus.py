#!/usr/bin/env python3
"""Read one corpus as it is released: captions or questions into a table, labelled clips into
manifests.

    python local/prepare_corpus.py audiocaps --corpus-dir download/audiocaps \\
        --output-dir data/tables
    python local/prepare_corpus.py nsynth --corpus-dir download/nsynth --output-dir data/nsynth
    python local/prepare_corpus.py --list              the names of the corpora
    python local/prepare_corpus.py audiocaps --help    where the release lives, and its flags
"""

import sys

from captionstew.corpora import known
from captionstew.corpora.captioned import Corpus, run
from captionstew.corpora.labelled import run_labelled
from captionstew.errors import program_name, run_main


def main(argv: list[str]) -> int:
    names = known.prepared()
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: {program_name()} CORPUS [flags]\n\n{__doc__}\nCORPUS: {' '.join(names)}")
        return 0
    if argv == ["--list"]:
        print("\n".join(names))
        return 0
    name, *flags = argv
    if name not in names:
        print(f"{program_name()}: error: {name} is none of {', '.join(names)}", file=sys.stderr)
        return 2
    module = known.load(name)
    if hasattr(module, "main"):
        module.main(flags)
    elif isinstance(module.CORPUS, Corpus):
        run(module.CORPUS, module.__doc__, flags)
    else:
        run_labelled(module.CORPUS, module.__doc__, flags)
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
