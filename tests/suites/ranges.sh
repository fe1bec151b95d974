#!/bin/sh
# ranges.py over files of the lower layer.
set -eu
case ${FIM_SUITES:-quick} in
    full) steps=25000 ;;
    *) steps=300 ;;
esac
ranges.py "$PLACE/mount/ranges" 40 "$steps" "${FIM_SEED:-$(date +%s)}"
