//! What happened in a sidecar, replayed by the extension's author.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::ext::{PATIENCE, ext_in, write};
use crate::{
    extensions::guest_path,
    support::{Client, Ended, Process, eventually, program},
};

fn request(id: &str, payload: &Value) -> String {
    json!({
        "version": "1",
        "request_id": id,
        "tenant_id": "acme",
        "policy_id": "chat",
        "task": {"type": "chat", "payload": payload},
    })
    .to_string()
}

/// The lines of all recordings.
fn recorded(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir.join("state/recordings")).into_iter().flatten();
    let texts = files.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    texts
        .flat_map(|text| text.lines().map(ToOwned::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Has the extensions compiled before the sidecar starts, which on a busy machine takes longer than a start may: into the
/// directory that `simulate` keeps them in, which has the form of a sidecar's.
fn compile(dir: &Path) {
    let arguments = "simulate --policy policies/acme/chat.json --requests 1 --extensions extensions";
    let mut command = program();
    command
        .args(arguments.split(' '))
        .current_dir(dir)
        .env("XDG_CACHE_HOME", dir.join("cache"));
    let compiled = Ended::of(&mut command);
    assert_eq!(compiled.code, 0, "{}", compiled.errors);
    let mut kept = fs::read_dir(dir.join("cache/beamline-sidecar/directories")).unwrap();
    fs::rename(kept.next().unwrap().unwrap().path(), dir.join("state")).unwrap();
}

/// A sidecar that records two validators: one that looks for cards, and one that tells the time.
async fn record(dir: &Path) {
    for name in ["extensions", "policies/acme"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    for (id, module, config) in [
        ("guard", "pii-guard", json!({"kinds": ["card"]})),
        ("clock", "misbehaving-validator", json!({"do": "clock"})),
    ] {
        fs::copy(guest_path(module), dir.join(format!("extensions/{id}.wasm"))).unwrap();
        let record = json!({
            "id": id,
            "type": "validator",
            "module": format!("file:{id}.wasm"),
            "config": config,
            "timeout_ms": 5_000,
            "capabilities": if id == "clock" { json!(["clock", "random", "metrics"]) } else { json!([]) },
        });
        write(dir, &format!("extensions/{id}.json"), &record.to_string());
    }
    let policy = json!({
        "version": "1.0",
        "providers": [{"name": "openai", "weight": 100}],
        "validators": [{"id": "clock", "on_fail": "ignore"}, {"id": "guard"}],
    });
    write(dir, "policies/acme/chat.json", &policy.to_string());
    write(
        dir,
        "sidecar.yaml",
        "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\nheir_policy_store_enabled: false\n\
         policies_dir: policies\nextensions_dir: extensions\nstate_dir: state\n\
         extensions: {record: {enabled: true, max_per_second: 1000}}\n",
    );
    compile(dir);
    let sidecar = Process::start_in(dir, &["run", "--config", "sidecar.yaml"], &[]);
    let client = Client::new(sidecar.listen[0].clone());
    eventually("the guard is called", async || {
        let answer = client
            .post("/api/v1/decide", request("r-0", &json!({"text": "good morning"})))
            .await;
        answer.status == 200
    })
    .await;
    let refused = client
        .post(
            "/api/v1/decide",
            request("r-1", &json!({"text": "4111 1111 1111 1111"})),
        )
        .await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    client
        .post(
            "/api/v1/decide",
            request("r-2", &json!({"text": "hello", "email": "ada@example.com"})),
        )
        .await;
    eventually("both validators' calls are recorded", async || {
        let of_last = |line: &&String| line.contains("r-2");
        recorded(dir).iter().filter(of_last).count() == 2
    })
    .await;
}

#[tokio::test]
async fn what_a_sidecar_recorded_is_replayed_on_another_version() {
    let desk = tempfile::tempdir().unwrap();
    let dir = desk.path();
    record(dir).await;
    // The log's rules hold, and no other user reads it.
    let lines = recorded(dir);
    assert!(
        !lines.iter().any(|line| line.contains("ada@example.com")),
        "{lines:?}"
    );
    for entry in fs::read_dir(dir.join("state/recordings")).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
    let replay = |recordings: &str, component: &str, id: &str| {
        let arguments = ["replay", recordings, component, "--extension", id, "--json"];
        ext_in(dir, &[&arguments[..], &PATIENCE[..]].concat())
    };
    // The same component answers the same: input, configuration, seed and clock are those of the call.
    for id in ["guard", "clock"] {
        let same = replay("state/recordings", &format!("extensions/{id}.wasm"), id);
        let report = same.report();
        assert_eq!((same.code, &report["changed"]), (0, &json!(0)), "{report}");
        assert!(report["calls"].as_u64().unwrap() >= 3, "{report}");
        assert!(report["recorded"]["p50_us"].as_f64().unwrap() > 0.0);
        assert!(report["now"]["memory_bytes"].as_u64().unwrap() > 0);
        let results = report["results"].as_array().unwrap();
        let redacted = results.iter().filter(|call| call["redacted"] == true);
        assert_eq!(redacted.count(), 1, "{report}");
    }
    // Another version, as which the guard serves that was asked for cards and looks for addresses.
    let all = recorded(dir).join("\n") + "\n";
    let other = all.replace(r#""kinds":["card"]"#, r#""kinds":["email"]"#);
    assert_ne!(all, other);
    write(dir, "other.ndjson", &other);
    let changed = replay("other.ndjson", "extensions/guard.wasm", "guard");
    let report = changed.report();
    assert_eq!(
        (changed.code, &report["tenants"]["acme"]["changed"]),
        (1, &json!(1)),
        "{report}"
    );
    let shown = ext_in(
        dir,
        &[
            &[
                "replay",
                "other.ndjson",
                "extensions/guard.wasm",
                "--extension",
                "guard",
            ],
            &PATIENCE[..],
        ]
        .concat(),
    );
    for told in [
        "differs guard for acme, request \"r-1\"",
        "recorded {\"reject\"",
        "now      \"accept\"",
        "acme: 1 of ",
    ] {
        assert!(shown.out.contains(told), "{told}: {}", shown.out);
    }
    // Two extensions in one recording have to be told apart where they are of several kinds, and what is none is told.
    let none = ext_in(dir, &["replay", "sidecar.yaml", "extensions/guard.wasm"]);
    assert!(
        none.code == 64 && none.errors.contains("sidecar.yaml:1: it is no recorded call"),
        "{}",
        none.errors
    );
    assert_eq!(
        replay("state/recordings", "extensions/guard.wasm", "unknown").code,
        64
    );
}

#[tokio::test]
async fn cases_are_made_of_recorded_calls() {
    let desk = tempfile::tempdir().unwrap();
    let dir: PathBuf = desk.path().to_owned();
    record(&dir).await;
    let guard: Vec<String> = recorded(&dir)
        .into_iter()
        .filter(|line| line.contains(r#""extension":"guard""#))
        .collect();
    let count = guard.len();
    write(&dir, "guard.ndjson", &(guard.join("\n") + "\n"));
    let from = [
        "test",
        "extensions/guard.wasm",
        "cases.yaml",
        "--from",
        "guard.ndjson",
    ];
    let made = ext_in(&dir, &[&from[..], &PATIENCE[..]].concat());
    assert_eq!(made.code, 0, "{}{}", made.out, made.errors);
    assert!(
        made.out.contains(&format!("{count} of {count} cases passed")),
        "{}",
        made.out
    );
    let cases = fs::read_to_string(dir.join("cases.yaml")).unwrap();
    // They hold by themselves from then on, and the same calls are not added twice.
    let alone = ["test", "extensions/guard.wasm", "cases.yaml"];
    assert_eq!(ext_in(&dir, &[&alone[..], &PATIENCE[..]].concat()).code, 0);
    assert_eq!(ext_in(&dir, &[&from[..], &PATIENCE[..]].concat()).code, 0);
    assert_eq!(fs::read_to_string(dir.join("cases.yaml")).unwrap(), cases);
    // What an author wrote is not written into.
    write(
        &dir,
        "mine.yaml",
        "extension: validator\ncases: [{name: mine, expect: accept}]\n",
    );
    let mine = [
        "test",
        "extensions/guard.wasm",
        "mine.yaml",
        "--from",
        "guard.ndjson",
    ];
    let refused = ext_in(&dir, &mine);
    assert!(
        refused.code == 64 && refused.errors.contains("another file"),
        "{}",
        refused.errors
    );
}
