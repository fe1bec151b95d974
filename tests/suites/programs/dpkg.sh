#!/bin/sh
# Packages are made, installed, upgraded, removed and purged in a Debian root of a handful of files, by dpkg with
# --root; its own database says what is there. (apt inside a whole Debian is apt.sh.)
set -eu
cd "$PLACE/state"
root=$PLACE/mount/debian
mkdir -p "$root/var/lib/dpkg/updates" "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/triggers" "$root/var/log"
touch "$root/var/lib/dpkg/status" "$root/var/lib/dpkg/available"
# package VERSION FILES...
package() {
    rm -rf build
    mkdir -p build/DEBIAN build/usr/share/sample build/etc
    printf 'Package: sample\nVersion: %s\nArchitecture: all\nMaintainer: tests\nDescription: sample\n' "$1" >build/DEBIAN/control
    echo /etc/sample >build/DEBIAN/conffiles
    echo "configured" >build/etc/sample
    version=$1
    shift
    for number in $(seq "$@"); do echo "$version $number" >"build/usr/share/sample/$number"; done
    ln build/usr/share/sample/"$2" build/usr/share/sample/linked
    ln -s "$2" build/usr/share/sample/symlink
    dpkg-deb -b build "sample-$version.deb" >/dev/null
}
package 1 1 300
package 2 100 500
d() { dpkg --root="$root" --force-not-root --force-script-chrootless "$@" >log 2>&1 || { cat log; exit 1; }; }
d -i sample-1.deb
[ "$(find "$root/usr/share/sample" -type f | wc -l)" = 301 ]
d -i sample-2.deb
[ "$(find "$root/usr/share/sample" -type f | wc -l)" = 402 ] && [ ! -e "$root/usr/share/sample/1" ]
[ "$(cat "$root/usr/share/sample/500")" = "2 500" ] && [ "$(stat -c %h "$root/usr/share/sample/linked")" = 2 ]
d -V sample
d -i sample-1.deb
d -V sample
d -r sample
[ -e "$root/etc/sample" ] && [ ! -e "$root/usr/share/sample" ]
d -P sample
[ ! -e "$root/etc/sample" ] && ! grep -q sample "$root/var/lib/dpkg/status"
echo "dpkg: install, upgrade, downgrade, remove, purge"
