//! The loop of an author: change, test, look.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use serde_json::{Value, json};

use super::ext::{PATIENCE, command_in, ext, guest, write};
use crate::{extensions::guest_path, support::Ended};

const ACCEPTS: &str = "extension: validator\ncases: [{name: it accepts, expect: accept}]\n";

#[test]
fn what_a_test_compiled_is_not_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let cases = write(dir.path(), "cases.yaml", ACCEPTS);
    let cache = dir.path().join("cache");
    let run = |name: &str| {
        let mut command = command_in(dir.path(), &["test", &guest(name), &cases, "--json"]);
        Ended::of(command.env("XDG_CACHE_HOME", &cache)).report()
    };
    let first = run("misbehaving-validator");
    assert!(
        first["compile_ms"].as_f64().is_some_and(|took| took > 0.0),
        "{first}"
    );
    let second = run("misbehaving-validator");
    assert_eq!(
        (&second["compile_ms"], &second["ok"]),
        (&Value::Null, &json!(true))
    );
    // What is kept is for this user alone, and another component is another's.
    let kept = cache.join("beamline-sidecar/compiled");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o077, 0);
    assert!(run("pii-guard")["compile_ms"].is_number());
    // What is not as it was written is not run.
    for entry in fs::read_dir(&kept).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "compiled") {
            let mut bytes = fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    let third = run("misbehaving-validator");
    assert!(third["compile_ms"].is_number() && third["ok"] == true, "{third}");
}

/// A test that watches, ended when dropped.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn start(dir: &std::path::Path, arguments: &[&str]) -> Self {
        let mut child = command_in(dir, arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (send, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// All lines until it waits for a change.
    fn round(&self) -> String {
        let mut seen = String::new();
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(120)).unwrap();
            if line.starts_with("Waiting for a change") {
                return seen;
            }
            seen += &line;
            seen.push('\n');
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_watching_test_runs_again_after_each_change() {
    let dir = tempfile::tempdir().unwrap();
    let component = dir.path().join("guard.wasm");
    fs::copy(guest_path("misbehaving-validator"), &component).unwrap();
    write(dir.path(), "cases.yaml", ACCEPTS);
    let arguments = [
        "test",
        "guard.wasm",
        "cases.yaml",
        "--watch",
        PATIENCE[0],
        PATIENCE[1],
    ];
    let watching = Watching::start(dir.path(), &arguments);
    let first = watching.round();
    assert!(first.contains("1 of 1 case passed"), "{first}");
    write(
        dir.path(),
        "cases.yaml",
        "extension: validator\ncases: [{name: it accepts, expect: reject}]\n",
    );
    let second = watching.round();
    assert!(
        second.contains("Changed: cases.yaml") && second.contains("0 of 1 case passed"),
        "{second}"
    );
    // What cannot be read for a moment ends nothing.
    write(dir.path(), "cases.yaml", "extension: [");
    watching.round();
    write(dir.path(), "cases.yaml", ACCEPTS);
    assert!(watching.round().contains("1 of 1 case passed"));
    fs::copy(guest_path("pii-guard"), &component).unwrap();
    let fifth = watching.round();
    assert!(
        fifth.contains("Changed: guard.wasm") && fifth.contains("1 of 1 case passed"),
        "{fifth}"
    );
}

#[test]
fn a_watching_test_builds_a_project_anew_whose_source_changed() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("my-guard");
    let shown = project.display().to_string();
    assert_eq!(ext(&["new", "validator", "my-guard", "--dir", &shown]).code, 0);
    let watching = Watching::start(
        dir.path(),
        &["test", "my-guard", "--watch", PATIENCE[0], PATIENCE[1]],
    );
    let first = watching.round();
    assert!(
        first.contains("Built ") && first.contains("5 of 5 cases passed"),
        "{first}"
    );
    let source = fs::read_to_string(project.join("src/lib.rs")).unwrap();
    let other = source.replace("the message is too long: {bytes}", "it is too long: {bytes}");
    assert_ne!(source, other);
    fs::write(project.join("src/lib.rs"), other).unwrap();
    let second = watching.round();
    assert!(
        second.contains("src/lib.rs") && second.contains("Built ") && second.contains("4 of 5 cases passed"),
        "{second}"
    );
}

#[test]
fn logs_of_cases_that_hold_are_shown_when_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let cases = write(
        dir.path(),
        "cases.yaml",
        "extension: validator\ncases: [{name: it logs, config: {do: flood-log}, expect: accept}]\n",
    );
    let component = guest("misbehaving-validator");
    let quiet = ext(&[&["test", &component, &cases], &PATIENCE[..]].concat());
    assert!(
        quiet.code == 0 && !quiet.out.contains("it logged"),
        "{}",
        quiet.out
    );
    let told = ext(&[&["test", &component, &cases, "--logs"], &PATIENCE[..]].concat());
    assert!(
        told.code == 0 && told.out.contains("it logged, as "),
        "{}",
        told.out
    );
}

