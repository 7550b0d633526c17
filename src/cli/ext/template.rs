//! The projects that `ext new` writes. They lie in wasm-extensions/templates as an author gets them, but for their names.

use std::path::Path;

use super::target::{CASES, Language};
use crate::extensions::Kind;

/// What a project is to be.
pub(super) struct Project<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    /// Where the SDK lies, if that is known.
    pub(super) sdk: Option<&'a Path>,
}

macro_rules! rust {
    ($file:literal) => {
        include_str!(concat!("../../../wasm-extensions/templates/rust/", $file))
    };
}

/// What the extension of a template does.
pub(super) const fn description(kind: Kind) -> &'static str {
    match kind {
        Kind::Pre => "Adds to the context how long a message is.",
        Kind::Validator => "Refuses messages that are too long.",
        Kind::Scorer => "Favours providers whose calls succeed.",
        Kind::Post => "Adds a label to decisions.",
    }
}

/// The files of a project, by their paths in it.
pub(super) fn files(language: Language, project: &Project<'_>) -> Result<Vec<(String, String)>, String> {
    match language {
        Language::Rust => Ok(rust(project)),
        Language::Js | Language::Python => Err("there are templates in Rust only".to_owned()),
    }
}

fn rust(project: &Project<'_>) -> Vec<(String, String)> {
    let (source, cases) = match project.kind {
        Kind::Pre => (rust!("pre.rs"), rust!("pre.yaml")),
        Kind::Validator => (rust!("validator.rs"), rust!("validator.yaml")),
        Kind::Scorer => (rust!("scorer.rs"), rust!("scorer.yaml")),
        Kind::Post => (rust!("post.rs"), rust!("post.yaml")),
    };
    let sdk = match project.sdk {
        Some(path) => format!(
            "beamline-extension-sdk = {{ path = {} }}",
            toml_text(&path.display().to_string())
        ),
        None => "# Not on crates.io: say where it is, for example\n\
                 #   beamline-extension-sdk = { path = \"../beamline-sidecar/wasm-extensions/sdk\" }\n\
                 #   beamline-extension-sdk = { git = \"https://…/beamline-sidecar\", tag = \"v0.1.0\" }\n\
                 beamline-extension-sdk = \"0.1\""
            .to_owned(),
    };
    let files = [
        ("Cargo.toml", rust!("Cargo.toml.template")),
        (".gitignore", rust!("gitignore.template")),
        ("README.md", rust!("README.md")),
        ("src/lib.rs", source),
        (CASES, cases),
    ];
    let filled = |text: &str| {
        text.replace("MyExtension", &type_name(project.name))
            .replace("my-extension", project.name)
            .replace("DESCRIPTION", description(project.kind))
            .replace("WORLD", project.kind.world())
            .replace("\nSDK\n", &format!("\n{sdk}\n"))
    };
    files
        .into_iter()
        .map(|(name, text)| (name.to_owned(), filled(text)))
        .collect()
}

/// `my-guard` as a type: `MyGuard`.
fn type_name(name: &str) -> String {
    let mut words = name.split(['-', '_']).filter(|word| !word.is_empty());
    let capital = |word: &str| {
        let (first, rest) = word.split_at(1);
        first.to_ascii_uppercase() + rest
    };
    match words.next().map(capital) {
        // What the SDK calls so would be hidden.
        Some(only) if words.clone().next().is_none() => only + "Extension",
        Some(first) => words.map(capital).fold(first, |name, word| name + &word),
        None => "MyExtension".to_owned(),
    }
}

/// A text as TOML writes it.
fn toml_text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_each_place_needs_them() {
        assert_eq!(type_name("my-guard"), "MyGuard");
        assert_eq!(type_name("call"), "CallExtension");
        assert_eq!(type_name("a_b2--c"), "AB2C");
        assert_eq!(toml_text("a \"b\"\\c\n"), r#""a \"b\"\\c\u000A""#);
    }

    #[test]
    fn nothing_of_a_template_is_left_open() {
        for kind in Kind::ALL {
            let project = Project {
                kind,
                name: "green-first",
                sdk: Some(Path::new("/sdk")),
            };
            for (name, text) in files(Language::Rust, &project).unwrap() {
                for open in ["MyExtension", "my-extension", "DESCRIPTION", "WORLD", "SDK\n"] {
                    assert!(!text.contains(open), "{name} of {kind:?}: {open}");
                }
            }
        }
    }

    #[test]
    fn cases_are_of_their_kind() {
        for kind in Kind::ALL {
            let project = Project {
                kind,
                name: "x-y",
                sdk: None,
            };
            let files = files(Language::Rust, &project).unwrap();
            let (_, cases) = files.iter().find(|(name, _)| name == CASES).unwrap();
            assert_eq!(crate::extensions::cases::read(cases).unwrap().kind, kind);
        }
    }
}
