#!/bin/bash
# Archives of large and strange trees before upstream's tools, and the peak memory of making them.
#
#   tests/suites/archives.sh FIM SCRATCH [CASE…]
#
# CASEs: empty specials names links sparse doc small wav (some minutes), tree:DIR (any tree), million, huge (20 GB
# through a tar stream, which the engine keeps in a file of its temporary directory; HUGE_MB for less). Without any: the
# first eight. Each case is archived by FIM,
# checked by `dwarfsck --check-integrity`, extracted by `dwarfsextract` and compared; one line each with size, seconds
# and peak memory. LEVEL chooses the level (1). Needs root for devices; the tools come from $FIM_JUDGES or PATH.
set -euo pipefail
fim=$(readlink -f "$1") scratch=$2
shift 2
[ $# -gt 0 ] || set -- empty specials names links sparse doc small wav
PATH=${FIM_JUDGES:+$FIM_JUDGES:}$PATH
level=${LEVEL:-1}
mkdir -p "$scratch"
scratch=$(readlink -f "$scratch")
work=$(mktemp -d "$scratch/archives.XXXXXX")
trap 'rm -rf "$work"' EXIT
failed=0

# Everything that a tree tells, but for what the extractor does not restore.
facts() {
    (cd "$1" && find . -mindepth 1 \( -type f -printf 'f %s %n %m' -o -type l -printf 'l %l' -o -printf '%y %m' \) -printf ' %p\0' |
        LC_ALL=C sort -z | sha256sum
    find . -type f -size -200G ! -name '*.huge' -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum | sha256sum)
}

# archive NAME SOURCE [OPTION…]: makes $work/out and says what it cost.
archive() {
    local name=$1 source=$2
    shift 2
    rm -f "$work/out"
    if ! /usr/bin/time -f '%e %U %M' -o "$work/time" "$fim" archive create --level "$level" "$@" "$source" "$work/out" >"$work/said" 2>&1; then
        cat "$work/said"
        return 1
    fi
    read -r wall user peak < <(tail -1 "$work/time")
    printf '%-12s %12d bytes %8.1f s %8.1f s user %8d KiB peak\n' "$name" "$(stat -c %s "$work/out")" "$wall" "$user" "$peak"
    dwarfsck --check-integrity -q "$work/out" >"$work/said" 2>&1 || { cat "$work/said"; return 1; }
}

# judge NAME TREE [OPTION…]: archives, checks, extracts, compares.
judge() {
    archive "$@" || { echo "$1: FAILED"; failed=1; return; }
    rm -rf "$work/extracted"
    mkdir "$work/extracted"
    if ! dwarfsextract -i "$work/out" -o "$work/extracted" >"$work/said" 2>&1; then
        cat "$work/said"
        failed=1
    elif [ "$(facts "$2")" != "$(facts "$work/extracted")" ]; then
        echo "$1: the extraction differs"
        failed=1
    fi
    rm -rf "$work/extracted"
}

for case; do
    tree=$work/tree
    rm -rf "$tree"
    mkdir "$tree"
    case $case in
    empty) judge empty "$tree" ;;
    specials)
        mknod "$tree/character" c 1 3
        mknod "$tree/block" b 7 99
        mkfifo "$tree/fifo"
        python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$tree/socket"
        ln -s /nowhere "$tree/link"
        # The extractor makes no sockets: the driver shows them.
        archive specials "$tree" || failed=1
        mkdir "$work/mounted"
        dwarfs "$work/out" "$work/mounted" >"$work/said" 2>&1
        [ "$(facts "$tree")" = "$(facts "$work/mounted")" ] || { echo "specials: FAILED"; failed=1; }
        fusermount3 -u "$work/mounted"
        rmdir "$work/mounted"
        ;;
    names)
        python3 - "$tree" <<'PY'
import os, sys
root = os.fsencode(sys.argv[1])
for name in [b"x" * 255, b"\xff\xfe\x80", b" ", b"new\nline", b"\xc3\xa4", b"a\xcc\x88", b"\\", b"-rf", b"\x01" * 255]:
    os.mkdir(root + b"/d" + name[:254])
    for place in (root + b"/", root + b"/d" + name[:254] + b"/"):
        with open(place + name, "wb") as file:
            file.write(name * 3)
PY
        judge names "$tree"
        ;;
    links)
        echo contents >"$tree/first"
        python3 - "$tree" <<'PY'
