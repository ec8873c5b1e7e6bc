#!/usr/bin/env bash
# A Docker engine of the suite's own, that touches nothing of the machine's: images in one folder, its own socket.
#
#   engine.sh build FOLDER   an engine on the machine's network without bridge or firewall rules: builds reach packages
#   engine.sh run FOLDER     an engine in a private network namespace with bridge, NAT and published ports; reach those
#                            with `nsenter --net=/run/netns/NAME`, whose NAME is the second word that this prints
#   engine.sh down FOLDER    stop it and take away its namespace and control groups; the images stay in FOLDER
#
# build and run first stop what runs on FOLDER, and print the engine's address. Needs root, docker.io, runc, iptables and
# iproute2.
set -euo pipefail

mode=$1
folder=$2
name=dockyard-$(printf '%s' "$folder" | sha256sum | cut -c1-8)
state=/run/$name # sockets are in there, and their paths must be short
socket=unix://$state/sock

down() {
  if [ -s "$state/pid" ]; then
    local pid
    pid=$(cat "$state/pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 60); do kill -0 "$pid" 2>/dev/null || break; sleep 0.25; done
  fi
  ip netns del "$name" 2>/dev/null || true
  for group in /sys/fs/cgroup/"$name" /sys/fs/cgroup/*/"$name"; do
    [ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
  done
  rm -rf "$state"
}

up() {
  mkdir -p "$state"
  local inside=() flags=()
  if [ "$mode" = run ]; then
    ip netns add "$name"
    # nsenter and not `ip netns exec`: that one mounts a /sys without the control groups.
    inside=(nsenter "--net=/run/netns/$name")
    "${inside[@]}" ip link set lo up
  else
    flags=(--iptables=false --ip-forward=false --bridge=none)
  fi
  setsid nohup "${inside[@]}" unshare -m --propagation private dockerd "${flags[@]}" \
    --data-root "$folder/data" --exec-root "$state/exec" --pidfile "$state/pid" --host "$socket" \
    --cgroup-parent "/$name" --exec-opt native.cgroupdriver=cgroupfs --log-level=error \
    >"$state/log" 2>&1 </dev/null &
  for _ in $(seq 120); do
    if docker --host "$socket" version >/dev/null 2>&1; then
      echo "$socket $name"
      return
    fi
    sleep 0.25
  done
  tail -n 20 "$state/log" >&2
  down
  return 1
}

case $mode in
  build | run) down; up ;;
  down) down ;;
  *) echo "engine.sh build|run|down FOLDER" >&2; exit 2 ;;
esac
