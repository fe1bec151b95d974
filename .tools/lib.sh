# Shared by the scripts of this folder: saying what happens, and installing what is missing.
# shellcheck shell=sh

say() { printf '\033[1m== %s\033[0m\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else die "installing packages needs root: run this as root, or install sudo"
    fi
}

# install_missing PACKAGE:FILE ... installs each package whose file (a command or an absolute path) is missing.
install_missing() {
    missing=
    for pair in "$@"; do
        file=${pair#*:}
        case $file in
            /*) [ -e "$file" ] || missing="$missing ${pair%%:*}" ;;
            *) command -v "$file" >/dev/null 2>&1 || missing="$missing ${pair%%:*}" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null 2>&1 || die "please install:$missing"
    say "installing$missing"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || {
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    }
}

need_toolchain() {
    command -v cargo >/dev/null 2>&1 || die "cargo not found: install Rust from https://rustup.rs"
    command -v cc >/dev/null 2>&1 || die "cc not found: apt-get install gcc"
}

# timed WORDS... runs a command, prints how long it took, and returns its status.
timed() {
    started=$(date +%s.%N)
    status=0
    "$@" || status=$?
    printf '   (%s s)\n' "$(date +%s.%N | awk -v a="$started" '{ printf "%.1f", $1 - a }')"
    return "$status"
}
