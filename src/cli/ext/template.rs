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

macro_rules! text {
    ($file:literal) => {
        include_str!(concat!("../../../wasm-extensions/", $file))
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
///
/// # Errors
/// When there is no template of the kind in the language.
pub(super) fn files(language: Language, project: &Project<'_>) -> Result<Vec<(String, String)>, String> {
    let files: &[(&str, &str)] = match language {
        Language::Rust => return Ok(rust(project)),
        Language::Js => &[
            ("README.md", text!("js/template/README.md")),
            (".gitignore", text!("js/template/gitignore.template")),
            ("package.json", text!("js/template/package.json")),
            ("src/extension.js", text!("js/template/src/extension.js")),
            (CASES, text!("js/template/tests/cases.yaml")),
            ("tests/cases.js", text!("js/template/tests/cases.js")),
            (
                "tests/extension.test.js",
                text!("js/template/tests/extension.test.js"),
            ),
            ("tests/host.js", text!("js/template/tests/host.js")),
        ],
        Language::Python => &[
            ("README.md", text!("python/template/README.md")),
            (".gitignore", text!("python/template/gitignore.template")),
            ("pyproject.toml", text!("python/template/pyproject.toml")),
            ("requirements.txt", text!("python/template/requirements.txt")),
            ("build.sh", text!("python/template/build.sh")),
            ("src/extension.py", text!("python/template/src/extension.py")),
            (CASES, text!("python/template/tests/cases.yaml")),
            ("tests/cases.py", text!("python/template/tests/cases.py")),
            (
                "tests/test_extension.py",
                text!("python/template/tests/test_extension.py"),
            ),
        ],
    };
    if project.kind != Kind::Validator {
        return Err(format!(
            "in JavaScript and Python there are templates of validators only: begin with one, and make a {} of it as its \
             README says",
            project.kind.world()
        ));
    }
    // Both want the interface within the project.
    let interface = [
        ("wit/types.wit", text!("wit/types.wit")),
        ("wit/host.wit", text!("wit/host.wit")),
        ("wit/worlds.wit", text!("wit/worlds.wit")),
    ];
    let named = files
        .iter()
        .map(|(name, text)| (*name, text.replace("{{name}}", project.name)));
    let copied = interface.iter().map(|(name, text)| (*name, (*text).to_owned()));
    Ok(named
        .chain(copied)
        .map(|(name, text)| (name.to_owned(), text))
        .collect())
}

fn rust(project: &Project<'_>) -> Vec<(String, String)> {
    let (source, cases) = match project.kind {
        Kind::Pre => (text!("templates/rust/pre.rs"), text!("templates/rust/pre.yaml")),
        Kind::Validator => (
            text!("templates/rust/validator.rs"),
            text!("templates/rust/validator.yaml"),
        ),
        Kind::Scorer => (
            text!("templates/rust/scorer.rs"),
            text!("templates/rust/scorer.yaml"),
        ),
        Kind::Post => (text!("templates/rust/post.rs"), text!("templates/rust/post.yaml")),
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
        ("Cargo.toml", text!("templates/rust/Cargo.toml.template")),
        (".gitignore", text!("templates/rust/gitignore.template")),
        ("README.md", text!("templates/rust/README.md")),
        ("src/lib.rs", source),
        (CASES, cases),
    ];
    let filled = |text: &str| {
        text.replace("MyExtension", &type_name(project.name))
            .replace("my-extension", project.name)
            .replace("DESCRIPTION", description(project.kind))
            .replace("A WORLD", &format!("A {}", project.kind.world()))
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

    const LANGUAGES: [Language; 3] = [Language::Rust, Language::Js, Language::Python];

    fn all() -> Vec<(Kind, Vec<(String, String)>)> {
        let of = |kind, language| {
            let project = Project {
                kind,
                name: "green-first",
                sdk: Some(Path::new("/sdk")),
            };
            Some((kind, files(language, &project).ok()?))
        };
        let pairs = Kind::ALL
            .into_iter()
            .flat_map(|kind| LANGUAGES.map(|language| (kind, language)));
        pairs.filter_map(|(kind, language)| of(kind, language)).collect()
    }

    #[test]
    fn there_is_a_template_of_every_kind_in_rust_and_of_a_validator_in_every_language() {
        assert_eq!(all().len(), Kind::ALL.len() + 2);
    }

    #[test]
    fn nothing_of_a_template_is_left_open() {
        for (kind, files) in all() {
            for (name, text) in files {
                for open in [
                    "MyExtension",
                    "my-extension",
                    "DESCRIPTION",
                    "A WORLD",
                    "\nSDK\n",
                    "{{name}}",
                ] {
                    assert!(!text.contains(open), "{name} of {kind:?}: {open}");
                }
            }
        }
    }

    #[test]
    fn cases_are_of_their_kind() {
        for (kind, files) in all() {
            let (_, cases) = files.iter().find(|(name, _)| name == CASES).unwrap();
            assert_eq!(crate::extensions::testing::read(cases).unwrap().kind, kind);
        }
    }
}
