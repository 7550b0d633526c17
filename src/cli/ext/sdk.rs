//! What this program carries for authors: the SDK for Rust, the interface, and the versions of the crates that the SDK
//! needs. They are written into projects, so that no name on a public registry stands for them.

use std::collections::{BTreeMap, BTreeSet};

/// The directory of the SDK in a project in Rust. The interface is beside it, where the SDK looks for it.
pub(super) const SDK: &str = "vendor/beamline-extension-sdk";
/// The package's name, which is not registered on the public registry.
pub(super) const SDK_PACKAGE: &str = "beamline-extension-sdk";

/// Locked for the extensions of this repository, and tested with them.
const LOCK: &str = include_str!("../../../wasm-extensions/Cargo.lock");

macro_rules! sources {
    ($($file:literal),+ $(,)?) => {
        [$(($file, include_str!(concat!("../../../wasm-extensions/sdk/", $file)))),+]
    };
}

const SDK_FILES: [(&str, &str); 16] = sources![
    "Cargo.toml",
    "README.md",
    "src/arena.rs",
    "src/clock.rs",
    "src/component.rs",
    "src/config.rs",
    "src/extension.rs",
    "src/fields.rs",
    "src/json.rs",
    "src/lib.rs",
    "src/log.rs",
    "src/metrics.rs",
    "src/random.rs",
    "src/testing.rs",
    "src/types.rs",
    "src/walk.rs",
];

/// The interface, by the names of its files.
pub(super) const WIT: [(&str, &str); 3] = [
    (
        "types.wit",
        include_str!("../../../wasm-extensions/wit/types.wit"),
    ),
    ("host.wit", include_str!("../../../wasm-extensions/wit/host.wit")),
    (
        "worlds.wit",
        include_str!("../../../wasm-extensions/wit/worlds.wit"),
    ),
];

/// The SDK and the interface, by their paths in a project in Rust.
pub(super) fn vendored() -> Vec<(String, String)> {
    let sdk = SDK_FILES.iter().map(|(name, text)| {
        // The lints of this repository's workspace, which there is none of in a project.
        let text = text.split("\n[lints]\n").next().unwrap_or(text);
        (format!("{SDK}/{name}"), text.to_owned())
    });
    let wit = WIT
        .iter()
        .map(|(name, text)| (format!("vendor/wit/{name}"), (*text).to_owned()));
    sdk.chain(wit).collect()
}

/// An entry of a lock file.
#[derive(Debug)]
struct Locked<'a> {
    name: &'a str,
    version: &'a str,
    /// Lines from the version to the dependencies.
    head: &'a str,
    /// As the file writes them: a name, and a version where there are several.
    dependencies: Vec<&'a str>,
}

impl<'a> Locked<'a> {
    fn read(entry: &'a str) -> Option<Self> {
        let value = |key: &str| {
            let line = entry.lines().find_map(|line| line.strip_prefix(key))?;
            line.strip_prefix(" = \"")?.strip_suffix('"')
        };
        let (head, dependencies) = match entry.split_once("dependencies = [\n") {
            Some((head, rest)) => (head, rest.split(']').next().unwrap_or_default()),
            None => (entry, ""),
        };
        let dependencies = dependencies.lines().filter_map(|line| {
            line.trim()
                .trim_end_matches(',')
                .strip_prefix('"')?
                .strip_suffix('"')
        });
        Some(Self {
            name: value("name")?,
            version: value("version")?,
            head: head.trim_end(),
            dependencies: dependencies.collect(),
        })
    }

    fn is(&self, dependency: &str) -> bool {
        match dependency.split_once(' ') {
            Some((name, version)) => self.name == name && self.version == version,
            None => self.name == dependency,
        }
    }
}

