#!/bin/sh
# Runs the store's tests on a Postgres of their own: a throw-away cluster in a temporary directory, reached only
# through a Unix socket there, and removed in the end whatever happens. Arguments go to `cargo nextest run`.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.tools/bin:$PATH

find_programs() {
    for programs in /usr/lib/postgresql/*/bin "$(dirname "$(command -v pg_ctl || echo /nowhere/pg_ctl)")"; do
        if [ -x "$programs/initdb" ] && [ -x "$programs/pg_ctl" ]; then
            return 0
        fi
    done
    return 1
}

if ! find_programs; then
    as_root=
    [ "$(id -u)" -eq 0 ] || as_root=sudo
    # Debian would otherwise start a cluster of its own with the installation.
    $as_root mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo "create_main_cluster = false" | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    $as_root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends postgresql
    find_programs
fi

cluster=$(mktemp -d /tmp/beamline-postgres.XXXXXX)

# The server refuses to run as root.
if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$cluster"
    as_owner() { (cd / && runuser -u postgres -- "$@"); }
else
    as_owner() { "$@"; }
fi

remove() {
    as_owner "$programs/pg_ctl" -D "$cluster/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$cluster"
}
trap remove EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

as_owner "$programs/initdb" -D "$cluster/data" -U postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 >/dev/null
# Durability is tested by killing the store, not the server: no need to wait for this one's disk.
if ! as_owner "$programs/pg_ctl" -D "$cluster/data" -l "$cluster/log" -w \
    -o "-c listen_addresses='' -c unix_socket_directories='$cluster' -c fsync=off -c max_connections=500" \
    start >/dev/null; then
    cat "$cluster/log" >&2
    exit 1
fi
# The tests run as the caller of this script and must reach the socket.
chmod 755 "$cluster"

BEAMLINE_TEST_POSTGRES="postgres://postgres@localhost/postgres?host=$cluster" \
    cargo nextest run --test it -E 'test(/^(soak::)?store::/)' "$@"
