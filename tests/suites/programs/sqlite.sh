#!/bin/sh
# Writers in parallel on one database: by rollback journal, by a write-ahead log, with the
# file mapped; readers that must see whole transactions; and a writer that is killed with half a transaction on disk.
set -eu
case ${FIM_SUITES:-quick} in
    full) rounds=150 ;;
    *) rounds=20 ;;
esac
cd "$PLACE/mount"
q() { sqlite3 -cmd '.timeout 60000' -cmd '.output /dev/null' -cmd "pragma mmap_size=$map" -cmd .output "$@"; }
for mode in delete wal; do for map in 0 67108864; do
    rm -f db db-*
    q db "pragma journal_mode=$mode; pragma synchronous=normal; create table t(w, n, x);
        create table total(n); insert into total values(0);" >/dev/null
    for writer in 1 2 3; do
        (
            n=0
            while [ $n -lt $rounds ]; do
                q db "begin immediate; insert into t values($writer, $n, randomblob(3000));
                    update total set n = n + 1; commit;"
                n=$((n + 1))
            done
        ) &
    done
    # A reader: the count and the total belong to one transaction.
    (
        n=0
        while [ $n -lt $rounds ]; do
            [ "$(q db 'select (select count(*) from t) - (select n from total)')" = 0 ] || { echo torn; exit 1; }
            n=$((n + 1))
        done
    ) &
    reader=$!
    # One that is killed: half a transaction is none.
    mkfifo hold
    sqlite3 -cmd '.timeout 60000' db <hold >/dev/null 2>&1 &
    victim=$!
    {
        echo "begin immediate; update total set n = n + 1000;"
        # Pages in the file before the end: more than are kept in memory.
        echo "pragma cache_size=1; insert into t select 9, 9, randomblob(30000) from t, t as b limit 300;"
        sleep 2
        kill -9 $victim
    } >hold
    rm hold
    wait "$reader"
    wait 2>/dev/null || true
    [ "$(q db 'pragma integrity_check')" = ok ]
    rows=$(q db 'select count(*) from t')
    [ "$rows" = $((3 * rounds)) ] && [ "$(q db 'select n from total')" = "$rows" ]
    [ "$(q db 'select count(*) from (select distinct w, n from t)')" = "$rows" ]
    echo "sqlite $mode, mapped $map: $rows transactions by 3 writers, integrity ok"
done; done
