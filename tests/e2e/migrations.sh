#!/bin/sh
# From each earlier version of the schema to the newest one, with rows in the table: a system
# of its own is brought up with the first migrations only, gets rows, goes down, and comes up
# again with all of them. Its rows must be as they were, its schema as a new system's.
#
# Run by the suite: DEVENV is the devenv to use, DATABASE_URL a new system's database.
# Prints what came of it as JSON: of each version, whether all was as it must be.
set -eu
# What is tested is the inner devenv's business.
unset DEVENV_RUN_DIR KUBECONFIG
# In containers the database is the Compose file's, in a project of its own.
export COMPOSE_PROJECT_NAME="devenv-earlier-$$"
root=$PWD
migrations=$(sed -n 's/^migrations = "\(.*\)"/\1/p' devenv.toml)
dir=$(mktemp -d)
up=

end() {
    if [ -n "$up" ]; then
        kill -INT "$up" 2>/dev/null || true
        wait "$up" || true
        up=
    fi
}
trap 'end; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

# In the foreground: whatever ends this script ends the system too.
begin() {
    "$DEVENV" -C "$dir/project" up --no-watch >"$dir/log" 2>&1 &
    up=$!
    until url=$("$DEVENV" -C "$dir/project" url database 2>/dev/null); do
        kill -0 "$up" 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
        sleep 0.05
    done
}

# ask URL SQL: rows, columns apart by tabs.
ask() {
    rest=${1#mysql://}
    user=${rest%%:*} rest=${rest#*:}
    password=${rest%%@*} rest=${rest#*@}
    host=${rest%%:*} rest=${rest#*:}
    MYSQL_PWD=$password mariadb --no-defaults --protocol=tcp -u "$user" -h "$host" \
        -P "${rest%%/*}" -D "${rest#*/}" -N -B -e "$2"
}

schema() {
    ask "$1" "SELECT table_name, column_name, column_type, is_nullable, column_default, collation_name, extra
                FROM information_schema.columns WHERE table_schema = DATABASE()
               ORDER BY table_name, ordinal_position;
              SELECT table_name, index_name, seq_in_index, column_name, non_unique
                FROM information_schema.statistics WHERE table_schema = DATABASE()
               ORDER BY table_name, index_name, seq_in_index"
}

rows() {
    ask "$url" "SELECT id, total_ram, ram_libre, uso_ram, porcentaje_ram, porcentaje_cpu_uso,
                       porcentaje_cpu_libre, procesos_corriendo, total_procesos, procesos_durmiendo,
                       procesos_zombie, procesos_parados, hora, api, created_at
                  FROM records ORDER BY id"
}

fresh=$(schema "$DATABASE_URL")
all=$(cd "$migrations" && ls [0-9]*.sql)
newest=$(printf '%s\n' "$all" | tail -n 1)
before=
separator=
printf '['
for version in $all; do
    before="$before $version"
    [ "$version" != "$newest" ] || break
    mkdir -p "$dir/project/migrations" "$dir/project/manifests"
    # The same database as the project's own.
    {
        printf '[project]\nname = "earlier"\nmanifests = ["manifests"]\n\n'
        sed -n '/^\[cloudsql\]/,/^$/p' devenv.toml | sed 's|^migrations = .*|migrations = "migrations"|'
    } >"$dir/project/devenv.toml"
    cat >"$dir/project/manifests/cloudsql.yaml" <<YAML
apiVersion: v1
kind: Namespace
metadata: { name: earlier }
---
apiVersion: v1
kind: Service
metadata: { name: cloudsql }
spec: { ports: [{ name: mysql, port: 3306 }] }
YAML
    if [ -d compose ]; then cp -r compose "$dir/project/"; fi
    for name in $before; do cp "$root/$migrations/$name" "$dir/project/migrations/"; done
    begin
    ask "$url" "INSERT INTO records (total_ram, ram_libre, uso_ram, porcentaje_ram, porcentaje_cpu_uso,
                  porcentaje_cpu_libre, procesos_corriendo, total_procesos, procesos_durmiendo,
                  procesos_zombie, procesos_parados, hora, api)
                VALUES (16000, 8000, 8000, 50, 12.5, 87.5, 2, 300, 296, 1, 1, '2026-05-04 10:11:12', 'api1'),
                       (0.1, 0, 0.1, 100, 0, 100, 0, 0, 0, 0, 0, '1999-12-31 23:59:59', 'ñandú'),
                       (1e9, 5e8, 5e8, 50, 99.99, 0.01, 4294967295, 1, 1, 1, 1, '2026-05-04 10:11:13', 'api2')"
    kept=$(rows)
    end
    cp "$root/$migrations"/*.sql "$dir/project/migrations/"
    begin
    [ "$(rows)" = "$kept" ] && same_rows=true || same_rows=false
    if [ "$(schema "$url")" = "$fresh" ]; then same_schema=true; else
        same_schema=false
        schema "$url" >"$dir/got" && printf '%s\n' "$fresh" | diff - "$dir/got" >&2 || true
    fi
    applied=$(ask "$url" "SELECT LPAD(version, 4, '0') FROM _sqlx_migrations WHERE success ORDER BY version")
    [ "$applied" = "$(printf '%s\n' "$all" | cut -c 1-4)" ] && is_newest=true || is_newest=false
    end
    "$DEVENV" -C "$dir/project" down -v >/dev/null 2>&1
    rm -rf "$dir/project"
    printf '%s{"from": "%s", "newest": %s, "rows": %s, "schema": %s}' "$separator" \
        "${version%.sql}" "$is_newest" "$same_rows" "$same_schema"
    separator=', '
done
printf ']\n'
