#!/bin/sh
# fsx (crate of that name) on two files that began in the lower layer: one that it empties first, one that keeps its
# size and is copied up by the first write.
set -eu
here=$(dirname "$0")
case ${FIM_SUITES:-quick} in
    full) count=${FIM_FSX_OPS:-10000000} ;;
    *) count=20000 ;;
esac
seed=${FIM_SEED:-$(date +%s)}
half=$((count / 2))
run() {
    echo "fsx -N $half -S $seed -f $1 $2"
    timed=$(date +%s.%N)
    fsx -N "$half" -S "$seed" -P "$PLACE/state" -f "$here/$1" "$2"
    echo "$half operations, $(date +%s.%N | awk -v a="$timed" '{ printf "%.1f", $1 - a }') s"
}
[ "$(stat -c %s "$PLACE/mount/fsx-grows")" = 262144 ] && [ "$(stat -c %s "$PLACE/mount/fsx-stays")" = 262144 ]
run fsx.toml "$PLACE/mount/fsx-grows"
run fsx-block.toml "$PLACE/mount/fsx-stays"
