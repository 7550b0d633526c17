//! The commands that end by themselves, and what their exit codes say.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Ended, Process, QUICK, Sidecar, program};

/// Runs a command that ends by itself. Its exit code and what it printed.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let ended = Ended::of(program().args(arguments).envs(variables.iter().copied()));
    (ended.code, ended.out, ended.errors)
}

fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn check_and_run_end_with_64_and_every_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let bad = file(&folder, "bad.yaml", "lisen: a\nheir: {timeout_ms: 0}\n");
    let (code, out, _) = run(&["check", "--config", &bad], &[]);
    assert_eq!(code, 64);
    assert_eq!(
        out,
        format!(
            "2 mistakes in {bad}\n  heir.timeout_ms: 0 is less than the minimum of 1\n    remedy: integer from 1 to \
             600000\n  lisen: there is no such key\n    remedy: did you mean `listen`?\n"
        )
    );
    let (code, out, _) = run(
        &["check", "--config", &bad, "--json"],
        &[("BEAMLINE_HEIR_TIMEOUT_MS", "5")],
    );
    assert_eq!(code, 64);
    assert_eq!(
        serde_json::from_str::<Value>(&out).unwrap(),
        json!({"ok": false, "warnings": [], "mistakes": [
            {"key": "lisen", "message": "there is no such key", "remedy": "did you mean `listen`?"}
        ]})
    );
    let (code, out, err) = run(&["run", "--config", &bad], &[]);
    assert_eq!((code, out.as_str()), (64, ""));
    assert!(err.starts_with(&format!("2 mistakes in {bad}\n")), "{err}");
    let missing = folder.path().join("missing.yaml");
    let (code, _, err) = run(&["run", "--config", missing.to_str().unwrap()], &[]);
    assert_eq!(code, 64);
    assert!(err.contains("cannot be read"), "{err}");

    file(&folder, "policies/acme/chat.json", "{\"a\":1,\"a\":2}");
    file(&folder, "policies/acme/good.json", "{}");
    let good = file(
        &folder,
        "good.yaml",
        &format!(
            "policies_dir: {}\nrefresh: {{stale_after_ms: 10}}\n",
            folder.path().join("policies").display()
        ),
    );
    let (code, out, _) = run(&["check", "--config", &good, "--json"], &[]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["ok"]), (64, &json!(false)));
    assert_eq!(told["mistakes"].as_array().unwrap().len(), 1, "{told}");
    let key = told["mistakes"][0]["key"].as_str().unwrap();
    assert!(key.ends_with("policies/acme/chat.json $.a"), "{key}");
    fs::remove_file(folder.path().join("policies/acme/chat.json")).unwrap();
    let (code, out, _) = run(&["check", "--config", &good], &[]);
    assert_eq!(code, 0);
    assert!(
        out.starts_with("warning: refresh.stale_after_ms (10) is less than"),
        "{out}"
    );
    assert!(out.ends_with(&format!("{good} is valid.\n")), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn probe_tells_by_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(
        &folder,
        "sidecar.yaml",
        "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\nheir: {url: 'http://127.0.0.1:1'}\n",
    );
    let process = Process::start(&["run", "--config", &config], &[]);
    let admin = process.admin.unwrap().to_string();
    let (code, out, _) = run(&["probe", "live", "--admin", &admin], &[]);
    assert_eq!((code, out.as_str()), (0, "{\"status\":\"live\"}\n"));
    let (code, out, _) = run(&["probe", "ready", "--admin", &admin], &[]);
    assert_eq!(code, 1);
    assert!(out.contains("\"state\":\"not_ready\""), "{out}");
    // From the configuration, as a container's probe does.
    let (code, _, _) = run(
        &["probe", "live", "--config", &config],
        &[("BEAMLINE_ADMIN_LISTEN", &admin)],
    );
    assert_eq!(code, 0);
    drop(process);
    let (code, _, err) = run(&["probe", "live", "--admin", &admin], &[]);
    assert_eq!(code, 1);
    assert!(err.contains("does not answer"), "{err}");
    let (code, _, _) = run(&["probe", "live", "--admin", "nonsense"], &[]);
    assert_eq!(code, 2);

    let file_only = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::try_start(&format!(
        "{}heir_policy_store_enabled: false\npolicies_dir: {}",
        QUICK,
        file_only.path().display()
    ))
    .unwrap();
    let (code, _, _) = run(&["probe", "ready", "--admin", &sidecar.admin.to_string()], &[]);
    assert_eq!(code, 0);
    sidecar.stop().await;
}
