//! What a component says of itself, and what a new version newly asks for.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use super::ext::{ext, guest, write};
use crate::{
    extensions::guest_path,
    support::{Ended, program},
};

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A guest that says this of itself, as `ext build` writes it.
fn saying(dir: &Path, name: &str, guest: &str, text: &str) -> String {
    let mut bytes = fs::read(guest_path(guest)).unwrap();
    let section = "beamline-extension";
    let contents = [&leb128(section.len())[..], section.as_bytes(), text.as_bytes()].concat();
    bytes.push(0);
    bytes.extend(leb128(contents.len()));
    bytes.extend(contents);
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

fn about(version: &str, kind: &str, capabilities: &Value, schema: &Value) -> String {
    json!({
        "name": "my-guard",
        "version": version,
        "kind": kind,
        "capabilities": capabilities,
        "config_schema": schema,
    })
    .to_string()
}

/// The problems at a place, as `severity message`.
fn problems(ended: &Ended, path: &str) -> Vec<String> {
    let report = ended.report();
    let problems = report["problems"].as_array().unwrap().clone();
    problems
        .iter()
        .filter(|problem| problem["path"] == path)
        .map(|problem| {
            let text = |key: &str| problem[key].as_str().unwrap();
            format!("{} {}", text("severity"), text("message"))
        })
        .collect()
}

#[test]
fn check_says_what_a_new_version_newly_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let everything = json!(["clock", "random", "metrics"]);
    let schema = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
    let old = saying(
        dir.path(),
        "old.wasm",
        "pii-guard",
        &about(
            "1.0.0",
            "validator",
            &json!([]),
            &schema(json!({"kinds": {}, "allow": {}}), json!([])),
        ),
    );
    let new = saying(
        dir.path(),
        "new.wasm",
        "asks-for-everything",
        &about(
            "2.0.0",
            "validator",
            &everything,
            &schema(json!({"kinds": {}, "words": {}}), json!(["words"])),
        ),
    );
    let check = |new: &str, old: &str, more: &[&str]| {
        ext(&[&["check", new, "--against", old, "--json"], more].concat())
    };
    let told = check(&new, &old, &[]);
    assert_eq!(
        problems(&told, "against"),
        [
            "warning version 2.0.0 newly asks for clock, random, metrics",
            "warning version 2.0.0 no longer knows allow of the configuration",
            "warning version 2.0.0 newly requires words in the configuration",
        ]
    );
    assert_eq!((told.code, check(&new, &old, &["--deny-warnings"]).code), (0, 1));
    assert!(
        problems(&check(&old, &new, &[]), "against")
            .iter()
            .all(|told| !told.contains("newly asks"))
    );
    assert_eq!(problems(&check(&old, &old, &[]), "against"), Vec::<String>::new());
    // Their imports tell as much of components that say nothing.
    let told = check(&guest("asks-for-everything"), &guest("pii-guard"), &[]);
    assert_eq!(
        problems(&told, "against"),
        ["warning it newly asks for clock, random, metrics"]
    );
    let told = check(&guest("misbehaving-scorer"), &guest("pii-guard"), &[]);
    assert!(
        told.code == 1 && problems(&told, "against")[0].starts_with("error it is of the world scorer"),
        "{}",
        told.out
    );
    let again = saying(
        dir.path(),
        "again.wasm",
        "asks-for-everything",
        &about("1.0.0", "validator", &everything, &Value::Null),
    );
    assert!(
        problems(&check(&again, &old, &[]), "against")
            .contains(&"warning both say that they are version 1.0.0, and they differ".to_owned())
    );
    assert_eq!(check(&new, "no/such/file.wasm", &[]).code, 64);
}

#[test]
fn a_component_that_asks_for_more_than_it_says_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (text, told) in [
        (
            about("1", "validator", &json!(["clock"]), &Value::Null),
            "error it imports random, metrics and does not say so",
        ),
        (
            about(
                "1",
                "scorer",
                &json!(["clock", "random", "metrics"]),
                &Value::Null,
            ),
            "error it says that it is a scorer, and is none",
        ),
        (
            "{".to_owned(),
            "error its section beamline-extension is not what `ext build` writes",
        ),
    ] {
        let component = saying(dir.path(), "odd.wasm", "asks-for-everything", &text);
        let ended = ext(&["check", &component, "--json"]);
        let found = problems(&ended, "about");
        assert!(
            ended.code == 1 && found.len() == 1 && found[0].starts_with(told),
            "{found:?}"
        );
    }
}

#[test]
fn a_record_is_held_against_the_schema_within_the_component() {
    let dir = tempfile::tempdir().unwrap();
    let schema = json!({"type": "object", "properties": {"kinds": {"type": "array", "maxItems": 1}}});
    let component = saying(
        dir.path(),
        "guard.wasm",
        "pii-guard",
        &about("1", "validator", &json!([]), &schema),
    );
    let record = |kinds: Value| {
        let record = json!({"id": "guard", "type": "validator", "module": "file:guard.wasm", "config": {"kinds": kinds}});
        write(dir.path(), "record.json", &record.to_string())
    };
    let fits = ext(&[
        "check",
        &component,
        "--record",
        &record(json!(["card"])),
        "--json",
    ]);
    assert_eq!(fits.code, 0, "{}", fits.out);
    let many = ext(&[
        "check",
        &component,
        "--record",
        &record(json!(["card", "email"])),
        "--json",
    ]);
    let found = problems(&many, "$.config.kinds");
    assert!(
        many.code == 1 && found.len() == 1 && found[0].contains("schema within the component"),
        "{}",
        many.out
    );
    // What the component itself refuses is told once.
    let wrong = ext(&["check", &component, "--record", &record(json!("card")), "--json"]);
    assert_eq!(problems(&wrong, "$.config.kinds").len(), 1, "{}", wrong.out);
    let shown = ext(&["inspect", &component, "--json"]).report();
    assert_eq!(
        (&shown["about"]["name"], &shown["about"]["config_schema"]),
        (&json!("my-guard"), &schema)
    );
}

#[test]
fn schemas_of_records_and_cases_are_printed() {
    let schema = |of: &[&str]| {
        let mut command: Command = program();
        let ended = Ended::of(command.arg("schema").args(of));
        assert_eq!(ended.code, 0, "{}", ended.errors);
        ended.report()
    };
    assert_eq!(schema(&[]), schema(&["policy"]));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("wasm-extensions");
    let records = jsonschema::draft202012::new(&schema(&["record"])).unwrap();
    for name in [
        "pii-guard",
        "mask-pii/pre",
        "mask-pii/post",
        "normalize-text",
        "latency-scorer",
    ] {
        let text = fs::read_to_string(root.join(name).join("extension.json")).unwrap();
        let record: Value = serde_json::from_str(&text).unwrap();
        assert!(records.is_valid(&record), "{name}");
    }
    assert_eq!(
        schema(&["cases"])["properties"]["extension"]["enum"],
        json!(["pre", "validator", "scorer", "post"])
    );
}
