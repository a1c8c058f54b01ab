#!/bin/sh
# Installs the missing Debian packages of QEMU. Meanwhile it builds the targets' images, which
# need no QEMU.
#
#   install-qemu.sh GUESTHOUSE [TARGET]    (all targets if none is named)
#
# GUESTHOUSE is the built guesthouse command. Its list of targets names the package of
# each emulator. The exit status is that of the installation, or of the build if that fails.
# A failed installation ends the build. A failed build does not end the installation, because
# dpkg must not be interrupted.
set -eu

guesthouse=$1
shift

packages=
for target in ${1:-$("$guesthouse" targets | awk 'NR > 1 { print $1 }')}; do
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

"$guesthouse" build -target "${1:-all}" >/dev/null &
build=$!
# After a successful build there is nothing to kill, and the exit status must stay 0.
trap 'kill "$build" 2>/dev/null || true' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck disable=SC2086 # each package is a word
"$(dirname "$0")/install-packages.sh" QEMU $packages

# Doctor probes KVM if the build has fetched the kernel by now, and caches the verdict. Its failure is none of the
# installation's: the next command reports the same problem with its own words.
"$guesthouse" doctor ${1:+-target "$1"} >/dev/null 2>&1 || true
wait "$build"
