"""Rules of the repository: who may import whom, sizes, no machine's paths, programs that answer
--help.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("zipformer", "captionstew", "local", "egs")
MAX_LINES = 500


def tracked(*patterns):
    """Paths of tracked files, relative to the repository; in an export without git, of all
    files.
    """
    command = ["git", "-C", str(REPOSITORY), "ls-files", "--", *patterns]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode == 0:
        paths = [Path(line) for line in listed.stdout.splitlines()]
    else:
        paths = [
            path.relative_to(REPOSITORY)
            for pattern in patterns or ("*",)
            for path in REPOSITORY.rglob(pattern)
        ]
    return [path for path in paths if (REPOSITORY / path).is_file() and ".venv" not in path.parts]


def python_files(room):
    return [path for path in tracked("*.py") if path.parts[0] == room]


def imports(path):
    """(module, enclosing function or None) of every import of a file."""
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"), str(path))
    functions = {
        id(inner): outer
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the full name"
            names = [node.module]
        else:
            continue
        yield from ((name, functions.get(id(node))) for name in names)


def programs():
    """Every file of local/ and egs/ that is run by name."""
    files = [path for room in ("local", "egs") for path in python_files(room)]
    return [
        path
        for path in files
        if '__name__ == "__main__"' in (REPOSITORY / path).read_text(encoding="utf-8")
    ]


def test_there_is_something_to_check():
    assert all(python_files(room) for room in ROOMS)
    assert len(programs()) > 10


def test_zipformer_needs_torch_only():
    allowed = sys.stdlib_module_names | {"torch", "zipformer"}
    for path in python_files("zipformer"):
        for module, function in imports(path):
            top = module.split(".")[0]
            lazily = {"k2", "safetensors"} if function else set()
            assert top in allowed | lazily, f"{path} imports {module}"


def test_k2_is_imported_in_functions_only():
    for room in ROOMS:
        for path in python_files(room):
            for module, function in imports(path):
                assert module.split(".")[0] != "k2" or function is not None, (
                    f"{path} imports k2 at its top"
                )


@pytest.mark.parametrize(
    "room, forbidden",
    [
        ("zipformer", ("captionstew", "local", "egs")),
        ("captionstew", ("local", "egs")),
        ("egs", ("local", "egs")),
    ],
)
def test_imports_go_one_way(room, forbidden):
    for path in python_files(room):
        for module, _ in imports(path):
            assert module.split(".")[0] not in forbidden, f"{path} imports {module}"


# Each room of captionstew imports its own floor and those below it.
GROUND = (
    "errors",
    "files",
    "locks",
    "hashing",
    "parallel",
    "checkpoint",
    "distributed",
    "flags",
    "paper",
)
FLOORS = {name: {"errors", "hashing", "files", "locks"} for name in GROUND} | {
    "data": {*GROUND, "data"},
    "corpora": {*GROUND, "data", "corpora"},
    "models": {*GROUND, "data", "models"},
    "training": {*GROUND, "data", "models", "training"},
    "evaluation": {*GROUND, "data", "corpora", "models", "training", "evaluation"},
    "inference": {*GROUND, "data", "models", "training", "evaluation", "inference"},
    "cli": {*GROUND, "data", "models", "training", "evaluation", "inference"},
    "__init__": {"models", "inference"},
}
MAX_FILES = 35  # of one folder of modules; corpora has one per corpus


def test_rooms_import_downwards_only():
    for path in python_files("captionstew"):
        room = Path(path.parts[1]).stem
        for module, _ in imports(path):
            if module == "captionstew":
                continue
            if module.startswith("captionstew."):
                other = module.split(".")[1]
                assert other in FLOORS[room], f"{path} imports {module}"


def test_data_and_corpora_need_no_encoder():
    for path in python_files("captionstew"):
        if path.parts[1] in ("data", "corpora"):
            for module, _ in imports(path):
                assert module.split(".")[0] != "zipformer", f"{path} imports {module}"


def test_local_programs_use_data_and_corpora_only():
    allowed = tuple(f"captionstew.{room}" for room in (*GROUND, "data", "corpora"))
    for path in python_files("local"):
        for module, _ in imports(path):
            if module.split(".")[0] in ("captionstew", "zipformer", "egs", "local"):
                assert module.startswith(allowed), f"{path} imports {module}"


def test_no_folder_has_too_many_modules():
    for room in ROOMS:
        sizes = Counter(path.parent for path in python_files(room))
        for folder, size in sizes.items():
            assert size <= MAX_FILES or folder == Path("captionstew/corpora"), (
                f"{folder}: {size} files"
            )


def test_recipes_import_libraries_only():
    """A program beside another must not import it: a copied recipe stands alone."""
    names = {path.stem for room in ("egs", "local") for path in python_files(room)}
    for room in ("egs", "local"):
        for path in python_files(room):
            for module, _ in imports(path):
                assert module.split(".")[0] not in names, f"{path} imports {module}"


def test_nobody_edits_the_import_path():
    for path in tracked("*.py"):
        tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and node.attr == "path"
                and isinstance(node.value, ast.Name)
            ):
                assert node.value.id != "sys", f"{path}:{node.lineno} touches sys.path"


def test_package_fronts_are_nearly_empty():
    """Importing captionstew must not import torch, lhotse or transformers."""
    code = (
        "import sys, captionstew; print([m for m in ('torch', 'lhotse', 'transformers') if m in"
        " sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == "[]"


def test_an_encoder_of_ours_loads_without_heavy_libraries(tmp_path):
    """What a checkpoint of ours needs is torch; lhotse comes with the first features."""
    code = """
