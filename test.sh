#!/usr/bin/env bash
# Environment, lint, types, fast tests, slow tests. What CI runs.
#
#   ./test.sh                      everything
#   ./test.sh --slow false         fast tests only
#   ./test.sh --select PATH        tests below this path

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

slow=true
select=tests

numbers=""
switches="slow"
texts="select"

. "$root/shared/log.sh"
. "$root/shared/one_run.sh"
. "$root/shared/parse_options.sh"
. "$root/shared/environment.sh"

ensure_environment "$root"
cd "$root"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1

if [ "${CAPTIONSTEW_TORCH:-}" != cuda ] && ! command -v nvidia-smi > /dev/null 2>&1 \
  && python -m pip list --format=freeze 2> /dev/null | grep -E '^(nvidia|cuda)-'; then
  log "CUDA packages were installed on a machine without a GPU; see shared/environment.sh"
  exit 1
fi
ruff check .
ruff format --check .
mypy zipformer captionstew local egs
log "fast tests"
python -m pytest -n 2 -m "not slow" "$select"
if [ "$slow" = true ]; then
  log "slow tests"
  python -m pytest -n 2 -m slow "$select"
fi
