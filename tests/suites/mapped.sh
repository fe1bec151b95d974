#!/bin/sh
# Runs a command as root of a user namespace with 65,536 ids, as newuidmap(1) would make one for a user: root of it is
# id 100000 outside. $1...: the command.
set -eu
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkfifo "$state/go"
# --keep-caps: until the ids are mapped there is no root to be.
unshare --user --mount --keep-caps sh -c '
    read -r _ <"$0"
    exec setpriv --reuid 0 --regid 0 --clear-groups -- "$@"' "$state/go" "$@" </dev/null &
child=$!
# It has its namespace when that is not ours any more.
until [ "$(readlink "/proc/$child/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.02; done
echo 0 100000 65536 >"/proc/$child/uid_map"
echo 0 100000 65536 >"/proc/$child/gid_map"
echo >"$state/go"
wait "$child"