#[test]
fn one_call_is_shown_with_its_answer_and_its_cost() {
    let dir = tempfile::tempdir().unwrap();
    let message = write(
        dir.path(),
        "message.json",
        r#"{"message_type": "chat", "payload": {"text": "4111 1111 1111 1111"}}"#,
    );
    let config = write(dir.path(), "config.yaml", "kinds: [card]\n");
    let guard = guest("pii-guard");
    let run = |more: &[&str]| ext(&[&["run", &guard, "--message", &message], more, &PATIENCE[..]].concat());
    let report = run(&["--config", &config, "--json"]).report();
    assert_eq!(
        report["outcome"]["reject"]["reason"],
        "personal data in the message: card (1)"
    );
    assert!(report["took_us"].as_f64().unwrap() > 0.0);
    assert!(report["memory_bytes"].as_u64().unwrap() > 0);
    assert_eq!(report["memory_limit_bytes"], 16 << 20);
    let shown = run(&["--config", &config]);
    for wanted in [
        "answer  {\"reject\"",
        "took  ",
        "of 100 ms",
        "memory  ",
        "of 16.0 MiB",
    ] {
        assert!(shown.out.contains(wanted), "{wanted}: {}", shown.out);
    }
    assert_eq!(shown.code, 0);
    let wrong = write(dir.path(), "wrong.yaml", "kinds: [shoe]\n");
    let refused = run(&["--config", &wrong]);
    assert!(
        refused.code == 1 && refused.out.contains("config_problems"),
        "{}",
        refused.out
    );
    let typo = write(dir.path(), "typo.yaml", "mesage_type: chat\n");
    let unread = ext(&["run", &guard, "--message", &typo]);
    assert!(
        unread.code == 64
            && unread
                .errors
                .contains("typo.yaml:1:14: a message has no `mesage_type`"),
        "{}",
        unread.errors
    );
    // The other kinds, and standard input.
    let candidates = write(
        dir.path(),
        "candidates.yaml",
        "[{provider_id: a}, {provider_id: b}]",
    );
    let favour = write(dir.path(), "favour.yaml", "{do: favour, provider: b}");
    let scorer = guest("misbehaving-scorer");
    let scored = ext(&[
        &[
            "run",
            &scorer,
            "--candidates",
            &candidates,
            "--config",
            &favour,
            "--json",
        ],
        &PATIENCE[..],
    ]
    .concat());
    assert_eq!(
        scored.report()["outcome"],
        json!({"scores": {"a": 0.0, "b": 1.0}})
    );
    assert_eq!(ext(&["run", &scorer]).code, 64);
    let mut post = command_in(
        dir.path(),
        &[
            "run",
            &guest("misbehaving-post-processor"),
            "--decision",
            "-",
            "--json",
        ],
    );
    let added = Ended::with_input(&mut post, "{provider_id: a}");
    assert_eq!(
        added.report()["outcome"],
        json!({"metadata": {}}),
        "{}",
        added.errors
    );
    let crash = write(dir.path(), "crash.yaml", "do: trap\n");
    let crashed = ext(&[
        &["run", &guest("misbehaving-validator"), "--config", &crash],
        &PATIENCE[..],
    ]
    .concat());
    assert!(
        crashed.code == 1 && crashed.out.contains("it crashed in"),
        "{}",
        crashed.out
    );
}
