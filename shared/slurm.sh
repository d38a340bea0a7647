#!/usr/bin/env bash
#SBATCH --job-name=captionstew
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.txt
#
# A training under Slurm that outlives its time limit: one process per GPU, on one machine or several.
#
#   sbatch shared/slurm.sh contrastive/train.py --exp-dir exp/contrastive --manifest-dir data/all ...
#   sbatch --nodes 4 --time 12:00:00 shared/slurm.sh contrastive/train.py ...
#
# Ten minutes before the limit the processes are asked to save and end; the job is queued again, and goes on from its last
# checkpoint with the same losses as if nothing had happened. Submit it from the activated environment, in the recipe's
# folder. Every process must see all GPUs of its machine: no --gpus-per-task, no --gpu-bind. A job that starts again must
# get as many processes as before.

set -euo pipefail

if [ $# -eq 0 ] || [ "$1" = --help ]; then
  awk 'NR > 1 && /^#/ && !/^#SBATCH/ { sub(/^# ?/, ""); print; next } NR > 1 && !/^#/ { exit }' "$0"
  exit 0
fi

save_and_requeue() {
  echo "$(date '+%Y-%m-%d %H:%M:%S') the time limit is near: saving, and back into the queue"
  scancel --signal=TERM "$SLURM_JOB_ID" # reaches the processes that srun started, not this shell
  wait ${training:+"$training"} || true
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | awk "NR == 1")
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
training=
trap save_and_requeue USR1
# shellcheck disable=SC2016
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 bash -c \
  'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS exec "$@"' train "$@" --resume true &
training=$!
wait "$training"
