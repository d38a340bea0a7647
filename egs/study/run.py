#!/usr/bin/env python3
"""Runs a study: the steps of a plan whose results are not there yet, in order. `./run.sh --study
mini` calls it.

    ./run.py --plan mini.json --dry-run true             what is missing, as plain commands
    ./run.py --plan paper.json \\
        --jobs-dir jobs           jobs/submit.sh, which hands what is missing to Slurm
    ./run.py --plan mini.json --only 'probe-*'           some of the steps

A plan is a JSON object: `variables`; `sets`, lists of further variables; `steps` in the order they
can run. A step has

    name      may hold {variables}
    for       name of a set: the step stands for one run with each of its rows; of several sets,
              with each row of the first joined to each row of the others
    steps     in the place of what follows: steps that run one after the other for one row before
              those for the next
    needs     names (shell patterns) of steps whose results it uses
    command   lines of shell, run in the root of the repository; the first that fails ends the study
    makes     files that prove that it is done
    fills     cells of the paper's tables and figures that come of it, for the reader
    when      a text: where it is empty, as that of `{judge_url}` is without a judge, the step is
              left out, and nothing waits for it
    gpu_hours, hours, disk_gb, scratch_gb
              estimates: hours of one GPU, hours of the clock where no GPU is used, what stays on
              disk, and what the last step of its group removes

`unfilled` of a plan says why the cells that no step fills stay empty.

A step is done when its files are there. Remove one to make it again: the files of all steps that
need it are removed then, and made again as well. Every training of the plans here goes on where a
killed one stopped; so one that has ended is repeated only when its folder is gone, and so are those
that started from it.
"""

import fnmatch
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captionstew.errors import run_main
from captionstew.files import parse_json
from captionstew.flags import flag, parse_flags
from captionstew.locks import one_writer

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"variables": dict, "sets": dict, "steps": list}
COSTS = ("gpu_hours", "hours", "disk_gb", "scratch_gb")
KEYS = {"name", "for", "needs", "command", "makes", "fills", "when", *COSTS}


@dataclass(frozen=True)
class Flags:
    plan: Path = flag(Path("mini"), "the plan: a file, or the name of one beside this program")
    dry_run: bool = flag(False, "print the commands that are missing, run nothing")
    only: str = flag("*", "steps to run, a shell pattern of names")
    jobs_dir: Path | None = flag(
        None, "write submit.sh for Slurm here instead of running; its jobs log here, too"
    )
    sbatch: str = flag(
        "--gpus-per-node 1 --cpus-per-task 16",
        "what jobs other than trainings ask of Slurm",
        only_with="jobs_dir",
    )
    set: str = flag("", "other values for variables of the plan: 'name=value name=value'")

    def check(self) -> None:
        self.overrides()

    def overrides(self) -> dict[str, str]:
        """--set as a dictionary."""
        pairs = shlex.split(self.set)
        if wrong := [pair for pair in pairs if "=" not in pair]:
            raise ValueError(f"--set takes name=value, separated by spaces, not {wrong[0]!r}")
        return dict(pair.split("=", 1) for pair in pairs)


@dataclass(frozen=True)
class Step:
    """One run of the study."""

    name: str
    needs: tuple[str, ...]
    command: tuple[str, ...]
    makes: tuple[str, ...]
    fills: tuple[str, ...] = ()
    when: str = "always"
    group: int = 0  # steps of one row of a group have the same number
    gpu_hours: float = 0.0
    hours: float = 0.0
    disk_gb: float = 0.0
    scratch_gb: float = 0.0

    def is_done(self) -> bool:
        return all((ROOT / path).exists() for path in self.makes)


def plan_path(asked: Path) -> Path:
    """A bare name that is no file means the plan of that name beside this program."""
    if asked.is_file() or asked.name != str(asked):
        return asked
    return Path(__file__).with_name(asked.name if asked.suffix else f"{asked.name}.json")


def read_plan(path: Path, overrides: dict[str, str]) -> list[Step]:
    """The steps of a plan, one for every run.

    Raises:
      ValueError: the file is not a plan; the message says where and why.
    """
    plan = _load(path)
    variables = plan["variables"]
    if unknown := overrides.keys() - variables.keys():
        raise ValueError(
            f"{path}: no variable {', '.join(sorted(unknown))}; it has {', '.join(variables)}"
        )
    variables = {"root": str(ROOT)} | variables | overrides
    steps = []
    for row, values, group in _rows(plan, path):
        if wrong := row.keys() - KEYS:
            raise ValueError(
                f"{path}: step {row.get('name')}: unknown key {', '.join(sorted(wrong))}"
            )
        if missing := {"name", "command", "makes"} - {key for key in row if row[key]}:
            raise ValueError(f"{path}: step {row.get('name')}: needs {', '.join(sorted(missing))}")
        for more in _joined_rows(row, plan["sets"], path):
            steps.append(_step(row, variables | values | more, path, group))
    names = [step.name for step in steps]
    if doubles := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path}: two steps are called {min(doubles)}")
    for position, step in enumerate(steps):
        for pattern in step.needs:
            if not fnmatch.filter(names[:position], pattern):
                raise ValueError(
                    f"{path}: step {step.name} needs {pattern}, which no earlier step is called"
                )
    return steps


