#!/usr/bin/env bash
# Runs the cases of on_node/ on a node that is taken down again; on the one of `make k8s-up`, if that is there.
# Arguments are parts of the cases' names. BEAMLINE_PROGRAM names the program that the image is made of.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
command -v go >/dev/null || { echo "kubernetes: NOTHING was run on a node: there is no Go here" >&2; exit 1; }
((EUID == 0)) || { echo "kubernetes: NOTHING was run on a node: that needs root" >&2; exit 1; }
if [[ ! -e /run/netns/beamline-node ]]; then
    trap '"$here/node.sh" down' EXIT
    "$here/node.sh" up
fi
export PYTHONDONTWRITEBYTECODE=1
"$here/node.sh" run "${BEAMLINE_PYTHON:-python3}" "$here/on_node/main.py" "$@"
