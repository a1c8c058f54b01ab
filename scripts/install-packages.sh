#!/bin/sh
# Installs Debian packages, with sudo if the user is not root.
#
#   install-packages.sh WHAT PACKAGE…    (errors say that WHAT is missing)
set -eu

what=$1
shift

command -v apt-get >/dev/null || {
	echo "error: $what is missing and there is no apt-get to install it with: install what your system has for Debian's $*" >&2
	exit 1
}
sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "error: $what is missing: run as root: apt-get install --no-install-recommends $*" >&2
		exit 1
	}
	sudo=sudo
fi

echo "installing $*" >&2
# A failed update matters only if the installation fails too: often one of many sources is broken.
$sudo apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 || echo "warning: apt-get update failed; trying with what is known" >&2
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
	install --no-install-recommends "$@" >&2
