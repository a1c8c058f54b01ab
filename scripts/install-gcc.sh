#!/bin/sh
# Installs gcc and the C library's headers where they are missing, for the C servers and the load
# generator of bench/socket. Nothing else of the project needs a C compiler.
set -eu

echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1 && exit 0

packages="gcc libc6-dev"
command -v apt-get >/dev/null || {
	echo "error: gcc is missing and there is no apt-get to install it with: install what your system has for Debian's $packages" >&2
	exit 1
}
sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "error: gcc is missing: run as root: apt-get install --no-install-recommends $packages" >&2
		exit 1
	}
	sudo=sudo
fi

echo "installing $packages" >&2
# A failing update matters only if the installation fails too: one broken source among many is common.
$sudo apt-get -q -o DPkg::Lock::Timeout=300 update >&2 || echo "warning: apt-get update failed; trying with what is known" >&2
# shellcheck disable=SC2086 # the packages are words
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $packages >&2
