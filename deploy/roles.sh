#!/bin/bash
# Run once by the postgres image, on an empty data folder: the database and its two roles.
set -euo pipefail
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" \
    --set owner_password="$POSTGRES_OWNER_PASSWORD" --set app_password="$POSTGRES_APP_PASSWORD" <<'SQL'
CREATE ROLE scrip_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE scrip_app LOGIN PASSWORD :'app_password';
CREATE DATABASE scrip OWNER scrip_owner TEMPLATE template0 ENCODING 'UTF8'
    LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C';
REVOKE CONNECT, TEMPORARY ON DATABASE scrip FROM PUBLIC;
GRANT CONNECT ON DATABASE scrip TO scrip_app;
SQL
