# Sourced by shell programs: turns `--some-name value` into the variable some_name.
#
# Declare every option with its default BEFORE sourcing this file. An option whose variable was not
# declared is an error, so a mistyped flag never passes silently. `--help` prints the comment block at
# the top of the calling program. After sourcing, given_options holds the names that were given, and
# "$@" what follows a lone `--`, normally nothing.

option_error() {
  echo "$(basename "$0"): $1 (see $(basename "$0") --help)" >&2
  exit 2
}

given_options=
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h)
      awk 'NR > 1 && /^#/ { sub(/^# ?/, ""); print; next } NR > 1 { exit }' "$0"
      exit 0
      ;;
    --)
      shift
      break
      ;;
    --*=*)
      set -- "${1%%=*}" "${1#*=}" "${@:2}"
      ;;
    --*)
      option_name=$(printf '%s' "${1#--}" | tr '-' '_')
      case "$option_name" in
        *[!a-z0-9_]* | "" | [0-9]*) option_error "not an option: $1" ;;
      esac
      if [ -z "${!option_name+declared}" ]; then
        option_error "unknown option $1"
      fi
      if [ $# -lt 2 ]; then
        option_error "$1 needs a value"
      fi
      printf -v "$option_name" '%s' "$2"
      given_options+=" $option_name"
      shift 2
      ;;
    *)
      option_error "unexpected argument $1"
      ;;
  esac
done