import os, sys
os.chdir(sys.argv[1])
for number in range(19_999):
    os.makedirs(f"d{number % 50}", exist_ok=True)
    os.link("first", f"d{number % 50}/{number}")
PY
        judge links "$tree"
        ;;
    sparse)
        # The contents are compared where they are data; a hole of a terabyte takes nobody's time.
        python3 - "$tree/terabyte.huge" <<'PY'
import os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.ftruncate(file, 1 << 40)
for at in (0, 5 << 30, (1 << 40) - 4096):
    os.pwrite(file, b"data at %d " % at * 100, at)
PY
        archive sparse "$tree" || failed=1
        mkdir "$work/mounted"
        dwarfs "$work/out" "$work/mounted" >"$work/said" 2>&1
        python3 - "$work/mounted/terabyte.huge" <<'PY' || { echo "sparse: FAILED"; failed=1; }
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
assert os.fstat(file).st_size == 1 << 40
for at in (0, 5 << 30, (1 << 40) - 4096):
    expected = (b"data at %d " % at * 100)[:(1 << 40) - at]
    assert os.pread(file, len(expected), at) == expected, at
assert os.pread(file, 4096, 1 << 39) == bytes(4096)
PY
        fusermount3 -u "$work/mounted"
        rmdir "$work/mounted"
        ;;
    doc) judge doc /usr/share/doc ;;
    small | million)
        python3 - "$tree" "$([ "$case" = small ] && echo 100000 || echo 1000000)" <<'PY'
import os, sys
os.chdir(sys.argv[1])
for number in range(int(sys.argv[2])):
    if number % 1000 == 0:
        directory = f"d{number // 100000}/e{number // 1000}"
        os.makedirs(directory)
    with open(f"{directory}/f{number}", "wb", 0) as file:
        file.write(b"%d " % number * (number % 40))
PY
        if [ "$case" = small ]; then judge small "$tree"; else archive million "$tree" || failed=1; fi
        ;;
    wav)
        python3 - "$tree" "${WAV_MB:-2000}" <<'PY'
import array, math, random, struct, sys
random.seed(1)
megabytes = int(sys.argv[2])
tones = array.array("h", (int(9000 * math.sin(at * .05) + 6000 * math.sin(at * .0313) + random.gauss(0, 40)) for at in range(1_000_000)))
count = 10
for number in range(count):
    length = megabytes * 1_000_000 // count // 4 * 4
    with open(f"{sys.argv[1]}/{number}.wav", "wb") as file:
        file.write(struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", length + 36, b"WAVE", b"fmt ", 16, 1, 2, 48000, 192000, 4, 16, b"data", length))
        left = length
        while left:
            shift = random.randrange(len(tones)) & ~1
            part = (tones[shift:] + tones[:shift]).tobytes()[:left]
            file.write(part)
            left -= len(part)
PY
        judge wav "$tree" --categorize
        ;;
    huge)
        mkfifo "$work/stream"
        python3 - "${HUGE_MB:-20000}" >"$work/stream" <<'PY' &
import random, sys, tarfile, io
random.seed(2)
size = int(sys.argv[1]) << 20
block = random.randbytes(1 << 19) + b"text that repeats itself " * 20972
out = sys.stdout.buffer
info = tarfile.TarInfo("huge")
info.size = size
out.write(info.tobuf(tarfile.GNU_FORMAT))
left = size
number = 0
while left:
    part = (b"%020d" % number + block)[:min(left, 1 << 20)]
    out.write(part)
    left -= len(part)
    number += 1
out.write(bytes(10240))
PY
        rm -f "$work/image"
        /usr/bin/time -f '%e %U %M' -o "$work/time" "$fim" create --from "$work/stream" --level "$level" --no-tools -o "$work/image" >"$work/said" 2>&1 ||
            { cat "$work/said"; failed=1; }
        wait
        read -r wall user peak < <(tail -1 "$work/time")
        printf '%-12s %12d bytes %8.1f s %8.1f s user %8d KiB peak\n' huge "$(stat -c %s "$work/image")" "$wall" "$user" "$peak"
        dwarfsck --check-integrity -q -O auto "$work/image" >/dev/null || failed=1
        rm -f "$work/image"
        ;;
    tree:*) judge "$(basename "$case")" "${case#tree:}" ;;
    *)
        echo "unknown case $case" >&2
        exit 2
        ;;
    esac
done
exit $failed
