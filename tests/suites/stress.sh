#!/bin/sh
# stress.py on a plain directory and on the mount: one checksum.
set -eu
case ${FIM_SUITES:-quick} in
    full) workers=6 rounds=12 ;;
    *) workers=3 rounds=1 ;;
esac
mkdir "$PLACE/state/plain"
stress.py make "$PLACE/state/plain/sources"
plain=$(stress.py "$PLACE/state/plain" $workers $rounds)
mounted=$(stress.py "$PLACE/mount/stress" $workers $rounds)
[ "$plain" = "$mounted" ] || {
    echo "another tree than on a plain directory"
    diff -r "$PLACE/state/plain" "$PLACE/mount/stress" | head -50
    exit 1
}
# Once more from what the upper and the layer hold.
echo "stress: $workers workers of six kinds, $rounds rounds: $mounted"
