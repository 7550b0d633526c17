#!/usr/bin/env bash
# Builds target/components/{{name}}.wasm, which imports no WASI, and target/bindings, which the native tests
# need. Takes componentize-py from .venv where that is.
set -euo pipefail
cd "$(dirname "$0")"
PATH=$PWD/.venv/bin:$PATH
command -v componentize-py >/dev/null || { echo "componentize-py is missing: pip install --require-hashes -r requirements.txt" >&2; exit 1; }

# Another world is named here.
world=plain-{{world}}

rm -rf target/bindings
mkdir -p target/components
componentize-py --quiet -d wit -w $world bindings target/bindings
componentize-py --quiet -d wit -w $world componentize extension -p src --stub-wasi -o target/components/{{name}}.wasm
