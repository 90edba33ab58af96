# Runs fedstep. Standard output is what it tells, as dotenv and as JSON; all talk goes to standard error. All values
# come as variables.
set +ex -u # Jenkins starts it with -xe

tmp="${WORKSPACE_TMP:-$WORKSPACE@tmp}"
mkdir -p "$tmp"

install() {
    venv="$tmp/fedstep-venv"
    # The agent keeps it for the next build; the mark is written last, so half an installation is none.
    [ "$(cat "$venv/installed" 2>/dev/null)" = "$WITH_PACKAGE" ] && return
    echo "Installing $WITH_PACKAGE" &&
        "${WITH_PYTHON:-python3}" -I -m venv --clear "$venv" &&
        PIP_DEFAULT_TIMEOUT="${PIP_DEFAULT_TIMEOUT:-15}" PIP_RETRIES="${PIP_RETRIES:-1}" \
            "$venv/bin/python" -I -m pip install --quiet --disable-pip-version-check -- "$WITH_PACKAGE" &&
        echo "$WITH_PACKAGE" >"$venv/installed"
}

# What an earlier build has archived: the whole history where there is none yet, else the builds that it lacks.
unpack() {
    unpacked=$(mktemp -d "$tmp/fedstep.XXXXXX") && tar -xzf "$WITH_ARCHIVE" -C "$unpacked" &&
        if [ -d "$FEDSTEP_HISTORY" ]; then "$@" history merge "$unpacked"; else mv "$unpacked" "$FEDSTEP_HISTORY"; fi
    [ $? = 0 ] || echo "WARNING: the archived history was left out, for the reason above."
    rm -rf "$unpacked"
}

pack() {
    mkdir -p fedstep-archive && tar -czf "$WITH_ARCHIVE.new" -C "$FEDSTEP_HISTORY" . &&
        mv "$WITH_ARCHIVE.new" "$WITH_ARCHIVE" || echo "WARNING: the history was not archived, for the reason above."
}

give_up() {
    echo "WARNING: $2" >&2
    echo "FEDSTEP_STATUS=degraded"
    [ "$FEDSTEP_STRICT" = true ] && exit "$1"
    exit 0
}

if [ -n "$WITH_COMMAND" ]; then
    set -- "$WITH_COMMAND"
else
    install >&2 || give_up 6 "fedstep could not be installed, for the reason above. It needs Python 3.11 or newer (option python) and a package index, or an installed fedstep (option command)."
    # Isolated: neither PYTHONPATH nor a folder of the project can stand in for our modules.
    set -- "$venv/bin/python" -I -m fedstep
fi
if [ -n "$WITH_ARCHIVE" ]; then
    export FEDSTEP_HISTORY="$PWD/.fedstep"
    [ ! -f "$WITH_ARCHIVE" ] || unpack "$@" >&2
fi
set -- "$@" "$WITH_SUBCOMMAND"
while IFS= read -r glob; do
    [ -z "$glob" ] || set -- "$@" --junit "$glob"
done <<GLOBS
$WITH_JUNIT
GLOBS

told=$(mktemp -d "$tmp/fedstep.XXXXXX") || give_up 4 "no file can be written to $tmp."
export FEDSTEP_DOTENV="$told/outputs" FEDSTEP_FINDINGS="$told/findings"
"$@" >&2
code=$?
cat "$FEDSTEP_DOTENV" "$FEDSTEP_FINDINGS" 2>/dev/null
rm -rf "$told"
[ "$WITH_SUBCOMMAND" != train ] || [ -z "$WITH_ARCHIVE" ] || pack >&2
# A verdict that the build fails is told by the outputs: fedstepTriage fails the build.
[ "$code" != 1 ] || [ "$WITH_SUBCOMMAND" != triage ] || [ -z "${FEDSTEP_FAIL_ON:-}" ] || exit 0
[ "$code" = 0 ] || give_up "$code" "fedstep $WITH_SUBCOMMAND did not finish, for the reason above."
