#!/bin/sh
# initdb, pgbench, kill -9 in the middle of it and a recovery; then the sums that pgbench keeps, and amcheck of all
# indexes. As the user postgres, in a directory of his in the mount.
set -eu
case ${FIM_SUITES:-quick} in
    full) seconds=60 ;;
    *) seconds=10 ;;
esac
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
PATH="$bin:$PATH"
data=$PLACE/mount/pg
mkdir "$data" "$PLACE/state/socket"
chown postgres:postgres "$data" "$PLACE/state/socket"
as() { setpriv --reuid postgres --regid postgres --init-groups -- "$@"; }
psql() { as "$bin/psql" -h "$PLACE/state/socket" -X -A -t -v ON_ERROR_STOP=1 "$@" postgres; }
cd /
as initdb -A trust -D "$data" --data-checksums >/dev/null
options="-c listen_addresses= -c unix_socket_directories=$PLACE/state/socket"
start() { as pg_ctl -D "$data" -w -t 120 -l "$data/log" -o "$options" start >/dev/null; }
start
trap 'as pg_ctl -D "$data" -m immediate stop >/dev/null 2>&1 || true' EXIT
as pgbench -h "$PLACE/state/socket" -i -q -s 5 postgres >/dev/null 2>&1
as pgbench -h "$PLACE/state/socket" -c 4 -j 2 -T "$seconds" postgres | grep -E 'processed|tps'
same() {
    psql -c "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)
        and (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history)
        and (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history)"
}
[ "$(same)" = t ]
# Killed while it writes; what was committed is there after the recovery.
as pgbench -h "$PLACE/state/socket" -n -c 4 -j 2 -T 60 postgres >"$PLACE/state/second" 2>&1 &
running=$!
sleep 5
master=$(head -1 "$data/postmaster.pid")
kill -9 "$master" $(pgrep -P "$master") || true
wait $running || true
sleep 1
rm -f "$data/postmaster.pid"
start
[ "$(same)" = t ]
psql -c 'create extension amcheck' >/dev/null
psql -c "select count(bt_index_check(c.oid, true)) from pg_class c join pg_am a on a.oid = c.relam
    where a.amname = 'btree' and c.relkind = 'i'" | sed 's/$/ indexes checked/'
as pg_ctl -D "$data" -w -m fast stop >/dev/null
trap - EXIT
as pg_checksums -D "$data" --check | grep -i 'bad checksums: *0'
echo "postgresql: initdb, pgbench $seconds s, kill -9 and recovery, sums and indexes right"
