"""captionstew: trained models on audio files.

    captionstew embed    FILES... --encoder exp/contrastive/pretrained.pt --output vectors.parquet
    captionstew caption  FILES... --checkpoint exp/captioning/pretrained.pt
    captionstew search   FILES... --checkpoint exp/contrastive/pretrained.pt --index my.index.npz \\
        --query "a dog barks"
    captionstew classify FILES... --checkpoint exp/contrastive/pretrained.pt --labels dog,rain,siren
    captionstew export   CHECKPOINT --format safetensors --output encoder

FILES are audio files and folders with audio files. Results go to stdout, tab-separated; a file that
cannot be read is named on stderr with the reason, and the others are worked on.

Exit status: 0 everything was used, 3 some files could not be read, 1 nothing could be done, 2 wrong
options.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from captionstew.errors import UserError, printable, run_main
from captionstew.files import atomic_write, check_output_file

SOME_FAILED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    options = _parser().parse_args(argv)
    return options.run(options)


def entry() -> None:
    """The console script."""
    run_main(main)


def embed(options: argparse.Namespace) -> int:
    """(files, dim) clip embeddings to .parquet, .npz or .npy"""
    from captionstew.inference.embedding import embed_files
    from captionstew.models.encoders.load import load_encoder
    from captionstew.models.encoders.stored import check_format, save_embeddings

    check_format(options.output)
    check_output_file(options.output)
    encoder = load_encoder(options.encoder, _device(options))
    files = _files(options)
    vectors = embed_files(encoder, files, options.max_duration, options.num_workers)
    status = _report(files.failed, len(files.files))
    save_embeddings(options.output, files.used, vectors)
    print(f"wrote {options.output}: {len(vectors)} vectors of {encoder.dim}")
    return status


def caption(options: argparse.Namespace) -> int:
    """file, caption"""
    from captionstew.inference.captioner import load_captioner

    if options.output is not None:
        check_output_file(options.output)
    captioner = load_captioner(options.checkpoint, _device(options))
    files = _files(options)
    rows = captioner.caption_files(
        files, options.num_beams, options.max_duration, options.num_workers
    )
    status = _report(files.failed, len(files.files))
    for row in rows:
        _print_row(f"{row.file} ({row.start:g} s)" if row.start else row.file, row.caption)
    if options.output is not None:
        with atomic_write(options.output, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "caption", "start"])
            writer.writerows((row.file, row.caption, row.start) for row in rows)
    return status


def search(options: argparse.Namespace) -> int:
    """cosine, file: for each query the nearest files, from a saved index that is brought up to date
    first
    """
    from captionstew.inference.retriever import load_retriever
    from captionstew.inference.search_index import load_index

    retriever = load_retriever(options.checkpoint, _device(options))
    status = 0
    if options.files:
        index, failed = retriever.index(
            options.files, options.index, options.max_duration, options.num_workers
        )
        status = _report(failed, len(index.files) + len(failed))
    elif options.index.exists():
        index = load_index(options.index)
        retriever.check(index)
    else:
        raise UserError(f"{options.index}: no such index; name files or folders to make one of")
    for query in options.query or _lines(sys.stdin):
        print(f"# {printable(query)}", flush=True)
        for file, cosine in retriever.search(index, query, options.top):
            _print_row(f"{cosine:.4f}", file)
    return status


def classify(options: argparse.Namespace) -> int:
    """file, label, probability among the labels: the likeliest labels of each file"""
    from captionstew.inference.retriever import load_retriever

    labels = _labels(options.labels)
    retriever = load_retriever(options.checkpoint, _device(options))
    files = _files(options)
    scores = retriever.classify(
        files, labels, options.template, options.max_duration, options.num_workers
    )
    status = _report(files.failed, len(files.files))
    for file, row in zip(files.used, scores):
        for number in (-row).argsort(kind="stable")[: options.top]:
            _print_row(file, labels[number], f"{row[number]:.4f}")
    return status


def export(options: argparse.Namespace) -> int:
    """The encoder of a checkpoint as safetensors or ONNX"""
    from captionstew.models.export import export_onnx, export_safetensors

    if options.format == "safetensors":
        encoder = export_safetensors(options.checkpoint, options.output)
        print(
            f"wrote {options.output}: {sum(p.numel() for p in encoder.parameters())} parameters and"
            " config.json"
        )
    else:
        difference = export_onnx(options.checkpoint, options.output)
        print(
            f"wrote {options.output}: frames equal the encoder's to {difference:.1g} of the largest"
            " value"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="captionstew",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="embed|caption|search|classify|export"
    )

    one = _command(commands, embed, "clip embeddings of files", "+")
    one.add_argument(
        "--encoder", required=True, help="checkpoint, folder, hf:OWNER/NAME, logmel, random:PRESET"
    )
    one.add_argument(
        "--output",
        required=True,
        type=Path,
        help=".parquet, .npz, or .npy (with the names in .txt)",
    )

    one = _command(commands, caption, "captions of files", "+")
    one.add_argument(
        "--checkpoint", required=True, type=Path, help="checkpoint of the captioning objective"
    )
    one.add_argument(
        "--num-beams", type=_positive, default=1, help="1: greedy; more: beam search (default: 1)"
    )
    one.add_argument("--output", type=Path, help="write file,caption,start as CSV as well")

    one = _command(commands, search, "files that fit a text", "*")
    one.add_argument(
        "--checkpoint", required=True, type=Path, help="checkpoint of the contrastive objective"
    )
    one.add_argument(
        "--index",
        required=True,
        type=Path,
        help="index (.npz) to use, brought up to date with FILES",
    )
    one.add_argument(
        "--query", action="append", help="text; may be repeated (default: the lines of stdin)"
    )
    one.add_argument(
        "--top", type=_positive, default=10, help="files to show per query (default: 10)"
    )

    one = _command(commands, classify, "zero-shot labels of files", "+")
    one.add_argument(
        "--checkpoint", required=True, type=Path, help="checkpoint of the contrastive objective"
    )
    one.add_argument("--labels", required=True, help="labels to choose from, with commas")
    one.add_argument(
        "--template", default="The sound of {}.", help="sentence for a label (default: %(default)s)"
    )
    one.add_argument(
        "--top", type=_positive, default=1, help="labels to show per file (default: 1)"
    )

    one = commands.add_parser(
        "export",
        help="the encoder in other formats",
        description=export.__doc__,
        allow_abbrev=False,
    )
    one.set_defaults(run=export)
    one.add_argument("checkpoint", help="checkpoint with a Zipformer")
    one.add_argument("--format", choices=("safetensors", "onnx"), default="safetensors")
    one.add_argument(
        "--output", required=True, type=Path, help="folder to write, or the .onnx file"
    )
    return parser


def _command(commands, run, summary: str, number: str) -> argparse.ArgumentParser:
    """A command on files, with the options that all of them have."""
    parser = commands.add_parser(
        run.__name__, help=summary, description=run.__doc__, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "files", nargs=number, metavar="FILES", help="audio files, or folders with audio files"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--max-duration",
        type=_seconds,
        default=240.0,
        help="seconds of audio per batch (default: 240)",
    )
    parser.add_argument(
        "--num-workers", type=_count, default=2, help="processes that read files (default: 2)"
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"at least 0, not {text}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"more than 0 seconds, not {text}")
    return value


def _device(options: argparse.Namespace):
    from captionstew.distributed import pick_device

    return pick_device(options.device, 0)


def _files(options: argparse.Namespace):
    from captionstew.inference.audio_files import AudioFiles, find_audio

    return AudioFiles(find_audio(options.files))


def _report(failed: dict[str, str], total: int) -> int:
    """Names the files that could not be read, and returns the exit status. Raises UserError where
    none could be.
    """
    for file, reason in failed.items():
        print(f"captionstew: {printable(file)}: {printable(reason)}", file=sys.stderr)
    if failed and len(failed) == total:
        raise UserError(f"none of the {total} files could be read")
    if failed:
        print(f"captionstew: {len(failed)} of {total} files could not be read", file=sys.stderr)
        return SOME_FAILED
    return 0


def _print_row(*values: str) -> None:
    print("\t".join(map(printable, values)), flush=True)


def _labels(text: str) -> list[str]:
    """Labels given with commas; those that make the same sentence are one."""
    labels: dict[str, str] = {}
    repeated = []
    for label in (label.strip() for label in text.split(",")):
        sentence = label.replace("_", " ")
        if sentence in labels:
            repeated.append(label)
        elif label:
            labels[sentence] = label
    if repeated:
        print(
            f"captionstew: --labels names these more than once, which counts once:"
            f" {', '.join(dict.fromkeys(repeated))}",
            file=sys.stderr,
        )
    return list(labels.values())


def _lines(stream: Iterable[str]) -> Iterable[str]:
    return (line.strip() for line in stream if line.strip())


if __name__ == "__main__":
    entry()
