#!/usr/bin/env bash
# Writes requirements.lock: every distribution of a fresh environment with the dependencies of pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" - >"$folder/requirements.in" <<'PY'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print("\n".join([*project["dependencies"], *project["optional-dependencies"]["dev"]]))
PY
"$folder/venv/bin/pip" install --quiet -r "$folder/requirements.in"
{
  echo "# Made by infra/lock.sh (make lock). Installs on Python 3.11 with pip alone."
  # A local version (torch 2.13.0+cpu) names one build; the lock names the release.
  "$folder/venv/bin/pip" freeze | sed -E 's/\+[a-z0-9.]+$//'
} >requirements.lock
