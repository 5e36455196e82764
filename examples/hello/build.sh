#!/bin/sh
# Builds dist/hello-service_VERSION_all.deb. Version and time come from Kiln;
# the defaults are for working by hand.
set -eu

version=${KILN_VERSION:-0.0.development}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
export SOURCE_DATE_EPOCH
root=build/root

rm -rf build dist
install -d $root/DEBIAN $root/usr/lib/hello/hello $root/lib/systemd/system dist
install -m 644 hello/__init__.py hello/app.py $root/usr/lib/hello/hello/
echo "VERSION = \"$version\"" > $root/usr/lib/hello/hello/version.py
install -m 644 debian/hello.service $root/lib/systemd/system/
sed "s/@VERSION@/$version/" debian/control > $root/DEBIAN/control
install -m 755 debian/postinst debian/prerm debian/postrm $root/DEBIAN/

# The same commit gives the same bytes: no time, owner or umask of this machine shows.
find $root -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --build --root-owner-group -Zgzip $root "dist/hello-service_${version}_all.deb"
