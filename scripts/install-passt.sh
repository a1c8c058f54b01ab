#!/bin/sh
# Installs passt, which the benchmark of package lan measures, unless it is there. A system without apt-get needs none:
# the benchmark measures the other networks there.
set -eu

command -v passt >/dev/null && exit 0
command -v apt-get >/dev/null || {
	echo "note: this system has no apt-get, so passt is not measured" >&2
	exit 0
}
"$(dirname "$0")/install-packages.sh" passt passt
