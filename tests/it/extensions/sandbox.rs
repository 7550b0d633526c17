//! What the sandbox holds against: components that no compiler makes, records and modules that ask for more than they may,
//! what is kept on disk. `docs/threat-model.md` names these tests.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use beamline_sidecar::extensions::{
    CallError, CallLimits, CallOutput, Compiler, ComponentCache, Engines, Kind, Raw, Time,
};
use serde_json::{Value, json};

use super::{
    LIMITS, TIME, built, compiler, component_cache, guest, message, misbehave, place::Place, record,
};
use crate::{
    decide::{decide, request},
    support::eventually,
};

fn call(name: &str, limits: CallLimits, time: Time) -> CallOutput<Raw> {
    use beamline_sidecar::extensions::{CallEnv, Work};
    let built = built(name);
    let prepared = component_cache()
        .link(&built, Kind::Validator, &built.interface.needs())
        .unwrap();
    let env = CallEnv { now_ms: 0, seed: 0 };
    prepared.call(record("{}"), Work::Validator(message("{}")), limits, time, env)
}

#[test]
fn answers_that_lie_outside_the_memory_or_are_no_text_are_refused() {
    for name in ["wild-answer", "no-text"] {
        let ran = call(name, LIMITS, TIME);
        assert!(
            matches!(ran.result, Err(CallError::Output { .. } | CallError::Trap(_))),
            "{name}: {:?}",
            ran.result
        );
    }
}

#[test]
fn taking_over_arguments_is_part_of_the_call() {
    let time = Time::of(Duration::from_millis(50));
    assert_eq!(
        call("loops-in-realloc", LIMITS, time).result,
        Err(CallError::Timeout)
    );
}

#[test]
fn tables_do_not_grow_past_their_limit() {
    let ran = call("grows-table", LIMITS, TIME);
    assert!(
        matches!(&ran.result, Err(CallError::Failure(failure)) if failure.code == "table_refused"),
        "{:?}",
        ran.result
    );
}

#[test]
fn more_than_may_be_said_is_never_taken() {
    let limits = CallLimits {
        output_bytes: 4_096,
        ..LIMITS
    };
    for deed in [r#"{"do":"huge-output","bytes":8000}"#, r#"{"do":"flood-log"}"#] {
        let ran = misbehave(deed, limits, TIME);
        let said: usize = ran.output.lines.iter().map(|(_, line)| line.len()).sum();
        assert!(
            said <= 32 * 1_024 && ran.output.lines.len() <= 32,
            "{deed}: {said} bytes"
        );
        if deed.contains("huge") {
            assert!(
                matches!(ran.result, Err(CallError::Output { .. })),
                "{deed}: {:?}",
                ran.result
            );
        }
    }
}

#[test]
fn a_compiler_that_needs_too_much_is_ended() {
    let with = |compiler: Compiler| {
        let engines = Engines::new(4, 16 << 20).unwrap();
        let cache = ComponentCache::new(std::sync::Arc::new(engines), compiler, None);
        cache.build(&guest("pii-guard")).unwrap_err().to_string()
    };
    let little = with(Compiler {
        memory_bytes: 24 << 20,
        ..compiler()
    });
    assert!(little.contains("max_compile_memory_bytes"), "{little}");
    let hasty = with(Compiler {
        timeout: Duration::ZERO,
        ..compiler()
    });
    assert!(hasty.contains("compile_timeout_ms"), "{hasty}");
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_come_only_from_where_they_may_and_no_larger_than_they_may() {
    let place = Place::new();
    place.extension("large", "validator", "misbehaving-validator", json!({}));
    let zeros = "0".repeat(64);
    for (id, module) in [
        ("far", "https://modules.example/x.wasm"),
        ("plain", "http://modules.example/x.wasm"),
        ("root", "file:/etc/passwd"),
        ("link", "file:extensions/../../x.wasm"),
    ] {
        place.record(
            id,
            json!({"id": id, "type": "validator", "module": module, "sha256": zeros}),
        );
    }
    place.extension(
        "greedy",
        "validator",
        "pii-guard",
        json!({"limits": {"memory_bytes": 1_073_741_824}}),
    );
    let sidecar = place.start("extensions: {max_module_bytes: 1024}");
    let reload = || async {
        let page = sidecar.admin().post("/admin/extensions/reload", "").await.json();
        page["problems"].clone()
    };
    let problems = reload().await;
    for (id, says) in [
        ("large", "extensions.max_module_bytes"),
        ("far", "extensions.module_hosts"),
        ("plain", "no scheme that is known"),
        ("root", "leads out"),
        ("link", "leads out"),
    ] {
        assert!(problems[id].to_string().contains(says), "{id}: {problems}");
    }
    sidecar.stop().await;
    let sidecar = place.start("");
    let problems = sidecar.admin().get("/admin/extensions").await.json()["problems"].clone();
    assert!(
        problems["greedy"]
            .to_string()
            .contains("extensions.max_memory_bytes"),
        "{problems}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_on_disk_is_for_the_sidecar_alone() {
    let place = Place::cold();
    place.extension("guard", "validator", "pii-guard", json!({}));
    let sidecar = place.start("");
    sidecar.stop().await;
    let dir = place.path("state/extensions/compiled");
    let mut seen = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
        seen += 1;
    }
    assert_eq!(seen, 2, "the key and one module");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_is_told_whose_request_it_is() {
    let place = Place::new();
    place.misbehaving("see", "post", json!({"config": {"do": "echo"}}));
    place.policy("chat", json!({"post": [{"id": "see"}]}));
    let sidecar = place.start("");
    let mut asked = request("acme", "chat", json!({"user_id": "ada", "request_id": "another"}));
    asked["trace_id"] = "4bf92f3577b34da6a3ce929d0e0e4736".into();
    let answer = decide(&sidecar.client(), &asked, &[("x-secret", "header")]).await;
    let call = answer.json()["decision"]["metadata"]["call"].clone();
    let told = |key: &str| call[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        [
            told("tenant_id"),
            told("policy_id"),
            told("request_id"),
            told("trace_id")
        ],
        ["acme", "chat", "r-1", "4bf92f3577b34da6a3ce929d0e0e4736"],
        "{}",
        answer.text()
    );
    assert_eq!(call["context"]["user_id"], "ada", "{call}");
    assert!(!answer.text().contains("x-secret"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_takes_long_over_configurations_does_not_keep_others_from_being_checked() {
    let place = Place::new();
    place.misbehaving("slow", "validator", json!({}));
    for number in 0..14 {
        let config = json!({"check": "loop", "note": number});
        place.policy(
            &format!("slow-{number}"),
            json!({"validators": [{"id": "slow", "config": config}]}),
        );
    }
    let sidecar = place.start("");
    place.policy(
        "wrong",
        json!({"validators": [{"id": "slow", "config": {"bad": true}}]}),
    );
    eventually("the mistake is told", || async {
        let page = sidecar.admin().get("/admin/snapshot").await.json();
        let told = |problem: &Value| problem["policy_id"] == "wrong";
        page["problems"]
            .as_array()
            .is_some_and(|problems| problems.iter().any(told))
    })
    .await;
}
