# Sourced by preparation programs: steps that are done once, as long as what they depend on stays the same.
#
# A marker file holds the fingerprint of the settings and inputs that its step ran with. It is removed before the step
# begins and written, under its final name at once, after the step succeeded; so a step that was killed, or whose settings
# or predecessors changed, runs again.

# fingerprint_of WORD...: a checksum of the words; FILE contents are given as @FILE.
fingerprint_of() {
  local word
  for word in "$@"; do
    case "$word" in
      @*) cksum < "${word#@}" ;;
      *) printf '%s\n' "$word" ;;
    esac
  done | cksum | cut -d ' ' -f 1
}

# `set -e` does not hold inside COMMAND if it is a function: its steps must end with `|| return` where a failure matters.
#
# run_unless_done MARKER FINGERPRINT COMMAND...: MARKER is <folder>/<stage number>-<what>. A step that runs takes the
# markers of all later stages away, because what they made is no longer of this data.
run_unless_done() {
  local marker=$1 fingerprint=$2 later number
  shift 2
  if [ -f "$marker" ] && [ "$(cat "$marker")" = "$fingerprint" ]; then
    log "done before: $marker (remove it to repeat)"
    return 0
  fi
  mkdir -p "$(dirname "$marker")"
  number=$(basename "$marker" | cut -d - -f 1)
  for later in "$(dirname "$marker")"/*-*; do
    if [ "$(basename "$later" | cut -d - -f 1)" -gt "$number" ] 2> /dev/null; then rm -f "$later"; fi
  done
  rm -f "$marker"
  "$@" || return $?
  printf '%s' "$fingerprint" > "$marker.partial"
  mv "$marker.partial" "$marker"
}
