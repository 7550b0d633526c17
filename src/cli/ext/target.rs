//! What a command is about: a component's file, or a project that builds one.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::Value;

use crate::{
    extensions::{ExtensionsConfig, Manifest},
    policy::check_id,
};

/// Where a project's component is put, below the project.
pub(super) const COMPONENTS: &str = "target/components";
/// The registry record of a project.
pub(super) const RECORD: &str = "extension.json";
/// The cases of a project.
pub(super) const CASES: &str = "tests/cases.yaml";

/// The cases of a project that were made of recorded calls.
pub(super) const RECORDED_CASES: &str = "tests/recorded.yaml";

/// A component, and what belongs to it where it is a project's.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) file: PathBuf,
    pub(super) project: Option<Project>,
    pub(super) record: Option<PathBuf>,
}

/// A directory with the source of an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Project {
    pub(super) dir: PathBuf,
    pub(super) name: String,
    /// `0` where its manifest names none.
    pub(super) version: String,
    pub(super) language: Language,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Language {
    Rust,
    Js,
    Python,
}

impl Language {
    /// What a call of a new project may take, in milliseconds: an interpreter needs some before it does anything.
    pub(super) const fn timeout_ms(self) -> u32 {
        match self {
            Self::Rust => 100,
            Self::Js => 200,
            Self::Python => 500,
        }
    }

    /// What a call of a new project may need: the interpreter of Python takes 14 MiB by itself.
    pub(super) const fn memory_bytes(self) -> u32 {
        match self {
            Self::Rust => 16 << 20,
            Self::Js => 32 << 20,
            Self::Python => 64 << 20,
        }
    }

    /// The file by which a project shows its language.
    pub(super) const fn manifest(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::Js => "package.json",
            Self::Python => "pyproject.toml",
        }
    }
}

impl Target {
    /// Finds the component of a file or a project, and the record that is said or lies in the project.
    ///
    /// # Errors
    /// What is missing, and what makes it.
    pub(super) fn find(path: &Path, record: Option<&Path>) -> Result<Self, String> {
        let shown = path.display();
        let is_dir = fs::metadata(path)
            .map_err(|error| format!("{shown}: {error}"))?
            .is_dir();
        if !is_dir {
            return Ok(Self {
                file: path.to_owned(),
                project: None,
                record: record.map(ToOwned::to_owned),
            });
        }
        let project = Project::open(path)?;
        let file = project.component();
        if !file.exists() {
            return Err(format!(
                "{shown} is not built yet: run `beamline-sidecar ext build {shown}`"
            ));
        }
        let own = path.join(RECORD);
        let record = match record {
            Some(record) => Some(record.to_owned()),
            None => own.exists().then_some(own),
        };
        Ok(Self {
            file,
            project: Some(project),
            record,
        })
    }

    /// The component's bytes.
    pub(super) fn read(&self) -> Result<Vec<u8>, String> {
        read_module(&self.file).map_err(|error| format!("{}: {error}", self.file.display()))
    }

    /// The record, if there is one. `ext check` reports more about a wrong one.
    pub(super) fn manifest(&self) -> Result<Option<Manifest>, String> {
        let Some(path) = &self.record else {
            return Ok(None);
        };
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        match Manifest::read(&text) {
            Ok((record, _)) => Ok(Some(record)),
            Err(problems) => {
                let lines: Vec<String> = problems
                    .iter()
                    .map(|problem| format!("{}: {problem}", path.display()))
                    .collect();
                Err(lines.join("\n"))
            }
        }
    }

    /// What to say where the project's source is newer than its component.
    pub(super) fn stale(&self) -> Option<String> {
        let project = self.project.as_ref()?;
        let built = modified(&self.file)?;
        let newer = project.newest_source().filter(|(when, _)| *when > built)?.1;
        let dir = project.dir.display();
        Some(format!(
            "warning: {} is newer than the component: run `beamline-sidecar ext build {dir}`",
            newer.display()
        ))
    }

    /// The name of the component.
    pub(super) fn name(&self) -> String {
        self.file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }
}

