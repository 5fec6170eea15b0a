#!/usr/bin/env bash
# Copies what only a copy can bring back: the databases of Prefect and MLflow, and of the workspace the ledgers, certificates,
# records and journals (flows/deployed/backup.py says which). WARC files, weights and shards are too large to copy every night and
# never change once written: they are named with their digests, so that restore.sh can tell whether they are all there.
# Usage: infra/backup.sh FOLDER          makes FOLDER/UTC-TIME, readable by its owner alone
#
# RUN_IN_POSTGRES and RUN_IN_WORKER are the commands that run something there; the default is infra/compose.yaml's services.
set -euo pipefail
umask 077

if [ $# -ne 1 ]; then
  echo "got $# arguments, wanted the folder for backups: infra/backup.sh FOLDER" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
read -ra in_postgres <<<"${RUN_IN_POSTGRES-docker compose -f $here/compose.yaml exec -T postgres}"
read -ra in_worker <<<"${RUN_IN_WORKER-docker compose -f $here/compose.yaml exec -T worker-cpu}"
name=$(date -u +%Y%m%dT%H%M%SZ)
folder=$1/$name
unfinished=$1/.$name
mkdir -p "$unfinished"
trap 'rm -rf "$unfinished"' EXIT

for database in prefect mlflow mlflow_auth; do
  "${in_postgres[@]}" pg_dump --username=postgres --format=custom --create --dbname="$database" >"$unfinished/$database.dump"
done
"${in_worker[@]}" python /opt/corpusmill/infra/images/workspace_copy.py archive >"$unfinished/workspace.tar.gz"
"${in_worker[@]}" python /opt/corpusmill/infra/images/workspace_copy.py references >"$unfinished/references.sha256"
(cd "$unfinished" && sha256sum -- *) >"$1/.$name.digests"
mv "$1/.$name.digests" "$unfinished/digests.sha256"
sync "$unfinished"/*
mv "$unfinished" "$folder"
echo "$folder"
