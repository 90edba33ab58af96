#!/usr/bin/env bash
# One text in actions/train and actions/predict, because each folder is mirrored to a repository of its own.
# Without `set -e`: whatever fails here ends in status=degraded, not in a red build.
set -u

home="$RUNNER_TEMP/fedstep" # a job's own; what predict installs here, train finds
mkdir -p "$home"
case "${FEDSTEP_CI_CELL:-}" in null | '{}') FEDSTEP_CI_CELL='' ;; esac # toJSON(matrix) of a job without one

cache_key() {
  local sum
  sum=$(printf '%s\n' "$GITHUB_WORKFLOW" "$GITHUB_JOB" "$FEDSTEP_CI_CELL" "$FEDSTEP_HISTORY" | cksum | cut -d' ' -f1)
  echo "prefix=fedstep-v1-$sum-$GITHUB_JOB-" >>"$GITHUB_OUTPUT"
  # A second restore in one job would undo what predict wrote: the mark of the job's start.
  local restored="$home/restored-$sum-$GITHUB_RUN_ID-$GITHUB_RUN_ATTEMPT"
  if [ ! -e "$restored" ]; then
    echo "restore=true" >>"$GITHUB_OUTPUT"
    : >"$restored"
  fi
}

predict() {
  run predict
}

train() {
  case "$WITH_OUTCOME" in
    success) FEDSTEP_OUTCOME=passed ;;
    failure) FEDSTEP_OUTCOME=failed ;;
    cancelled | skipped)
      echo "::notice title=fedstep::The job was $WITH_OUTCOME: nothing is learned from it."
      echo "status=skipped" >>"$GITHUB_OUTPUT"
      return
      ;;
    *) FEDSTEP_OUTCOME=$WITH_OUTCOME ;;
  esac
  export FEDSTEP_OUTCOME
  local reports=() glob
  while IFS= read -r glob; do
    glob="${glob#"${glob%%[![:space:]]*}"}" # a block of YAML may be indented
    glob="${glob%"${glob##*[![:space:]]}"}"
    [ -z "$glob" ] || reports+=(--junit "$glob")
  done <<<"$WITH_JUNIT"
  run train ${reports[@]+"${reports[@]}"} # bash 3.2 of macOS calls an empty array unbound
}

run() {
  local fedstep=("$WITH_COMMAND")
  if [ -z "$WITH_COMMAND" ]; then
    install || give_up 6 "fedstep could not be installed; the reason is in this step's log. It needs Python 3.11 or newer (input python) and a package index, or an installed fedstep (input command)."
    # Isolated: neither PYTHONPATH nor a folder of the project can stand in for our modules.
    fedstep=("$(venv_python)" -I -m fedstep)
  fi
  echo "ran=true" >>"$GITHUB_OUTPUT"
  "${fedstep[@]}" "$@" || give_up $? "fedstep $1 did not finish; the reason is in this step's log."
}

install() {
  grep -qxF -- "$WITH_PACKAGE" "$home/installed" 2>/dev/null && return
  echo "::group::Install $WITH_PACKAGE"
  # pip would try for minutes on a runner without a network.
  [ -d "$home/venv" ] || "$WITH_PYTHON" -I -m venv "$home/venv" &&
    PIP_DEFAULT_TIMEOUT="${PIP_DEFAULT_TIMEOUT:-15}" PIP_RETRIES="${PIP_RETRIES:-1}" \
      "$(venv_python)" -I -m pip install --quiet --disable-pip-version-check -- "$WITH_PACKAGE" &&
    echo "$WITH_PACKAGE" >>"$home/installed"
  local code=$?
  echo "::endgroup::"
  return $code
}

venv_python() {
  local unix="$home/venv/bin/python"
  if [ -x "$unix" ]; then echo "$unix"; else echo "$home/venv/Scripts/python.exe"; fi
}

give_up() {
  echo "status=degraded" >>"$GITHUB_OUTPUT"
  case "$FEDSTEP_STRICT" in
    true)
      echo "::error title=fedstep::$2"
      exit "$1"
      ;;
  esac
  echo "::warning title=fedstep::$2"
  exit 0
}

"$1"
