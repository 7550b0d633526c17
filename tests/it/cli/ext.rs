//! The commands for authors of extensions, as processes, with real compilers and real components.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    extensions::guest_path,
    support::{Ended, program},
};

/// Far more than any case takes that ends by itself.
pub(super) const PATIENCE: [&str; 2] = ["--timeout-ms", "60000"];

pub(super) fn ext(arguments: &[&str]) -> Ended {
    ext_in(Path::new(env!("CARGO_MANIFEST_DIR")), arguments)
}

pub(super) fn ext_in(dir: &Path, arguments: &[&str]) -> Ended {
    Ended::of(&mut command_in(dir, arguments))
}

/// A command of `ext`, to be started.
pub(super) fn command_in(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = program();
    command
        .arg("ext")
        .args(arguments)
        .current_dir(dir)
        // Not the cache of the user who runs the tests.
        .env(
            "XDG_CACHE_HOME",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"),
        )
        // The crates that extensions need are there since the extensions of this repository were built.
        .env("CARGO_NET_OFFLINE", "true")
        // One for all projects, so that what they depend on is compiled once.
        .env(
            "CARGO_TARGET_DIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("ext"),
        );
    command
}

pub(super) fn guest(name: &str) -> String {
    guest_path(name).display().to_string()
}

pub(super) fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn messages(report: &Value) -> Vec<&str> {
    let problems = report["problems"].as_array().unwrap();
    problems
        .iter()
        .map(|problem| problem["message"].as_str().unwrap())
        .collect()
}

#[test]
fn inspect_tells_what_a_component_is() {
    let ended = ext(&["inspect", &guest("asks-for-everything"), "--json"]);
    let report = ended.report();
    assert_eq!(ended.code, 0);
    assert_eq!(report["kind"], "validator");
    assert_eq!(report["world"], "validator");
    assert_eq!(report["package"], "beamline:extension@0.1.0");
    assert_eq!(report["profile"], "compact");
    assert_eq!(report["capabilities"], json!(["clock", "random", "metrics"]));
    assert_eq!(
        report["exports"],
        json!([
            "check-config(config: json) -> result<_, list<problem>>",
            "validate(call: call, message: message) -> result<verdict, failure>",
        ])
    );
    assert_eq!(report["sha256"].as_str().map(str::len), Some(64));
    let made_by = report["producers"].as_array().unwrap();
    assert!(
        made_by.iter().any(|made| made["name"] == "wit-component"),
        "{made_by:?}"
    );
    for (name, kind) in [
        ("pre-processor", "pre"),
        ("post-processor", "post"),
        ("scorer", "scorer"),
    ] {
        let report = ext(&["inspect", &guest(&format!("misbehaving-{name}")), "--json"]).report();
        assert_eq!((&report["kind"], &report["world"]), (&json!(kind), &json!(name)));
    }
}

#[test]
fn inspect_says_what_is_no_extension() {
    let core = ext(&["inspect", &guest("no-component")]);
    assert!(
        core.code == 64 && core.errors.contains("ext build"),
        "{}",
        core.errors
    );
    assert_eq!(ext(&["inspect", "Cargo.toml"]).code, 64);
    assert_eq!(ext(&["inspect", "no/such/file.wasm"]).code, 64);
    let other = ext(&["inspect", &guest("other-world")]);
    assert!(other.code == 1 && other.out.contains("kind"), "{}", other.out);
}

