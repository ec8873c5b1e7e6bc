#!/bin/sh
# `dockyard` inside the image. A container listens on all its addresses, which Dockyard does only with a key: where none
# is set, the first start makes one and keeps it with the data. `docker exec … dockyard …` finds the same key here.
set -eu
if [ -z "${DOCKYARD_API_KEYS:-}" ]; then
  file=$DOCKYARD_HOME/api-key
  if [ ! -s "$file" ]; then
    umask 077
    python3 -c 'import secrets; print(secrets.token_urlsafe(32))' >"$file.new"
    mv "$file.new" "$file"
    umask 022
  fi
  if [ "${1:-}" = serve ] || [ "${1:-}" = hub ]; then
    echo "No DOCKYARD_API_KEYS is set: the key is in $file" >&2
  fi
  DOCKYARD_API_KEYS=$(cat "$file"):manage
  export DOCKYARD_API_KEYS
fi
exec /opt/dockyard/bin/dockyard "$@"
