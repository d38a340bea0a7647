# Sourced by shell programs that write: one at a time per folder, and nothing outlives the program that started it.
#
# Programs that are called see CAPTIONSTEW_SHELL and end when that process does, however it ended (captionstew/errors.py);
# they see in CAPTIONSTEW_LOCKS, one a line, what is locked for them (captionstew/locks.py). Bash hands the open lock on to
# them, so it is held until the last of them has ended.

export CAPTIONSTEW_SHELL=${CAPTIONSTEW_SHELL:-$$}
export CAPTIONSTEW_LOCKS=${CAPTIONSTEW_LOCKS:-}
called_as="$(basename "$0") $*"

# Locks the open file $1, which is $2, and writes who holds it. Exit status 3: held by another; 4: it is not $2 any more.
# shellcheck disable=SC2016
TAKE_LOCK='
import fcntl, os, socket, sys, time
number, path, wait, process, command = int(sys.argv[1]), *sys.argv[2:6]
try:
    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    holder = " ".join(open(path, errors="replace").read().split()) or "another process"
    if wait != "true":
        print(f"in use by {holder}; wait until it has ended, or name another place")
        sys.exit(3)
    print(f"waiting for {holder}", file=sys.stderr)
    fcntl.flock(number, fcntl.LOCK_EX)
except OSError as error:
    print(f"cannot be locked here ({error.strerror}): let nothing else write there", file=sys.stderr)
try:
    same = os.fstat(number).st_ino == os.stat(path).st_ino
except FileNotFoundError:
    same = False
if not same:
    sys.exit(4)
os.ftruncate(number, 0)
began = time.strftime("%Y-%m-%d %H:%M:%S")
os.write(number, f"process {process} on {socket.gethostname()} since {began}: {command[:200]}\n".encode())
'

# take_lock FILE WAIT: locks FILE until this program and all that it calls have ended. WAIT true: after whoever has it now;
# false: ends this program with one line. lock_number is the descriptor, which may be closed before.
take_lock() {
  local path folder said status
  folder=$(dirname "$1")
  mkdir -p "$folder"
  path=$(cd "$folder" && pwd -P)/$(basename "$1")
  lock_number=
  case $'\n'$CAPTIONSTEW_LOCKS$'\n' in
    *$'\n'"$path"$'\n'*) return ;;
  esac
  while true; do
    exec {lock_number}>> "$path"
    status=0
    said=$("${PYTHON:-python3}" -c "$TAKE_LOCK" "$lock_number" "$path" "$2" $$ "$called_as") || status=$?
    case $status in
      0) break ;;
      4) exec {lock_number}>&- ;;
      *)
        echo "$(basename "$0"): $folder: ${said:-cannot be locked}" >&2
        exit 1
        ;;
    esac
  done
  CAPTIONSTEW_LOCKS=$CAPTIONSTEW_LOCKS$'\n'$path
}
