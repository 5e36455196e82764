#!/bin/sh
# Builds dist/config-agent_VERSION_ARCHITECTURE.deb at the root of the workspace, whose Cargo.toml and Cargo.lock the
# crate needs. Version and time come from Kiln; the defaults are for working by hand.
set -eu

cd "$(dirname "$0")/../.."
debian=crates/config-agent/debian
version=${KILN_VERSION:-0.0.development}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
export SOURCE_DATE_EPOCH

# Kiln gives a build a PATH without, and a HOME of its own. The toolchain is the user's, what it downloads is not.
if ! command -v cargo >/dev/null; then
    user=$(getent passwd "$(id -u)" | cut -d: -f6)
    PATH=$user/.cargo/bin:$PATH
    RUSTUP_HOME=$user/.rustup
    export PATH RUSTUP_HOME
fi

target=$(uname -m)-unknown-linux-gnu
RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --profile instance --package config-agent --target "$target" --target-dir build/target

root=build/root
rm -rf $root dist
install -d $root/DEBIAN $root/usr/bin $root/lib/systemd/system dist \
    $root/etc/config-agent/conf.d $root/etc/config-agent/templates $root/usr/share/doc/config-agent
install "build/target/$target/instance/config-agent" $root/usr/bin/
install -m 644 $debian/config-agent.service $debian/config-agent-select.service $root/lib/systemd/system/
install -m 644 docs/config-agent.md $root/usr/share/doc/config-agent/
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$(dpkg --print-architecture)/" $debian/control > $root/DEBIAN/control
install -m 755 $debian/postinst $debian/prerm $debian/postrm $root/DEBIAN/

# The same commit gives the same bytes: no time, owner or umask of this machine shows.
find $root -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --build --root-owner-group -Zgzip $root "dist/config-agent_${version}_$(dpkg --print-architecture).deb"
