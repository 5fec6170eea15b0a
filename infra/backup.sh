#!/usr/bin/env bash
# Copies what only a copy can bring back: the databases of Prefect and MLflow, and of the workspace the ledgers, certificates,
# reports and journals (flows/deployed/backup.py says which). WARC files and weights are too large to copy every night and never
# change once written: they are named with their digests, so that restore.sh can tell whether they are all there.
# What lies in buckets is not copied and not named: shards and their records (bucket corpusmill), MLflow's artifacts (bucket
# mlflow). Copy those by the object store's own means, versions or a replica; infra/operators-guide.md says how with Compose.
# Usage: infra/backup.sh FOLDER          makes FOLDER/UTC-TIME, readable by its owner alone
#
# RUN_IN_POSTGRES and RUN_IN_WORKER are the commands that run something there; the default is infra/compose.yaml's services.
# WAIT_MINUTES (60): how long a run that writes the workspace is waited for. After that the databases are kept by themselves.
set -euo pipefail
umask 077

if [ $# -ne 1 ]; then
  echo "got $# arguments, wanted the folder for backups: infra/backup.sh FOLDER" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
read -ra in_postgres <<<"${RUN_IN_POSTGRES-docker compose -f $here/compose.yaml exec -T postgres}"
read -ra in_worker <<<"${RUN_IN_WORKER-docker compose -f $here/compose.yaml exec -T worker-cpu}"
# A command in a container that runs does not pass the image's entrypoint, which alone brings the secrets.
in_worker+=(/opt/corpusmill/infra/images/entrypoint.sh python /opt/corpusmill/infra/images/workspace_copy.py)
name=$(date -u +%Y%m%dT%H%M%SZ)
unfinished=$1/.$name
mkdir -p "$unfinished"
trap 'rm -rf "$unfinished" "$unfinished.digests"' EXIT

finish() { # finish FOLDER: what is there becomes FOLDER, whole or not at all
  (cd "$unfinished" && sha256sum -- *) >"$unfinished.digests"
  mv "$unfinished.digests" "$unfinished/digests.sha256"
  sync "$unfinished"/*
  mv "$unfinished" "$1"
}

for database in prefect mlflow mlflow_auth; do
  "${in_postgres[@]}" pg_dump --username=postgres --format=custom --create --dbname="$database" >"$unfinished/$database.dump"
done
if ! { "${in_worker[@]}" archive "${WAIT_MINUTES-60}" >"$unfinished/workspace.tar.gz" &&
  "${in_worker[@]}" references >"$unfinished/references.sha256"; }; then
  rm -f "$unfinished/workspace.tar.gz" "$unfinished/references.sha256"
  finish "$1/$name-databases"
  echo "got no copy of the workspace (above is why), wanted one beside the databases, which are in $1/$name-databases: run it again" >&2
  exit 1
fi
finish "$1/$name"
echo "$1/$name"
