#!/usr/bin/env bash
# What `make demo-k8s` does: a node, everything shown on it, and the node taken down again.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
((EUID == 0)) || { echo "demo-k8s: a node needs root" >&2; exit 1; }
[[ ! -e /run/netns/beamline-node ]] || { echo "demo-k8s: there is a node already: make k8s-down" >&2; exit 1; }
trap '"$here/node.sh" down' EXIT
echo "1. A node of Kubernetes on this machine"
"$here/node.sh" up
export PYTHONDONTWRITEBYTECODE=1
"$here/node.sh" run "${BEAMLINE_PYTHON:-python3}" "$here/on_node/demo.py"
