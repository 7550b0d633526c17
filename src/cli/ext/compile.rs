//! Compilers of extensions: which there is, and how it is called. The counterpart for the extensions of this repository
//! is wasm-extensions/build.sh.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use serde_json::Value;

use super::{
    sdk::{SDK, SDK_PACKAGE},
    target::{COMPONENTS, Language, Project},
};

const TARGET: &str = "wasm32-unknown-unknown";

/// What a compiler made.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) file: PathBuf,
    /// For people.
    pub(super) compiler: &'static str,
}

/// A Rust compiler for the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rust {
    /// The one on the path, most likely rustup's, with the target's library.
    OnPath,
    /// Debian's: the library is built along, from its source.
    Debian,
}

/// Compiles the crate in a directory to a core module.
///
/// # Errors
/// What is missing and how to get it, or that compiling failed; the compiler has said why.
pub(super) fn rust(dir: &Path, debug: bool) -> Result<Compiled, String> {
    let compiler = find_rust(dir)?;
    refuse_sdk_of_registry(dir)?;
    let mut cargo = match compiler {
        Rust::OnPath => Command::new("cargo"),
        Rust::Debian => Command::new("/usr/bin/cargo"),
    };
    cargo
        .current_dir(dir)
        .args(["build", "--release", "--target", TARGET])
        .arg("--message-format=json-render-diagnostics")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(dir))
        // It is one process among others here, and the tool chain it was started by is not the guest's.
        .env_remove("RUSTFLAGS")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if debug {
        cargo
            .env("CARGO_PROFILE_RELEASE_STRIP", "none")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only");
    }
    if compiler == Rust::Debian {
        let path = crate::config::environment().remove("PATH").unwrap_or_default();
        cargo
            .env("PATH", format!("/usr/bin:{path}"))
            .env("RUSTC", "/usr/bin/rustc")
            // The switch that builds the library is closed on stable compilers unless asked for.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld-19")
            .arg("-Zbuild-std=std,panic_abort");
    }
    let output = cargo
        .output()
        .map_err(|error| format!("cargo cannot be started: {error}"))?;
    if !output.status.success() {
        return Err("the extension does not compile.".to_owned());
    }
    let file = module_of(&String::from_utf8_lossy(&output.stdout), &dir.join("Cargo.toml"))?;
    let compiler = match compiler {
        Rust::OnPath => "cargo, for wasm32-unknown-unknown",
        Rust::Debian => "Debian's cargo, for wasm32-unknown-unknown, with the library built from source",
    };
    Ok(Compiled { file, compiler })
}

/// Refuses a crate that takes the SDK from a registry: its name is not registered there, so a stranger who registers it would
/// run code on this machine.
fn refuse_sdk_of_registry(dir: &Path) -> Result<(), String> {
    let output = Command::new("cargo")
        .current_dir(dir)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cargo cannot be started: {error}"))?;
    // What cannot be read is not built: it may name the SDK.
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("what cargo says of the project cannot be read: {error}"))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut dependencies =
        packages.flat_map(|package| package["dependencies"].as_array().into_iter().flatten());
    let is_refused = |dependency: &Value| {
        dependency["name"] == SDK_PACKAGE
            && dependency["source"]
                .as_str()
                .is_some_and(|source| !source.starts_with("git+"))
    };
    if dependencies.any(is_refused) {
        return Err(format!(
            "{}: {SDK_PACKAGE} is to come from a registry, where the authors of the sidecar have not published it. It is not \
             fetched. This writes the SDK into the project:\n  beamline-sidecar ext vendor {}\nand this names it in \
             Cargo.toml:\n  {SDK_PACKAGE} = {{ path = \"{SDK}\" }}",
            dir.join("Cargo.toml").display(),
            dir.display()
        ));
    }
    Ok(())
}

/// What building a project runs on this machine, for people.
pub(super) fn runs_what(project: &Project) -> String {
    match project.language {
        Language::Rust => {
            "cargo, and with it the build scripts and macros of the project and its crates".to_owned()
        }
        Language::Js | Language::Python if project.dir.join("build.sh").exists() => {
            "its script build.sh".to_owned()
        }
        Language::Js => {
            let script = fs::read_to_string(project.dir.join("package.json"))
                .ok()
                .and_then(|text| serde_json::from_str::<Value>(&text).ok())
                .and_then(|package| package["scripts"]["build"].as_str().map(ToOwned::to_owned));
            // The script is the project's: it must not speak to the terminal.
            let script = script.unwrap_or_default().replace(char::is_control, " ");
            format!("its script `{script}`")
        }
        Language::Python => "its script build.sh".to_owned(),
    }
}

/// A stack of 256 KiB instead of 1 MiB, since a fresh instance pays for its memory; and no path of this machine in what
/// is built. Encoded, so that a path may hold blanks.
fn flags(dir: &Path) -> String {
    let mut flags = vec!["-Clink-arg=-zstack-size=131072".to_owned()];
    if let Ok(dir) = fs::canonicalize(dir) {
        flags.push(format!("--remap-path-prefix={}=/extension", dir.display()));
    }
    let mut environment = crate::config::environment();
    let cargo_home = environment
        .remove("CARGO_HOME")
        .or_else(|| environment.remove("HOME").map(|home| format!("{home}/.cargo")));
    if let Some(home) = cargo_home {
        flags.push(format!("--remap-path-prefix={home}=/cargo"));
    }
    flags.join("\x1f")
}

