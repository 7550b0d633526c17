//! The decision cases of `tests/golden/decide` and of the examples.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail the test that called them, and a test that is skipped says so"
)]

use std::{fs, path::Path};

use beamline_sidecar::{policy, testing};
use serde_json::json;

fn failures(dir: &str) -> (usize, Vec<String>) {
    let (mut count, mut failures) = (0, Vec::new());
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    for entry in fs::read_dir(&dir).unwrap() {
        let file = entry.unwrap().path();
        for case in testing::load(&file).unwrap_or_else(|error| panic!("{error}")) {
            count += 1;
            for mismatch in testing::run(&case) {
                failures.push(format!("{}: {}: {mismatch}", file.display(), case.description));
            }
        }
    }
    (count, failures)
}

#[test]
fn every_golden_decision_holds() {
    let (count, failures) = failures("tests/golden/decide");
    assert!(count >= 140, "{count}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_example_decision_holds() {
    let (count, failures) = failures("examples/decisions");
    assert!(count >= 3 && failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_case_that_does_not_hold_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("case.yaml");
    fs::write(&file, "description: wrong\npolicy: {weights: {a: 1.0}}\nsteps: [{want: {provider_id: b, steps: []}}, {want: {refusal: x}}]").unwrap();
    let cases = testing::load(&file).unwrap();
    let found: Vec<String> = testing::run(&cases[0])
        .iter()
        .map(|m| format!("{} {}", m.step, m.path))
        .collect();
    assert_eq!(found, ["1 provider_id", "1 steps", "2 refusal"]);
    for (text, why) in [
        ("description: x\npolicy: {}\nsteps: []", "has no steps"),
        ("description: x\nsteps: [{want: {}}]", "names no policy"),
        ("description: x\npolicy: {}\nsteps: [{wanted: {}}]", "wanted"),
        (
            "description: x\npolicy_file: nothing.json\nsteps: [{want: {}}]",
            "nothing.json",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let error = testing::load(&file).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// Third-party policies, in the directory that `BEAMLINE_FIXTURES` names: each loads without an error and explains
/// itself at every level.
#[test]
fn every_policy_of_a_named_directory_loads_and_explains_itself() {
    let Some(dir) = std::env::var_os("BEAMLINE_FIXTURES") else {
        println!("BEAMLINE_FIXTURES is not set; skipped");
        return;
    };
    let mut seen = 0;
    let mut dirs = vec![Path::new(&dir).to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                dirs.push(file);
                continue;
            }
            let text = fs::read(&file).unwrap();
            let problems = policy::check(&text.clone().into());
            let errors: Vec<_> = problems
                .iter()
                .filter(|p| p.severity == policy::Severity::Error)
                .collect();
            assert!(errors.is_empty(), "{}: {errors:?}", file.display());
            let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let levels = ["minimal", "detailed", "verbose"];
            let steps: Vec<_> = levels
                .iter()
                .map(
                    |level| json!({"context": {"user_id": "u", "session_id": "u"}, "want": {"level": level}}),
                )
                .collect();
            let case = json!({"description": "x", "policy": document, "extensions": {"others_succeed": true}, "steps": steps});
            let case: testing::Case = serde_json::from_value(case).unwrap();
            assert_eq!(testing::run(&case), [], "{}", file.display());
            seen += 1;
        }
    }
    println!("{seen} policies load and explain themselves");
    assert!(seen > 0);
}
