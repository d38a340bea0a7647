"""No program offers a flag that nothing reads."""

import ast
import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from captionstew.flags import offered

REPOSITORY = Path(__file__).resolve().parents[2]


def programs():
    listed = subprocess.run(
        ["git", "-C", REPOSITORY, "ls-files", "egs/*.py"], capture_output=True, text=True
    ).stdout.split()
    found = [Path(line) for line in listed] or [
        path.relative_to(REPOSITORY) for path in (REPOSITORY / "egs").rglob("*.py")
    ]
    return [path for path in found if "parse_flags(" in (REPOSITORY / path).read_text()]


@cache
def tree(path):
    return ast.parse(path.read_text())


def module_path(name):
    path = REPOSITORY / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported(path):
    """Files of captionstew that a file imports."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "captionstew":
            for name in [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]:
                if module_path(name).is_file():
                    yield module_path(name)


def reached(path):
    """The program and all that it imports of captionstew, directly or not."""
    seen, waiting = set(), [path]
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            waiting += imported(here)
    return seen


def names_read(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value  # getattr(flags, "name"), options["name"]


@pytest.mark.parametrize("program", programs(), ids=str)
def test_every_flag_is_read(program):
    path = REPOSITORY / program
    spec = importlib.util.spec_from_file_location(f"flags_of_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    read = {name for file in reached(path) for name in names_read(file)}
    fields = offered(module.Flags)
    assert [item.name for item in fields if item.name not in read] == []
    names = {item.name for item in fields}
    for item in fields:
        conditions = {condition.partition("=")[0] for condition in item.metadata["only_with"]}
        assert conditions <= names, item.name
