"""The study's program with small plans, its jobs with a stand-in for sbatch, and the two plans as
they are.
"""

import fnmatch
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captionstew.evaluation.probing.tasks import read_task_table

STUDY = Path(__file__).resolve().parents[3] / "egs" / "study"


def load(path):
    spec = importlib.util.spec_from_file_location(f"program_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


study = load(STUDY / "run.py")


@pytest.fixture
def plan(tmp_path):
    """plan(*steps, sets, variable=value, ...) -> file of a plan; `{out}` is tmp_path."""

    def write(*steps, sets=None, **variables):
        path = tmp_path / "plan.json"
        content = {
            "variables": {"out": str(tmp_path)} | variables,
            "sets": sets or {},
            "steps": list(steps),
        }
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def run(monkeypatch):
    """run(plan, flag, value, ...) -> the study's program in this process."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def call(path, *flags):
        monkeypatch.setattr(sys, "argv", ["run.py", "--plan", str(path), *map(str, flags)])
        study.main()

    return call


def step(name, *needs, **others):
    made = {"name": name, "command": [f"echo {name} >> {{out}}/order", f"touch {{out}}/{name}"]}
    return made | {"makes": [f"{{out}}/{name}"], "needs": list(needs)} | others


def test_a_step_of_a_set_stands_for_every_row_and_values_may_hold_variables(plan, tmp_path):
    rows = [{"run": "a-{size}"}, {"run": "b-{size}", "size": "9"}]
    path = plan(
        step("data"), step("train-{run}", "data", **{"for": "runs"}), sets={"runs": rows}, size="3"
    )
    steps = study.read_plan(path, {})
    assert [one.name for one in steps] == ["data", "train-a-3", "train-b-9"]
    assert steps[1].makes == (f"{tmp_path}/train-a-3",)
    assert [one.name for one in study.read_plan(path, {"size": "4"})][1] == "train-a-4"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([step("a", extra=1)], "unknown key extra"),
        ([step("a", makes=[])], "step a: needs makes"),
        ([step("a", **{"for": "b"})], "no set b"),
        ([step("a"), step("a")], "two steps are called a"),
        ([step("b", "a*"), step("a")], "needs a*, which no earlier step"),
        ([step("{nothing}")], "nothing is not defined"),
        ([step("{self}")], "self stands within itself"),
    ],
)
def test_errors_of_a_plan_are_named(plan, steps, message):
    path = plan(*steps, self="x{self}")
    with pytest.raises(ValueError) as error:
        study.read_plan(path, {})
    assert message in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "a plan is an object"),
        ('{"variables": {}, "steps": []}', "a plan is an object"),
        ('{"variables": {"epochs": 3}, "sets": {}, "steps": []}', "epochs must be a text"),
    ],
)
def test_a_file_that_is_no_plan_is_named(tmp_path, text, message):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        study.read_plan(path, {})


def test_overrides_may_hold_commas_and_must_be_variables(plan, run, capsys):
    path = plan(step("{tasks}"), tasks="x")
    run(path, "--dry-run", "true", "--set", "tasks=events,music")
    assert "echo events,music >>" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no variable color"):
        run(path, "--set", "color=red")
    with pytest.raises(SystemExit):
        run(path, "--set", "tasks")


def test_missing_steps_run_in_order_and_done_ones_do_not(plan, run, tmp_path, capsys):
    path = plan(step("a"), step("b", "a"), step("other"))
    run(path, "--only", "[ab]")
    assert (tmp_path / "order").read_text().split() == ["a", "b"]
    run(path, "--only", "[ab]")
    assert "nothing to do, 2 steps are done" in capsys.readouterr().out
    (tmp_path / "a").unlink()
    run(path)  # b used the result that was removed
    assert (tmp_path / "order").read_text().split() == ["a", "b", "a", "b", "other"]
    with pytest.raises(ValueError, match="no step is called c"):
        run(path, "--only", "c")


def test_running_some_steps_removes_what_others_made_of_their_results(plan, run, tmp_path, capsys):
    path = plan(step("a"), step("b", "a"), step("c", "b"), step("other"))
    run(path)
    (tmp_path / "a").unlink()
    run(path, "--only", "a", "--dry-run", "true")
    assert (tmp_path / "c").exists()
    run(path, "--only", "a")
    assert (
        not (tmp_path / "b").exists()
        and not (tmp_path / "c").exists()
        and (tmp_path / "other").exists()
    )
    run(path)
    assert (tmp_path / "order").read_text().split() == ["a", "b", "c", "other", "a", "b", "c"]


def test_what_is_to_be_repeated_is_not_forgotten_when_the_study_stops_before_it(
    plan, run, tmp_path
):
    path = plan(
        step("a"),
        step("b", "a", command=["test ! -e {out}/broken", "touch {out}/b"]),
        step("c", "b"),
    )
    run(path)
    (tmp_path / "a").unlink()
    (tmp_path / "broken").touch()
    with pytest.raises(ValueError, match="step b failed"):
        run(path)
    assert (
        (tmp_path / "a").exists()
        and not (tmp_path / "b").exists()
        and not (tmp_path / "c").exists()
    )
    (tmp_path / "broken").unlink()
    run(path)
    assert (tmp_path / "order").read_text().split() == ["a", "c", "a", "c"]


def test_a_dry_run_prints_shell_and_does_nothing(plan, run, tmp_path, capsys):
    run(plan(step("a"), step("b", "a")), "--dry-run", "true")
    printed = capsys.readouterr().out
    assert not (tmp_path / "order").exists()
    subprocess.run(["bash", "-c", printed], check=True)
    assert (tmp_path / "order").read_text().split() == ["a", "b"]


def test_a_failing_line_ends_the_study_and_so_does_a_file_that_is_not_made(plan, run, tmp_path):
    failing = step("a", command=["false", "touch {out}/a"])
    with pytest.raises(ValueError, match="step a failed with status 1"):
        run(plan(failing, step("b")))
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    with pytest.raises(ValueError, match="did not make .*/a"):
        run(plan(step("a", command=["true"])))


def test_a_stopped_study_stops_what_it_runs_and_waits_for_it(plan, tmp_path):
    training = (
        'python -c "import signal, time; signal.signal(15, lambda *_: (time.sleep(0.3), exit(0))); '
        "open('{out}/started', 'w'); time.sleep(60)\" && touch {out}/saved"
    )
    path = plan(step("a", command=[training, "touch {out}/next"]))
    process = subprocess.Popen([sys.executable, STUDY / "run.py", "--plan", path])
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait(timeout=20) == 143
    assert not (tmp_path / "next").exists()


def test_a_mistyped_path_is_not_taken_for_a_plan_of_ours(tmp_path):
    assert (
        study.plan_path(Path("mini")) == study.plan_path(Path("mini.json")) == STUDY / "mini.json"
    )
    assert study.plan_path(tmp_path / "mini") == tmp_path / "mini"


SBATCH = """#!/usr/bin/env bash
number=$(($(cat "$CALLS/count" 2> /dev/null || echo 100) + 1))
echo $number > "$CALLS/count"
printf '%s\\n' "$@" > "$CALLS/$number"
echo $number
"""


def test_jobs_wait_for_the_line_before_and_for_what_they_need(plan, run, tmp_path):
    train = "recipe/train.py --name 'a b' --world-size 4 --resume true"
    path = plan(
        step("data"),
        step("train", "data", command=[train, "echo $HOME"]),
        step("probe", "tr*", "data"),
    )
    jobs, calls = tmp_path / "jobs", tmp_path / "calls"
    run(path, "--jobs-dir", jobs, "--sbatch", "--gpus-per-node 1")
    calls.mkdir()
    (calls / "sbatch").write_text(SBATCH)
    (calls / "sbatch").chmod(0o755)
    environment = os.environ | {"PATH": f"{calls}:{os.environ['PATH']}", "CALLS": str(calls)}
    subprocess.run(["bash", jobs / "submit.sh"], check=True, env=environment, cwd=tmp_path)
    arguments = {
        number: (calls / str(number)).read_text().splitlines() for number in range(101, 107)
    }
    assert not (calls / "107").exists()
    waits = {
        number: next(
            (word.split("=")[1] for word in words if word.startswith("--dependency")), None
        )
        for number, words in arguments.items()
    }
    assert waits == {
        101: None, 102: "afterok:101", 103: "afterok:102", 104: "afterok:103",
        105: "afterok:102:104", 106: "afterok:105",
    }  # fmt: skip
    expected = [
        "--ntasks-per-node",
        "4",
        "--gpus-per-node",
        "4",
        "shared/slurm.sh",
        "recipe/train.py",
        "--name",
        "a b",
    ]
    assert arguments[103][-12:] == [*expected, "--world-size", "4", "--resume", "true"]
    assert arguments[104][-4:] == ["--gpus-per-node", "1", "--wrap", "echo $HOME"]
    assert arguments[104][arguments[104].index("--output") + 1] == f"{jobs}/%x-%j.txt"


def test_a_step_may_be_for_every_pair_of_rows(plan, tmp_path):
    sets = {"runs": [{"run": "a"}, {"run": "b"}], "corpora": [{"corpus": "x"}, {"corpus": "y"}]}
    path = plan(step("{run}-{corpus}", **{"for": ["runs", "corpora"]}), sets=sets)
    assert [one.name for one in study.read_plan(path, {})] == ["a-x", "a-y", "b-x", "b-y"]


def test_a_group_runs_all_its_steps_for_a_row_before_the_next(plan, run, tmp_path):
    sets = {"runs": [{"run": "a"}, {"run": "b"}], "corpora": [{"corpus": "x"}, {"corpus": "y"}]}
    steps = [step("probe-{run}"), step("lit-{run}-{corpus}", "probe-{run}", **{"for": "corpora"})]
    path = plan({"for": "runs", "steps": steps}, step("report", "lit-*"), sets=sets)
    expected = ["probe-a", "lit-a-x", "lit-a-y", "probe-b", "lit-b-x", "lit-b-y", "report"]
    assert [one.name for one in study.read_plan(path, {})] == expected
    run(path)
    assert (tmp_path / "order").read_text().split() == expected
    with pytest.raises(ValueError, match="no set nothing"):
        study.read_plan(plan({"for": "nothing", "steps": steps}), {})
    with pytest.raises(ValueError, match="a group of steps has no name"):
        study.read_plan(plan({"name": "x", "steps": steps}), {})


def test_a_step_without_its_variable_is_left_out_in_one_line(plan, run, tmp_path, capsys):
    path = plan(step("a"), step("judge", "a", when="{url}"), step("report", "judge"), url="")
    run(path)
    assert (tmp_path / "order").read_text().split() == ["a", "report"]
    said = capsys.readouterr().err
    assert "1 steps are left out (judge, ...); --set url=... brings them" in said
    run(path, "--set", "url=http://localhost")
    assert (tmp_path / "order").read_text().split() == ["a", "report", "judge", "report"]


def test_the_cost_is_said_before_it_begins(plan, run, capsys):
    costs = {"gpu_hours": "{hours}", "disk_gb": 5, "scratch_gb": 100}
    sets = {"runs": [{"run": "a", "hours": "2"}, {"run": "b", "hours": "4"}]}
    path = plan({"for": "runs", "steps": [step("{run}", **costs)]}, sets=sets)
    run(path, "--dry-run", "true")
    said = capsys.readouterr().out
    assert "2 steps, about 6 GPU-hours; 110 GB of disk at the peak, 10 GB at the end" in said


PAPERS = json.loads((STUDY.parents[1] / "captionstew" / "paper.json").read_text())
CELLS = {  # table -> (row, column): the row names a system, the column the file of its results
    table: [
        (system, column["task"])
        for system in PAPERS[table]["rows"]
        for column in PAPERS[table]["columns"]
    ]
    for table in ("table_3a", "table_3b", "table_9")
}
CELLS["table_7"] = [("", column["task"]) for column in PAPERS["table_7"]["columns"]]
CELLS["table_8"] = [("", row["task"]) for row in PAPERS["table_8"]["rows"]]
CELLS["table_2"] = [
    ("", task) for row in PAPERS["table_2"]["rows"] for task in row["results"].split()
]
CELLS["table_10"] = [
    (system, f"own_retrieval_{corpus}")
    for system in PAPERS["table_10"]["rows"]
    for corpus in PAPERS["table_10"]["corpora"]
]


@pytest.fixture(scope="module")
def paper_steps():
    return study.read_plan(
        STUDY / "paper.json", {"judge_url": "http://x", "audiosetcaps_embeddings": "x"}
    )


@pytest.fixture(scope="module")
def unfilled():
    listed = json.loads((STUDY / "paper.json").read_text())["unfilled"]
    return {cell for cells in listed for cell in cells.split(", ")}


def makes(one, task):
    """Whether a step writes results of a task."""
    answered = task.startswith("qa_") and any("scored.done" in path for path in one.makes)
    judged = task in ("qa_sound", "qa_music") and one.name.startswith("judge-")
    return judged or answered or any(f"/{task}-test" in path for path in one.makes)


@pytest.mark.parametrize("table", CELLS)
def test_a_command_fills_every_cell_of_the_papers_tables(table, paper_steps, unfilled):
    """Or the plan says why not; what one of its steps claims to fill, it makes."""
    title = table.replace("_", " ").capitalize()
    for system, task in CELLS[table]:
        cell = f"{title} {system}".strip()
        if cell in unfilled:
            continue
        assert [one for one in paper_steps if cell in one.fills and makes(one, task)], (cell, task)


def test_tables_of_the_corpus_and_figures_have_commands_or_reasons(paper_steps, unfilled):
    filled = {" ".join(fill.split()[:2]) for one in paper_steps for fill in one.fills}
    tables = {
        f"Table {name.removeprefix('table_')}" for name in PAPERS if name.startswith("table_")
    }
    assert tables | {"Figure 1", "Figure 2", "Figure 3"} <= filled | unfilled
    corpus = next(one for one in paper_steps if one.name == "corpus").command[0]
    for reference in ("cc12m", "wikitext-103", "autoacd"):
        assert f"/{reference}.txt" in corpus
        assert reference in PAPERS["table_4"]["rows"] | PAPERS["table_1"]["rows"]


def test_the_papers_runs_differ_in_nothing_but_what_is_compared(paper_steps):
    """Rates that count steps, equal intervals, updates and precision; the same negatives."""
    runs = [
        line for one in paper_steps for line in one.command if "/train.py --manifest-dir" in line
    ]
    runs = [line for line in runs if "/captioning/" in line or "/contrastive/" in line]
    assert len(runs) == 16
    for line in runs:
        assert "--lr-steps-per-epoch 10000" in line and "--valid-interval 4000" in line
        assert f"--max-steps {600000 if '-scratch-' in line else 200000}" in line
        assert ("--base-lr 0.0045" in line) == ("--init-encoder" in line) == ("-init-" in line)
        assert ("--train-duplicates negative" in line) == ("/contrastive/" in line)
    adapted = [
        line
        for one in paper_steps
        for line in one.command
        if "eval_lit/" in line and "train.py" in line
    ]
    assert len(adapted) == 23 * 6
    assert all("--max-steps 3000" in line and "--world-size 8" in line for line in adapted)


def test_log_mel_is_pooled_as_everywhere(paper_steps):
    (line,) = (one.command[0] for one in paper_steps if one.name == "probe-logmel")
    assert "--pooling mean_std " in line


@pytest.mark.parametrize("task", ["vggsound", "voxceleb2", "cremad", "magnatagatune", "nsynth"])
def test_schedules_of_table_7_end_halfway(task, paper_steps):
    """The encoder's schedules end at a batch count of 20,000 (zipformer.schedules)."""
    (line,) = (one.command[0] for one in paper_steps if one.name == f"supervised-{task}")
    values = {name: float(re.search(rf"--{name} (\d+)", line)[1])
              for name in ("world-size", "max-duration", "ref-duration", "max-steps")}  # fmt: skip
    audio = values["world-size"] * values["max-duration"] * values["max-steps"]
    assert audio / values["ref-duration"] == pytest.approx(40_000)


def test_the_costs_in_the_readme_are_those_of_the_plan(paper_steps):
    lines = (STUDY / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    listed = {row[0].strip("`"): row[1:] for row in rows if len(row) == 6 and row[0][0] == "`"}
    counted = set()
    for pattern, cells in sorted(listed.items(), key=lambda item: -len(item[0])):
        own = [x for x in paper_steps if fnmatch.fnmatch(x.name, pattern) and x.name not in counted]
        counted |= {one.name for one in own}
        numbers = [float(cell.replace(",", "") or 0) for cell in cells]
        sums = [sum(getattr(x, name) for x in own) for name in ("gpu_hours", "hours", "disk_gb")]
        expected = [len(own), *sums, max(x.scratch_gb for x in own)]
        assert numbers == pytest.approx(expected), pattern
    free = {x.name for x in paper_steps} - counted
    assert all(name == "report" or name.startswith("frames-removed-") for name in free)
    peak = max(
        sum(x.scratch_gb for x in paper_steps if x.group == group)
        for group in {x.group for x in paper_steps}
    )
    assert f"at most {peak:,.0f} GB of them" in (STUDY / "README.md").read_text()


def test_encoders_are_trained_on_labels_of_clips_only():
    """eval_probe/train_encoder.py refuses detection."""
    tasks = read_task_table(STUDY.parent / "eval_probe" / "tasks.json")
    commands = [line for one in study.read_plan(STUDY / "paper.json", {}) for line in one.command]
    trained = [
        re.search(r"--tasks (\S+)", line)[1] for line in commands if "train_encoder.py" in line
    ]
    assert len(trained) == 5 and not any(tasks[name].is_detection for name in trained)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mini", "paper"])
def test_every_program_of_a_plan_takes_its_flags(name, repository, takes_flags):
    judged = {"judge_url": "http://localhost/v1", "judge_prompt": "--judge-prompt ours"}
    given = judged if name == "paper" else {}
    for one in study.read_plan(STUDY / f"{name}.json", given):
        for line in one.command:
            if line.split()[0] not in ("rm", "mkdir", "touch"):
                takes_flags(line, repository)


@pytest.mark.parametrize("name", ["mini", "paper"])
def test_the_report_waits_for_every_result(name):
    steps = study.read_plan(STUDY / f"{name}.json", {})
    needed = {
        one
        for pattern in steps[-1].needs
        for one in fnmatch.filter([step.name for step in steps], pattern)
    }
    with_results = {
        step.name
        for step in steps
        if any("results/" in path or "scored" in path for path in step.makes)
    }
    assert steps[-1].name == "report" and with_results and with_results <= needed


@pytest.mark.parametrize(
    "options, message",
    [
        (["--dry-run", "true"], "--dry-run is for --study"),
        (["--study", "mini", "--corpus", "x"], "not from --corpus"),
    ],
)
def test_options_of_run_sh_that_contradict_are_refused(repository, options, message):
    done = subprocess.run([repository / "run.sh", *options], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr
