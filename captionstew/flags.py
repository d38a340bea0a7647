"""Command-line flags as fields of frozen dataclasses.

    @dataclass(frozen=True)
    class Flags:
        seed: int = flag(42, "seed of shuffling")

    flags = parse_flags(Flags, __doc__)

Every flag takes a value (`--use-fp16 true`). Unknown ones, wrong values, and flags that would have
no effect beside the others end the program before any data is opened.
"""

import argparse
import dataclasses
import types
import typing
from collections.abc import Collection
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from captionstew.files import check_output

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OUTPUTS = {"exp_dir", "output", "cache_dir", "jobs_dir"}  # flags that name what is written
FlagsT = TypeVar("FlagsT", bound="DataclassInstance")


def flag(
    default: Any, help: str, choices: tuple | None = None, only_with: str | tuple[str, ...] = ()
) -> Any:
    """A dataclass field that is a command-line flag.

    `only_with` names the flags without which this one has no effect: "name" (given, or above 0),
    "name=a|b" (one of these values), "name=" (not given, or 0). Given beside others, it is refused.
    """
    return _field(default, help, choices, only_with, may_change=False)


def free_flag(
    default: Any, help: str, choices: tuple | None = None, only_with: str | tuple[str, ...] = ()
) -> Any:
    """A flag that an exact resume may change: it decides nothing that a step computes, or is a
    rate, or a path.

    What the path of a manifest or a tokenizer leads to is compared by its content.
    """
    return _field(default, help, choices, only_with, may_change=True)


def fixed(value: Any) -> Any:
    """A field of a shared group of flags that a program does not offer, since it has no effect
    there.
    """
    return field(default=value, metadata={"fixed": True, "may_change": False})


def _field(
    default: Any,
    help: str,
    choices: tuple | None,
    only_with: str | tuple[str, ...],
    may_change: bool,
) -> Any:
    conditions = (only_with,) if isinstance(only_with, str) else only_with
    metadata = {"help": help, "choices": choices, "only_with": conditions, "may_change": may_change}
    return field(default=default, metadata=metadata)


def offered(flags_class: "type[DataclassInstance]") -> "list[dataclasses.Field[Any]]":
    """The fields that are flags of the program."""
    return [item for item in dataclasses.fields(flags_class) if "fixed" not in item.metadata]


def parse_flags(
    flags_class: type[FlagsT], description: str | None, argv: list[str] | None = None
) -> FlagsT:
    """Parses argv (default: the command line) into `flags_class` and runs every group's check().

    Unknown flags, wrong values, contradictions and flags without effect end the program with one
    line and exit status 2.
    """
    parser = _Parser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for item in offered(flags_class):
        shown = "" if item.default in (None, "") else f" (default: {_text(item.default)})"
        parser.add_argument(
            _option(item.name),
            type=_converter(item.type),
            default=argparse.SUPPRESS,
            choices=item.metadata["choices"],
            metavar=None if item.metadata["choices"] else item.name.upper(),
            help=(item.metadata["help"] + shown).replace("%", "%%"),
        )
    given = vars(parser.parse_args(argv))
    flags = flags_class(**given)
    try:
        refuse_idle(flags, given)
        for group in type(flags).__mro__:
            if "check" in vars(group):
                vars(group)["check"](flags)
    except ValueError as error:
        parser.error(str(error))
    for name in sorted(OUTPUTS & {item.name for item in offered(flags_class)}):
        if (path := getattr(flags, name)) is not None:
            check_output(path)
    return flags


def refuse_idle(flags: "DataclassInstance", given: Collection[str]) -> None:
    """Raises ValueError for the first flag in `given` that has no effect beside the others."""
    for item in offered(type(flags)):
        for condition in item.metadata["only_with"] if item.name in given else ():
            name, has_values, values = condition.partition("=")
            value = getattr(flags, name)
            shown = _text(value or "")
            met = shown in values.split("|") if has_values else bool(value)
            if not met:
                empty = value in (None, "", 0) and not isinstance(value, bool)
                state = (
                    f"without {_option(name)}" if empty else f"with {_option(name)} {_text(value)}"
                )
                raise ValueError(f"{_option(item.name)} has no effect {state}")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def flags_to_dict(flags: "DataclassInstance") -> dict[str, Any]:
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
