"""The Slurm template, with stand-ins for Slurm's commands."""

import os
import signal
import subprocess
import time

import pytest

COMMANDS = {
    "scontrol": 'case "$1" in show) echo node1; echo node2 ;; *) echo "$@" >> requeued ;; esac',
    "srun": (
        'echo "$@" > srun.txt; shift 2; echo $$ > srun.pid; export SLURM_PROCID=1 SLURM_LOCALID=1'
        ' SLURM_NTASKS=2; exec "$@"'
    ),
    "scancel": 'echo "$@" > scancel.txt; kill -TERM "$(cat srun.pid)"',
}
TRAIN = """#!/usr/bin/env bash
env | grep -E '^(RANK|LOCAL_RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT)=' | sort > places
echo "$@" > arguments
trap 'echo saved > saved; exit 0' TERM
touch started
[ "$1" = short ] && exit "$2"
while true; do sleep 0.05; done
"""


@pytest.fixture
def job(repository, tmp_path):
    """job(argument, ...) -> the template running in tmp_path as job 7."""
    for name, body in [*COMMANDS.items(), ("train.sh", TRAIN)]:
        path = tmp_path / name
        path.write_text(body if body.startswith("#!") else f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_PER_TASK": "8",
    }

    def run(*arguments):
        command = ["bash", repository / "shared" / "slurm.sh", *arguments]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )

    return run


def test_a_job_near_its_limit_saves_and_goes_back_into_the_queue(job, tmp_path):
    process = job("./train.sh", "--exp-dir", "a b")
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.01)
    places = (tmp_path / "places").read_text().split()
    assert places == [
        "LOCAL_RANK=1",
        "MASTER_ADDR=node1",
        "MASTER_PORT=20007",
        "RANK=1",
        "WORLD_SIZE=2",
    ]
    assert (tmp_path / "arguments").read_text() == "--exp-dir a b --resume true\n"
    assert "--cpus-per-task=8 --kill-on-bad-exit=1 " in (tmp_path / "srun.txt").read_text()
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=20) == 0
    assert (tmp_path / "saved").exists() and (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert (tmp_path / "scancel.txt").read_text() == "--signal=TERM 7\n"


@pytest.mark.parametrize("status", [0, 3])
def test_a_job_that_ends_by_itself_is_not_queued_again(job, tmp_path, status):
    assert job("./train.sh", "short", str(status)).wait(timeout=20) == status
    assert not (tmp_path / "requeued").exists()


def test_help(job):
    shown = job("--help").communicate()[0]
    assert shown.startswith("\nA training under Slurm") and "SBATCH" not in shown
