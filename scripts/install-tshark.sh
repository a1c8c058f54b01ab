#!/bin/sh
# Installs tshark, with which the nightly run reads captures, unless it is there.
set -eu

command -v tshark >/dev/null || "$(dirname "$0")/install-packages.sh" tshark tshark