fn find_rust(dir: &Path) -> Result<Rust, String> {
    if sysroot("rustc", dir).is_some_and(|sysroot| sysroot.join("lib/rustlib").join(TARGET).is_dir())
        && runs("cargo")
    {
        return Ok(Rust::OnPath);
    }
    let has_source = || {
        sysroot("/usr/bin/rustc", dir)
            .is_some_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library").is_dir())
    };
    if runs("/usr/bin/cargo") && runs("wasm-ld-19") && has_source() {
        return Ok(Rust::Debian);
    }
    let remedy = if runs("rustup") {
        "rustup target add wasm32-unknown-unknown"
    } else if Path::new("/etc/debian_version").exists() {
        "apt-get install rustc-web cargo-web rust-web-src lld-19"
    } else {
        "curl https://sh.rustup.rs -sSf | sh -s -- --target wasm32-unknown-unknown"
    };
    Err(format!(
        "there is no compiler for {TARGET} here. This gets one:\n  {remedy}"
    ))
}

fn runs(program: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn sysroot(rustc: &str, dir: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc)
        .current_dir(dir)
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

/// The module among what cargo says that it made.
fn module_of(messages: &str, manifest: &Path) -> Result<PathBuf, String> {
    let manifest = fs::canonicalize(manifest).unwrap_or_else(|_| manifest.to_owned());
    let artifacts = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let own = artifacts.filter(|message| {
        message["reason"] == "compiler-artifact"
            && message["manifest_path"]
                .as_str()
                .is_some_and(|path| Path::new(path) == manifest)
    });
    let modules = own.flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default());
    let mut modules = modules
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .filter(|file| is_wasm(file));
    modules.next().ok_or_else(|| {
        "the crate makes no module: write [lib] crate-type = [\"cdylib\", \"rlib\"] into its Cargo.toml"
            .to_owned()
    })
}

fn is_wasm(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "wasm")
}

/// Has a project build itself, and finds the component that it wrote.
///
/// # Errors
/// What is missing, or that the script failed; it has said why.
pub(super) fn by_script(project: &Project) -> Result<Compiled, String> {
    let dir = &project.dir;
    let began = SystemTime::now();
    let (mut script, compiler, remedy) = if dir.join("build.sh").exists() {
        let mut bash = Command::new("bash");
        bash.arg("build.sh");
        (bash, "build.sh", "the project's README says what it needs")
    } else if project.language == Language::Js {
        if !dir.join("node_modules").is_dir() {
            return Err(format!(
                "the packages that the project is built with are not installed. This gets them:\n  (cd {} && npm ci)",
                dir.display()
            ));
        }
        let mut npm = Command::new("npm");
        npm.args(["run", "build"]);
        (npm, "npm run build", "install Node.js with npm")
    } else {
        return Err(format!(
            "{} has no build.sh, which builds a project in Python",
            dir.display()
        ));
    };
    // What it prints is not the command's own result.
    let output = script
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let output = output.map_err(|error| format!("{compiler} cannot be started: {error}; {remedy}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        return Err(format!("{said}{compiler} did not succeed."));
    }
    let file = newest_component(dir, began);
    let file = file.ok_or_else(|| format!("{compiler} wrote no .wasm into {}", dir.display()))?;
    Ok(Compiled { file, compiler })
}

/// The component that was written last, if that was not before `began`; one that was up to date is as good where there is
/// no other.
fn newest_component(dir: &Path, began: SystemTime) -> Option<PathBuf> {
    let places = [dir.to_owned(), dir.join("dist"), dir.join(COMPONENTS)];
    let files = places
        .iter()
        .flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
    let mut found: Vec<(SystemTime, PathBuf)> = files
        .map(|entry| entry.path())
        .filter(|path| is_wasm(path))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    found.sort_unstable();
    let is_only = found.len() == 1;
    found
        .pop()
        .filter(|(when, _)| is_only || *when >= began)
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crates_own_module_is_found_among_what_cargo_made() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/dep/Cargo.toml","filenames":["/t/dep.wasm"]}
{"reason":"compiler-artifact","manifest_path":"/own/Cargo.toml","filenames":["/t/libown.rlib","/t/own.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            module_of(messages, Path::new("/own/Cargo.toml")),
            Ok("/t/own.wasm".into())
        );
        assert!(
            module_of(messages, Path::new("/other/Cargo.toml"))
                .unwrap_err()
                .contains("cdylib")
        );
    }

    #[test]
    fn the_component_that_a_script_wrote_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let before = SystemTime::UNIX_EPOCH;
        assert_eq!(newest_component(dir.path(), before), None);
        let old = dir.path().join("old.wasm");
        fs::write(&old, "").unwrap();
        let future = SystemTime::now() + std::time::Duration::from_secs(3_600);
        assert_eq!(newest_component(dir.path(), future), Some(old));
        fs::create_dir(dir.path().join("dist")).unwrap();
        fs::write(dir.path().join("dist/other.wasm"), "").unwrap();
        assert_eq!(newest_component(dir.path(), future), None);
    }
}
