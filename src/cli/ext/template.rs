//! The projects that `ext new` writes. They lie in wasm-extensions/templates as an author gets them, but for their names.

use std::path::Path;

use super::{
    about::CONFIG_SCHEMA,
    sdk,
    target::{CASES, Language},
};
use crate::extensions::Kind;

/// What a project is to be.
pub(super) struct Project<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    /// Where the SDK lies, if not in the project itself.
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

/// The source, the cases and the schema of the configuration, of a kind in a language.
macro_rules! of_kind {
    ($kind:expr, $dir:literal, $source:literal) => {
        match $kind {
            Kind::Pre => of_kind!(@ $dir, "pre", $source),
            Kind::Validator => of_kind!(@ $dir, "validator", $source),
            Kind::Scorer => of_kind!(@ $dir, "scorer", $source),
            Kind::Post => of_kind!(@ $dir, "post", $source),
        }
    };
    (@ $dir:literal, $name:literal, $source:literal) => {
        [
            include_str!(concat!("../../../wasm-extensions/", $dir, "/", $name, $source)),
            include_str!(concat!("../../../wasm-extensions/", $dir, "/", $name, ".yaml")),
            include_str!(concat!("../../../wasm-extensions/", $dir, "/", $name, ".schema.json")),
        ]
    };
}

/// The files of a project, by their paths in it.
pub(super) fn files(language: Language, project: &Project<'_>) -> Vec<(String, String)> {
    let (place, texts, files): (_, _, &[(&str, &str)]) = match language {
        Language::Rust => return rust(project),
        Language::Js => (
            "src/extension.js",
            of_kind!(project.kind, "js/template/kinds", ".js"),
            &[
                ("README.md", text!("js/template/README.md")),
                (".gitignore", text!("js/template/gitignore.template")),
                ("package.json", text!("js/template/package.json")),
                ("package-lock.json", text!("js/template/package-lock.json")),
                ("jsconfig.json", text!("js/template/jsconfig.json")),
                ("tests/cases.js", text!("js/template/tests/cases.js")),
                (
                    "tests/extension.test.js",
                    text!("js/template/tests/extension.test.js"),
                ),
                ("tests/host.js", text!("js/template/tests/host.js")),
            ],
        ),
        Language::Python => (
            "src/extension.py",
            of_kind!(project.kind, "python/template/kinds", ".py"),
            &[
                ("README.md", text!("python/template/README.md")),
                (".gitignore", text!("python/template/gitignore.template")),
                ("pyproject.toml", text!("python/template/pyproject.toml")),
                ("requirements.txt", text!("python/template/requirements.txt")),
                ("build.sh", text!("python/template/build.sh")),
                ("tests/cases.py", text!("python/template/tests/cases.py")),
                (
                    "tests/test_extension.py",
                    text!("python/template/tests/test_extension.py"),
                ),
            ],
        ),
    };
    let [source, cases, schema] = texts;
    let own = [(place, source), (CASES, cases), (CONFIG_SCHEMA, schema)];
    let filled = |text: &str| {
        text.replace("{{name}}", project.name)
            .replace("{{world}}", project.kind.world())
            .replace("{{description}}", description(project.kind))
    };
    files
        .iter()
        .chain(&own)
        .map(|(name, text)| ((*name).to_owned(), filled(text)))
        .chain(interface(language))
        .collect()
}

/// The layer over the interface of a language, by its paths in a project; that of Rust is the SDK.
const fn layer(language: Language) -> &'static [(&'static str, &'static str)] {
    match language {
        Language::Rust => &[],
        Language::Js => &[
            ("src/beamline.js", text!("js/template/src/beamline.js")),
            ("src/beamline.d.ts", text!("js/template/src/beamline.d.ts")),
        ],
        Language::Python => &[("src/beamline.py", text!("python/template/src/beamline.py"))],
    }
}

/// The interface within a project in JavaScript or Python, whose tools want it there, and the layer over it.
pub(super) fn interface(language: Language) -> impl Iterator<Item = (String, String)> {
    let wit = sdk::WIT
        .into_iter()
        .map(|(name, text)| (format!("wit/{name}"), text.to_owned()));
    let layer = layer(language)
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    wit.chain(layer)
}

fn rust(project: &Project<'_>) -> Vec<(String, String)> {
    let [source, cases, schema] = of_kind!(project.kind, "templates/rust", ".rs");
    let sdk = format!(
        "{} = {{ path = {} }}",
        sdk::SDK_PACKAGE,
        toml_text(
            &project
                .sdk
                .map_or_else(|| sdk::SDK.to_owned(), |path| path.display().to_string())
        )
    );
    let files = [
        ("Cargo.toml", text!("templates/rust/Cargo.toml.template")),
        (".gitignore", text!("templates/rust/gitignore.template")),
        ("README.md", text!("templates/rust/README.md")),
        ("src/lib.rs", source),
        (CONFIG_SCHEMA, schema),
        (CASES, cases),
    ];
    let filled = |text: &str| {
        text.replace("MyExtension", &type_name(project.name))
            .replace("my-extension", project.name)
            .replace("DESCRIPTION", description(project.kind))
            .replace("A WORLD", &format!("A {}", project.kind.world()))
            .replace("\nSDK\n", &format!("\n{sdk}\n"))
    };
    let mut files: Vec<(String, String)> = files
        .into_iter()
        .map(|(name, text)| (name.to_owned(), filled(text)))
        .collect();
    files.push(("Cargo.lock".to_owned(), sdk::lock(project.name)));
    if project.sdk.is_none() {
        files.extend(sdk::vendored());
    }
    files
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
            (kind, files(language, &project))
        };
        let pairs = Kind::ALL
            .into_iter()
            .flat_map(|kind| LANGUAGES.map(|language| (kind, language)));
        pairs.map(|(kind, language)| of(kind, language)).collect()
    }

    #[test]
    fn every_template_has_a_lock_file_cases_and_a_schema_that_its_defaults_fit() {
        let all = all();
        assert_eq!(all.len(), Kind::ALL.len() * LANGUAGES.len());
        for (kind, files) in all {
            let file = |name: &str| {
                files
                    .iter()
                    .find(|(found, _)| found == name)
                    .map(|(_, text)| text)
            };
            let locks = ["Cargo.lock", "package-lock.json", "requirements.txt"].map(file);
            let locked = |lock: &&String| {
                ["checksum = \"", "\"integrity\": \"sha512-", "--hash=sha256:"]
                    .iter()
                    .any(|digest| lock.contains(digest))
            };
            assert_eq!(
                locks.iter().flatten().filter(|lock| locked(lock)).count(),
                1,
                "{kind:?}"
            );
            let schema: serde_json::Value = serde_json::from_str(file(CONFIG_SCHEMA).unwrap()).unwrap();
            let validator = jsonschema::draft202012::new(&schema).unwrap();
            let properties = schema["properties"].as_object().unwrap();
            let defaults: serde_json::Map<String, serde_json::Value> = properties
                .iter()
                .map(|(key, property)| (key.clone(), property["default"].clone()))
                .collect();
            assert!(validator.is_valid(&defaults.into()), "{kind:?}");
            // What the cases are configured with and is accepted fits it too.
            let cases = crate::extensions::testing::read(file(CASES).unwrap()).unwrap();
            for case in cases.cases {
                let is_refused = matches!(case.expect, crate::extensions::testing::Expect::ConfigProblems(_));
                assert_eq!(
                    validator.is_valid(&case.config.into()),
                    !is_refused,
                    "{kind:?}: {}",
                    case.name
                );
            }
        }
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
                    "{{world}}",
                    "{{description}}",
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
