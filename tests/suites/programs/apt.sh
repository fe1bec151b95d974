#!/bin/sh
# apt-get in a whole Debian root: a layer, and a writable mount over it in which packages are installed, replaced and
# purged. dpkg's own database and the sums of the packages say whether all is well. Needs the mirrors of Debian.
set -eu
cd "$PLACE/state"
mmdebstrap --quiet --variant=apt bookworm debian
mkdir upper root
cp -L /etc/resolv.conf debian/etc/
cat >inside <<'INSIDE'
set -eu
mount --bind /dev root/dev
mount -t proc proc root/proc
# Nothing of the host's locale or services.
export LC_ALL=C DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
d() { chroot root "$@" >log 2>&1 || { cat log; exit 1; }; }
d apt-get -q update
d apt-get -q -y --no-install-recommends install file perl
chroot root file /bin/sh | grep -q 'symbolic link'
[ "$(chroot root perl -e 'print 6*7')" = 42 ]
d apt-get -q -y --reinstall install coreutils dpkg libc-bin
d apt-get -q -y purge file
d apt-get -q -y autoremove
[ ! -e root/usr/bin/file ]
d apt-get -q check
[ -z "$(chroot root dpkg --audit)" ]
# Of what is installed every file is as its package has it, but for the list of users that this machine may have changed.
changed=$(chroot root dpkg --verify | grep -v ' c ' || true)
[ -z "$changed" ] || { echo "$changed"; exit 1; }
umount root/proc root/dev
INSIDE
before=$(cd debian && find . -xdev -type f -exec md5sum {} + | sort | md5sum)
fim mount -o suid,dev,allow_other --layer debian --upper upper root -- sh inside
[ "$before" = "$(cd debian && find . -xdev -type f -exec md5sum {} + | sort | md5sum)" ] || { echo "the layer has changed"; exit 1; }
echo "apt: update, install, reinstall, purge in a whole Debian"
