#!/usr/bin/env bash
# Line coverage of the tests, with whichever LLVM tools fit the compiler (see tests/setup.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ! -x $(rustc --print target-libdir)/../bin/llvm-cov ]]; then
    llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    export LLVM_COV=llvm-cov-$llvm LLVM_PROFDATA=llvm-profdata-$llvm
fi
PATH=$PWD/.tools/bin:$PATH cargo llvm-cov nextest --workspace --locked "$@"
