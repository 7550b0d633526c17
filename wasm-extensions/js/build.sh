#!/usr/bin/env bash
# Tests the extensions in JavaScript natively and builds them as components:
# wasm-extensions/target/components/*-js.wasm.
#
# Works on copies under target/js, beside the tools that `tests/setup.sh scripting` puts there: jco
# wants the WIT beneath its working directory, and nothing is written among the sources.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'js: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

tools=$PWD/target/js
out=$PWD/target/components

[[ -x $tools/node_modules/.bin/jco ]] || die "the tools are missing: tests/setup.sh scripting"
cmp -s js/pii-guard/package-lock.json "$tools/installed.json" || die "the tools are old: tests/setup.sh scripting"
for file in cases.js host.js; do
    cmp js/{template,pii-guard}/test/$file || die "$file is to be the same in both"
done

# Arguments: directory of a project, name of its copy. Tests it and makes NAME.wasm in the copy.
build() {
    local copy=$tools/$2
    rm -rf "$copy"
    mkdir -p "$copy"
    (cd "$1" && cp -R package.json src test "$copy/")
    [[ ! -e $1/cases.yaml ]] || cp "$1/cases.yaml" "$copy/"
    cp -R wit "$copy/wit"
    # As `ext new` does.
    { grep -rlF '{{name}}' "$copy" || true; } | xargs -r sed -i "s/{{name}}/$2/g"
    say "testing $2"
    (cd "$copy" && npm --loglevel error test --silent) >"$copy/test.log" || { cat "$copy/test.log" >&2; die "the tests of $2 fail"; }
    (cd "$copy" && npm --loglevel error run build --silent >/dev/null) || die "$2 cannot be built"
}

rm -rf target/tests
cp -R tests target/tests
mkdir -p "$out"
build js/pii-guard pii-guard-js
build js/template template-js
cp "$tools/pii-guard-js/pii-guard-js.wasm" "$out/"
python3 imports.py "$out/pii-guard-js.wasm" "$tools/template-js/template-js.wasm"