def _rows(plan: dict[str, Any], path: Path) -> Iterator[tuple[dict, dict[str, str], int]]:
    """(step, variables, number of its group) in the order that they run."""
    group = 0
    for row in plan["steps"]:
        if "steps" not in row:
            yield row, {}, 0
            continue
        if wrong := row.keys() - {"for", "steps"}:
            raise ValueError(f"{path}: a group of steps has no {', '.join(sorted(wrong))}")
        for values in _joined_rows(row, plan["sets"], path):
            group += 1
            yield from ((one, values, group) for one in row["steps"])


def _joined_rows(row: dict[str, Any], sets: dict[str, Any], path: Path) -> Iterator[dict[str, str]]:
    """The rows of the sets that a step or a group is `for`, joined each to each."""
    asked = row.get("for", [])
    asked = [asked] if isinstance(asked, str) else asked
    if unknown := [name for name in asked if name not in sets]:
        raise ValueError(
            f"{path}: step {row.get('name')}: no set {unknown[0]}; there are {', '.join(sets)}"
        )
    for rows in itertools.product(*(sets[name] for name in asked)):
        yield {name: one[name] for one in rows for name in one}


def _load(path: Path) -> dict[str, Any]:
    """A plan's JSON with all its parts."""
    try:
        plan = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(plan, dict) or not all(
        isinstance(plan.get(name), kind) for name, kind in PARTS.items()
    ):
        raise ValueError(
            f"{path}: a plan is an object with variables, sets (objects) and steps (a list)"
        )
    for values in (plan["variables"], *(row for rows in plan["sets"].values() for row in rows)):
        if wrong := [name for name, value in values.items() if not isinstance(value, str)]:
            raise ValueError(
                f"{path}: variable {wrong[0]} must be a text in quotes, not {values[wrong[0]]!r}"
            )
    return plan


def _step(row: dict[str, Any], variables: dict[str, str], path: Path, group: int) -> Step:
    def filled(text: str, outer: tuple[str, ...] = ()) -> str:
        def value(match: re.Match) -> str:
            name = match[1]
            if name not in variables or name in outer:
                problem = "stands within itself" if name in outer else "is not defined"
                raise ValueError(f"{path}: step {row['name']}: variable {name} {problem}")
            return filled(variables[name], (*outer, name))

        return re.sub(r"\{(\w+)\}", value, text)

    values: dict[str, Any] = {
        name: tuple(map(filled, row.get(name, ()))) for name in ("needs", "makes", "fills")
    }
    values |= {name: float(filled(str(row.get(name, 0)))) for name in COSTS}
    when = filled(row.get("when", "always"))
    name = filled(row["name"])
    # A shell reads the commands: a checkout in a folder with a blank in its name is one word there.
    variables = variables | {"root": shlex.quote(variables["root"])}
    command = tuple(map(filled, row["command"]))
    return Step(name, command=command, **values, when=when, group=group)


def say_what_is_left_out(path: Path, steps: list[Step]) -> None:
    """One line for the steps whose `when` is empty, with what would bring them."""
    if steps:
        wanted = dict.fromkeys(
            variable
            for row in _load(path)["steps"]
            for variable in re.findall(r"{(\w+)}", row.get("when", ""))
        )
        print(
            f"{path.name}: {len(steps)} steps are left out ({steps[0].name}, ...); --set"
            f" {' or '.join(f'{name}=...' for name in wanted)} brings them",
            file=sys.stderr,
        )


def cost_line(steps: list[Step]) -> str:
    """What the steps take, one after the other, by the plan's estimates; empty if it has none."""
    gpu_hours = sum(step.gpu_hours for step in steps)
    kept = sum(step.disk_gb for step in steps)
    scratch: dict[int, float] = defaultdict(float)
    for step in steps:
        scratch[step.group] += step.scratch_gb
    if not gpu_hours:
        return ""
    peak, free = kept + max(scratch.values()), shutil.disk_usage(ROOT).free / 1e9
    return (
        f"{len(steps)} steps, about {gpu_hours:,.0f} GPU-hours; {peak:,.0f} GB of disk at the peak,"
        f" {kept:,.0f} GB at the end, {free:,.0f} GB are free"
    )


