#!/bin/sh
# Installs Debian packages, with sudo if the user is not root.
#
#   install-packages.sh WHAT PACKAGE…    (WHAT is the name of the missing software in error messages)
set -eu

what=$1
shift

command -v apt-get >/dev/null || {
	echo "error: $what is missing and this system has no apt-get: install your system's equivalent of the Debian packages $*" >&2
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
# A line for each package would hide the lines of what runs meanwhile.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
failed() {
	cat "$log" >&2
	echo "error: $what is missing, and apt-get could not install $*" >&2
	exit 1
}
# A failed update does not end the script: often one of many sources is broken, and the installation succeeds.
$sudo apt-get -qq -o DPkg::Lock::Timeout=300 update >>"$log" 2>&1 || echo "warning: apt-get update failed; continuing with the packages that apt knows" >>"$log"
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
	install --no-install-recommends "$@" >>"$log" 2>&1 || failed "$@"
