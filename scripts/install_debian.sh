#!/usr/bin/env bash
# Debian packages: install_debian.sh run|test
#
#   run    what Dockyard itself needs of the system: Python's venv module and two libraries of the compiler's
#   test   that, and what the suite uses; without root the tests that need those say so when they skip
#
# Installs what is missing where it may (root, with apt), and else says the line that would. Starts no service.
# $PYTHON is the interpreter that will make the environment.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
mode=$1
python=${PYTHON:-python3}

# command : package
tools="
bwrap:bubblewrap
chromium:chromium
curl:curl
debootstrap:debootstrap
docker:docker.io
docker-registry:docker-registry
dockerd:docker.io
git:git
ip:iproute2
iptables:iptables
node:nodejs
npm:npm
nsenter:util-linux
runc:runc
skopeo:skopeo
"
missing=()
$python -c 'import ensurepip, venv' 2>/dev/null || missing+=("python$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")
ldconfig -p | grep -q 'libgomp\.so\.1' || missing+=(libgomp1)
ldconfig -p | grep -q 'libstdc++\.so\.6' || missing+=(libstdc++6)
needed=${#missing[@]}
if [ "$mode" = test ]; then
  for pair in $tools; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
fi

if [ ${#missing[@]} -eq 0 ]; then
  exit 0
elif ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  [ "$needed" -eq 0 ] && { echo "Tests that need these packages will be skipped: ${missing[*]}" >&2; exit 0; }
  echo "Missing on this system; as root: apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# Packages must not start their services: a policy that forbids it stands for the time of this installation.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
log=$(mktemp)
install() {
  apt-get update
  # Newer releases ship Docker's client apart from its engine.
  if [ "$mode" = test ] && ! command -v docker && apt-cache show docker-cli; then missing+=(docker-cli); fi
  apt-get install -y --no-install-recommends "${missing[@]}"
}
install >"$log" 2>&1 || {
  tail -n 40 "$log" >&2
  exit 1
}
rm -f "$log"
