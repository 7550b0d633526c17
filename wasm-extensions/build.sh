#!/usr/bin/env bash
# Builds the extensions in Rust as components: wasm-extensions/target/components/*.wasm.
#
#   wasm-extensions/build.sh            all of them
#   wasm-extensions/build.sh CRATE…     only these
#
# The compiler is rustup's where it has the target, else Debian's with the library built from source,
# else rustup's with the target fetched. BEAMLINE_GUEST_COMPILER=rustup or =debian asks for one of
# them. What is between goes where CARGO_TARGET_DIR says; the components never do.
set -euo pipefail
cd "$(dirname "$0")"

target=wasm32-unknown-unknown
out=$PWD/target/components
# Its own, so that neither a build of the sidecar nor another compiler disturbs it.
build_dir=${CARGO_TARGET_DIR:-$PWD/target}

say() { printf 'build: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

has_rustup() {
    command -v rustup >/dev/null && [[ -d $(rustc --print sysroot)/lib/rustlib/$target ]]
}

fetched_for_rustup() {
    command -v rustup >/dev/null && timeout 120 rustup --quiet target add $target >&2
}

has_debian() {
    [[ -x /usr/bin/rustc && -x /usr/bin/cargo ]] && command -v wasm-ld-19 >/dev/null &&
        [[ -d $(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library ]]
}

case ${BEAMLINE_GUEST_COMPILER-} in
    rustup) has_rustup || fetched_for_rustup || die "rustup is missing or cannot fetch $target" ; compiler=rustup ;;
    debian) has_debian || die "Debian's compiler is missing: tests/setup.sh guests" ; compiler=debian ;;
    '') if has_rustup; then compiler=rustup
        elif has_debian; then compiler=debian
        elif fetched_for_rustup; then compiler=rustup
        else die "no compiler for $target: run 'rustup target add $target' where rustup reaches its server,
       or on Debian 'apt-get install rustc-web cargo-web rust-web-src lld-19'"
        fi ;;
    *) die "BEAMLINE_GUEST_COMPILER is rustup or debian" ;;
esac

# Every crate that makes a component, by its name.
guests=(
    latency-scorer mask-pii-post mask-pii-pre normalize-text pii-guard
    asks-for-everything asks-for-wasi
    misbehaving-post-processor misbehaving-pre-processor misbehaving-scorer misbehaving-validator
)
(($# == 0)) || guests=("$@")

# A stack of 256 KiB instead of 1 MiB, since a fresh instance pays for its memory; and no path of
# this machine in what is built. Encoded, so that a path may hold blanks.
flags=(
    -Clink-arg=-zstack-size=131072
    "--remap-path-prefix=$PWD=/extensions"
    "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
)
guest_flags=$(IFS=$'\x1f'; printf '%s' "${flags[*]}")
arguments=(build --quiet --release --locked --target $target "${guests[@]/#/--package=}")

if [[ $compiler == rustup ]]; then
    cargo_dir=$build_dir
    CARGO_ENCODED_RUSTFLAGS=$guest_flags CARGO_TARGET_DIR=$cargo_dir cargo "${arguments[@]}"
else
    # Debian packages no library for the target, so it is built too; the switch for that is closed
    # on stable compilers unless asked for.
    cargo_dir=$build_dir/debian
    PATH=/usr/bin:$PATH RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
        CARGO_ENCODED_RUSTFLAGS=$guest_flags CARGO_TARGET_DIR=$cargo_dir \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19 \
        /usr/bin/cargo "${arguments[@]}" -Zbuild-std=std,panic_abort
fi

# Written by hand, and part of the tests alone.
modules=()
(($#)) || modules=(misbehaving/wat/*.wat)
for guest in "${guests[@]}"; do
    modules+=("$cargo_dir/$target/release/${guest//-/_}.wasm")
done
say "with the compiler of $compiler, into $out"
CARGO_TARGET_DIR=$build_dir cargo run --quiet --locked --package componentize -- "$out" "${modules[@]}"
