#!/bin/sh
# pjdfstest (crate of that name), and its failures beside the list of those that we expect, exactly.
# $1: the list.
set -eu
here=$(dirname "$0")
mkdir "$PLACE/mount/pjdfstest"
chmod 755 "$PLACE/mount/pjdfstest"
cd "$PLACE/state"
# Another file system, for what needs one.
mkdir second
mount -t tmpfs second second 2>/dev/null || true
RUST_BACKTRACE=0 pjdfstest -c "$here/pjdfstest.toml" -s "$PLACE/state/second" -p "$PLACE/mount/pjdfstest" >out 2>&1 || true
grep -a Summary out
sed 's/\x1b\[[0-9;]*m//g' out | awk '/FAILED$/ { print $1 }' | sort >failed
awk '!/^#/ && NF { print $1 }' "$here/$1" | sort >expected
diff expected failed >difference || {
    cat difference
    echo "not as $1 says (< expected only, > failed only)"
    cat out
    exit 1
}
grep -q 'passed.* total' out
echo "pjdfstest: as expected, $(wc -l <expected) listed failures"
