#!/bin/sh
# Installs gcc and the headers of the C library if they are missing. The C servers
# and the load generator of bench/socket need them, and nothing else does.
set -eu

echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1 && exit 0
exec "$(dirname "$0")/install-packages.sh" gcc gcc libc6-dev
