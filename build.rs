//! Puts the commit that the program is built from, and the locked versions of its engines, into its `--version`.

use std::{env, fs, process::Command};

fn main() {
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok();
    let commit = commit
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok());
    // The build of an image has no repository, and is told.
    let told = env::var_os("BEAMLINE_COMMIT").and_then(|told| told.into_string().ok());
    let commit = told
        .map(|told| told.chars().take(12).collect::<String>())
        .or(commit);
    println!(
        "cargo:rustc-env=BEAMLINE_COMMIT={}",
        commit.as_deref().map_or("unknown", str::trim)
    );
    let lock = fs::read_to_string("Cargo.lock").unwrap_or_default();
    for name in ["rustls", "wasmtime"] {
        let entry = lock
            .split("[[package]]")
            .find(|entry| entry.contains(&format!("name = \"{name}\"\n")));
        let version = entry.and_then(|entry| entry.split("version = \"").nth(1)?.split('"').next());
        println!(
            "cargo:rustc-env=BEAMLINE_{}_VERSION={}",
            name.to_uppercase(),
            version.unwrap_or("unknown")
        );
    }
    keep_the_release_binary_small();
    println!("cargo:rerun-if-env-changed=BEAMLINE_COMMIT");
    println!("cargo:rerun-if-changed=Cargo.lock");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
}

/// A good part of a sidecar's resident memory is its own file. Addresses to relocate take a bit each in place of 24 bytes
/// (glibc 2.36 and later read that), and functions of the same instructions are kept once. Only where Rust links with LLD.
fn keep_the_release_binary_small() {
    let is = |name: &str, value: &str| env::var_os(name).is_some_and(|found| found == value);
    let with_lld = is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64");
    if with_lld && is("OPT_LEVEL", "3") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs,--icf=all");
    }
}
