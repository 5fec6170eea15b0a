#!/bin/bash
# Roles and databases of Prefect and MLflow, made when the database is made. A role sees its own databases alone.
# Run by Postgres's image as its superuser; passwords come from files and go through standard input, never through arguments.
set -euo pipefail

secrets=${SECRETS_FOLDER:-/run/secrets}

make() { # ROLE DATABASE...
  local role=$1 database
  shift
  {
    printf "\\\\set password \`cat '%s/%s_database_password'\`\n" "$secrets" "$role"
    printf "CREATE ROLE %s LOGIN PASSWORD :'password';\n" "$role"
    for database in "$@"; do
      printf 'CREATE DATABASE %s OWNER %s;\n' "$database" "$role"
      printf 'REVOKE ALL ON DATABASE %s FROM PUBLIC;\n' "$database"
    done
  } | psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres
}

make prefect prefect
make mlflow mlflow mlflow_auth
# Prefect searches names by trigrams; only a superuser may always add the extension.
psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname prefect \
  --command 'CREATE EXTENSION IF NOT EXISTS pg_trgm'
