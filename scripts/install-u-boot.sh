#!/bin/sh
# Installs the Debian package of U-Boot's images for QEMU, unless it is there. A system without apt-get needs none:
# the tests that boot U-Boot are skipped there.
set -eu

[ -d /usr/lib/u-boot/qemu_arm64 ] && exit 0
command -v apt-get >/dev/null || {
	echo "note: this system has no apt-get, so tests on boards are skipped" >&2
	exit 0
}
"$(dirname "$0")/install-packages.sh" U-Boot u-boot-qemu
