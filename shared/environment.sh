# Sourced by run.sh, prepare.sh and test.sh, after one_run.sh: makes or reuses the virtual environment in the checkout.
#
# A machine without a GPU gets the CPU build of torch (no CUDA packages); a machine with one gets what
# requirements.txt names, which is the CUDA build. CAPTIONSTEW_TORCH=cpu|cuda overrides the choice.

TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

ensure_environment() {
  local checkout=$1
  local venv=$checkout/.venv
  local stamp=$venv/.installed
  local wanted
  wanted=$(cat "$checkout/requirements.txt" "$checkout/pyproject.toml" "$checkout/shared/environment.sh" | cksum)
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    take_lock "$checkout/.venv.lock" true
    lock_of_environment=$lock_number
  fi
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then # another program may have made it meanwhile
    log "installing the environment into $venv"
    # A run that was killed leaves a virtual environment without pip, or packages in pieces: begin again.
    if [ -f "$venv/.installing" ] || ! "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
      "${PYTHON:-python3}" -m venv --clear "$venv"
    fi
    rm -f "$stamp"
    : > "$venv/.installing"
    install_torch "$venv/bin/python" "$checkout/requirements.txt"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$checkout/requirements.txt"
    # A path in place of an import hook: a folder called captionstew beside a script would hide the hook's package.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
      --config-settings editable_mode=compat -e "$checkout"
    printf '%s' "$wanted" > "$stamp.partial"
    mv "$stamp.partial" "$stamp"
    rm -f "$venv/.installing"
  fi
  if [ -n "${lock_of_environment:-}" ]; then exec {lock_of_environment}>&-; fi
  # shellcheck disable=SC1091
  . "$venv/bin/activate"
}

install_torch() {
  local python=$1 requirements=$2 build=${CAPTIONSTEW_TORCH:-} pin
  pin=$(grep '^torch==' "$requirements")
  if [ -z "$build" ]; then
    if [ "$(uname -s)" = Darwin ] || command -v nvidia-smi > /dev/null 2>&1; then build=cuda; else build=cpu; fi
  fi
  if [ "$build" = cuda ]; then
    "$python" -m pip install --quiet --disable-pip-version-check "$pin"
  elif ! "$python" -m pip install --quiet --disable-pip-version-check "$pin+cpu" 2> /dev/null; then
    log "no CPU build of $pin in the configured package index; trying $TORCH_CPU_INDEX"
    "$python" -m pip install --quiet --disable-pip-version-check --extra-index-url "$TORCH_CPU_INDEX" "$pin+cpu"
  fi
}
