#!/usr/bin/env bash
# The source of step.sh in actions/plan, predict, train and triage: run `make actions` after a change. Each of them is
# mirrored to a repository of its own, so each needs a copy.
# Without `set -e`: whatever fails here ends in status=degraded, not in a red build.
set -u

WITH_PACKAGE="${WITH_PACKAGE:-}" # it is told in the log, where a line break would start a command for the runner
WITH_PACKAGE="${WITH_PACKAGE//[[:cntrl:]]/}"
home="$RUNNER_TEMP/fedstep" # a job's own; what one action installs here, the next one finds
mkdir -p "$home"
case "${FEDSTEP_CI_CELL:-}" in null | '{}') FEDSTEP_CI_CELL='' ;; esac # toJSON(matrix) of a job without one
FEDSTEP_CI_CELL="${FEDSTEP_CI_CELL//[[:space:]]/}" # it is written on several lines; people write it on one
# Whether the step is still to decide if the build passes: that it cannot decide is a failure, or a job would be green
# whose tests ran so that their failures do not end it.
undecided=''
[ "$1" != triage ] || undecided="${FEDSTEP_FAIL_ON:-}"
if [ -n "${WITH_JOB:-}" ]; then export FEDSTEP_CI_JOB="$WITH_JOB"; fi # triage in the name of another job
if [ -n "${WITH_WORKFLOW:-}" ]; then export FEDSTEP_CI_WORKFLOW="$WITH_WORKFLOW"; fi

# What the cache is to restore: the history under a prefix, the environment under a key. Empty: nothing.
plan() {
  # Installing fedstep is no part of the build. BSD's date knows no %N and prints the letter.
  echo "started=$(date +%s.%N | sed 's/\.N$//')" >>"$GITHUB_OUTPUT"
  plan_environment
  [ "$FEDSTEP_HISTORY" = git ] && return # it travels in the repository
  local workflow="${WITH_WORKFLOW:-$GITHUB_WORKFLOW}" job="${WITH_JOB:-$GITHUB_JOB}" sum
  job="${job//[[:cntrl:]]/}" # a line break would add an output
  sum=$(digest "$workflow" "$job" "$FEDSTEP_CI_CELL" "$FEDSTEP_HISTORY")
  echo "prefix=fedstep-v1-$sum-$job-" >>"$GITHUB_OUTPUT"
  # A second restore in one job would undo what predict wrote: the mark of the job's start.
  local restored="$home/restored-$sum-$GITHUB_RUN_ID-$GITHUB_RUN_ATTEMPT"
  if [ ! -e "$restored" ]; then
    echo "restore=true" >>"$GITHUB_OUTPUT"
    : >"$restored"
  fi
}

plan_environment() {
  [ -n "$WITH_COMMAND" ] && return
  local tools="$home" python sum folder
  # What a package without a version means may change every day: nothing of it outlives the job.
  case "$WITH_PACKAGE" in
    # The same path in every job, as the cache wants it; on a runner that stays it is still there in the next job.
    *==*) mkdir -p "${RUNNER_TOOL_CACHE:-$home}/fedstep" 2>/dev/null && tools="${RUNNER_TOOL_CACHE:-$home}/fedstep" ;;
  esac
  # Where it is and which it is: an environment is of no use to another Python.
  python=$("$WITH_PYTHON" -I -c 'import sys; print(sys.executable, sys.version, sep="\n")' 2>/dev/null)
  sum=$(digest "${RUNNER_OS:-}" "${RUNNER_ARCH:-}" "$python" "$WITH_PACKAGE" "$WITH_FIND_LINKS")
  folder="$tools/environment-$sum"
  echo "environment=$folder" >>"$GITHUB_OUTPUT"
  [ "$tools" = "$home" ] || [ -e "$folder/ready" ] ||
    echo "environment-key=fedstep-environment-v1-$sum-$(date -u +%Y-%m)" >>"$GITHUB_OUTPUT" # a month, then anew
}

digest() {
  printf '%s\n' "$@" | cksum | cut -d' ' -f1
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
  read_globs
  run train ${reports[@]+"${reports[@]}"} # bash 3.2 of macOS calls an empty array unbound
}

triage() {
  read_globs
  find_fedstep
  local stale=0 said=''
  if [ -n "${FEDSTEP_AGGREGATOR:-}" ]; then
    said=$(FEDSTEP_STRICT=true "${fedstep[@]}" pull 2>&1) || stale=$?
    [ "$stale" != 0 ] || echo "$said"
  fi
  run triage ${reports[@]+"${reports[@]}"}
  [ "$stale" = 0 ] || give_up "$stale" "The model was not pulled, what was pulled before is used: ${said#fedstep: }"
}

# Which tests run where. Whatever fails, there is a matrix, and all tests run.
shards() {
  local number=1 matrix=1
  case "$FEDSTEP_TOTAL" in
    [1-9] | [1-9][0-9] | 1[0-9][0-9] | 2[0-4][0-9] | 25[0-6]) ;;
    *)
      echo "::warning title=fedstep::shards: ${FEDSTEP_TOTAL//[^[:alnum:]._-]/?} is not a number from 1 to 256, one machine runs all."
      export FEDSTEP_TOTAL=1
      ;;
  esac
  while [ "$number" -lt "$FEDSTEP_TOTAL" ]; do
    number=$((number + 1))
    matrix="$matrix,$number"
  done
  printf '%s\n' "shards={\"index\":[$matrix]}" plan= selected= saved-seconds=0 >>"$GITHUB_OUTPUT" # what comes later counts
  run plan
}

