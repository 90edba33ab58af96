# Runs fedstep; standard output is its dotenv file alone, all talk goes to standard error. All values come as variables.
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

give_up() {
    echo "WARNING: $2" >&2
    echo "FEDSTEP_STATUS=degraded"
    [ "$FEDSTEP_STRICT" = true ] && exit "$1"
    exit 0
}

if [ -n "$WITH_COMMAND" ]; then
    set -- "$WITH_COMMAND" "$WITH_SUBCOMMAND"
else
    install >&2 || give_up 6 "fedstep could not be installed, for the reason above. It needs Python 3.11 or newer (option python) and a package index, or an installed fedstep (option command)."
    # Isolated: neither PYTHONPATH nor a folder of the project can stand in for our modules.
    set -- "$venv/bin/python" -I -m fedstep "$WITH_SUBCOMMAND"
fi
while IFS= read -r glob; do
    [ -z "$glob" ] || set -- "$@" --junit "$glob"
done <<GLOBS
$WITH_JUNIT
GLOBS

FEDSTEP_DOTENV=$(mktemp "$tmp/fedstep.XXXXXX") || give_up 4 "no file can be written to $tmp."
export FEDSTEP_DOTENV
"$@" >&2
code=$?
cat "$FEDSTEP_DOTENV"
rm -f "$FEDSTEP_DOTENV"
[ "$code" = 0 ] || give_up "$code" "fedstep $WITH_SUBCOMMAND did not finish, for the reason above."
