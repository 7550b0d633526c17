#!/usr/bin/env bash
# Lays out what the image holds: a program, its supervisor beside it, the libraries that it is linked with, and the authorities of the public web.
# usage: image-root.sh PROGRAM DIRECTORY
set -euo pipefail
program=$1 root=$2
mkdir -p "$root"
install -m 0755 "$program" "$root/beamline-sidecar"
# What `run --supervised` becomes; it is linked with nothing else.
install -m 0755 "$program-supervisor" "$root/beamline-sidecar-supervisor"
# The linker's own line has no arrow; the kernel's page has no file.
ldd "$program" | sed -n 's#^[^/]*\(/[^ ]*\) (0x.*#\1#p' | while read -r library; do
    install -D -m 0755 "$(realpath "$library")" "$root$library"
done
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
# The same input gives the same layer.
find "$root" -exec touch --no-dereference --date=@0 {} +
