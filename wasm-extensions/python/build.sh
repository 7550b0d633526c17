#!/usr/bin/env bash
# Tests the extensions in Python natively and builds them as components:
# wasm-extensions/target/components/*-python.wasm.
#
# Works on copies under target/python, beside the tools that `tests/setup.sh scripting` puts there, so
# that nothing is written among the sources.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'python: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

tools=$PWD/target/python
out=$PWD/target/components

[[ -x $tools/bin/componentize-py ]] || die "the tools are missing: tests/setup.sh scripting"
cmp -s python/pii-guard/requirements.txt "$tools/requirements.txt" || die "the tools are old: tests/setup.sh scripting"
for file in requirements.txt tests/cases.py; do
    cmp python/{template,pii-guard}/$file || die "$file is to be the same in both"
done
export PATH=$tools/bin:$PATH PYTHONDONTWRITEBYTECODE=1

# Arguments: a project, and where it is the template: a kind, and its world. Builds and tests a copy of it.
build() {
    local name=$1${2:+-$2}
    local copy=$tools/$name
    rm -rf "$copy"
    mkdir -p "$copy"
    cp -R python/"$1"/{build.sh,src,tests} wit "$copy/"
    rm -rf "$copy"/*/__pycache__
    # As `ext new` does.
    if [[ -n ${2-} ]]; then
        cp "python/$1/kinds/$2.py" "$copy/src/extension.py"
        cp "python/$1/kinds/$2.yaml" "$copy/tests/cases.yaml"
        grep -rlE '\{\{(name|world)\}\}' "$copy" | xargs -r sed -i "s/{{name}}/of-$name/g; s/{{world}}/$3/g"
    fi
    bash "$copy/build.sh" || die "$name cannot be built"
    say "testing $name"
    (cd "$copy" && PYTHONPATH=src:target/bindings python -m unittest discover tests) >"$copy/test.log" 2>&1 ||
        { cat "$copy/test.log" >&2; die "the tests of $name fail"; }
}

rm -rf target/tests
cp -R tests target/tests
mkdir -p "$out"
build pii-guard
build template pre pre-processor
build template validator validator
build template scorer scorer
build template post post-processor
python imports.py "$tools"/{pii-guard,template-*}/target/components/*.wasm
cp "$tools/pii-guard/target/components/pii-guard.wasm" "$out/pii-guard-python.wasm"
