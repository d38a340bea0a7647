"""Command-line flags as fields of frozen dataclasses.

    @dataclass(frozen=True)
    class Flags:
        seed: int = flag(42, "seed of shuffling")

    flags = parse_flags(Flags, __doc__)

Every flag takes a value (`--use-fp16 true`); unknown ones and wrong values end the program.
"""

import argparse
import dataclasses
import types
import typing
from dataclasses import field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

FlagsT = TypeVar("FlagsT")


def flag(default: Any, help: str, choices: tuple | None = None) -> Any:
    """A dataclass field that is a command-line flag."""
    return field(default=default, metadata={"help": help, "choices": choices, "may_change": False})


def free_flag(default: Any, help: str, choices: tuple | None = None) -> Any:
    """A flag that an exact resume may change: it decides nothing that a step computes, or is a
    rate, or a path.

    What the path of a manifest or a tokenizer leads to is compared by its content.
    """
    return field(default=default, metadata={"help": help, "choices": choices, "may_change": True})


def parse_flags(
    flags_class: type[FlagsT], description: str | None, argv: list[str] | None = None
) -> FlagsT:
    """Parses argv (default: the command line) into `flags_class` and runs every group's check().

    Unknown flags, wrong values and contradictions end the program with one line and exit status 2.
    """
    parser = _Parser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for item in dataclasses.fields(flags_class):
        shown = "" if item.default in (None, "") else f" (default: {_text(item.default)})"
        parser.add_argument(
            "--" + item.name.replace("_", "-"),
            type=_converter(item.type),
            default=item.default,
            choices=item.metadata["choices"],
            metavar=None if item.metadata["choices"] else item.name.upper(),
            help=(item.metadata["help"] + shown).replace("%", "%%"),
        )
    flags = flags_class(**vars(parser.parse_args(argv)))
    try:
        for group in type(flags).__mro__:
            if "check" in vars(group):
                group.check(flags)
    except ValueError as error:
        parser.error(str(error))
    return flags


def flags_to_dict(flags: Any) -> dict[str, Any]:
    """Plain JSON values of a flags object, for checkpoints and result files."""
    return {
        item.name: str(value) if isinstance(value := getattr(flags, item.name), Path) else value
        for item in dataclasses.fields(flags)
    }


class _Parser(argparse.ArgumentParser):
    """Errors are one line: the usage of forty flags would hide them."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _converter(annotation: Any):
    if isinstance(annotation, types.UnionType):
        annotation = next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return _boolean if annotation is bool else annotation


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"true or false expected, not {text!r}")
    return values[text.lower()]
