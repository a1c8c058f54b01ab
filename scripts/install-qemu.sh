#!/bin/sh
# Builds guesthouse. If packages of QEMU are missing, it installs them meanwhile, and builds the targets'
# images, which need no QEMU.
#
#   install-qemu.sh BUILD GUESTHOUSE [TARGET]    (all targets if none is named)
#
# BUILD is the command line that builds GUESTHOUSE, without quotes. The table of the targets names the
# package of each emulator. The script reads the table's source, because on a bare machine the build of
# GUESTHOUSE, which prints that table, takes as long as the installation. The exit status is that of the
# installation, or of the build if that fails. A failed installation ends the build. A failed build does not
# end the installation, because dpkg must not be interrupted.
set -eu

build=$1 guesthouse=$2
shift 2

# "x86 qemu-system-i386 qemu-system-x86" and so on; gofmt keeps the form of the source.
table=$(awk -F'"' '$1 ~ /^\t\tName: / { name = $2 } $1 ~ /^\t\tQEMU: / { qemu = $2 } $1 ~ /^\t\tQEMUPackage: / { print name, qemu, $2 }' \
	"$(dirname "$0")/../internal/target/target.go")
names=$(echo "$table" | awk '{ print $1 }')

packages=
for target in ${1:-$names}; do
	row=$(echo "$table" | awk -v t="$target" '$1 == t { print $2, $3 }')
	[ -n "$row" ] || {
		echo "error: unknown target '$target': the targets are" $names >&2
		exit 2
	}
	command -v "${row% *}" >/dev/null && continue
	case "$packages " in
	*" ${row#* } "*) ;; # a package can have several emulators
	*) packages="$packages ${row#* }" ;;
	esac
done
# shellcheck disable=SC2086 # each argument is a word
[ -n "$packages" ] || exec $build

# A signal ends the running command, too.
images() {
	# shellcheck disable=SC2086
	$build &
	trap 'kill $! 2>/dev/null; exit 143' TERM
	wait $!
	"$guesthouse" build -target "${1:-all}" >/dev/null &
	wait $!
}
images "$@" &
images=$!
# After a successful build there is nothing to kill, and the exit status must stay 0.
trap 'kill "$images" 2>/dev/null || true' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck disable=SC2086
"$(dirname "$0")/install-packages.sh" QEMU $packages

# Doctor probes KVM if the build has fetched the kernel by now, and caches the verdict. The installation does not fail
# with doctor: the next command reports the same problem with its own words.
"$guesthouse" doctor ${1:+-target "$1"} >/dev/null 2>&1 || true
wait "$images"
