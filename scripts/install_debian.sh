#!/usr/bin/env bash
# Install the Debian packages that the suite uses and this machine lacks. Without root or apt it only says so: the tests
# that need them skip with the reason. Nothing that is installed gets started.
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin

# command : package
wanted="
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
nsenter:util-linux
runc:runc
skopeo:skopeo
"
missing=()
for pair in $wanted; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
ldconfig -p | grep -q 'libgomp\.so\.1' || missing+=(libgomp1)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)

if [ ${#missing[@]} -eq 0 ]; then
  exit 0
elif ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "Not root on Debian or Ubuntu, so tests that need these will be skipped: ${missing[*]}" >&2
  exit 0
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
  if ! command -v docker && apt-cache show docker-cli; then missing+=(docker-cli); fi
  apt-get install -y --no-install-recommends "${missing[@]}"
}
install >"$log" 2>&1 || {
  tail -n 40 "$log" >&2
  exit 1
}
rm -f "$log"