/// The locked packages that the SDK, and what the templates use besides, consist of.
fn needed() -> Vec<Locked<'static>> {
    let all: Vec<Locked<'static>> = LOCK
        .split("[[package]]\n")
        .skip(1)
        .filter_map(Locked::read)
        .collect();
    let mut needed = BTreeSet::new();
    let mut waiting = vec![SDK_PACKAGE, "serde", "serde_json"];
    while let Some(dependency) = waiting.pop() {
        for (index, entry) in all.iter().enumerate() {
            if entry.is(dependency) && needed.insert(index) {
                waiting.extend(&entry.dependencies);
            }
        }
    }
    let is_needed = |(index, entry)| needed.contains(&index).then_some(entry);
    all.into_iter().enumerate().filter_map(is_needed).collect()
}

/// The names of packages that a project in Rust has with the SDK.
pub(super) fn package_names() -> BTreeSet<&'static str> {
    needed().iter().map(|entry| entry.name).collect()
}

/// The lock file of a project in Rust, as cargo would write it.
pub(super) fn lock(project: &str) -> String {
    let needed = needed();
    let mut versions = BTreeMap::<&str, u32>::new();
    for entry in &needed {
        *versions.entry(entry.name).or_default() += 1;
    }
    let mut entries: Vec<(&str, &str, String)> = needed
        .iter()
        .map(|entry| {
            let dependencies = entry.dependencies.iter().map(|dependency| {
                // The version is written only where it says which one of several.
                match dependency.split_once(' ') {
                    Some((name, _)) if versions.get(name) == Some(&1) => name,
                    _ => dependency,
                }
            });
            let text = format!("[[package]]\n{}\n{}", entry.head, list(dependencies));
            (entry.name, entry.version, text)
        })
        .collect();
    let own = format!(
        "[[package]]\nname = \"{project}\"\nversion = \"0.1.0\"\n{}",
        list([SDK_PACKAGE, "serde", "serde_json"].into_iter())
    );
    entries.push((project, "0.1.0", own));
    entries.sort_unstable();
    let head = LOCK.split("[[package]]\n").next().unwrap_or_default();
    let texts: Vec<String> = entries.into_iter().map(|(_, _, text)| text).collect();
    format!("{head}{}", texts.join("\n"))
}

fn list<'a>(dependencies: impl Iterator<Item = &'a str>) -> String {
    let lines: Vec<String> = dependencies.map(|name| format!(" \"{name}\",\n")).collect();
    if lines.is_empty() {
        String::new()
    } else {
        format!("dependencies = [\n{}]\n", lines.concat())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// The paths of files below a directory.
    fn below(dir: &Path, prefix: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                found.extend(below(&path, &format!("{name}/")));
            } else {
                found.insert(name);
            }
        }
        found
    }

    #[test]
    fn the_whole_sdk_and_interface_are_carried() {
        let extensions = Path::new(env!("CARGO_MANIFEST_DIR")).join("wasm-extensions");
        let carried = SDK_FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(below(&extensions.join("sdk"), ""), carried);
        let mut carried: BTreeSet<String> = WIT.iter().map(|(name, _)| (*name).to_owned()).collect();
        carried.insert("README.md".to_owned());
        assert_eq!(below(&extensions.join("wit"), ""), carried);
    }

    #[test]
    fn nothing_of_this_repositorys_workspace_is_inherited() {
        for (name, text) in vendored() {
            if name.ends_with("Cargo.toml") {
                assert!(!text.contains("workspace = true"), "{name}: {text}");
            }
        }
    }

    #[test]
    fn every_locked_package_of_a_registry_has_its_checksum() {
        let lock = lock("my-guard");
        let entries: Vec<&str> = lock.split("[[package]]\n").skip(1).collect();
        assert!(entries.len() > 10, "{lock}");
        let mut own = Vec::new();
        for entry in &entries {
            let package = Locked::read(entry).unwrap();
            if entry.contains("source = ") {
                assert!(entry.contains("checksum = \""), "{entry}");
            } else {
                own.push(package.name);
            }
            for dependency in package.dependencies {
                let found = entries
                    .iter()
                    .filter(|entry| Locked::read(entry).unwrap().is(dependency));
                assert_eq!(found.count(), 1, "{dependency} of {entry}");
            }
        }
        assert_eq!(own, [SDK_PACKAGE, "my-guard"]);
    }
}
