#!/usr/bin/env bash
# Builds the image with a program that was built here, and without a container engine: Debian's buildah, as root.
# usage: image.sh PROGRAM TAG
set -euo pipefail
program=$(realpath "$1") tag=$2
cd "$(dirname "$0")/../.."
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
tests/kubernetes/image-root.sh "$program" "$context/out"
buildah build --quiet --isolation chroot --timestamp 0 --build-context "build=$context" \
    --build-arg "COMMIT=$(git rev-parse HEAD)" --tag "$tag" .
