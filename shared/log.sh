# Sourced by shell programs: time-stamped messages and numbered stages.

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

