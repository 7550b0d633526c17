#!/usr/bin/env bash
# What `make test` does: every test that needs no outside service, to the end whatever fails, and its figures last.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.tools/bin:$PATH

log=$(mktemp)
beside=$(mktemp)
failed=$(mktemp)
trap 'rm -f "$log" "$beside" "$failed"' EXIT
colour=never
[[ ! -t 2 ]] || colour=always

# Runs a command of tests, and keeps what it says to count them by.
run() {
    "$@" 2>&1 | tee -a "$log" || echo "$*" >>"$failed"
}

# What runs beside the long part. Its output follows that of the long part.
run_the_rest() {
    log=$beside
    run cargo test --workspace --locked --no-fail-fast --doc
    if command -v go >/dev/null; then
        run make --no-print-directory test-charts
    else
        echo "tests: the charts are NOT tested: there is no Go here (make test-charts)" >>"$log"
    fi
    cd wasm-extensions
    run cargo test --workspace --locked --no-fail-fast --quiet
}

from=$SECONDS
tests/setup.sh
set_up=$((SECONDS - from)) from=$SECONDS

cargo nextest run --workspace --locked --no-run
(cd wasm-extensions && cargo test --workspace --locked --no-run --quiet)
build=$((SECONDS - from)) from=$SECONDS

run_the_rest >/dev/null &
rest=$!
# Many tests wait for something most of the time.
run cargo nextest run --workspace --locked --no-fail-fast --failure-output immediate-final --color "$colour" --test-threads "$(($(nproc) * 2))"
wait "$rest" || echo "what runs beside the long part" >>"$failed"
tee -a "$log" <"$beside"
run=$((SECONDS - from))

# nextest sums up in one line; `cargo test` for each program, or crate with documentation.
counts=$(sed 's/\x1b\[[0-9;]*m//g' "$log" | awk '
    / Summary / { for (i = 2; i <= NF; i++) {
        if ($i ~ /^passed/) passed += $(i - 1)
        if ($i ~ /^(failed|timed)/) failed += $(i - 1)
        if ($i ~ /^skipped/) skipped += $(i - 1) } }
    /^test result: / { passed += $4; failed += $6; skipped += $8 }
    END { printf "%d passed, %d failed, %d skipped", passed, failed, skipped }')
printf '\ntests: %s; set-up %d s, build %d s, run %d s\n' "$counts" "$set_up" "$build" "$run"
[[ ! -s $failed ]] || { sed 's/^/failed: /' "$failed"; exit 1; }
