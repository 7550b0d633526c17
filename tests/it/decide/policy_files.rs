//! The sample policies: the good ones load, decide and are of the schema's form; the bad ones have exactly the problems
//! that stand beside them.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{fs, path::PathBuf};

use beamline_sidecar::policy::{self, Severity};
use serde_json::Value;

fn files(dir: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(dir)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(path.to_str().unwrap(), extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort_unstable();
    found
}

fn problems(file: &PathBuf) -> Vec<String> {
    let problems = policy::check(&fs::read(file).unwrap().into());
    let severity = |severity| {
        if severity == Severity::Error {
            "error"
        } else {
            "warning"
        }
    };
    problems
        .iter()
        .map(|p| format!("{} {} {}", severity(p.severity), p.path, p.message))
        .collect()
}

#[test]
fn every_good_policy_has_no_error_and_is_of_the_schemas_form() {
    let schema = policy::schema();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let samples: Vec<PathBuf> = ["tests/policies/valid", "examples"]
        .iter()
        .flat_map(|dir| files(dir, "json"))
        .collect();
    assert!(samples.len() >= 17, "{samples:?}");
    for file in samples {
        let errors: Vec<String> = problems(&file)
            .into_iter()
            .filter(|problem| problem.starts_with("error"))
            .collect();
        assert_eq!(errors, Vec::<String>::new(), "{}", file.display());
        let document: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        if let Err(error) = validator.validate(&document) {
            panic!("{}: {error} at {}", file.display(), error.instance_path());
        }
    }
}

/// `BEAMLINE_UPDATE_PROBLEMS=1` writes the lists anew; read the difference before it is committed.
#[test]
fn every_bad_policy_has_exactly_its_problems() {
    let schema = policy::schema();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let bad = files("tests/policies/invalid", "json");
    assert!(bad.len() >= 20);
    for file in bad {
        let found = problems(&file).join("\n") + "\n";
        assert!(found.contains("error "), "{} has only warnings", file.display());
        let list = file.with_extension("problems");
        if option_env!("BEAMLINE_UPDATE_PROBLEMS").is_some() {
            fs::write(&list, &found).unwrap();
        }
        assert_eq!(found, fs::read_to_string(&list).unwrap(), "{}", file.display());
        if let Ok(document) = serde_json::from_slice::<Value>(&fs::read(&file).unwrap())
            && !file.ends_with("twice.json")
            && !file.ends_with("too_deep.json")
            && !file.ends_with("legacy_range.json")
        {
            assert!(
                !validator.is_valid(&document),
                "the schema takes {}",
                file.display()
            );
        }
    }
}
