//! The decision cases of `tests/golden/decide` and of the examples.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

use std::{fs, path::Path};

use beamline_sidecar::cases;

fn failures(dir: &str) -> (usize, Vec<String>) {
    let (mut count, mut failures) = (0, Vec::new());
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    for entry in fs::read_dir(&dir).unwrap() {
        let file = entry.unwrap().path();
        for case in cases::load(&file).unwrap_or_else(|error| panic!("{error}")) {
            count += 1;
            for mismatch in cases::run(&case) {
                failures.push(format!("{}: {}: {mismatch}", file.display(), case.description));
            }
        }
    }
    (count, failures)
}

#[test]
fn every_golden_decision_holds() {
    let (count, failures) = failures("tests/golden/decide");
    assert!(count >= 70, "{count}");
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
    let cases = cases::load(&file).unwrap();
    let found: Vec<String> = cases::run(&cases[0])
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
        let error = cases::load(&file).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
