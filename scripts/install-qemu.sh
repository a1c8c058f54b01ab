#!/bin/sh
# Installs the missing Debian packages of QEMU.
#
#   install-qemu.sh GUESTHOUSE [TARGET…]    (all targets if none is named)
#
# GUESTHOUSE is the built guesthouse command. Its list of targets names the package of
# each emulator.
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
	command -v "${row% *}" >/dev/null && continue
	case "$packages " in
	*" ${row#* } "*) ;; # a package can have several emulators
	*) packages="$packages ${row#* }" ;;
	esac
done
[ -n "$packages" ] || exit 0

# shellcheck disable=SC2086 # each package is a word
exec "$(dirname "$0")/install-packages.sh" QEMU $packages
