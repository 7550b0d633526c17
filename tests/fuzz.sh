#!/usr/bin/env bash
# Runs each fuzzer for so many seconds; the first that finds something ends it, and says which file reproduces it.
#
#   tests/fuzz.sh SECONDS [TARGET…]
#
# The pinned toolchain will do: the code has no `unsafe`, so nothing is lost without a sanitizer. What is learnt goes to
# .bench/fuzz and is kept; only fuzz/corpus is in git.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?seconds}
shift
targets=("$@")
((${#targets[@]})) || targets=(policy_document when_evaluation decide_request extension_module extension_answer)

export PATH=$PWD/.tools/bin:$PATH
for target in "${targets[@]}"; do
    learnt=$PWD/.bench/fuzz/$target
    mkdir -p "$learnt"
    printf 'fuzz: %s for %s s\n' "$target" "$seconds" >&2
    cargo fuzz run --sanitizer none --target-dir "${CARGO_TARGET_DIR:-$PWD/target}/fuzz" "$target" \
        "$learnt" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -dict=fuzz/policy.dict -max_len=8192 -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1
done
