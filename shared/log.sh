# Sourced by shell programs: time-stamped messages and resumable stages.

log() {
  printf '%s (%s) %s\n' "$(date '+%Y-%m-%d %H:%M:%S')" "$(basename "$0")" "$*"
}

# in_stage N TITLE: true when N lies within [stage, stop_stage]; says so.
in_stage() {
  if [ "$1" -ge "$stage" ] && [ "$1" -le "$stop_stage" ]; then
    log "Stage $1: $2"
    return 0
  fi
  return 1
}

# run_once MARKER COMMAND...: skips a finished step; writes the marker only after the command succeeded.
run_once() {
  local marker=$1
  shift
  if [ -f "$marker" ]; then
    log "done before: $marker (remove it to repeat)"
    return 0
  fi
  mkdir -p "$(dirname "$marker")"
  "$@" || return $?
  touch "$marker"
}