impl Project {
    pub(super) fn open(dir: &Path) -> Result<Self, String> {
        let languages = [Language::Rust, Language::Js, Language::Python];
        let Some(language) = languages
            .into_iter()
            .find(|language| dir.join(language.manifest()).exists())
        else {
            return Err(format!(
                "{} is no project of an extension: it has no Cargo.toml, package.json or pyproject.toml; \
                 `beamline-sidecar ext new` makes one",
                dir.display()
            ));
        };
        let manifest = dir.join(language.manifest());
        let text =
            fs::read_to_string(&manifest).map_err(|error| format!("{}: {error}", manifest.display()))?;
        let value = |key: &str| match language {
            Language::Rust => toml_value(&text, "[package]", key),
            Language::Python => toml_value(&text, "[project]", key),
            Language::Js => serde_json::from_str::<Value>(&text)
                .ok()
                .and_then(|package| package[key].as_str().map(ToOwned::to_owned)),
        };
        let version = value("version").unwrap_or_else(|| "0".to_owned());
        match value("name") {
            // It becomes the name of a file.
            Some(name) if check_id(&name).is_ok() => Ok(Self {
                dir: dir.to_owned(),
                name,
                version,
                language,
            }),
            Some(name) => Err(format!(
                "{}: {name:?} is no id of an extension",
                manifest.display()
            )),
            None => Err(format!("{} names no package", manifest.display())),
        }
    }

    pub(super) fn component(&self) -> PathBuf {
        self.dir.join(COMPONENTS).join(format!("{}.wasm", self.name))
    }

    /// The file of the source that was changed last.
    fn newest_source(&self) -> Option<(SystemTime, PathBuf)> {
        let files = self.sources().into_iter();
        files
            .filter_map(|path| Some((modified(&path)?, path)))
            .max_by_key(|(when, _)| *when)
    }

    /// Whether the source was changed after the component was built.
    pub(super) fn is_newer_than_component(&self) -> bool {
        let built = modified(&self.component());
        matches!((self.newest_source(), built), (Some((when, _)), Some(built)) if when > built)
    }

    /// The files that a component is made of.
    pub(super) fn sources(&self) -> Vec<PathBuf> {
        let mut files = vec![self.dir.join(self.language.manifest())];
        let mut waiting = vec![self.dir.join("src"), self.dir.join("wit")];
        while let Some(dir) = waiting.pop() {
            let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()) {
                if !path.is_dir() {
                    files.push(path);
                } else if !path.ends_with("__pycache__") {
                    waiting.push(path);
                }
            }
        }
        files
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// A value of a table of a TOML file, where it is written as a plain text.
fn toml_value(text: &str, table: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| *line == table)?;
    let (_, value) = lines
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| line.split_once('=').filter(|(found, _)| found.trim() == key))?;
    let name = value.split('#').next()?.trim();
    let name = name.strip_prefix('"')?.strip_suffix('"')?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Reads a file that may be a module: what is no file might never end.
pub(super) fn read_module(file: &Path) -> Result<Vec<u8>, String> {
    let known = fs::metadata(file).map_err(|error| error.to_string())?;
    let most = ExtensionsConfig::default().max_module_bytes;
    if !known.is_file() {
        return Err("it is not a file".into());
    }
    if known.len() > most {
        return Err(format!(
            "it has {} bytes; a module has at most {most}",
            known.len()
        ));
    }
    fs::read(file).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_package_is_found() {
        let manifest = "[lib]\nname = \"other\"\n\n[package]\n# name = \"no\"\nname = \"my-guard\" # yes\nversion = \"1\"\n";
        let name = |text: &str, table: &str| toml_value(text, table, "name");
        assert_eq!(name(manifest, "[package]").as_deref(), Some("my-guard"));
        assert_eq!(toml_value(manifest, "[package]", "version").as_deref(), Some("1"));
        assert_eq!(name(manifest, "[project]"), None);
        assert_eq!(
            name("[package]\nversion = \"1\"\n[lib]\nname = \"x\"", "[package]"),
            None
        );
    }

    #[test]
    fn a_project_is_known_by_its_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Project::open(dir.path()).unwrap_err();
        assert!(refused.contains("ext new"), "{refused}");
        fs::write(dir.path().join("package.json"), r#"{"name": "my-guard"}"#).unwrap();
        let project = Project::open(dir.path()).unwrap();
        assert_eq!(
            (project.name.as_str(), project.language),
            ("my-guard", Language::Js)
        );
        fs::write(dir.path().join("package.json"), r#"{"name": "../guard"}"#).unwrap();
        assert!(Project::open(dir.path()).unwrap_err().contains("no id"));
        fs::write(dir.path().join("package.json"), r#"{"name": "my-guard"}"#).unwrap();
        let missing = Target::find(dir.path(), None).unwrap_err();
        assert!(missing.contains("ext build"), "{missing}");
    }
}