#[test]
fn check_tells_every_mistake_of_a_component_and_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let record = write(
        dir.path(),
        "record.json",
        "{\"id\": \"x\", \"type\": \"scorer\", \"module\": \"file:x.wasm\",\n \"capabilities\": [\"clock\"],\n \
         \"sha256\": \"0000000000000000000000000000000000000000000000000000000000000000\",\n \
         \"config\": {\"kinds\": [\"card\", \"shoe\"], \"allow\": [\"ab\"]}}",
    );
    let ended = ext(&["check", &guest("pii-guard"), "--record", &record, "--json"]);
    let report = ended.report();
    let problems = report["problems"].as_array().unwrap();
    let told: Vec<(&str, &str, u64)> = problems
        .iter()
        .map(|problem| {
            let text = |key: &str| problem[key].as_str().unwrap();
            (text("path"), text("severity"), problem["line"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("$.type", "error", 1),
            ("$.sha256", "error", 3),
            ("$.capabilities", "warning", 2),
            ("$.config.kinds[1]", "error", 4),
        ]
    );
    assert!(
        problems
            .iter()
            .all(|problem| !problem["remedy"].as_str().unwrap().is_empty())
    );
    assert_eq!(
        (ended.code, &report["ok"], &report["config_accepted"]),
        (1, &json!(false), &json!(false))
    );
    assert!(report["idle_memory_bytes"].as_u64().unwrap() > 0);
    assert!(report["compile_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn check_knows_what_cannot_be_linked() {
    let dir = tempfile::tempdir().unwrap();
    let record = write(
        dir.path(),
        "record.json",
        r#"{"id": "x", "type": "validator", "module": "file:x.wasm"}"#,
    );
    let ended = ext(&[
        "check",
        &guest("asks-for-everything"),
        "--record",
        &record,
        "--json",
    ]);
    let report = ended.report();
    assert_eq!(ended.code, 1);
    assert_eq!(
        messages(&report),
        ["clock", "random", "metrics"].map(|name| format!("it imports {name}, which it was not granted"))
    );
    for (name, why) in [
        ("asks-for-wasi", "WASI"),
        ("no-component", "core module"),
        ("other-types", "no world that is known"),
        ("large-memory", "memory"),
        ("loops-at-start", "does not start"),
        ("loops-in-realloc", "check of the configuration fails"),
    ] {
        let ended = ext(&["check", &guest(name), "--json"]);
        let report = ended.report();
        let told = messages(&report);
        assert!(
            ended.code == 1 && told.len() == 1 && told[0].contains(why),
            "{name}: {told:?}"
        );
    }
    let right = ext(&["check", &guest("pii-guard")]);
    assert!(
        right.code == 0 && right.out.ends_with("0 errors, 0 warnings.\n"),
        "{}",
        right.out
    );
    assert_eq!(ext(&["check", "no/such/file.wasm"]).code, 64);
    assert_eq!(ext(&["check", "src"]).code, 64);
}

/// The misbehaving guests do what their configuration says.
#[test]
fn cases_hold_or_are_told_with_what_was_logged_and_where_it_crashed() {
    let dir = tempfile::tempdir().unwrap();
    let right = write(
        dir.path(),
        "right.yaml",
        "extension: validator
cases:
  - {name: it accepts, expect: accept}
  - {name: it tells the time, now_ms: 1234, config: {do: clock}, expect: {reject: {details: {now_ms: 1234}}}}
  - {name: it fails, config: {do: failure}, expect: {failure: made_up}}
  - {name: it refuses, config: {bad: true}, expect: {config_problems: [/note, /bad]}}
  - {name: it crashes, config: {do: trap}, expect: {error: trap}}
  - {name: it recurses, config: {do: recurse}, expect: {error: trap}}
  - {name: it allocates, config: {do: allocate}, expect: {error: memory}}
  - {name: it talks nonsense, config: {do: bad-json}, expect: {error: output}}
  - {name: its failure has no name, config: {do: bad-failure-code}, expect: {error: output}}
  - {name: it says too much, config: {do: huge-output, bytes: 2000000}, expect: {error: output}}
",
    );
    let component = guest("misbehaving-validator");
    let ended = ext(&[&["test", &component, &right], &PATIENCE[..]].concat());
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.errors);
    assert!(ended.out.contains("10 of 10 cases passed"), "{}", ended.out);
    let endless = write(
        dir.path(),
        "endless.yaml",
        "extension: validator\ncases: [{name: it never ends, config: {do: loop}, expect: {error: timeout}}]",
    );
    assert_eq!(ext(&["test", &component, &endless, "--timeout-ms", "20"]).code, 0);
    let wrong = write(
        dir.path(),
        "wrong.yaml",
        "extension: validator\ncases:\n  - name: it does not panic\n    config: {do: panic}\n    expect: accept\n  - {name: another, expect: accept}\n",
    );
    let ended = ext(&[&["test", &component, &wrong, "--json"], &PATIENCE[..]].concat());
    let report = ended.report();
    let failed = &report["results"][0];
    assert_eq!(
        (ended.code, &report["failed"], &failed["ok"]),
        (1, &json!(1), &json!(false))
    );
    assert_eq!(failed["line"], 3);
    assert_eq!(failed["differences"][0]["wanted"], "accept");
    assert_eq!(failed["differences"][0]["got"]["error"], "trap");
    assert_eq!(failed["log"][0]["level"], "error");
    assert!(!failed["frames"].as_array().unwrap().is_empty());
    let ended = ext(&[&["test", &component, &wrong], &PATIENCE[..]].concat());
    for told in [
        "FAIL it does not panic",
        "wrong.yaml:3",
        "it logged, as error: ",
        "it crashed in",
        "1 of 2 cases passed",
    ] {
        assert!(ended.out.contains(told), "{told}: {}", ended.out);
    }
    assert_eq!(ext(&["test", &component, &wrong, "--filter", "another"]).code, 0);
    assert_eq!(ext(&["test", &component, &wrong, "--filter", "no such"]).code, 64);
}

#[test]
fn every_kind_answers_its_cases() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, world, cases) in [
        (
            "pre",
            "pre-processor",
            "- {name: a, message: {payload: 1}, config: {do: change}, expect: {message: {payload: {changed: true}}, context: {changed: true}}}
  - {name: b, message: {payload: 1}, expect: unchanged}",
        ),
        (
            "scorer",
            "scorer",
            "- {name: a, candidates: [{provider_id: a}, {provider_id: b}], config: {do: favour, provider: b}, expect: {scores: {a: 0, b: 1}}}
  - {name: b, candidates: [{provider_id: a}], config: {do: missing-score}, expect: {error: output}}
  - {name: c, candidates: [{provider_id: a}], config: {do: nan-factor}, expect: {error: output}}",
        ),
        (
            "post",
            "post-processor",
            "- {name: a, decision: {provider_id: a}, config: {do: change}, expect: {metadata: {changed: true}}}
  - {name: b, expect: unchanged}",
        ),
    ] {
        let cases = write(dir.path(), kind, &format!("extension: {kind}\ncases:\n  {cases}\n"));
        let component = guest(&format!("misbehaving-{world}"));
        let ended = ext(&[&["test", &component, &cases], &PATIENCE[..]].concat());
        assert_eq!(ended.code, 0, "{}{}", ended.out, ended.errors);
    }
}

