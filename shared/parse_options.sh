# Sourced by shell programs: turns `--some-name value` into the variable some_name.
#
# Name every option in one of these lists, and give it its default, BEFORE sourcing this file:
#
#   numbers    whole numbers; shares  numbers with a decimal point; switches  true or false; texts  anything
#
# Any other option, and a value of another type, is an error before anything has been done; an option without a default
# may be empty. `--stage` and `--stop-stage` must lie in the stages, first_stage (1) to the default of stop_stage. `--help` prints the
# comment block at the top of the calling program. After sourcing, given_options holds the names that were given, and "$@"
# what follows a lone `--`, normally nothing.

option_error() {
  echo "$(basename "$0"): $1 (see $(basename "$0") --help)" >&2
  exit 2
}

# check_option NAME VALUE DEFAULT: ends the program unless the value is of the option's type.
check_option() {
  local option="--${1//_/-}" pattern what
  case " ${numbers:-} " in *" $1 "*) pattern='^(0|[1-9][0-9]{0,17})$' what="a whole number" ;; esac
  case " ${shares:-} " in *" $1 "*) pattern='^(0|[1-9][0-9]*)(\.[0-9]+)?$' what="a number" ;; esac
  case " ${switches:-} " in *" $1 "*) pattern='^(true|false)$' what="true or false" ;; esac
  case " ${texts:-} " in *" $1 "*) pattern='' what="" ;; esac
  if [ -z "${pattern+listed}" ]; then option_error "unknown option $option"; fi
  if [ -z "$2" ] && [ -z "$3" ]; then return; fi
  if [ -n "$pattern" ] && ! [[ $2 =~ $pattern ]]; then option_error "$option takes $what, not '$2'"; fi
}

given_options=
last_stage=${stop_stage:-}
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
      if [ $# -lt 2 ]; then
        check_option "$option_name" "" ""
        option_error "$1 needs a value"
      fi
      check_option "$option_name" "$2" "${!option_name-}"
      printf -v "$option_name" '%s' "$2"
      given_options+=" $option_name"
      shift 2
      ;;
    *)
      option_error "unexpected argument $1"
      ;;
  esac
done
if [ -n "$last_stage" ]; then
  for option_name in stage stop_stage; do
    if [ "${!option_name}" -lt "${first_stage:-1}" ] || [ "${!option_name}" -gt "$last_stage" ]; then
      option_error "--${option_name//_/-} ${!option_name}: the stages are ${first_stage:-1} to $last_stage"
    fi
  done
  if [ "$stage" -gt "$stop_stage" ]; then option_error "--stage $stage comes after --stop-stage $stop_stage"; fi
fi
