//! `docs/extensions.md`, followed step by step as a new author would, and the pages about extensions held against the
//! code.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use beamline_sidecar::extensions::Manifest;
use serde_json::{Value, json};

use crate::support::{OciRegistry, Process};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// A command, and what it prints where the page shows that.
struct Step<'a> {
    command: &'a str,
    shown: Option<&'a str>,
}

fn steps(text: &str) -> Vec<Step<'_>> {
    let fenced = text.split("\n```sh\n").skip(1);
    fenced
        .map(|rest| {
            let (command, rest) = rest.split_once("\n```\n").unwrap();
            let shown = rest
                .strip_prefix("\n```\n")
                .and_then(|rest| rest.split_once("\n```"));
            Step {
                command,
                shown: shown.map(|(shown, _)| shown),
            }
        })
        .collect()
}

/// Whether a text is as it is shown. `…` stands for anything within a line; alone in one, for any number of lines.
fn is_as_shown(shown: &str, text: &str) -> bool {
    let mut lines = text.lines();
    let mut wanted = shown.lines().peekable();
    while let Some(line) = wanted.next() {
        if line == "…" {
            let Some(next) = wanted.peek() else { return true };
            let skipped = lines.clone().take_while(|line| !matches(next, line)).count();
            lines.by_ref().take(skipped).for_each(drop);
        } else if !lines.next().is_some_and(|got| matches(line, got)) {
            return false;
        }
    }
    lines.next().is_none()
}

