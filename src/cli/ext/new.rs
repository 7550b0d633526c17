//! `beamline-sidecar ext new`.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::{
    sdk,
    target::{CASES, Language, RECORD},
    template,
    vendor::write,
};
use crate::{
    cli::output::{EXIT_USAGE, print, print_err},
    extensions::Kind,
    policy::check_id,
};

#[derive(Debug, Args)]
#[command(
    after_help = "What it writes builds, and passes its own tests: change it from there. It is complete: the SDK and the interface are
in its vendor/ or wit/, and the versions of all else in its lock file.

Exits 0 if there is a project, 64 if not; what is there already is never touched.

Examples:
  beamline-sidecar ext new validator my-guard
  beamline-sidecar ext new scorer green-first --dir extensions/green-first
  beamline-sidecar ext new validator my-guard --language js
  beamline-sidecar ext new pre normalize --sdk ../beamline-sidecar/wasm-extensions/sdk"
)]
pub(super) struct NewArgs {
    /// What it is for.
    #[arg(value_name = "KIND")]
    kind: Kind,
    /// Its id in the registry, and its package's name.
    #[arg(value_name = "NAME")]
    name: String,
    /// What it is written in.
    #[arg(long, value_enum, default_value = "rust")]
    language: Language,
    /// The directory to make; otherwise the name's, in this one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The directory of beamline-extension-sdk, for those who develop it; otherwise this program writes its own into
    /// the project's vendor/.
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
}

pub(super) fn run(args: &NewArgs) -> ExitCode {
    match new(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_err(&reason);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn new(args: &NewArgs) -> Result<(), String> {
    check_name(&args.name)?;
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    check_empty(&dir)?;
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let absolute = fs::canonicalize(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let sdk = match (&args.sdk, args.language) {
        (Some(sdk), Language::Rust) => Some(given_sdk(sdk)?),
        (Some(_), Language::Js | Language::Python) => {
            return Err("--sdk names the SDK for Rust, and this is no project in Rust".to_owned());
        }
        (None, _) => None,
    };
    // A path that was given as an absolute one is meant so.
    let is_absolute = args.sdk.as_ref().is_some_and(|sdk| sdk.is_absolute());
    let sdk = sdk.map(|sdk| {
        if is_absolute {
            sdk
        } else {
            relative(&absolute, &sdk)
        }
    });
    let project = template::Project {
        kind: args.kind,
        name: &args.name,
        sdk: sdk.as_deref(),
    };
    let mut files = template::files(args.language, &project);
    let record = json!({
        "id": args.name,
        "type": args.kind.as_str(),
        "module": format!("file:{}.wasm", args.name),
        "timeout_ms": args.language.timeout_ms(),
        "config": {},
        "capabilities": [],
        "limits": {"memory_bytes": args.language.memory_bytes(), "output_bytes": 1_048_576},
        "metadata": {"description": template::description(args.kind)},
    });
    files.push((RECORD.to_owned(), format!("{record:#}\n")));
    for (name, text) in &files {
        let path = dir.join(name);
        write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    tell(args, &dir);
    Ok(())
}

fn tell(args: &NewArgs, dir: &Path) {
    let shown = dir.display();
    print(&format!("{shown} is a {} that builds. Next:", args.kind.world()));
    match args.language {
        Language::Rust => {}
        Language::Js => print(&format!("  (cd {shown} && npm ci)")),
        Language::Python => print(&format!(
            "  (cd {shown} && python3 -m venv .venv && .venv/bin/pip install --require-hashes -r requirements.txt)"
        )),
    }
    print(&format!("  beamline-sidecar ext build {shown}"));
    print(&format!(
        "  beamline-sidecar ext test {shown}      the cases of {CASES}"
    ));
}

/// Refuses a name that is no id, and one that no package may have.
fn check_name(name: &str) -> Result<(), String> {
    const TAKEN: [&str; 6] = ["alloc", "core", "proc-macro", "self", "std", "test"];
    check_id(name).map_err(|error| format!("the name {name:?} {error}"))?;
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(is_plain) || name.len() > 64 {
        return Err(format!(
            "the name {name:?} is no name of a package: begin with a lower-case letter, go on with such letters, digits, \
             `-` and `_`, 64 at most"
        ));
    }
    if TAKEN.contains(&name) || sdk::package_names().contains(name) {
        return Err(format!("the name {name:?} is taken by a package that it needs"));
    }
    Ok(())
}

fn check_empty(dir: &Path) -> Result<(), String> {
    match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!(
            "{} is not empty; name another directory by --dir",
            dir.display()
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{}: {error}", dir.display())),
    }
}

fn given_sdk(sdk: &Path) -> Result<PathBuf, String> {
    if !sdk.join("Cargo.toml").is_file() {
        return Err(format!(
            "{} is not the SDK: there is no Cargo.toml",
            sdk.display()
        ));
    }
    fs::canonicalize(sdk).map_err(|error| format!("{}: {error}", sdk.display()))
}

/// The way from a directory to a path, both absolute and without links: a project that is moved together with what it
/// needs still finds it.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_id_and_a_packages_name() {
        for name in ["my-guard", "a", "guard_2"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        let long = "a".repeat(65);
        for name in [
            "", "..", "a b", "My-Guard", "2nd", "-a", "a.b", "test", "memchr", "é", &long,
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_way_to_the_sdk_is_relative() {
        for (from, to, way) in [
            (
                "/repo/mine",
                "/repo/wasm-extensions/sdk",
                "../wasm-extensions/sdk",
            ),
            ("/repo/a/b", "/sdk", "../../../sdk"),
            ("/a", "/a/sdk", "sdk"),
        ] {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(way));
        }
    }

    #[test]
    fn what_is_there_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check_empty(dir.path()), Ok(()));
        assert_eq!(check_empty(&dir.path().join("new")), Ok(()));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(check_empty(dir.path()).is_err());
        assert!(check_empty(&dir.path().join("file")).is_err());
    }
}