reports=()
read_globs() {
  local glob
  while IFS= read -r glob; do
    glob="${glob#"${glob%%[![:space:]]*}"}" # a block of YAML may be indented
    glob="${glob%"${glob##*[![:space:]]}"}"
    [ -z "$glob" ] || reports+=(--junit "$glob")
  done <<<"$WITH_JUNIT"
}

run() {
  find_fedstep
  echo "ran=true" >>"$GITHUB_OUTPUT"
  local code=0
  "${fedstep[@]}" "$@" || code=$?
  if [ "$code" = 1 ] && [ -n "$undecided" ]; then
    echo "::error title=fedstep::Not every failure is forgiven; the summary has them."
    exit 1
  fi
  [ "$code" != 0 ] || undecided=''
  [ "$code" = 0 ] || give_up "$code" "fedstep $1 did not finish; the reason is in this step's log."
}

fedstep=()
find_fedstep() {
  [ ${#fedstep[@]} -gt 0 ] && return
  fedstep=("$WITH_COMMAND")
  [ -n "$WITH_COMMAND" ] && return
  # Isolated: neither PYTHONPATH nor a folder of the project can stand in for our modules.
  fedstep=("$(python_in "$WITH_ENVIRONMENT")" -I -m fedstep)
  [ -x "${fedstep[0]}" ] && [ -e "$WITH_ENVIRONMENT/ready" ] && return
  local code=1
  if [ ! -e "$home/not-installed" ]; then # an index that did not answer is not waited for twice in a job
    echo "::group::Install $WITH_PACKAGE"
    install
    code=$?
    echo "::endgroup::"
    [ $code = 0 ] || : >"$home/not-installed"
  fi
  fedstep=("$(python_in "$WITH_ENVIRONMENT")" -I -m fedstep)
  if [ $code = 0 ]; then
    : >"$WITH_ENVIRONMENT/ready"
    echo "installed=true" >>"$GITHUB_OUTPUT"
  elif command -v fedstep >/dev/null; then
    fedstep=(fedstep)
    echo "::notice title=fedstep::$WITH_PACKAGE could not be installed; $(fedstep --version) of this runner is used."
  else
    give_up 6 "fedstep could not be installed; the reason is in the log of the first step that tried. It needs Python 3.11 or newer (input python) and a package index or a folder of wheels (input find-links), or an installed fedstep (input command)."
  fi
}

# Within 15 seconds a try: pip and uv would try for minutes on a runner without a network.
install() {
  local python links=()
  python=$("$WITH_PYTHON" -I -c 'import sys; print(sys.executable)') || return
  case "$WITH_FIND_LINKS" in
    '') ;;
    /* | *://* | ?:*) links=(--no-index --find-links "$WITH_FIND_LINKS") ;;
    *) links=(--no-index --find-links "$PWD/$WITH_FIND_LINKS") ;;
  esac
  cd "$home" && rm -rf -- "$WITH_ENVIRONMENT" || return # uv would obey the project's pyproject.toml
  if command -v uv >/dev/null; then
    export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-15}" UV_HTTP_RETRIES="${UV_HTTP_RETRIES:-1}"
    uv venv --quiet --python "$python" -- "$WITH_ENVIRONMENT" &&
      install_packages uv pip install --quiet --compile-bytecode --python "$(python_in "$WITH_ENVIRONMENT")"
  else
    export PIP_DEFAULT_TIMEOUT="${PIP_DEFAULT_TIMEOUT:-15}" PIP_RETRIES="${PIP_RETRIES:-1}"
    "$python" -I -m venv -- "$WITH_ENVIRONMENT" &&
      install_packages "$(python_in "$WITH_ENVIRONMENT")" -I -m pip install --quiet --disable-pip-version-check
  fi
  local code=$?
  cd "$OLDPWD" && return $code
}

# Installs with this command. Whatever an index has in place of a file with a known hash is refused.
install_packages() {
  local locked
  locked=$(requirements)
  if [ -z "$locked" ]; then
    "$@" ${links[@]+"${links[@]}"} -- "$WITH_PACKAGE"
    return
  fi
  "$@" --require-hashes -r "$locked" || return
  # A mirrored action has the hash of fedstep, too: it is known once the version is built (.github/mirror.sh).
  grep -q '^fedstep' "$locked" || "$@" --no-deps -- "$WITH_PACKAGE"
}

# The file with the hashes: of what this version of the action installs. It says nothing of other packages, and wheels
# in a folder of yours may be built by you.
requirements() {
  local here="${BASH_SOURCE[0]%/*}"
  case "$WITH_PACKAGE" in fedstep*) ;; *) return ;; esac
  if [ -z "$WITH_FIND_LINKS" ] && grep -qxF "    default: $WITH_PACKAGE" "$here/action.yml"; then
    echo "$here/requirements.txt"
  fi
}

python_in() {
  if [ -e "$1/Scripts" ]; then echo "$1/Scripts/python.exe"; else echo "$1/bin/python"; fi
}

give_up() {
  local reason="${2//\%/%25}" newline=$'\n' # or the runner would take it for an escape, or for the end
  reason="${reason//$'\r'/%0D}"
  reason="${reason//$newline/%0A}"
  echo "status=degraded" >>"$GITHUB_OUTPUT"
  if [ "$FEDSTEP_STRICT" = true ] || [ -n "$undecided" ]; then
    echo "::error title=fedstep::$reason"
    exit "$1"
  fi
  echo "::warning title=fedstep::$reason"
  exit 0
}

"$1"
