//! Records and modules: which are accepted, which are refused, and how changes are applied.

use std::{fs, sync::Arc};

use serde_json::{Value, json};

use super::{guest, place::Place};
use crate::{
    decide::{decide, outcome, request},
    support::{Heir, Sidecar, eventually},
};

async fn ask(sidecar: &Sidecar, policy: &str, context: Value) -> String {
    outcome(&decide(&sidecar.client(), &request("acme", policy, context), &[]).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_named_and_the_rest_activates() {
    let place = Place::new();
    place.extension("good", "validator", "pii-guard", json!({}));
    let wrong = "0".repeat(64);
    place.extension("digest", "validator", "pii-guard", json!({"sha256": wrong}));
    place.extension("world", "scorer", "pii-guard", json!({}));
    place.extension(
        "grants",
        "validator",
        "asks-for-everything",
        json!({"capabilities": ["clock"]}),
    );
    place.extension("wasi", "validator", "asks-for-wasi", json!({}));
    let module = guest("pii-guard");
    place.bytes(&module[..module.len() - 7], "cut.wasm");
    place.record(
        "cut",
        json!({"id": "cut", "type": "validator", "module": "file:cut.wasm"}),
    );
    place.record(
        "gone",
        json!({"id": "gone", "type": "validator", "module": "file:gone.wasm"}),
    );
    place.record(
        "out",
        json!({"id": "out", "type": "validator", "module": "file:../x.wasm"}),
    );
    place.record(
        "bus",
        json!({"id": "bus", "type": "pre", "subject": "beamline.ext.pre.bus.v1"}),
    );
    place.record(
        "far",
        json!({"id": "far", "type": "pre", "module": "https://x.example/y.wasm"}),
    );
    place.extension(
        "config",
        "validator",
        "pii-guard",
        json!({"config": {"kinds": "card"}}),
    );
    place.policy("chat", json!({"validators": [{"id": "good"}]}));
    place.policy(
        "asks",
        json!({"validators": [{"id": "good", "config": {"kinds": []}}, {"id": "world"}]}),
    );
    let sidecar = place.start("");
    assert!(ask(&sidecar, "chat", json!({})).await.starts_with("weighted "));
    let page = sidecar.admin().get("/admin/snapshot").await.json();
    let problems = &page["extension_problems"];
    for (id, says) in [
        ("digest", "SHA-256"),
        ("world", "world `scorer`"),
        ("grants", "\"random\""),
        ("wasi", "wasi:cli"),
        ("cut", "component"),
        ("gone", "cannot be read"),
        ("out", "leads out"),
        ("bus", "message bus"),
        ("far", "needs its digest"),
        ("config", "$.config"),
    ] {
        let text = problems[id].to_string();
        let said = text.contains(says)
            || problems[id][0]["message"]
                .to_string()
                .replace('\\', "")
                .contains(says);
        assert!(said, "{id}: {text}");
    }
    assert_eq!(problems["good"], Value::Null);
    let of_policies = page["problems"].to_string();
    assert!(
        of_policies.contains("$.validators[0].config.kinds"),
        "{of_policies}"
    );
    assert!(of_policies.contains("\\\"world\\\""), "{of_policies}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_is_exchanged_while_the_sidecar_runs() {
    let place = Place::new();
    place.misbehaving("guard", "validator", json!({}));
    place.policy("chat", json!({"validators": [{"id": "guard"}]}));
    let sidecar = place.start("");
    assert!(ask(&sidecar, "chat", json!({})).await.starts_with("weighted "));
    place.misbehaving("guard", "validator", json!({"config": {"do": "remember"}}));
    eventually("the new record counts", || async {
        ask(&sidecar, "chat", json!({})).await == "403 validator_blocked"
    })
    .await;
    // A broken record leaves what was good.
    place.record("guard", json!({"id": "guard", "type": "validator", "module": 7}));
    eventually("the broken record is told", || async {
        let page = sidecar.admin().get("/admin/extensions").await.json();
        page["problems"]["guard"].is_array()
    })
    .await;
    assert_eq!(ask(&sidecar, "chat", json!({})).await, "403 validator_blocked");
    fs::remove_file(place.path("extensions/guard.json")).unwrap();
    eventually("it is gone", || async {
        let answer = decide(&sidecar.client(), &request("acme", "chat", json!({})), &[]).await;
        answer.json()["error"]["details"]["reason"] == "extension_not_found"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_follow_their_rules_and_instances_their_weights() {
    let place = Place::new();
    place.misbehaving("see", "post", json!({
        "versions": [
            {"version": "v1", "config": {"do": "echo", "note": "one"}, "created_at": "2025-01-01T00:00:00Z"},
            {"version": "v2", "config": {"do": "echo", "note": "two"}, "created_at": "2025-02-01T00:00:00Z", "routing_rules": {"plan": ["gold", "silver"]}},
            {"version": "v3", "config": {"do": "echo", "note": "three"}, "created_at": "2025-03-01T00:00:00Z", "routing_rules": {"beta": true}},
            {"version": "v4", "config": {"do": "echo", "note": "four"}, "created_at": "2025-04-01T00:00:00Z", "enabled": false},
        ],
    }));
    place.policy("chat", json!({"post": [{"id": "see", "mode": "required"}]}));
    let sidecar = place.start("");
    for (context, note) in [
        (json!({}), "one"),
        (json!({"plan": "gold"}), "two"),
        (json!({"plan": "silver", "beta": false}), "two"),
        (json!({"plan": "gold", "beta": true}), "three"),
        (json!({"plan": "iron"}), "one"),
    ] {
        let answer = decide(&sidecar.client(), &request("acme", "chat", context.clone()), &[]).await;
        assert!(
            answer.text().contains(&format!("\"{note}\"")),
            "{context}: {}",
            answer.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_share_calls_by_weight() {
    let place = Place::new();
    place.module("misbehaving-scorer", "a.wasm");
    place.module("latency-scorer", "b.wasm");
    place.record(
        "score",
        json!({
            "id": "score", "type": "scorer", "module": "file:a.wasm", "capabilities": ["clock", "random", "metrics"],
            "instances": [
                {"instance_id": "main", "weight": 75},
                {"instance_id": "canary", "weight": 25, "module": "file:b.wasm"},
                {"instance_id": "off", "weight": 100, "enabled": false},
                {"instance_id": "ill", "weight": 100, "health_status": "unhealthy"},
            ],
        }),
    );
    place.policy("chat", json!({"scorers": [{"id": "score"}]}));
    let sidecar = place.start("");
    let page = sidecar.admin().get("/admin/extensions/score").await.json();
    let instances: Vec<_> = page["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["instance_id"].clone())
        .collect();
    assert_eq!(instances, ["main", "canary"], "{page}");
    let modules: Vec<_> = page["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["module"].clone())
        .collect();
    assert_eq!(
        modules,
        ["file:a.wasm", "file:b.wasm"],
        "each shows its own: {page}"
    );
    assert!(ask(&sidecar, "chat", json!({})).await.starts_with("weighted "));
}

#[tokio::test(flavor = "multi_thread")]
async fn heir_brings_policy_and_extension_together() {
    let heir = Heir::start(beamline_sidecar::store::Level::Changes).await;
    let store = heir.client();
    let module = guest("pii-guard");
    let digest = beamline_sidecar::extensions::ModuleDigest::of(&module).to_string();
    let put = store.put(&format!("/api/v1/modules/{digest}"), module).await;
    assert!(put.status.is_success(), "{}", put.text());
    let record = json!({"id": "pii-guard", "type": "validator", "module": format!("heir:sha256/{digest}")});
    let put = store
        .put("/api/v1/extensions/pii-guard", record.to_string())
        .await;
    assert!(put.status.is_success(), "{}", put.text());
    let policy = json!({"version": "1.0", "providers": [{"name": "alpha", "weight": 100}], "validators": [{"id": "pii-guard"}]});
    store.put_policy("acme/chat", policy.to_string()).await;
    let state = tempfile::tempdir().unwrap();
    let yaml = format!(
        "state_dir: {}\nwrites: {{validate: strict}}",
        state.path().display()
    );
    let sidecar = Sidecar::start(&heir.url(), &yaml);
    sidecar.wait_for("live").await;
    eventually("the module is there", || async {
        ask(&sidecar, "chat", json!({})).await == "weighted alpha"
    })
    .await;
    let mut asked = request("acme", "chat", json!({}));
    asked["task"]["payload"] = json!({"text": "4111 1111 1111 1111"});
    assert_eq!(
        outcome(&decide(&sidecar.client(), &asked, &[]).await),
        "403 validator_blocked"
    );
    // A configuration that the extension refuses is no policy.
    let wrong = json!({"version": "1.0", "providers": [{"name": "alpha", "weight": 100}], "validators": [{"id": "pii-guard", "config": {"kinds": ["cards"]}}]});
    let refused = sidecar.client().put_policy("acme/wrong", wrong.to_string()).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(
        refused.text().contains("$.validators[0].config.kinds"),
        "{}",
        refused.text()
    );
    // Nor is it taken by a decision when it is put straight into HEIR: it keeps the last good version.
    let broken = |page: &Value| {
        page["problems"][0]["problems"]
            .to_string()
            .contains("$.validators[0].config.kinds")
    };
    let admin = sidecar.admin();
    store.put_policy("acme/chat", wrong.to_string()).await;
    eventually("it is listed", || async {
        broken(&admin.get("/admin/snapshot").await.json())
    })
    .await;
    assert_eq!(
        sidecar.client().policy("acme/chat").await.text(),
        wrong.to_string()
    );
    assert_eq!(ask(&sidecar, "chat", json!({})).await, "weighted alpha");
    assert_eq!(
        outcome(&decide(&sidecar.client(), &asked, &[]).await),
        "403 validator_blocked",
        "by the last good version"
    );
    store.put_policy("acme/chat", policy.to_string()).await;
    eventually("it is well again", || async {
        admin.get("/admin/snapshot").await.json()["problem_count"] == 0
    })
    .await;
    // Another record, while it runs.
    let record = json!({"id": "pii-guard", "type": "validator", "module": format!("heir:sha256/{digest}"), "config": {"kinds": ["email"]}});
    store
        .put("/api/v1/extensions/pii-guard", record.to_string())
        .await;
    let asked = Arc::new(asked);
    eventually("cards pass now", || async {
        outcome(&decide(&sidecar.client(), &asked, &[]).await) == "weighted alpha"
    })
    .await;
    // Both are there again after a restart without HEIR.
    eventually("it is on disk", || async {
        state.path().join("snapshot").exists() || fs::read_dir(state.path()).unwrap().count() > 2
    })
    .await;
    sidecar.stop().await;
    let url = heir.url();
    let mut heir = heir;
    heir.gone().await;
    let sidecar = Sidecar::start(&url, &yaml);
    eventually("it is there again", || async {
        outcome(&decide(&sidecar.client(), &asked, &[]).await) == "weighted alpha"
    })
    .await;
    let page = sidecar.admin().get("/admin/extensions").await.json();
    assert_eq!(page["extensions"][0]["id"], "pii-guard", "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_switches_off_and_on() {
    let place = Place::new();
    place.misbehaving("guard", "validator", json!({"config": {"do": "trap"}}));
    place.misbehaving("never", "validator", json!({"enabled": false}));
    place.policy("chat", json!({"validators": [{"id": "guard"}]}));
    let sidecar = place.start("");
    let admin = sidecar.admin();
    let reason = || async {
        let answer = decide(&sidecar.client(), &request("acme", "chat", json!({})), &[]).await;
        answer.json()["error"]["details"]["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(reason().await, "extension_trap");
    assert_eq!(
        admin.post("/admin/extensions/guard/disable", "").await.json()["changed"],
        true
    );
    assert_eq!(reason().await, "extension_not_found");
    assert_eq!(
        admin.post("/admin/extensions/guard/disable", "").await.json()["changed"],
        false
    );
    assert_eq!(
        admin.post("/admin/extensions/guard/enable", "").await.json()["changed"],
        true
    );
    assert_eq!(reason().await, "extension_trap");
    assert_eq!(admin.post("/admin/extensions/never/enable", "").await.status, 409);
    assert_eq!(
        admin.post("/admin/extensions/nobody/enable", "").await.status,
        404
    );
    assert_eq!(
        admin.post("/admin/extensions/guard/explode", "").await.status,
        404
    );
    assert_eq!(admin.get("/admin/extensions/guard/enable").await.status, 405);
    assert_eq!(admin.post("/admin/extensions/reload", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn compiled_code_is_kept_and_never_trusted_blindly() {
    let place = Place::cold();
    place.extension("guard", "validator", "accepts", json!({}));
    place.policy("chat", json!({"validators": [{"id": "guard"}]}));
    let compiled = r"beamline_sidecar_extension_compile_seconds_count";
    let sidecar = place.start("");
    assert_eq!(
        sidecar.admin().post("/admin/extensions/reload", "").await.status,
        200
    );
    assert!((sidecar.metric(compiled).await - 1.0).abs() < 1e-9);
    sidecar.stop().await;
    let sidecar = place.start("");
    assert!(sidecar.metric(compiled).await.abs() < 1e-9, "it was on disk");
    sidecar.stop().await;
    let dir = place.path("state/extensions/compiled");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let file = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "compiled"))
        .unwrap();
    for change in [0, 40, 5_000] {
        let mut bytes = fs::read(&file).unwrap();
        bytes[change] ^= 1;
        fs::write(&file, bytes).unwrap();
        let sidecar = place.start("");
        assert!(
            (sidecar.metric(compiled).await - 1.0).abs() < 1e-9,
            "it is compiled anew"
        );
        assert!(ask(&sidecar, "chat", json!({})).await.starts_with("weighted "));
        sidecar.stop().await;
    }
    // Another key makes every file another one's.
    fs::remove_file(dir.join("key")).unwrap();
    let sidecar = place.start("");
    assert!((sidecar.metric(compiled).await - 1.0).abs() < 1e-9);
}

/// The problems of one extension, as text.
async fn problems(sidecar: &Sidecar, id: &str) -> String {
    let reloaded = sidecar.admin().post("/admin/extensions/reload", "").await.json();
    reloaded["problems"][id].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_good_goes_on_whatever_becomes_of_its_file() {
    let place = Place::new();
    place.extension(
        "guard",
        "validator",
        "pii-guard",
        json!({"config": {"kinds": ["card"]}}),
    );
    // Its file has another name than it has.
    let (file, other) = (
        place.path("extensions/of-guard.json"),
        place.path("extensions/z.json"),
    );
    fs::rename(place.path("extensions/guard.json"), &file).unwrap();
    let good = fs::read(&file).unwrap();
    place.policy(
        "chat",
        json!({"validators": [{"id": "guard", "on_fail": "block"}]}),
    );
    let sidecar = place.start("");
    let blocks = || async { ask_for(&sidecar, &json!({})).await };
    assert_eq!(blocks().await, "403 validator_blocked");
    let wrong_config =
        br#"{"id":"guard","type":"validator","module":"file:pii-guard.wasm","config":{"kinds":[]}}"#;
    for (bytes, says) in [
        (&b"{broken"[..], "not valid JSON"),
        (b"\xff\xfe", "cannot be read"),
        (&good[..good.len() / 2], "not valid JSON"),
        (&vec![b' '; 2_000_000], "bytes"),
        (wrong_config, "$.config.kinds"),
    ] {
        fs::write(&file, bytes).unwrap();
        let said = problems(&sidecar, "guard").await;
        assert!(said.contains(says), "{said}");
        assert_eq!(blocks().await, "403 validator_blocked", "{said}");
    }
    // A second file of that id is refused, whichever comes first by name.
    fs::write(&file, &good).unwrap();
    for other in [&other, &place.path("extensions/a.json")] {
        fs::write(
            other,
            br#"{"id":"guard","type":"validator","module":"file:nothing.wasm"}"#,
        )
        .unwrap();
        let said = problems(&sidecar, "guard").await;
        assert!(said.contains("both hold"), "{said}");
        assert_eq!(blocks().await, "403 validator_blocked");
        fs::remove_file(other).unwrap();
    }
    assert_eq!(problems(&sidecar, "guard").await, "null");
    // Switched off it is off, whatever its file says.
    fs::write(&file, b"{broken").unwrap();
    problems(&sidecar, "guard").await;
    let admin = sidecar.admin();
    assert_eq!(
        admin.post("/admin/extensions/guard/disable", "").await.json()["changed"],
        true
    );
    let page = admin.get("/admin/extensions").await.json();
    assert_eq!(page["disabled"][0]["id"], "guard", "{page}");
    assert_eq!(
        admin.post("/admin/extensions/guard/enable", "").await.json()["changed"],
        true
    );
    // Switched on again, it is what it was when it was good last.
    fs::write(&file, wrong_config).unwrap();
    let said = problems(&sidecar, "guard").await;
    assert!(said.contains("$.config.kinds"), "{said}");
    assert_eq!(blocks().await, "403 validator_blocked");
    // What never was good is not run.
    let never = String::from_utf8_lossy(wrong_config).replace("\"guard\"", "\"never\"");
    fs::write(&other, never).unwrap();
    let said = problems(&sidecar, "never").await;
    assert!(said.contains("$.config.kinds"), "{said}");
    let page = sidecar.admin().get("/admin/extensions").await.json();
    assert_eq!(page["extensions"].as_array().unwrap().len(), 1, "{page}");
    fs::remove_file(&other).unwrap();
    fs::write(&file, &good).unwrap();
    assert_eq!(problems(&sidecar, "guard").await, "null");
    assert_eq!(blocks().await, "403 validator_blocked");
}

/// What becomes of a message with a card in it.
async fn ask_for(sidecar: &Sidecar, metadata: &Value) -> String {
    let mut asked = request("acme", "chat", metadata.clone());
    asked["task"]["payload"] = json!({"text": "4111 1111 1111 1111"});
    outcome(&decide(&sidecar.client(), &asked, &[]).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_can_be_held_against_dry_runs_by_metadata() {
    let place = Place::new();
    place.extension("guard", "validator", "pii-guard", json!({}));
    place.policy(
        "chat",
        json!({"validators": [{"id": "guard", "on_fail": "block"}]}),
    );
    let dry = json!({"dry_run": true});
    let sidecar = place.start("");
    assert!(ask_for(&sidecar, &dry).await.starts_with("weighted "));
    sidecar.stop().await;
    let yaml = place.yaml("").replace(
        "allow_seed: true",
        "allow_seed: true, allow_metadata_dry_run: false",
    );
    let sidecar = Sidecar::try_start(&yaml).unwrap();
    assert_eq!(ask_for(&sidecar, &dry).await, "403 validator_blocked");
}

/// A policy of a provider that `odd` guards, with this configuration.
fn guarded_by_odd(provider: &str, config: Value) -> Value {
    json!({"version": "1.0", "providers": [{"name": provider, "weight": 100}], "validators": [{"id": "odd", "config": config}]})
}

/// The problems that the admin listener shows of a policy.
async fn problems_of(sidecar: &Sidecar, policy: &str) -> String {
    let page = sidecar.admin().get("/admin/snapshot").await.json();
    let all = page["problems"].as_array().unwrap();
    let of = all.iter().find(|it| it["policy_id"] == policy);
    of.map_or_else(String::new, |it| it["problems"].to_string())
}

const NEVER_CHECKED: &str = "its configuration could not be checked: the check took longer than 100 ms";

/// Such a policy is a broken one, wherever it comes from: its last good version decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_whose_check_never_ends_is_a_problem_of_its_policy() {
    let heir = Heir::start(beamline_sidecar::store::Level::Changes).await;
    let store = heir.client();
    let place = Place::new();
    place.misbehaving("odd", "validator", json!({}));
    for policy in ["from-file", "file-only"] {
        place.policy(policy, guarded_by_odd("alpha", json!({})));
    }
    store
        .put_policy("acme/from-heir", guarded_by_odd("alpha", json!({})).to_string())
        .await;
    let yaml = format!(
        "policies_dir: {}\nextensions_dir: {}\nstate_dir: {}\nwrites: {{validate: strict}}",
        place.path("policies").display(),
        place.path("extensions").display(),
        place.path("state").display(),
    );
    let sidecar = Sidecar::start(&heir.url(), &yaml);
    sidecar.wait_for("live").await;
    for policy in ["from-heir", "from-file"] {
        eventually("it decides", || async {
            ask(&sidecar, policy, json!({})).await == "weighted alpha"
        })
        .await;
    }
    let bad = guarded_by_odd("beta", json!({"check": "loop", "do": "trap"}));
    // A busy machine may have no time to check it: then it is not taken either.
    let refused = loop {
        let refused = sidecar.client().put_policy("acme/put", bad.to_string()).await;
        if refused.status != 503 {
            break refused;
        }
    };
    assert_eq!(refused.status, 422, "{}", refused.text());
    for said in [NEVER_CHECKED, "$.validators[0].config"] {
        assert!(refused.text().contains(said), "{}", refused.text());
    }
    store.put_policy("acme/from-heir", bad.to_string()).await;
    let file = place.path("policies/acme/from-file.json");
    std::fs::write(place.path("new"), bad.to_string()).unwrap();
    std::fs::rename(place.path("new"), file).unwrap();
    sidecar.admin().post("/admin/reload", "").await;
    for policy in ["from-heir", "from-file"] {
        eventually("it is listed", || async {
            let said = problems_of(&sidecar, policy).await;
            said.contains(NEVER_CHECKED) && said.contains("$.validators[0].config")
        })
        .await;
        assert_eq!(
            ask(&sidecar, policy, json!({})).await,
            "weighted alpha",
            "{policy}"
        );
    }
}

/// What extensions are asked is asked once the snapshot is published that the policies are in.
#[tokio::test(flavor = "multi_thread")]
async fn no_policy_waits_for_checks_of_configurations() {
    let heir = Heir::start(beamline_sidecar::store::Level::Changes).await;
    let store = heir.client();
    let place = Place::new();
    place.misbehaving("odd", "validator", json!({}));
    let yaml = format!(
        "extensions_dir: {}\nstate_dir: {}",
        place.path("extensions").display(),
        place.path("state").display(),
    );
    let sidecar = Sidecar::start(&heir.url(), &yaml);
    sidecar.wait_for("live").await;
    store
        .put_policy("acme/first", guarded_by_odd("alpha", json!({})).to_string())
        .await;
    eventually("it decides", || async {
        ask(&sidecar, "first", json!({})).await == "weighted alpha"
    })
    .await;
    let listed = async || {
        let page = sidecar.admin().get("/admin/snapshot").await.json();
        page["problems"].as_array().unwrap().len()
    };
    let mut was_seen_unjudged = false;
    for number in 0..12 {
        let before = listed().await;
        let (key, config) = (
            format!("acme/odd-{number}"),
            json!({"check": "loop", "note": number}),
        );
        store
            .put_policy(&key, guarded_by_odd("alpha", config).to_string())
            .await;
        eventually("it is there", || async {
            sidecar.client().policy(&key).await.status == 200
        })
        .await;
        was_seen_unjudged |= listed().await == before;
    }
    assert!(was_seen_unjudged, "each was there only once its check had ended");
    eventually("all are judged in the end", || async { listed().await == 12 }).await;
}
