//! Puts the commit that the program is built from, and the locked versions of its engines, into its `--version`.

use std::{fs, process::Command};

fn main() {
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok();
    let commit = commit
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok());
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
    println!("cargo:rerun-if-changed=Cargo.lock");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
}
