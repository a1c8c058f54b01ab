#!/bin/sh
# Installs gcc and the C library's headers where they are missing, for the C
# servers and the load generator of bench/socket. Nothing else needs a C compiler.
set -eu

echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1 && exit 0
exec "$(dirname "$0")/install-packages.sh" gcc gcc libc6-dev
