//! Cases of the platform's form — `given`, `expect`, `basis` — judged one by one.
//!
//! `tests/conformance/own.json` always runs; the file that `BEAMLINE_CONFORMANCE` names runs where it is set. A case
//! that is not understood in full has failed: what it says was not proved.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail the test that called them"
)]

mod breakers;
mod decisions;
mod documents;
mod expect;
mod fixtures;
mod lists;
mod pipelines;
mod sessions;
mod shorthand;
mod world;

use std::{fs, path::Path};

use serde_json::{Map, Value};

use self::{expect::Expect, fixtures::Fixtures};

/// What became of a case.
#[derive(Debug, PartialEq)]
enum Judged {
    /// With remarks on parts of a case that cannot be compared here.
    Passed(Vec<String>),
    /// Every difference, wanted and got.
    Failed(Vec<String>),
    /// It needs something that the sidecar does not have, which is named.
    Skipped(String),
}

type Object = Map<String, Value>;

/// One case. Keys of both halves are taken out as they are understood; what is left over was not.
struct Case {
    given: Object,
    expect: Expect,
    fixtures: Fixtures,
}

impl Case {
    fn take(&mut self, key: &str) -> Option<Value> {
        self.given.remove(key)
    }

    fn has(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }
}

async fn judge(case: &Value, fixtures: &Fixtures) -> Judged {
    let object = |key: &str| case.get(key).and_then(Value::as_object).cloned();
    let (Some(given), Some(expect)) = (object("given"), object("expect")) else {
        return Judged::Failed(vec!["not understood: a case has `given` and `expect`".to_owned()]);
    };
    let mut case = Case {
        given,
        expect: Expect::new(expect),
        fixtures: fixtures.clone(),
    };
    if let Some(what) = beyond_the_sidecar(&case) {
        return Judged::Skipped(what);
    }
    let understood = run(&mut case).await;
    let mut differences = case.expect.finish();
    differences.extend(understood.err().map(|what| format!("not understood: {what}")));
    for (key, value) in &case.given {
        differences.push(format!("not understood: given.{key} = {value}"));
    }
    if differences.is_empty() {
        Judged::Passed(case.expect.remarks())
    } else {
        Judged::Failed(differences)
    }
}

/// The parts of the platform that do not exist here.
fn beyond_the_sidecar(case: &Case) -> Option<String> {
    const ELSEWHERE: [(&str, &str); 8] = [
        ("roles", "roles"),
        ("role", "roles"),
        ("permissions", "roles"),
        ("grpc", "gRPC"),
        ("grpc_request", "gRPC"),
        ("admin_policy", "gRPC"),
        ("nats", "messaging"),
        ("subject", "messaging"),
    ];
    if let Some((_, what)) = ELSEWHERE.into_iter().find(|(key, _)| case.has(key)) {
        return Some(what.to_owned());
    }
    let operations = case.given.get("operations").and_then(Value::as_array);
    let words = operations
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter_map(|text| text.split_whitespace().next());
    words
        .into_iter()
        .any(|word| ["assign", "revoke", "check"].contains(&word))
        .then(|| "roles".to_owned())
}

/// Runs every part of a case that is understood. The order is that of the more particular shapes first.
async fn run(case: &mut Case) -> Result<(), String> {
    let given = |keys: &[&str]| keys.iter().any(|key| case.given.contains_key(*key));
    if given(&["ttl"]) || given(&["validate", "validate_sticky", "validate_fallback"]) || only_ids(case) {
        return documents::run(case);
    }
    if given(&["sticky"]) && !given(&["policy"]) {
        return documents::run(case);
    }
    if given(&["json", "text"]) {
        return documents::text(case);
    }
    if given(&["context"]) && documents::REDACTED.iter().any(|key| case.expect.has(key)) {
        return documents::redacted(case);
    }
    if given(&["backoff"]) {
        return documents::backoff(case);
    }
    if given(&["store"]) {
        return sessions::run(case);
    }
    if given(&["when"]) {
        return documents::conditions(case);
    }
    if given(&["events", "calls"]) {
        return breakers::run(case);
    }
    if given(&["results"]) {
        return breakers::classify_results(case);
    }
    if given(&["counts"]) {
        return pipelines::counts(case);
    }
    if given(&["checks"]) {
        return pipelines::checks(case);
    }
    if given(&["requests"]) {
        return decisions::requests(case).await;
    }
    if given(&["explanation"]) {
        return decisions::explanations(case).await;
    }
    if given(&["request"]) || given(&["operations"]) || lists::is_list(case) {
        return lists::run(case).await;
    }
    if !given(&["policy"]) && given(&["pre", "validators", "post", "answers", "answer"]) {
        return pipelines::run(case).await;
    }
    if given(&["policy"]) {
        documents::parsed(case)?;
    }
    if case.expect.is_empty() {
        return Ok(());
    }
    decisions::run(case).await
}