def missing_steps(steps: list[Step]) -> list[Step]:
    """Steps whose files are not all there, and those that use the result of a missing one."""
    missing: dict[str, Step] = {}
    for step in steps:
        if not step.is_done() or any(fnmatch.filter(missing, pattern) for pattern in step.needs):
            missing[step.name] = step
    return list(missing.values())


def forget_stale(steps: list[Step], missing: list[Step]) -> None:
    """Removes what was made of the results of missing steps, so that no run, short or of some
    steps, forgets it.
    """
    stale = {step.name for step in missing}
    for step in steps:
        if step.name in stale or any(fnmatch.filter(stale, pattern) for pattern in step.needs):
            stale.add(step.name)
            for path in step.makes if step.is_done() else ():
                (ROOT / path).unlink()


def run_step(step: Step) -> None:
    """Raises ValueError if a line fails, or if the files are not there afterwards."""
    # With the trap bash waits for the program that runs, which saves, and starts no other.
    script = "\n".join(["trap 'exit 143' TERM", "set -euo pipefail", *step.command])
    process = subprocess.Popen(["bash", "-c", script], cwd=ROOT, start_new_session=True)
    try:
        status = process.wait()
    except BaseException:  # what was started must not go on when this program is stopped
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    if status != 0:
        raise ValueError(
            f"step {step.name} failed with status {status}; the same command goes on from here"
        )
    if missing := [path for path in step.makes if not (ROOT / path).exists()]:
        raise ValueError(f"step {step.name} ended well, but did not make {missing[0]}")


def write_jobs(steps: list[Step], folder: Path, options: str) -> None:
    """submit.sh: a Slurm job for every line of every step, which waits for the line before and for
    what it needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = shlex.quote(f"{folder.resolve()}/%x-%j.txt")
    submit = [
        "#!/usr/bin/env bash",
        "set -euo pipefail",
        f"cd {shlex.quote(str(ROOT))}",
        "declare -A job",
    ]
    names = [step.name for step in steps]
    for step in steps:
        needed = sorted({name for pattern in step.needs for name in fnmatch.filter(names, pattern)})
        after = [f"${{job[{name}]}}" for name in needed]
        for command in step.command:
            dependency = f" --dependency=afterok:{':'.join(after)}" if after else ""
            submit.append(
                f"id=$(sbatch --parsable --job-name {step.name} --output {log}{dependency}"
                f" {_job(command, options)})"
            )
            after = ["$id"]
        submit.append(f"job[{step.name}]=$id")
    path = folder / "submit.sh"
    path.write_text("\n".join(submit) + "\n", encoding="utf-8")
    print(
        f"{len(steps)} steps in {path}; hand them in from the activated environment with: bash"
        f" {path}"
    )


def _job(command: str, options: str) -> str:
    """The last arguments of sbatch: a training runs as shared/slurm.sh has it, one process per
    GPU.
    """
    if "--resume true" not in command:
        return f"{options} --wrap {shlex.quote(command)}"
    world_size = re.search(r"--world-size (\d+)", command)
    processes = world_size[1] if world_size else "1"
    return f"--ntasks-per-node {processes} --gpus-per-node {processes} shared/slurm.sh {command}"


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    path = plan_path(flags.plan)
    plan = read_plan(path, flags.overrides())
    chosen = [step for step in plan if fnmatch.fnmatch(step.name, flags.only)]
    if not chosen:
        raise ValueError(f"{path}: no step is called {flags.only}")
    steps = [step for step in chosen if step.when]
    say_what_is_left_out(path, [step for step in chosen if not step.when])
    missing = missing_steps(steps)
    if not missing:
        print(f"{path.name}: nothing to do, {len(steps)} steps are done")
        return
    if flags.dry_run:
        run_missing(missing, flags)
        return
    with one_writer(ROOT / "exp" / path.name, is_file=True):
        missing = missing_steps(steps)
        forget_stale(plan, missing)
        if flags.jobs_dir is None:
            run_missing(missing, flags)
        else:
            write_jobs(missing, flags.jobs_dir, flags.sbatch)


def run_missing(missing: list[Step], flags: Flags) -> None:
    """Runs the steps one after the other, or prints their commands."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as under nohup
            signal.signal(ending, lambda number, _: sys.exit(128 + number))
    if cost := cost_line(missing):
        print(f"# {flags.plan.name}: {cost}", file=sys.stderr if not flags.dry_run else sys.stdout)
    for number, step in enumerate(missing, start=1):
        fills = f" -> {', '.join(step.fills)}" if step.fills else ""
        print(
            f"# {step.name} ({number} of {len(missing)}){fills}",
            file=sys.stderr if not flags.dry_run else sys.stdout,
        )
        if flags.dry_run:
            print("\n".join(step.command))
        else:
            run_step(step)


if __name__ == "__main__":
    run_main(main)
