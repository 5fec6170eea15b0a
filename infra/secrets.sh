#!/usr/bin/env bash
# Makes what the services of infra/compose.yaml (and the Secret of infra/kubernetes) hide from each other and from strangers:
# passwords, keys, the addresses that contain them, and the certificates of the proxy.
# Usage: infra/secrets.sh [FOLDER]        default: infra/secrets
#
# A password that is there stays; addresses and configurations are written again from it, and a certificate that ends within
# thirty days is replaced. POSTGRES_ADDRESS, VALKEY_ADDRESS, VALKEY_PORT, VALKEY_BIND, VALKEY_FOLDER, PREFECT_NAME and
# MLFLOW_NAME change what they say. The folder has mode 0700, so that only its owner can reach in; the files can be read by
# whoever has them mounted.
set -euo pipefail
umask 077

folder=${1:-$(cd "$(dirname "$0")" && pwd)/secrets}
postgres=${POSTGRES_ADDRESS:-postgres:5432}
valkey=${VALKEY_ADDRESS:-valkey:6379}
prefect_name=${PREFECT_NAME:-prefect.localhost}
mlflow_name=${MLFLOW_NAME:-mlflow.localhost}
command -v openssl >/dev/null || {
  echo "got no openssl, wanted it for random numbers and certificates: install the package openssl" >&2
  exit 1
}
mkdir -p "$folder"
chmod 700 "$folder"

write() { # NAME, the text on standard input: whole or not at all
  cat >"$folder/.$1"
  chmod 444 "$folder/.$1"
  mv -f "$folder/.$1" "$folder/$1"
}

password() { # NAME [NUM_BYTES]
  [ -s "$folder/$1" ] || openssl rand -hex "${2:-24}" | tr -d '\n' | write "$1"
}

get() { cat "$folder/$1"; }

for name in postgres_password prefect_database_password mlflow_database_password mlflow_session_key \
  mlflow_admin_password mlflow_worker_password prefect_password valkey_password \
  object_store_secret_key store_secret_key artifacts_secret_key object_store_signing_key; do
  password "$name"
done
for name in object_store_key_id store_key_id artifacts_key_id; do
  password "$name" 10
done

printf 'admin:%s' "$(get prefect_password)" | write prefect_auth
printf 'postgresql+asyncpg://prefect:%s@%s/prefect' "$(get prefect_database_password)" "$postgres" | write prefect_database_url
printf 'postgresql+pg8000://mlflow:%s@%s/mlflow' "$(get mlflow_database_password)" "$postgres" | write mlflow_database_url
write mlflow_auth_config <<END
[mlflow]
default_permission = READ
database_uri = postgresql+pg8000://mlflow:$(get mlflow_database_password)@$postgres/mlflow_auth
admin_username = admin
admin_password = $(get mlflow_admin_password)
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END
printf 'redis://:%s@%s/0' "$(get valkey_password)" "$valkey" | write valkey_url
write valkey_config <<END
# A broker of events: they are few and short, and the database has them within seconds.
bind ${VALKEY_BIND:-0.0.0.0}
port ${VALKEY_PORT:-6379}
requirepass $(get valkey_password)
dir ${VALKEY_FOLDER:-/data}
appendonly yes
appendfsync everysec
maxmemory 512mb
maxmemory-policy noeviction
END

# The administrator makes buckets; the pipeline's store and MLflow's artifacts cannot read each other.
identity() { # NAME KEY ACTIONS
  printf '{"name": "%s", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": [%s]}' \
    "$1" "$(get "$2_key_id")" "$(get "$2_secret_key")" "$3"
}
own() { printf '"Read:%s", "Write:%s", "List:%s", "Tagging:%s"' "$1" "$1" "$1" "$1"; }
printf '{"identities": [%s,\n %s,\n %s]}\n' "$(identity admin object_store '"Admin"')" \
  "$(identity store store "$(own corpusmill)")" "$(identity artifacts artifacts "$(own mlflow)")" | write object_store_identities
printf '[jwt.filer_signing]\nkey = "%s"\n' "$(get object_store_signing_key)" | write object_store_security

# A certificate authority of our own, whose key goes nowhere, and a certificate of a year for the proxy.
ca=$folder/ca
mkdir -p "$ca"
if [ ! -s "$ca/ca.crt" ]; then
  openssl req -x509 -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -sha256 -days 3650 \
    -subj "/CN=corpusmill internal CA" -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout "$ca/ca.key" -out "$ca/ca.crt" 2>/dev/null
fi
write ca.crt <"$ca/ca.crt"

is_ours() { openssl verify -no_check_time -CAfile "$ca/ca.crt" "$folder/proxy_certificate" >/dev/null 2>&1; }
lasts() { openssl x509 -checkend 2592000 -noout -in "$folder/proxy_certificate" >/dev/null 2>&1; }
names="DNS:$prefect_name,DNS:$mlflow_name,DNS:localhost,IP:127.0.0.1"
if [ -s "$folder/proxy_certificate" ] && ! is_ours; then
  lasts || echo "proxy_certificate: got one by somebody else that ends within 30 days, wanted a newer one: put it in place" >&2
elif ! lasts || [ "$names" != "$(cat "$ca/names" 2>/dev/null)" ]; then
  openssl req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj "/CN=$prefect_name" \
    -keyout "$ca/proxy.key" -out "$ca/proxy.csr" 2>/dev/null
  printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n' "$names" >"$ca/extensions"
  openssl x509 -req -sha256 -days 365 -in "$ca/proxy.csr" -CA "$ca/ca.crt" -CAkey "$ca/ca.key" \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$ca/extensions" 2>/dev/null | write proxy_certificate
  write proxy_key <"$ca/proxy.key"
  rm -f "$ca/proxy.key" "$ca/proxy.csr" "$ca/extensions"
  printf '%s' "$names" >"$ca/names"
fi
echo "secrets are in $folder; Prefect asks people for the text of prefect_auth, MLflow for admin and mlflow_admin_password"
