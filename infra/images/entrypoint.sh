#!/bin/sh
# Starts a service with its secrets. CORPUSMILL_SECRETS names them, NAME=FILE NAME=FILE; they enter the environment of
# this one process and its children, and stand in no image, no Compose file and no manifest.
set -eu

for pair in ${CORPUSMILL_SECRETS-}; do
  name=${pair%%=*}
  file=${pair#*=}
  if [ ! -r "$file" ]; then
    echo "$name: got no file to read at $file, wanted a secret: run infra/secrets.sh and mount what it makes." >&2
    exit 1
  fi
  export "$name=$(cat "$file")"
done
unset CORPUSMILL_SECRETS
exec "$@"
