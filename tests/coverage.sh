#!/usr/bin/env bash
# Line coverage of the tests, with whichever LLVM tools fit the compiler (see tests/setup.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ! -x $(rustc --print target-libdir)/../bin/llvm-cov ]]; then
    llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    export LLVM_COV=llvm-cov-$llvm LLVM_PROFDATA=llvm-profdata-$llvm
fi
export PATH=$PWD/.tools/bin:$PATH
cargo llvm-cov nextest --workspace --locked --ignore-run-fail --no-report "$@"
# Also for the page that `make bench BENCH_ARGS=--write` writes.
mkdir -p .bench
cargo llvm-cov report --json --summary-only --output-path .bench/coverage.json
git rev-parse --short=12 HEAD >.bench/coverage.commit
cargo llvm-cov report