#[test]
fn cases_that_cannot_be_run_are_told_altogether() {
    let dir = tempfile::tempdir().unwrap();
    let cases = write(
        dir.path(),
        "cases.yaml",
        "extension: validator\ncases:\n  - {name: a, expct: accept}\n  - {expect: accept}\n",
    );
    let ended = ext(&["test", &guest("pii-guard"), &cases]);
    assert_eq!(ended.code, 64);
    let places: Vec<&str> = ended
        .errors
        .lines()
        .filter_map(|line| line.strip_prefix(cases.as_str()))
        .collect();
    assert_eq!(
        places,
        [
            ":3:5: say what to `expect`",
            ":3:22: a case has no `expct`: did you mean `expect`?",
            ":4:5: give the case a `name`: a sentence that says what it shows"
        ]
    );
    let other = write(
        dir.path(),
        "other.yaml",
        "extension: post\ncases: [{name: a, expect: unchanged}]",
    );
    let ended = ext(&["test", &guest("pii-guard"), &other]);
    assert!(
        ended.code == 64 && ended.errors.contains("post-processor"),
        "{}",
        ended.errors
    );
    assert_eq!(ext(&["test", &guest("pii-guard")]).code, 64);
}

#[test]
fn bench_measures_and_compares_with_the_run_before() {
    let dir = tempfile::tempdir().unwrap();
    let component = dir.path().join("guard.wasm");
    fs::copy(guest_path("pii-guard"), &component).unwrap();
    let component = component.display().to_string();
    let bench = |more: &[&str]| ext(&[&["bench", &component, "--seconds", "0.05", "--json"], more].concat());
    let first = bench(&[]).report();
    let measured = &first["measured"];
    assert_eq!(first["before"], Value::Null);
    for key in [
        "p50_us",
        "p99_us",
        "mean_us",
        "per_second",
        "per_second_all",
        "compile_us",
        "memory_bytes",
        "calls",
    ] {
        assert!(measured[key].as_f64().unwrap() > 0.0, "{key}: {measured}");
    }
    assert!(measured["p50_us"].as_f64() <= measured["p99_us"].as_f64());
    assert_eq!(&bench(&[]).report()["before"], measured);
    let payload = write(dir.path(), "payload.json", "\"another\"");
    assert_eq!(bench(&["--payload", &payload]).report()["before"], Value::Null);
    assert!(dir.path().join("target/ext-bench/guard.json").exists());
    let refused = bench(&["--config", r#"{"kinds": []}"#]);
    assert!(
        refused.code == 1 && refused.errors.contains("/kinds"),
        "{}",
        refused.errors
    );
    assert_eq!(bench(&["--config", "[]"]).code, 64);
}

#[test]
fn new_writes_nothing_where_it_must_not() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "kept.txt", "kept");
    for arguments in [
        &["new", "validator", "my-guard", "--dir", "."][..],
        &["new", "validator", "My Guard"],
        &["new", "validator", "../guard"],
        &["new", "validator", "serde"],
        &["new", "validator", "wit-bindgen"],
        &["new", "validator", "my-guard", "--sdk", "."],
    ] {
        let ended = ext_in(dir.path(), arguments);
        assert!(
            ended.code == 64 && !ended.errors.is_empty(),
            "{arguments:?}: {}",
            ended.out
        );
        assert!(!dir.path().join("Cargo.toml").exists() && !dir.path().join("my-guard/Cargo.toml").exists());
    }
    assert_eq!(ext_in(dir.path(), &["new", "validator", "my-guard"]).code, 0);
    let unbuilt = ext_in(dir.path(), &["check", "my-guard"]);
    assert!(
        unbuilt.code == 64 && unbuilt.errors.contains("ext build my-guard"),
        "{}",
        unbuilt.errors
    );
}

