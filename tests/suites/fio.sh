#!/bin/sh
# fio (package fio) writes random blocks with checksums and reads them back: by system calls, by mappings, several jobs
# on one file each, and over a file that began in the lower layer.
set -eu
case ${FIM_SUITES:-quick} in
    full) size=256M; loops=4 ;;
    *) size=8M; loops=1 ;;
esac
cd "$PLACE/state"
job() {
    name=$1
    shift
    fio --minimal --name="$name" --directory="$mount" --size="$size" --rw=randwrite --bsrange=512-64k --bs_unaligned=1 \
        --verify=crc32c --verify_fatal=1 --do_verify=1 --loops="$loops" --randseed="$$" --fallocate=none \
        "$@" >"$name.out" 2>&1 || { cat "$name.out"; exit 1; }
    ! grep -i 'verify:' "$name.out"
    echo "fio $name: $size, verified"
}
mount=$PLACE/mount
job psync --ioengine=psync
job mmap --ioengine=mmap --bsrange=4k-64k --bs_unaligned=0
job jobs --ioengine=psync --numjobs=4 --fsync=64
job direct --ioengine=psync --direct=1 --bsrange=4k-64k --bs_unaligned=0
# The lower file: only a part of its blocks is written, and what fio did not write is still what the layer says.
before=$(head -c 1048576 "$mount/fio-lower" | sha256sum)
job lower --ioengine=psync --filename=fio-lower --offset=1M --size=4M --overwrite=1
[ "$before" = "$(head -c 1048576 "$mount/fio-lower" | sha256sum)" ]
[ "$(stat -c %s "$mount/fio-lower")" = 8388608 ]
[ "$(tail -c 3145728 "$mount/fio-lower" | sha256sum)" = "$(tail -c 3145728 "$PLACE/lower/fio-lower" | sha256sum)" ]