import sys, captionstew
from pathlib import Path
from captionstew.checkpoint import save_checkpoint
from captionstew.data.features.fbank import FbankConfig
from zipformer import Zipformer, ZipformerConfig
config = ZipformerConfig.preset("mini")
about = {"task": "contrastive", "preset": "mini", "encoder": config.to_dict(),
         "fbank": FbankConfig().to_dict()}
weights = {f"encoder.{name}": value for name, value in Zipformer(config).state_dict().items()}
save_checkpoint(Path(sys.argv[1]), {"model": weights, "config": about})
encoder = captionstew.load_encoder(sys.argv[1])
heavy = ("transformers", "lhotse", "duckdb", "pyarrow", "scipy", "sklearn", "tensorboard")
print(encoder.dim, [name for name in heavy if name in sys.modules])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "ours.pt")]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    dim, heavy = shown.stdout.split(maxsplit=1)
    assert int(dim) > 0 and heavy.strip() == "[]"


def test_no_model_brings_code():
    """Auto classes run a repository's own code when asked on the terminal; never here."""
    for room in ROOMS:
        for path in python_files(room):
            tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
            for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
                text = ast.unparse(call.func)
                if re.fullmatch(r"Auto\w+\.from_pretrained", text):
                    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
                    where = f"{path}:{call.lineno}"
                    assert given.get("trust_remote_code") == "False", where


def test_every_recipe_links_to_the_shared_shell():
    recipes = [path for path in (REPOSITORY / "egs").iterdir() if path.is_dir()]
    assert recipes
    for recipe in recipes:
        link = recipe / "shared"
        assert link.is_symlink() and str(link.readlink()) == "../../shared", (
            f"{link} is not a link to ../../shared"
        )
        assert (link / "parse_options.sh").is_file()


def test_types_ship():
    """The packages tell a type checker that their annotations are meant for it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = project["tool"]["setuptools"]["package-data"]
    for package in ("zipformer", "captionstew"):
        assert "py.typed" in shipped[package] and (REPOSITORY / package / "py.typed").is_file()


def test_nobody_reads_flags_of_any_type():
    """A function says what it reads of the flags, the task or the data: a class or a protocol."""
    for path in [path for room in ROOMS for path in python_files(room)]:
        text = (REPOSITORY / path).read_text(encoding="utf-8")
        found = re.search(r"\b(?:flags|task|data): Any\b", text)
        assert found is None, f"{path}: {found[0]}"


def test_no_file_is_too_long():
    for path in tracked("*.py", "*.sh"):
        lines = len((REPOSITORY / path).read_text(encoding="utf-8").splitlines())
        assert lines <= MAX_LINES, f"{path} has {lines} lines; divide it"


def test_no_machine_is_named():
    """Absolute paths of somebody's machine, local registries and hosts have no place here."""
    forbidden = re.compile(
        rb"(?<![\w.])/(?:work|home(?!/someone)|root|mnt|scratch|Users)/\w|localhost:\d"
        rb"|\b\d+\.\d+\.\d+\.\d+:\d"
    )
    hosts = re.compile(
        rb"https?://([\w.-]*(?:artifactory|nexus|pypi|registry|index|mirror)[\w.-]*)"
    )
    for path in tracked():
        content = (REPOSITORY / path).read_bytes()
        if b"\0" in content[:4096]:
            continue
        for number, line in enumerate(content.splitlines(), start=1):
            found = forbidden.search(line) or hosts.search(line)
            assert path.name == "test_repository.py" or not found, f"{path}:{number}: {found}"


TWICE = """
import runpy, sys
program, *calls = sys.argv[1:]
for call in calls:
    sys.argv = [program, *call.split()]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        print("exit status", end.code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", programs(), ids=str)
def test_programs_answer_help_and_refuse_unknown_flags(program):
    command = [sys.executable, "-c", TWICE, str(program), "--help", "--no-such-flag 1"]
    shown = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("usage:") and lines[-2:] == ["exit status 0", "exit status 2"]
    assert shown.stderr.splitlines()[-1].startswith(f"{program.name}: error: ")


@pytest.mark.parametrize(
    "program", ["run.sh", "prepare.sh", "test.sh", "egs/captionstew/prepare.sh"]
)
def test_shell_programs_answer_help_and_refuse_unknown_flags(program):
    shown = subprocess.run([REPOSITORY / program, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "--" in shown.stdout
    refused = subprocess.run(
        [REPOSITORY / program, "--no-such-flag", "1"], capture_output=True, text=True
    )
    assert refused.returncode == 2 and "unknown option --no-such-flag" in refused.stderr


def test_programs_are_executable():
    for path in [*programs(), *tracked("*.sh")]:
        if path.parts[0] == "egs" or path.suffix == ".sh" and len(path.parts) == 1:
            assert (REPOSITORY / path).stat().st_mode & 0o111, f"{path} is not executable"
