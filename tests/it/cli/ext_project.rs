//! What `ext new` writes needs nothing but the program, and trusts no name.

use std::{fs, path::Path};

use super::ext::{PATIENCE, ext, ext_in, write};

/// The entries of a lock file.
fn packages(lock: &str) -> Vec<&str> {
    lock.split("[[package]]\n").skip(1).collect()
}

#[test]
fn a_project_outside_the_repository_needs_nothing_but_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let made = ext_in(dir.path(), &["new", "validator", "my-guard"]);
    assert_eq!(made.code, 0, "{}{}", made.out, made.errors);
    let project = dir.path().join("my-guard");
    let file = |name: &str| fs::read_to_string(project.join(name)).unwrap_or_default();
    // The SDK is within the project, and everything else is locked to its digest.
    let manifest = file("Cargo.toml");
    assert!(
        manifest.contains(r#"beamline-extension-sdk = { path = "vendor/beamline-extension-sdk" }"#),
        "{manifest}"
    );
    let lock = file("Cargo.lock");
    let own: Vec<&str> = packages(&lock)
        .into_iter()
        .filter(|package| !package.contains("checksum = \""))
        .collect();
    assert_eq!(own.len(), 2, "{own:?}");
    for package in own {
        assert!(!package.contains("source = "), "{package}");
    }
    assert_eq!(
        file("vendor/wit/worlds.wit"),
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("wasm-extensions/wit/worlds.wit"))
            .unwrap()
    );
    let built = ext_in(dir.path(), &["build", "my-guard"]);
    assert_eq!(built.code, 0, "{}{}", built.out, built.errors);
    assert!(
        built.errors.contains("build only projects that you trust"),
        "{}",
        built.errors
    );
    // What was locked is what was built: cargo had nothing to add.
    assert_eq!(file("Cargo.lock"), lock);
    let tested = ext_in(dir.path(), &[&["test", "my-guard"], &PATIENCE[..]].concat());
    assert_eq!(tested.code, 0, "{}{}", tested.out, tested.errors);
}

/// The name is not registered there: a stranger who registers it would run code on authors' machines.
#[test]
fn a_project_that_takes_the_sdk_from_a_registry_is_not_built() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("my-guard");
    let shown = project.display().to_string();
    assert_eq!(ext(&["new", "validator", "my-guard", "--dir", &shown]).code, 0);
    let vendored = fs::read_to_string(project.join("Cargo.toml")).unwrap();
    for from in [
        "beamline-extension-sdk = \"0.1\"",
        "sdk = { package = \"beamline-extension-sdk\", version = \"0.1\" }",
    ] {
        let path = r#"beamline-extension-sdk = { path = "vendor/beamline-extension-sdk" }"#;
        let manifest = vendored.replace(path, from);
        assert_ne!(manifest, vendored);
        write(&project, "Cargo.toml", &manifest);
        fs::remove_file(project.join("Cargo.lock")).ok();
        let refused = ext(&["build", &shown]);
        assert!(
            refused.code == 64 && refused.errors.contains("ext vendor"),
            "{}",
            refused.errors
        );
    }
    // The remedy that it names.
    fs::remove_dir_all(project.join("vendor")).unwrap();
    assert_eq!(ext(&["vendor", &shown]).code, 0);
    write(&project, "Cargo.toml", &vendored);
    let built = ext(&["build", &shown]);
    assert_eq!(built.code, 0, "{}", built.errors);
}

#[test]
fn vendor_replaces_the_sdk_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(ext_in(dir.path(), &["new", "scorer", "mine"]).code, 0);
    let project = dir.path().join("mine");
    let sdk = project.join("vendor/beamline-extension-sdk");
    write(&sdk, "src/gone.rs", "of an older version");
    write(&sdk, "src/json.rs", "of an older version");
    write(&project, "src/lib.rs", "mine");
    assert_eq!(ext_in(dir.path(), &["vendor", "mine"]).code, 0);
    assert!(!sdk.join("src/gone.rs").exists());
    assert!(
        fs::read_to_string(sdk.join("src/json.rs"))
            .unwrap()
            .contains("struct Json")
    );
    assert_eq!(fs::read_to_string(project.join("src/lib.rs")).unwrap(), "mine");
    assert_eq!(ext_in(dir.path(), &["vendor", "."]).code, 64);
    for language in ["js", "python"] {
        assert_eq!(
            ext_in(
                dir.path(),
                &["new", "validator", language, "--language", language]
            )
            .code,
            0
        );
        // The layer over the interface is the SDK of these.
        let layer = if language == "js" {
            "src/beamline.js"
        } else {
            "src/beamline.py"
        };
        let files = ["wit/types.wit", layer].map(|name| dir.path().join(language).join(name));
        let written = files.each_ref().map(|file| fs::read_to_string(file).unwrap());
        for file in &files {
            fs::write(file, "old").unwrap();
        }
        assert_eq!(ext_in(dir.path(), &["vendor", language]).code, 0);
        assert_eq!(
            files.each_ref().map(|file| fs::read_to_string(file).unwrap()),
            written
        );
    }
}
