#!/usr/bin/env bash
# mirror.sh FOLDER REMOTE TAG MOVING: makes REMOTE's main what FOLDER is, tags it TAG, and moves the tag MOVING to it.
# The token is read from TOKEN and is in no command line and no configuration file. SHA256 is the hash of the wheel of this
# version: it joins the hashes of what an action installs.
set -euo pipefail
folder=$1 remote=$2 tag=$3 moving=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="http.extraHeader"
GIT_CONFIG_VALUE_0="Authorization: Basic $(printf 'x-access-token:%s' "${TOKEN:-}" | base64 | tr -d '\n')"
export GIT_CONFIG_VALUE_0

git clone --quiet "$remote" "$work"
git -C "$work" checkout --quiet -B main
git -C "$work" rm -rq --ignore-unmatch .
cp -R "$folder/." "$work/"
[ ! -e "$folder/step.sh" ] || cp actions/common/step.sh "$work/" # its source, whatever the copy says
if [ -e "$folder/requirements.txt" ]; then
  package=$(sed -n 's/^    default: \(fedstep.*==.*\)$/\1/p' "$folder/action.yml")
  printf '%s \\\n    --hash=sha256:%s\n' "$package" "${SHA256:?}" >>"$work/requirements.txt"
fi
cp LICENSE "$work/"
git -C "$work" add --all
git -C "$work" -c user.name=fedstep -c user.email=noreply@fedstep.invalid commit --quiet --allow-empty -m "$tag"
git -C "$work" tag "$tag" # a version is tagged once: fails where it is there already
git -C "$work" tag --force "$moving" >/dev/null
git -C "$work" push --quiet --atomic "$remote" main "refs/tags/$tag" "+refs/tags/$moving"
