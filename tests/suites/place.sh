#!/bin/sh
# Mounts over a fresh upper and runs a command there, in namespaces of its own: whatever happens, nothing stays.
# $1: who mounts it: root; user (one id in a user namespace); mapped (root of a user namespace with 65,536 ids).
# $2: an empty directory that gets  bin/ (given: the suites and fim)  lower/  upper/  mount/  state/.  $3...: the command,
# which finds the place in $PLACE and the suites in $PATH.
set -eu
user=$1
PLACE=$2
shift 2
cd "$PLACE"
export PLACE PATH="$PLACE/bin:$PATH"
mkdir lower upper mount state lower/ranges lower/stress
head -c 262144 /dev/urandom >lower/fsx-grows
head -c 262144 /dev/urandom >lower/fsx-stays
head -c 8388608 /dev/urandom >lower/fio-lower
ranges.py make lower/ranges 40
stress.py make lower/stress/sources

if [ "$user" = root ]; then
    owner=0
elif [ "$user" = mapped ]; then
    owner=100000
else
    owner=12345
fi
chown -R "$owner:$owner" .
chmod 755 .
if [ "$user" != root ]; then
    # The device that everybody may open, as on most machines.
    mknod -m 666 fuse c 10 229
    mount --bind fuse /dev/fuse
fi
case $user in
    root) set -- fim mount -o suid,dev,allow_other --layer lower --upper upper mount -- "$@" ;;
    user) set -- setpriv --reuid "$owner" --regid "$owner" --clear-groups -- \
        fim mount -o suid,dev --layer lower --upper upper mount -- "$@" ;;
    mapped) set -- mapped.sh fim mount -o suid,dev,allow_other --layer lower --upper upper mount -- "$@" ;;
esac
# Not exec: this shell may be process 1, which has to wait for orphans as well.
"$@"