/// A project of each kind: builds, keeps its cases, passes its own tests, and is what a sidecar takes.
#[test]
fn every_template_builds_and_passes_its_tests() {
    let dir = tempfile::tempdir().unwrap();
    for kind in ["pre", "validator", "scorer", "post"] {
        let name = format!("my-{kind}");
        let project: PathBuf = dir.path().join(&name);
        let shown = project.display().to_string();
        let step = |arguments: &[&str]| {
            let ended = ext(arguments);
            assert_eq!(ended.code, 0, "{arguments:?}\n{}{}", ended.out, ended.errors);
            ended
        };
        step(&["new", kind, &name, "--dir", &shown]);
        let built = step(&["build", &shown, "--json"]).report();
        assert_eq!(built["component"]["kind"], *kind);
        assert_eq!(built["previous_bytes"], Value::Null);
        let checked = step(&["check", &shown, "--json"]).report();
        // How long compiling takes is this machine's.
        let found = messages(&checked);
        assert!(
            found
                .iter()
                .all(|message| message.starts_with("compiling it took")),
            "{found:?}"
        );
        assert_eq!(checked["config_accepted"], true);
        // What it says of itself, and the record, are of this very component.
        let about = &checked["component"]["about"];
        assert_eq!(
            (
                &about["name"],
                &about["version"],
                &about["kind"],
                &about["capabilities"]
            ),
            (&json!(name), &json!("0.1.0"), &json!(kind), &json!([]))
        );
        assert_eq!(about["config_schema"]["type"], "object");
        let record: Value =
            serde_json::from_str(&fs::read_to_string(project.join("extension.json")).unwrap()).unwrap();
        assert_eq!(record["sha256"], built["component"]["sha256"]);
        assert_eq!(record["limits"]["memory_bytes"], 16 << 20);
        let tested = step(&[&["test", &shown, "--json"], &PATIENCE[..]].concat()).report();
        assert!(tested["cases"].as_u64().unwrap() >= 3, "{tested}");
        let again = step(&["build", &shown, "--json"]).report();
        assert_eq!(again["previous_bytes"], built["component"]["bytes"]);
        assert_eq!(again["component"]["sha256"], built["component"]["sha256"]);
        step(&["bench", &shown, "--seconds", "0.02"]);
    }
    let native = Command::new("cargo")
        .args(["test", "--quiet", "--offline"])
        .current_dir(dir.path().join("my-validator"))
        .env(
            "CARGO_TARGET_DIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("ext"),
        )
        .output()
        .unwrap();
    assert!(
        native.status.success(),
        "{}",
        String::from_utf8_lossy(&native.stdout)
    );
    // With its debug information a crash says where it was, to the line.
    let project = dir.path().join("my-validator");
    let source = fs::read_to_string(project.join("src/lib.rs")).unwrap();
    let crashes = source.replace("return Ok(Verdict::Accept);", "panic!(\"no good\");");
    assert_ne!(source, crashes);
    fs::write(project.join("src/lib.rs"), &crashes).unwrap();
    let shown = project.display().to_string();
    let stale = ext(&["test", &shown]);
    assert!(
        stale.code == 0 && stale.errors.contains("newer than the component"),
        "{}",
        stale.errors
    );
    assert_eq!(ext(&["build", &shown, "--debug"]).code, 0);
    let ended = ext(&["test", &shown]);
    assert_eq!(ended.code, 1);
    let line = 1 + crashes
        .lines()
        .take_while(|line| !line.contains("no good"))
        .count();
    let crashed = ended
        .out
        .lines()
        .find(|line| line.contains("it crashed in"))
        .unwrap();
    assert!(
        crashed.contains("validate at src/lib.rs:") && crashed.contains(&format!(":{line}:")),
        "{}",
        ended.out
    );
    // What does not compile leaves the component that is there.
    fs::write(project.join("src/lib.rs"), "nonsense").unwrap();
    let broken = ext(&["build", &shown]);
    assert!(
        broken.code == 64 && broken.errors.contains("does not compile"),
        "{}",
        broken.errors
    );
    assert!(project.join("target/components/my-validator.wasm").exists());
}
