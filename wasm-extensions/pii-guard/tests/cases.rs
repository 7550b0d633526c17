//! The cases that the guards in Rust, JavaScript and Python all keep: `../tests/pii-guard.yaml`.
#![expect(clippy::panic, reason = "helpers of a test")]

use beamline_extension_sdk::{Extension, Json, Validator, Verdict, testing};
use pii_guard::PiiGuard;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    message: Value,
    #[serde(default = "object")]
    context: Value,
    #[serde(default = "object")]
    config: Value,
    expect: Expected,
}

fn object() -> Value {
    Value::Object(serde_json::Map::new())
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Expected {
    Accept,
    Reject {
        reason: String,
        details: Option<Value>,
    },
    /// The paths, in any order.
    ConfigProblems(Vec<String>),
}

fn assert_case(case: &Case) {
    let name = &case.name;
    let config = Json::from(&case.config);
    let problems = PiiGuard::check_config(&config);
    if let Expected::ConfigProblems(wanted) = &case.expect {
        let Err(problems) = problems else {
            panic!("{name}: the configuration is accepted")
        };
        let mut found: Vec<_> = problems.into_iter().map(|problem| problem.path).collect();
        found.sort();
        let mut wanted = wanted.clone();
        wanted.sort();
        assert_eq!(found, wanted, "{name}");
        return;
    }
    assert_eq!(problems, Ok(()), "{name}");
    let Ok(config) = config.read() else {
        panic!("{name}: the configuration cannot be read")
    };
    let mut call = testing::call(config);
    call.context = Json::from(&case.context);
    let message = testing::message(case.message.get("payload").unwrap_or(&Value::Null));
    let Ok(verdict) = PiiGuard::validate(&call, &message) else {
        panic!("{name}: it fails")
    };
    match (&case.expect, verdict) {
        (Expected::Accept, verdict) => assert_eq!(verdict, Verdict::Accept, "{name}"),
        (Expected::Reject { reason, details }, Verdict::Reject(found)) => {
            assert_eq!(&found.reason, reason, "{name}");
            if let Some(details) = details {
                assert_eq!(&found.details.value().unwrap_or_default(), details, "{name}");
            }
        }
        (_, verdict) => panic!("{name}: {verdict:?}"),
    }
}

#[test]
fn the_guard_keeps_every_case() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/pii-guard.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let file: File = serde_saphyr::from_str(&text).unwrap();
    assert!(!file.cases.is_empty());
    file.cases.iter().for_each(assert_case);
}

#[test]
fn the_example_record_has_a_good_configuration() {
    let record: Value = serde_json::from_str(include_str!("../extension.json")).unwrap();
    assert_eq!(PiiGuard::check_config(&Json::from(&record["config"])), Ok(()));
}
