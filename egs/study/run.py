#!/usr/bin/env python3
"""Runs a study: the steps of a plan whose results are not there yet, in order. `./run.sh --study mini` calls it.

    ./run.py --plan mini.json --dry-run true             what is missing, as plain commands
    ./run.py --plan paper.json --jobs-dir jobs           a Slurm script for each missing step, and submit.sh
    ./run.py --plan mini.json --only 'probe-*'           some of the steps

A plan is a JSON object: `variables`; `sets`, lists of further variables; `steps` in the order they can run. A step has

    name      may hold {variables}
    for       name of a set: the step stands for one run with each of its rows
    needs     names (shell patterns) of steps whose results it uses
    command   lines of shell, run in the root of the repository; the first that fails ends the study
    makes     files that prove that it is done

A step is done when its files are there; remove one to repeat it. Every command of the plans here goes on where a
killed one stopped.
"""

import fnmatch
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captionstew.training.flags import flag, parse_flags, run_main

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"name", "for", "needs", "command", "makes"}


@dataclass(frozen=True)
class Flags:
    plan: Path = flag(Path("mini.json"), "the plan: a file, or the name of one beside this program")
    dry_run: bool = flag(False, "print the commands that are missing, run nothing")
    only: str = flag("*", "steps to run, a shell pattern of names")
    jobs_dir: Path | None = flag(None, "write job scripts for Slurm here instead of running")
    set: str = flag("", "other values for variables of the plan: name=value,name=value")


@dataclass(frozen=True)
class Step:
    """One run of the study."""

    name: str
    needs: tuple[str, ...]
    command: tuple[str, ...]
    makes: tuple[str, ...]

    def is_done(self) -> bool:
        return all((ROOT / path).exists() for path in self.makes)


def read_plan(path: Path, overrides: dict[str, str]) -> list[Step]:
    """The steps of a plan, one for every run.

    Raises:
      ValueError: the file is not a plan; the message says where and why.
    """
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    variables = {"root": str(ROOT)} | plan["variables"] | overrides
    if unknown := overrides.keys() - plan["variables"].keys():
        raise ValueError(f"{path}: no variable {', '.join(sorted(unknown))}; it has {', '.join(plan['variables'])}")
    steps = []
    for row in plan["steps"]:
        if wrong := row.keys() - KEYS:
            raise ValueError(f"{path}: step {row.get('name')}: unknown key {', '.join(sorted(wrong))}")
        if "for" in row and row["for"] not in plan["sets"]:
            raise ValueError(f"{path}: step {row['name']}: no set {row['for']}; there are {', '.join(plan['sets'])}")
        for values in plan["sets"][row["for"]] if "for" in row else [{}]:
            steps.append(_step(row, variables | values, path))
    names = [step.name for step in steps]
    if doubles := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path}: two steps are called {min(doubles)}")
    for position, step in enumerate(steps):
        for pattern in step.needs:
            if not fnmatch.filter(names[:position], pattern):
                raise ValueError(f"{path}: step {step.name} needs {pattern}, which no earlier step is called")
    return steps


def _step(row: dict[str, Any], variables: dict[str, str], path: Path) -> Step:
    def filled(text: str) -> str:
        while (match := re.search(r"\{(\w+)\}", text)) is not None:  # values may hold variables, too
            if match[1] not in variables:
                raise ValueError(f"{path}: step {row['name']}: no variable {match[1]}")
            text = text[: match.start()] + variables[match[1]] + text[match.end() :]
        return text

    texts = {key: tuple(map(filled, row.get(key, ()))) for key in ("needs", "command", "makes")}
    if not texts["command"] or not texts["makes"]:
        raise ValueError(f"{path}: step {row['name']} needs a command, and files that it makes")
    return Step(filled(row["name"]), **texts)


def run_step(step: Step) -> None:
    """Raises ValueError if a line fails, or if the files are not there afterwards."""
    script = "set -euo pipefail\n" + "\n".join(step.command)
    done = subprocess.run(["bash", "-c", script], cwd=ROOT)
    if done.returncode != 0:
        raise ValueError(f"step {step.name} failed with status {done.returncode}; the same command goes on from here")
    if missing := [path for path in step.makes if not (ROOT / path).exists()]:
        raise ValueError(f"step {step.name} ended well, but did not make {missing[0]}")


def write_jobs(steps: list[Step], folder: Path) -> None:
    """A job script of shared/slurm.sh's form for every step, and submit.sh, which hands them in with their order."""
    template = (ROOT / "shared" / "slurm.sh").read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    submit = ["#!/usr/bin/env bash", "set -euo pipefail", "declare -A job"]
    names = [step.name for step in steps]
    for step in steps:
        path = folder / f"{step.name}.sh"
        command = " && ".join(step.command)
        path.write_text(
            template.replace("JOB_NAME", step.name).replace("ROOT", shlex.quote(str(ROOT))).replace("COMMAND", command),
            encoding="utf-8",
        )
        needed = sorted({name for pattern in step.needs for name in fnmatch.filter(names, pattern)})
        after = "".join(f":${{job[{name}]}}" for name in needed)
        options = f"--dependency=afterok{after} " if after else ""
        submit.append(f"job[{step.name}]=$(sbatch --parsable {options}{shlex.quote(str(path.resolve()))})")
    (folder / "submit.sh").write_text("\n".join(submit) + "\n", encoding="utf-8")
    print(f"{len(steps)} job scripts in {folder}; hand them in with: bash {folder / 'submit.sh'}")


def main() -> None:
    flags = parse_flags(Flags, __doc__)
    path = flags.plan if flags.plan.is_file() else Path(__file__).with_name(flags.plan.with_suffix(".json").name)
    overrides = dict(pair.split("=", 1) for pair in flags.set.split(",") if pair)
    steps = [step for step in read_plan(path, overrides) if fnmatch.fnmatch(step.name, flags.only)]
    missing = [step for step in steps if not step.is_done()]
    if not missing:
        print(f"{path.name}: nothing to do, {len(steps)} steps are done")
        return
    if flags.jobs_dir is not None:
        write_jobs(missing, flags.jobs_dir)
        return
    for number, step in enumerate(missing, start=1):
        print(f"# {step.name} ({number} of {len(missing)})", file=sys.stderr if not flags.dry_run else sys.stdout)
        if flags.dry_run:
            print("\n".join(step.command))
        elif not step.is_done():
            run_step(step)


if __name__ == "__main__":
    run_main(main)
