#!/bin/sh
# What it costs to enter a running instance.
#
#   benches/instances.sh IMAGE [EXECS [GIGABYTES]]
#
# Prints a line each: short execs one after the other and eight at a time (rate, and how many failed), bytes through
# `fim-instance exec` in each direction beside a plain pipe (goal: nine tenths of it, for descriptors are passed and
# nobody copies; the image should have the host's cat), and a hundred execs at once with 1 MiB of environment each.
set -u
image=${1:?IMAGE is missing}
execs=${2:-10000}
bytes=$((${3:-2} * 1000000000))
name=bench-$$

now() { date +%s%N; }
rate() { awk -v n="$1" -v ns="$2" -v unit="$3" 'BEGIN { printf "%.1f %s/s", n / (ns / 1e9), unit }'; }
fim() { "$image" fim-instance "$@"; }

fim start "$name" || exit 1
trap 'fim stop "$name" --force > /dev/null' EXIT

for at_once in 1 8; do
    begin=$(now)
    failed=$(seq "$execs" | xargs -P "$at_once" -I{} sh -c '"$0" fim-instance exec "$1" true || echo failed' "$image" "$name" | wc -l)
    echo "execs, $at_once at a time: $execs, $failed failed, $(rate "$execs" $(($(now) - begin)) execs)"
done

measure() {
    what=$1
    shift
    begin=$(now)
    count=$("$@")
    took=$(($(now) - begin))
    [ "$count" -eq "$bytes" ] || echo "$what: $count bytes instead of $bytes"
    echo "$what: $(awk -v n="$bytes" -v ns="$took" 'BEGIN { printf "%.0f MB/s", n / 1e6 / (ns / 1e9) }')"
}
plain() { head -c "$bytes" /dev/zero | cat | wc -c; }
in_and_out() { head -c "$bytes" /dev/zero | fim exec "$name" cat | wc -c; }
inward() { head -c "$bytes" /dev/zero | fim exec "$name" sh -c 'cat > /dev/null' && echo "$bytes"; }
outward() { fim exec "$name" cat /dev/zero | head -c "$bytes" | wc -c; }
measure "a plain pipe" plain
measure "through an exec of cat" in_and_out
measure "into an exec" inward
measure "out of an exec" outward

begin=$(now)
ended=$(seq 100 | xargs -P 100 -I{} sh -c '
    image=$0 name=$1 value=$(head -c 131000 /dev/zero | tr "\0" x)
    "$image" fim-instance exec --env A=$value --env B=$value --env C=$value --env D=$value --env E=$value \
        --env F=$value --env G=$value --env H=$value "$name" sh -c "echo \${#A} \${#H}"' "$image" "$name" |
    grep -c '^131000 131000$')
echo "100 execs at once with 1 MiB of environment: $ended as they should be, $(($(now) - begin)) ns"
