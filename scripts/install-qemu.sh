#!/bin/sh
# Installs the Debian packages of QEMU that are missing, and nothing if none is.
#
#   install-qemu.sh GUESTHOUSE [TARGET…]    (no target: all)
#
# GUESTHOUSE is the built command; its list of targets is the one place that
# knows which package has which emulator.
set -eu

guesthouse=$1
shift

packages=
for target in ${*:-$("$guesthouse" targets | awk 'NR > 1 { print $1 }')}; do
	row=$("$guesthouse" targets | awk -v t="$target" '$1 == t { print $4, $5 }')
	[ -n "$row" ] || {
		echo "error: unknown target '$target': the targets are $("$guesthouse" targets | awk 'NR > 1 { printf "%s ", $1 }')" >&2
		exit 2
	}
	command -v "${row% *}" >/dev/null || packages="$packages ${row#* }"
done
[ -n "$packages" ] || exit 0

command -v apt-get >/dev/null || {
	echo "error: QEMU is missing and there is no apt-get to install it with: install what your system has for Debian's$packages" >&2
	exit 1
}
sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "error: QEMU is missing: run as root: apt-get install --no-install-recommends$packages" >&2
		exit 1
	}
	sudo=sudo
fi

echo "installing$packages" >&2
# A failing update matters only if the installation fails too: one broken source among many is common.
$sudo apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 || echo "warning: apt-get update failed; trying with what is known" >&2
# shellcheck disable=SC2086 # the packages are words
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 install --no-install-recommends $packages >&2
