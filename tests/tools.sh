#!/usr/bin/env bash
# Installs the programs that the tests run and Debian has; says what is missing where it may not install.
set -euo pipefail
declare -A package=(
  [git]=git [groovy]=groovy [java]=default-jre-headless [chromium]=chromium [initdb]=postgresql [caddy]=caddy
  [setpriv]=util-linux
)
if [ "${1:-}" = full ]; then  # the runners and clients that `make test-full` runs besides
  package+=([gradle]=gradle [rsync]=rsync [mvn]=maven-debian-helper)
fi
PATH=$PATH:$(printf '%s:' /usr/lib/postgresql/*/bin)  # where Debian keeps initdb
missing=()
for program in "${!package[@]}"; do
  command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ]; then
  echo "make test needs: ${missing[*]}. As root it installs them; else: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=400 update -qq
apt-get -o DPkg::Lock::Timeout=400 install -y -qq "${missing[@]}" >/dev/null
