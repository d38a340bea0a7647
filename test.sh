#!/usr/bin/env bash
# Environment, lint, types, fast tests, slow tests. What CI runs.
#
#   ./test.sh                      everything
#   ./test.sh --slow false         fast tests only
#   ./test.sh --select PATH        tests below this path
#   ./test.sh --faults 200         nothing but faults: every program killed 200 times and more (tests/faults/), and how
#                                  many there were

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

slow=true
select=tests
faults=0

numbers="faults"
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
if [ "$faults" -gt 0 ]; then
  CAPTIONSTEW_FAULT_LOG=$(mktemp)
  export CAPTIONSTEW_FAULT_LOG CAPTIONSTEW_FAULTS=$faults
  status=0
  python -m pytest -n 2 tests/faults tests/shared || status=$?
  log "faults that were survived, whatever stands above:"
  cut -f 1 "$CAPTIONSTEW_FAULT_LOG" | sort | uniq -c
  rm -f "$CAPTIONSTEW_FAULT_LOG"
  exit $status
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
