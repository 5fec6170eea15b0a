#!/usr/bin/env bash
# Puts back what backup.sh copied, over whatever is there, and says which large files are missing or damaged.
# Usage: infra/restore.sh FOLDER/UTC-TIME       everything but postgres (and with it, its data) must be stopped:
#   docker compose -f infra/compose.yaml stop && docker compose -f infra/compose.yaml up -d --wait postgres
#
# RUN_IN_POSTGRES and RUN_IN_WORKER: see backup.sh. The worker's container is made for it, with its volumes and nothing else: files
# are all that it touches, so it needs no secrets and no entrypoint. Buckets come back by the object store's own means.
# A folder UTC-TIME-databases has the databases alone; the workspace is left as it is.
set -euo pipefail

if [ $# -ne 1 ] || [ ! -f "$1/digests.sha256" ]; then
  echo "got no finished backup, wanted a folder that backup.sh made: infra/restore.sh FOLDER/UTC-TIME" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
read -ra in_postgres <<<"${RUN_IN_POSTGRES-docker compose -f $here/compose.yaml exec -T postgres}"
read -ra in_worker <<<"${RUN_IN_WORKER-docker compose -f $here/compose.yaml run --rm -T --no-deps --entrypoint= worker-cpu}"
folder=$(cd "$1" && pwd)

(cd "$folder" && sha256sum --check --quiet --strict digests.sha256) || {
  echo "got a damaged backup in $folder, wanted the bytes that backup.sh wrote: take another one" >&2
  exit 1
}
sessions=$("${in_postgres[@]}" psql --username=postgres --dbname=postgres --no-psqlrc --tuples-only --no-align --command \
  "SELECT count(*) FROM pg_stat_activity WHERE datname IN ('prefect', 'mlflow', 'mlflow_auth')")
if [ "$sessions" != 0 ]; then
  echo "got $sessions sessions on the databases, wanted none while they are replaced: stop everything but postgres" >&2
  exit 1
fi
for database in prefect mlflow mlflow_auth; do
  "${in_postgres[@]}" pg_restore --username=postgres --clean --if-exists --create --exit-on-error --dbname=postgres <"$folder/$database.dump"
done
if [ -f "$folder/workspace.tar.gz" ]; then
  "${in_worker[@]}" python /opt/corpusmill/infra/images/workspace_copy.py unpack <"$folder/workspace.tar.gz"
  "${in_worker[@]}" python /opt/corpusmill/infra/images/workspace_copy.py check <"$folder/references.sha256"
fi
echo "restored $folder; start the services, then run: corpusmill doctor, corpusmill verify"