fn only_ids(case: &Case) -> bool {
    let ids = ["policy_id", "tenant_id"];
    !case.given.is_empty() && case.given.keys().all(|key| ids.contains(&key.as_str()))
}

/// Judges a whole file and says what came of each case.
async fn judge_file(text: &str, fixtures: &Fixtures) -> Vec<(String, Judged)> {
    let cases: Vec<Value> = serde_json::from_str(text).unwrap();
    let mut judged = Vec::with_capacity(cases.len());
    for case in &cases {
        let id = case.get("id").and_then(Value::as_str).unwrap_or("(no id)");
        judged.push((id.to_owned(), judge(case, fixtures).await));
    }
    judged
}

fn report(file: &str, judged: &[(String, Judged)]) -> usize {
    let mut counts = [0; 3];
    for (id, judged) in judged {
        match judged {
            Judged::Passed(remarks) => {
                counts[0] += 1;
                eprintln!("{id}: passed");
                for remark in remarks {
                    eprintln!("    {remark}");
                }
            }
            Judged::Failed(differences) => {
                counts[1] += 1;
                eprintln!("{id}: FAILED");
                for difference in differences {
                    eprintln!("    {difference}");
                }
            }
            Judged::Skipped(what) => {
                counts[2] += 1;
                eprintln!("{id}: skipped, it needs {what}");
            }
        }
    }
    let [passed, failed, skipped] = counts;
    eprintln!("{file}: {passed} passed, {failed} failed, {skipped} skipped");
    failed
}

#[tokio::test]
async fn conformance_of_our_own_cases() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/own.json");
    let judged = judge_file(&fs::read_to_string(&path).unwrap(), &Fixtures::built_in()).await;
    assert!(judged.len() >= 25);
    assert_eq!(report("own.json", &judged), 0, "see above");
}

#[tokio::test]
async fn conformance_of_the_named_file() {
    let Some(path) = std::env::var_os("BEAMLINE_CONFORMANCE").filter(|path| !path.is_empty()) else {
        eprintln!("BEAMLINE_CONFORMANCE names no file: nothing was judged");
        return;
    };
    let path = Path::new(&path);
    let judged = judge_file(&fs::read_to_string(path).unwrap(), &Fixtures::beside(path)).await;
    assert_eq!(report(&path.to_string_lossy(), &judged), 0, "see above");
}

/// The judge itself: a wrong answer, an unknown word, a word too many are failures, each by name.
#[tokio::test]
async fn conformance_takes_nothing_on_trust() {
    let fixtures = Fixtures::built_in();
    for (text, told) in [
        (
            r#"{"given":{"policy":{"weights":{"a":1.0}},"context":{}},"expect":{"provider_id":"b"}}"#,
            "provider_id: wanted \"b\", got \"a\"",
        ),
        (
            r#"{"given":{"policy":{"weights":{"a":1.0}},"context":{}},"expect":{"provider_id":"a","colour":"red"}}"#,
            "not understood: expect.colour",
        ),
        (
            r#"{"given":{"policy":{"weights":{"a":1.0}},"context":{},"moon":"full"},"expect":{"provider_id":"a"}}"#,
            "not understood: given.moon",
        ),
        (
            r#"{"given":{"moon":"full"},"expect":{"tide":"high"}}"#,
            "not understood",
        ),
        (
            r#"{"given":{"policy":"fixture nowhere"},"expect":{"reason":"weighted"}}"#,
            "nowhere",
        ),
        (
            r#"{"given":{"events":"F X","config":{}},"expect":{"state":"open"}}"#,
            "not understood",
        ),
        (
            r#"{"given":{"ttl":["1h"]},"expect":{"ttl_seconds":[60]}}"#,
            "ttl_seconds[0]: wanted 60, got 3600",
        ),
        (r#"{"given":{"ttl":["1h"]},"expect":{}}"#, "nothing"),
    ] {
        let case = serde_json::from_str(text).unwrap();
        match judge(&case, &fixtures).await {
            Judged::Failed(differences) => {
                assert!(
                    differences.iter().any(|said| said.contains(told)),
                    "{text}: {differences:?}"
                );
            }
            other => assert_eq!(other, Judged::Failed(vec![told.to_owned()]), "{text}"),
        }
    }
}
