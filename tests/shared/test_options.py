"""Options of the shell programs: listed, of a type, checked before anything is done."""

import re
import subprocess

import pytest

PROGRAMS = [
    "run.sh",
    "prepare.sh",
    "test.sh",
    "egs/captionstew/prepare.sh",
    "egs/eval_lit/prepare.sh",
    "egs/eval_probe/prepare.sh",
    "egs/eval_qa/prepare.sh",
]
STAGED = [name for name in PROGRAMS if name != "test.sh"]


@pytest.fixture
def refused(repository, tmp_path):
    """refused(program, arguments ...) -> its one line; it must not get as far as to log."""

    def run(program, *arguments):
        command = ["bash", repository / program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=20)
        assert done.returncode == 2 and done.stdout == "" and not list(tmp_path.iterdir())
        (line,) = done.stderr.splitlines()
        return line

    return run


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_listed_option_has_a_default_and_is_explained(repository, program):
    text = (repository / program).read_text()
    lists = re.findall(r'^(numbers|shares|switches|texts)="(.*)"$', text, re.MULTILINE)
    listed = [name for _, names in lists for name in names.split()]
    defaults = re.findall(r"^([a-z_]+)=", text.split('. "$')[0], re.MULTILINE)
    explained = re.findall(r"^# .*?--([a-z][a-z-]+)", text, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(defaults)
    offered = re.findall(r"^#   --([a-z][a-z-]+)", text, re.MULTILINE)
    assert {x.replace("-", "_") for x in offered} <= set(listed)
    assert set(listed) - {"stop_stage", "stage"} <= {x.replace("-", "_") for x in explained}


@pytest.mark.parametrize("program", PROGRAMS)
def test_variables_of_the_program_are_no_options(refused, program):
    for name in ("root", "here", "given-options"):
        assert f"unknown option --{name}" in refused(program, f"--{name}", "/tmp")


@pytest.mark.parametrize("program", STAGED)
def test_numbers_are_numbers(refused, program):
    for option, value in (("--stage", "a[$(touch executed)]"), ("--num-jobs", "$(touch x)")):
        assert f"{option} takes a whole number, not '{value}'" in refused(program, option, value)


@pytest.mark.parametrize("value", ["1.5", "08", "-1", "1e3", " 1", "0x1", "9" * 19])
def test_what_is_no_whole_number(refused, value):
    assert f"takes a whole number, not '{value}'" in refused("run.sh", "--seed", value)


def test_numbers_without_a_default_are_checked_too(refused):
    line = refused("run.sh", "--num-epochs", "x[$(touch executed)]")
    assert "--num-epochs takes a whole number" in line
    assert "--character-coverage takes a number" in refused("run.sh", "--character-coverage", ".9x")
    assert "--dry-run takes true or false" in refused("run.sh", "--dry-run", "maybe")


@pytest.mark.parametrize("program", ["run.sh", "egs/eval_qa/prepare.sh"])
@pytest.mark.parametrize(
    "stages, message",
    [
        (["--stage", "0"], "--stage 0: the stages are 1 to"),
        (["--stage", "9"], "--stage 9: the stages are {first} to"),
        (["--stop-stage", "9"], "--stop-stage 9: the stages are {first} to"),
        (["--stage", "2", "--stop-stage", "1"], "--stage 2 comes after --stop-stage 1"),
    ],
)
def test_stages_that_are_not_there_are_refused(repository, refused, program, stages, message):
    first = 0 if "first_stage=0" in (repository / program).read_text() else 1
    if first == 0 and stages == ["--stage", "0"]:
        return  # fetching
    assert message.format(first=first) in refused(program, *stages)
