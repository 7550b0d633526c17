//! Policies, tried with the extensions that a sidecar would call.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    extensions::guest_path,
    support::{Ended, program},
};

/// A directory of policies, requests and extensions.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        for (id, kind, module, config) in [
            ("guard", "validator", "pii-guard", json!({"kinds": ["card"]})),
            (
                "favour",
                "scorer",
                "misbehaving-scorer",
                json!({"do": "favour", "provider": "b"}),
            ),
        ] {
            fs::create_dir_all(desk.path("extensions")).unwrap();
            fs::copy(
                guest_path(module),
                desk.path("extensions").join(format!("{id}.wasm")),
            )
            .unwrap();
            let granted = if kind == "scorer" {
                json!(["clock", "random", "metrics"])
            } else {
                json!([])
            };
            let record = json!({
                "id": id,
                "type": kind,
                "module": format!("file:{id}.wasm"),
                "config": config,
                "capabilities": granted,
            });
            desk.write(&format!("extensions/{id}.json"), &record);
        }
        desk.write("guarded.json", &policy(json!({"validators": [{"id": "guard"}]})));
        desk.write("plain.json", &policy(json!({})));
        desk.write(
            "favoured.json",
            &policy(json!({"scorers": [{"id": "favour", "mode": "required"}]})),
        );
        desk.write("request.json", &request("4111 1111 1111 1111"));
        desk
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, value: &Value) {
        fs::write(self.path(name), value.to_string()).unwrap();
    }

    fn run(&self, line: &str) -> Ended {
        let mut command = program();
        command
            .args(line.split(' '))
            .current_dir(self.0.path())
            // Not the cache of the user who runs the tests.
            .env(
                "XDG_CACHE_HOME",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"),
            );
        Ended::of(&mut command)
    }
}

fn policy(more: Value) -> Value {
    let mut policy = json!({
        "version": "1.0",
        "providers": [{"name": "a", "weight": 50}, {"name": "b", "weight": 50}],
    });
    for (key, value) in more.as_object().unwrap() {
        policy[key] = value.clone();
    }
    policy
}

fn request(text: &str) -> Value {
    json!({
        "version": "1",
        "request_id": "r-1",
        "tenant_id": "acme",
        "policy_id": "chat",
        "task": {"type": "chat", "payload": {"text": text}},
    })
}

#[test]
fn explain_calls_the_extensions_of_a_directory() {
    let desk = Desk::new();
    let explain = "explain --policy guarded.json --request request.json --json";
    let scripted = desk.run(explain);
    assert_eq!((scripted.code, &scripted.report()["ok"]), (0, &json!(true)));
    let refused = desk.run(&format!("{explain} --extensions extensions"));
    let report = refused.report();
    assert_eq!(
        (refused.code, &report["error"]["code"]),
        (1, &json!("validator_blocked")),
        "{report}"
    );
    let message = report["error"]["message"].as_str().unwrap();
    assert!(
        message.ends_with("personal data in the message: card (1)"),
        "{message}"
    );
    desk.write("request.json", &request("good morning"));
    assert_eq!(desk.run(&format!("{explain} --extensions extensions")).code, 0);
    // What a sidecar with this directory does not find is not found here.
    desk.write("guarded.json", &policy(json!({"validators": [{"id": "other"}]})));
    let unknown = desk.run(&format!("{explain} --extensions extensions")).report();
    assert!(
        unknown["error"]["message"]
            .as_str()
            .unwrap()
            .ends_with("extension_not_found"),
        "{unknown}"
    );
}

#[test]
fn simulate_draws_as_the_scorers_of_a_directory_say() {
    let desk = Desk::new();
    let simulate = "simulate --policy favoured.json --requests 200 --json";
    let served = |ended: Ended| -> Vec<(Value, Value)> {
        let report = ended.report();
        let providers = report["providers"].as_array().unwrap().iter();
        providers
            .map(|share| (share["provider_id"].clone(), share["served"].clone()))
            .collect()
    };
    assert_eq!(served(desk.run(simulate)).len(), 2);
    let real = served(desk.run(&format!("{simulate} --extensions extensions")));
    assert_eq!(real, [(json!("b"), json!(200))]);
    // With a message that the guard refuses, no provider is chosen.
    let guarded = desk.run(
        "simulate --policy guarded.json --requests 50 --request request.json --json --extensions extensions",
    );
    let report = guarded.report();
    assert!(report["providers"].as_array().unwrap().is_empty(), "{report}");
    assert_eq!(
        report["refused"].as_object().unwrap().values().next(),
        Some(&json!(50)),
        "{report}"
    );
}

#[test]
fn cases_of_decisions_hold_for_the_extensions_of_a_directory() {
    let desk = Desk::new();
    fs::write(
        desk.path("cases.yaml"),
        "- description: a card number is refused
  policy_file: guarded.json
  steps:
    - payload: {text: 4111 1111 1111 1111}
      want: {refusal: validator_blocked}
    - payload: {text: good morning}
      want: {}
- description: all are drawn as the scorer says
  policy_file: favoured.json
  steps:
    - want: {distribution: {runs: 50, shares: {b: 1.0}, tolerance: 0.0}}
- description: what the directory does not have answers as the case says
  policy: {version: '1.0', providers: [{name: a, weight: 100}], validators: [{id: other}]}
  extensions: {answers: {other: {answers: {valid: false}}}}
  steps:
    - want: {refusal: validator_blocked}
",
    )
    .unwrap();
    let real = desk.run("test cases.yaml --extensions extensions");
    assert_eq!(real.code, 0, "{}{}", real.out, real.errors);
    let scripted = desk.run("test cases.yaml --json").report();
    assert_eq!(scripted["failed"], 2, "{scripted}");
}

#[test]
fn diff_shows_whose_decision_a_real_extension_changes() {
    let desk = Desk::new();
    fs::write(
        desk.path("requests.ndjson"),
        format!(
            "{}\n{}\n",
            request("4111 1111 1111 1111"),
            request("good morning")
        ),
    )
    .unwrap();
    let diff = "diff plain.json guarded.json --requests requests.ndjson --seeds 5 --json";
    assert_eq!(desk.run(diff).report()["changed_requests"], 0);
    let report = desk.run(&format!("{diff} --extensions extensions")).report();
    assert_eq!(report["changed_requests"], 1, "{report}");
    assert!(
        report["new"].to_string().contains("validator_blocked"),
        "{report}"
    );
}

#[test]
fn a_directory_with_a_mistake_is_not_tried() {
    let desk = Desk::new();
    let explain = "explain --policy guarded.json --request request.json --extensions";
    desk.write(
        "extensions/guard.json",
        &json!({"id": "guard", "type": "validator", "module": "file:missing.wasm"}),
    );
    let missing = desk.run(&format!("{explain} extensions"));
    assert!(
        missing.code == 64 && missing.errors.contains("extensions: guard: "),
        "{}",
        missing.errors
    );
    fs::create_dir(desk.path("empty")).unwrap();
    let empty = desk.run(&format!("{explain} empty"));
    assert!(
        empty.code == 64 && empty.errors.contains("no extension"),
        "{}",
        empty.errors
    );
    for command in [
        "test cases",
        "simulate --policy guarded.json --requests 1",
        "diff plain.json guarded.json",
    ] {
        assert_eq!(
            desk.run(&format!("{command} --extensions nowhere")).code,
            64,
            "{command}"
        );
    }
}
