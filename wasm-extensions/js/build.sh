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
    cmp js/{template,pii-guard}/tests/$file || die "$file is to be the same in both"
done

# Arguments: a project, and where it is the template: a kind, and its world. Tests and builds a copy of it.
build() {
    local name=$1${2:+-$2}
    local copy=$tools/$name
    rm -rf "$copy"
    mkdir -p "$copy"
    cp -R js/"$1"/{package.json,src,tests} wit "$copy/"
    # As `ext new` does.
    if [[ -n ${2-} ]]; then
        cp "js/$1/kinds/$2.js" "$copy/src/extension.js"
        cp "js/$1/kinds/$2.yaml" "$copy/tests/cases.yaml"
        grep -rlE '\{\{(name|world)\}\}' "$copy" | xargs -r sed -i "s/{{name}}/of-$name/g; s/{{world}}/$3/g"
    fi
    say "testing $name"
    (cd "$copy" && npm --loglevel error --silent test) >"$copy/test.log" || { cat "$copy/test.log" >&2; die "the tests of $name fail"; }
    (cd "$copy" && npm --loglevel error --silent run build >/dev/null) || die "$name cannot be built"
}

rm -rf target/tests
cp -R tests target/tests
mkdir -p "$out"
build pii-guard
build template pre pre-processor
build template validator validator
build template scorer scorer
build template post post-processor
python3 imports.py "$tools"/{pii-guard,template-*}/target/components/*.wasm
cp "$tools/pii-guard/target/components/pii-guard.wasm" "$out/pii-guard-js.wasm"