fn matches(shown: &str, line: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[test]
fn what_is_left_out_may_be_anything_and_the_rest_must_be_there() {
    for (shown, text, is) in [
        ("a", "a", true),
        ("a", "a\nb", false),
        ("a\n…", "a\nb\nc", true),
        ("a\n…\nd", "a\nb\nc\nd", true),
        ("a\n…\nd", "a\nd", true),
        ("a\n…\nd", "a\nb", false),
        ("size … KiB", "size 3.1 KiB", true),
        ("size … KiB", "size 3.1 MiB", false),
        ("{…\"x\":…}", "{\"y\":1,\"x\":2}", true),
        ("{…\"x\":…}", "{\"y\":1}", false),
        ("…", "", true),
    ] {
        assert_eq!(is_as_shown(shown, text), is, "{shown:?} {text:?}");
    }
}

/// Where the tutorial is followed: an empty directory.
struct Desk {
    dir: tempfile::TempDir,
    registry: OciRegistry,
    sidecar: Option<Process>,
}

impl Desk {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            registry: OciRegistry::start(),
            sidecar: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn follow(&mut self, step: &Step<'_>) {
        if let Some(run) = step.command.strip_suffix(" &") {
            let arguments: Vec<&str> = run.split(' ').skip(1).collect();
            // The ports that the page names may be taken here.
            let ports = [
                ("BEAMLINE_LISTEN", "127.0.0.1:0"),
                ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
            ];
            self.sidecar = Some(Process::start_in(self.dir.path(), &arguments, &ports));
            return;
        }
        let registry = self.registry.address.to_string();
        let mut command = step.command.replace("127.0.0.1:5000", &registry);
        if let Some(sidecar) = &self.sidecar {
            let admin = sidecar.admin.unwrap().to_string();
            command = command.replace("127.0.0.1:8080", &sidecar.listen[0]);
            command = command.replace("127.0.0.1:9901", &admin);
        }
        let program = Path::new(env!("CARGO_BIN_EXE_beamline-sidecar"));
        let programs = program.parent().unwrap().display();
        let output = Command::new("sh")
            .args(["-c", &format!("PATH={programs}:$PATH\n{command}")])
            .current_dir(self.dir.path())
            // The crates that extensions need are there since the extensions of this repository were built.
            .env("CARGO_NET_OFFLINE", "true")
            // Not the cache of the user who runs the tests.
            .env(
                "XDG_CACHE_HOME",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"),
            )
            .env(
                "CARGO_TARGET_DIR",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("ext"),
            )
            .output()
            .unwrap();
        let printed = on_a_quiet_machine(&String::from_utf8(output.stdout).unwrap());
        let errors = String::from_utf8_lossy(&output.stderr);
        let shown = step.shown.map(|shown| shown.replace("127.0.0.1:5000", &registry));
        match &shown {
            Some(shown) => assert!(
                is_as_shown(shown, &printed),
                "{command}\nis shown to print\n{shown}\nand prints\n{printed}\n{errors}"
            ),
            None => assert!(output.status.success(), "{command}: {errors}"),
        }
    }
}

/// Without the warning that a compilation took long, which is about this machine: as a reader sees it.
fn on_a_quiet_machine(printed: &str) -> String {
    let Some((before, warning)) = printed.split_once("warning: compiling it took ") else {
        return printed.to_owned();
    };
    let after = warning.splitn(3, '\n').nth(2).unwrap_or_default();
    format!("{before}{after}").replace("0 errors, 1 warning.", "0 errors, 0 warnings.")
}

/// Everything before the reference: readers copy it command by command.
#[test]
fn the_tutorial_can_be_followed() {
    let page = page("extensions.md");
    let (tutorial, _) = page.split_once("\n## Writing one\n").unwrap();
    let mut desk = Desk::new();
    let steps = steps(tutorial);
    for step in &steps {
        desk.follow(step);
        // A busy machine decides nothing here.
        let record = desk.path("my-guard/extension.json");
        if step.command.contains("ext new") {
            let patient = fs::read_to_string(&record)
                .unwrap()
                .replace(r#""timeout_ms": 100"#, r#""timeout_ms": 5000"#);
            fs::write(&record, patient).unwrap();
        }
    }
    let shown = steps.iter().filter(|step| step.shown.is_some()).count();
    assert!(
        desk.sidecar.is_some() && steps.len() >= 18 && shown >= 14,
        "{} steps, {shown} shown",
        steps.len()
    );
}

/// Each page, the language as `ext new` and as fenced code calls it, and where the code that it shows is from.
const LANGUAGES: [(&str, &str, &str); 3] = [
    ("extensions-rust.md", "rust", "wasm-extensions/templates/rust"),
    (
        "extensions-javascript.md",
        "js",
        "wasm-extensions/js/template/kinds",
    ),
    (
        "extensions-python.md",
        "python",
        "wasm-extensions/python/template/kinds",
    ),
];

/// The page of a language: the project that it begins with, the files that it names, its commands, and the code that it shows,
/// which is the project's own, so that what tests that tests the page.
#[test]
fn there_is_a_page_for_each_language_and_it_is_true() {
    for (name, language, source) in LANGUAGES {
        let page = page(name);
        assert!(
            self::page("extensions.md").contains(&format!("]({name})")),
            "{name}"
        );
        let steps = steps(&page);
        assert!(steps.len() >= 5, "{name}");
        let mut desk = Desk::new();
        desk.follow(&steps[0]);
        let project = steps[0].command.split(' ').nth(4).unwrap();
        let mut files = 0;
        for file in first_cells(&page).into_iter().flatten() {
            assert!(desk.path(project).join(file).exists(), "{name}: {file}");
            files += 1;
        }
        assert!(files >= 6, "{name}: {files}");
        for step in &steps {
            for part in step
                .command
                .split("&& ")
                .filter_map(|part| part.strip_prefix("beamline-sidecar "))
            {
                let arguments = part.split(' ').take(2).chain(["--help"]);
                let known = Command::new(env!("CARGO_BIN_EXE_beamline-sidecar"))
                    .args(arguments)
                    .output();
                assert!(known.unwrap().status.success(), "{name}: {part}");
            }
        }
        let mut sources = String::new();
        for entry in fs::read_dir(root().join(source)).unwrap() {
            sources += &fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        }
        let shown = blocks(&page, language);
        assert!(!shown.is_empty(), "{name}");
        for block in shown {
            assert!(
                sources.contains(block),
                "{name} shows what is not in {source}:\n{block}"
            );
        }
        for kind in ["`pre`", "`validator`", "`scorer`", "`post`"] {
            assert!(page.contains(kind), "{name}: {kind}");
        }
    }
}

/// From an empty directory, as a reader would.
fn follow_page(name: &str) {
    let page = page(name);
    let mut desk = Desk::new();
    for step in steps(&page) {
        desk.follow(&step);
    }
}

#[test]
fn the_page_for_rust_can_be_followed() {
    follow_page("extensions-rust.md");
}

#[test]
#[ignore = "needs Node.js and what it fetches from a registry: make test-guests"]
fn the_page_for_javascript_can_be_followed() {
    follow_page("extensions-javascript.md");
}

#[test]
#[ignore = "needs what Python fetches from a registry, and takes minutes: make test-guests"]
fn the_page_for_python_can_be_followed() {
    follow_page("extensions-python.md");
}

fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let parts = page.split(fence.as_str()).skip(1);
    parts.map(|part| part.split_once("\n```").unwrap().0).collect()
}

#[test]
fn records_and_policies_of_the_page_have_no_mistake() {
    let page = page("extensions.md");
    let (mut records, mut policies) = (0, 0);
    for text in blocks(&page, "json") {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if value["providers"].is_array() {
            let problems = beamline_sidecar::policy::check(&text.as_bytes().to_vec().into());
            assert!(problems.is_empty(), "{text}{problems:?}");
            policies += 1;
        } else {
            let (_, problems) = Manifest::read(text).unwrap_or_else(|problems| panic!("{text}{problems:?}"));
            assert!(problems.is_empty(), "{text}{problems:?}");
            records += 1;
        }
    }
    assert!(records >= 2 && policies >= 1, "{records} {policies}");
}

/// The first cells of the rows of a table, by what stands in backticks there.
fn first_cells(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    rows.map(|row| names(row.split(" | ").next().unwrap_or_default()))
        .collect()
}

fn names(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n{title}\n")).unwrap();
    rest.split("\n## ").next().unwrap()
}

#[test]
fn every_field_of_a_record_is_on_the_page() {
    let page = page("extensions.md");
    let table = section(&page, "## The registry record");
    let table = table.split("\n### ").next().unwrap();
    let told: BTreeSet<&str> = first_cells(table).into_iter().flatten().collect();
    assert!(told.len() >= 15, "{told:?}");
    // Nothing is unknown of what the page names, and what it does not name is.
    let read = |field: &str| {
        let mut record = json!({"id": "x", "type": "provider"});
        if record[field].is_null() {
            record[field] = Value::Null;
        }
        let (_, problems) = Manifest::read(&record.to_string()).unwrap();
        problems
            .iter()
            .all(|problem| problem.message != "there is no such key here")
    };
    for field in &told {
        assert!(read(field), "{field} is no field of a record");
    }
    let source = fs::read_to_string(root().join("src/extensions/manifest/read.rs")).unwrap();
    let known = source.split_once("const FIELDS: &[&str] = &[").unwrap().1;
    let known = known.split_once("];").unwrap().0;
    for field in known.split('"').skip(1).step_by(2) {
        assert!(read(field) && told.contains(field), "{field} is not on the page");
    }
}

/// The names that calls fail with are those that the metric has as labels.
#[test]
fn every_failure_is_on_the_page() {
    let page = page("extensions.md");
    let told: BTreeSet<&str> = first_cells(section(&page, "### When it fails"))
        .into_iter()
        .flatten()
        .filter(|name| name.contains('_') && !name.contains(' ') && *name != "on_fail: warn")
        .collect();
    let metrics = self::page("metrics.md");
    let row = metrics
        .lines()
        .find(|line| line.starts_with("| `beamline_sidecar_extension_failures_total`"))
        .unwrap();
    let (_, labels) = row.split_once("`error`: ").unwrap();
    let counted: BTreeSet<&str> = labels.split(" | ").next().unwrap().split(", ").collect();
    let missing: Vec<_> = told
        .difference(&counted)
        .chain(counted.difference(&told))
        .collect();
    assert!(missing.is_empty() && told.len() > 10, "{missing:?}");
}

/// The threat model names code and tests: all of it is there.
#[test]
fn what_the_threat_model_names_is_there() {
    let page = page("threat-model.md");
    let mut sources = String::new();
    let mut folders = ["src", "tests/it/extensions"]
        .map(|dir| root().join(dir))
        .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sources += &fs::read_to_string(path).unwrap_or_default();
            }
        }
    }
    let mut seen = (0, 0);
    for row in section(&page, "## Mechanisms")
        .lines()
        .filter(|line| line.starts_with("| "))
    {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [_, _, code, test] = cells[..] else {
            panic!("{row}");
        };
        for (cell, dir) in [(code, "src/extensions"), (test, "tests/it/extensions")] {
            for name in names(cell) {
                if Path::new(name)
                    .extension()
                    .is_some_and(|extension| extension == "rs" || extension == "toml")
                {
                    let places = [root().join(dir).join(name), root().join(name)];
                    assert!(places.iter().any(|place| place.exists()), "{name}: {row}");
                    seen.0 += 1;
                } else if cell == test && name.matches('_').count() >= 2 {
                    assert!(sources.contains(&format!("fn {name}(")), "{name}: {row}");
                    seen.1 += 1;
                }
            }
        }
    }
    assert!(seen.0 > 30 && seen.1 > 20, "{seen:?}");
}

/// Every key of the configuration that the pages name is one.
#[test]
fn keys_of_the_pages_are_keys() {
    let keys = page("configuration.md");
    let mut seen = 0;
    for name in ["extensions.md", "threat-model.md", "operations.md"] {
        let page = page(name);
        for key in names(&page)
            .into_iter()
            .filter(|key| key.starts_with("extensions."))
        {
            let key = key.split(':').next().unwrap();
            if key.ends_with(".md") || key.ends_with('*') {
                continue;
            }
            assert!(keys.contains(&format!("| `{key}` |")), "{key} in {name}");
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
}
