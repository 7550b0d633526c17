//! The commands for policy authors, as processes.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::support::{Ended, program};

/// Exit code, standard output and standard error.
fn run(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = program();
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let ended = Ended::with_input(&mut command, input);
    (ended.code, ended.out, ended.errors)
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

const CHAT: &str = "examples/policies/acme/chat.json";

fn write(dir: &Path, name: &str, document: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, document).unwrap();
    file.display().to_string()
}

#[test]
fn check_points_at_every_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let bad = write(
        dir.path(),
        "bad.json",
        "{\n  \"providers\": [{\"name\": \"a\", \"weight\": 101}],\n  \"stiky\": 1\n}\n",
    );
    let (code, out, _) = run(&["check", &bad], "");
    assert_eq!(code, 64);
    assert_eq!(
        out,
        format!(
            "{bad}:3:12: warning: there is no such field ($.stiky)
 3 |   \"stiky\": 1
   |            ^
   = help: did you mean `sticky`? The field is ignored
{bad}:2:41: error: Weight must be a number between 0.0 and 1.0 ($.providers[0].weight)
 2 |   \"providers\": [{{\"name\": \"a\", \"weight\": 101}}],
   |                                         ^
   = help: write 0 to 100, or a fraction from 0.0 to 1.0
{bad}:2:16: warning: Provider weights do not sum to 100 (the sum is 101.00) ($.providers)
 2 |   \"providers\": [{{\"name\": \"a\", \"weight\": 101}}],
   |                ^
   = help: nothing if that is meant: providers are drawn in proportion to their weights
1 policy checked: 1 error, 2 warnings.
"
        )
    );
    let (code, out, _) = run(&["check", &bad, "--json"], "");
    let report = parsed(&out);
    assert_eq!(
        (
            code,
            &report["errors"],
            &report["files"][0]["problems"][1]["column"]
        ),
        (64, &json!(1), &json!(41))
    );
    let odd = write(dir.path(), "odd.json", "{\"weights\":{\"a\":0.5}}");
    assert_eq!(run(&["check", &odd], "").0, 0);
    assert_eq!(run(&["check", &odd, "--deny-warnings"], "").0, 64);
    assert_eq!(
        run(&["check", "examples/policies"], ""),
        (
            0,
            "3 policies checked: 0 errors, 0 warnings.\n".into(),
            String::new()
        )
    );
    assert_eq!(run(&["check", "no/such/file.json"], "").0, 64);
    let broken = write(dir.path(), "broken.json", "{\"a\":\n 1,}");
    assert!(
        run(&["check", &broken], "")
            .1
            .starts_with(&format!("{broken}:2:4: error: not valid JSON"))
    );
}

#[test]
fn the_schema_is_printed() {
    let (code, out, _) = run(&["schema"], "");
    let schema = parsed(&out);
    assert_eq!(
        (code, &schema["$schema"]),
        (0, &json!("https://json-schema.org/draft/2020-12/schema"))
    );
    let undescribed: Vec<&String> = schema["properties"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, field)| field.get("description").is_none())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(undescribed, Vec::<&String>::new());
}

#[test]
fn explain_says_why_and_repeats_itself() {
    let arguments = [
        "explain",
        "--policy",
        CHAT,
        "--request",
        "-",
        "--seed",
        "2a",
        "--at",
        "2025-01-01T00:00:00Z",
    ];
    let (code, out, _) = run(&arguments, "{\"user_id\":\"ada\"}");
    assert_eq!(code, 0);
    assert!(out.starts_with("anthropic   weighted, priority 50\n"), "{out}");
    assert!(out.contains(
        "2. Applied weighted distribution: 2 providers, total weight: 1.00 (anthropic: 0.30, openai: 0.70)"
    ));
    assert!(out.ends_with("Repeat it with --seed 000000000000002a --at 1735689600000\n"));
    assert_eq!(run(&arguments, "{\"user_id\":\"ada\"}").1, out);
    let whole = crate::decide::request(
        "acme",
        "chat",
        json!({"current_provider": "openai", "status": "timeout"}),
    )
    .to_string();
    let (code, out, _) = run(
        &[
            "explain",
            "--policy",
            CHAT,
            "--request",
            "-",
            "--json",
            "--level",
            "detailed",
        ],
        &whole,
    );
    let explanation = &parsed(&out)["explanation"];
    assert_eq!(
        (code, &explanation["reason"], &explanation["context"]["tenant_id"]),
        (0, &json!("retry"), &json!("acme"))
    );
    let dir = tempfile::tempdir().unwrap();
    let zero = write(dir.path(), "zero.json", "{\"weights\":{\"a\":0}}");
    assert_eq!(run(&["explain", "--policy", &zero, "--request", "-"], "{}").0, 1);
    for input in ["[]", "{", "{\"task\":{}}"] {
        assert_eq!(
            run(&["explain", "--policy", CHAT, "--request", "-"], input).0,
            64,
            "{input}"
        );
    }
}

#[test]
fn cases_are_run_and_reported() {
    let (code, out, _) = run(&["test", "examples/decisions"], "");
    assert_eq!(code, 0, "{out}");
    let dir = tempfile::tempdir().unwrap();
    let case = "description: a <wrong> & \"odd\" one\npolicy: {weights: {a: 1.0}}\nsteps: [{want: {provider_id: b}}]\n";
    let file = write(dir.path(), "case.yaml", case);
    let junit = dir.path().join("report.xml").display().to_string();
    let (code, out, _) = run(&["test", &file, "--junit", &junit], "");
    assert_eq!(code, 1);
    assert!(
        out.contains("step 1, provider_id\n    wanted \"b\"\n    got    \"a\""),
        "{out}"
    );
    let xml = fs::read_to_string(junit).unwrap();
    assert!(
        xml.contains("name=\"a &lt;wrong&gt; &amp; &quot;odd&quot; one\"") && xml.contains("failures=\"1\""),
        "{xml}"
    );
    let (code, out, _) = run(&["test", &file, "--json"], "");
    assert_eq!(
        (code, &parsed(&out)["results"][0]["mismatches"][0]["wanted"]),
        (1, &json!("b"))
    );
    assert_eq!(run(&["test", &file, "--filter", "nothing"], "").0, 64);
    let broken = write(dir.path(), "broken.yaml", "descripton: x\n");
    assert_eq!(run(&["test", &broken], "").0, 64);
    // Of a directory all that cannot be read is named, and the rest is not called good.
    write(dir.path(), "empty.yml", "description: x\npolicy: {}\nsteps: []\n");
    let (code, out, err) = run(&["test", &dir.path().display().to_string()], "");
    assert_eq!((code, out.as_str()), (64, ""));
    assert!(
        err.contains("broken.yaml:1:1: ") && err.contains("empty.yml: \"x\" has no steps"),
        "{err}"
    );
}

#[test]
fn a_simulation_tells_who_gets_what_and_is_the_same_every_time() {
    let arguments = [
        "simulate",
        "--policy",
        CHAT,
        "--requests",
        "4000",
        "--fail",
        "openai=timeout:50%",
        "--sessions",
        "100",
        "--json",
    ];
    let (code, out, _) = run(&arguments, "");
    let report = parsed(&out);
    assert_eq!(code, 0);
    assert_eq!(run(&arguments, "").1, out);
    let provider = |name: &str| {
        report["providers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["provider_id"] == name)
            .unwrap()
            .clone()
    };
    let served: u64 = report["providers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["served"].as_u64().unwrap())
        .sum();
    assert_eq!(served + report["unserved"].as_u64().unwrap(), 4000);
    assert!(
        provider("openai")["retries"].as_u64().unwrap() > 500
            && provider("anthropic")["fallbacks"].as_u64().unwrap() > 50
    );
    let (_, shown, _) = run(&arguments[..arguments.len() - 1], "");
    assert!(shown.contains("Served by") && shown.contains('█'), "{shown}");
    let dir = tempfile::tempdir().unwrap();
    let guarded = write(
        dir.path(),
        "guarded.json",
        "{\"weights\":{\"a\":0.5,\"b\":0.5},\"circuit_breaker\":{\"enabled\":true,\"timeout_ms\":5000},\"fallbacks\":[{\"when\":{},\"retry\":0,\"to\":\"b\"}]}",
    );
    let (_, shown, _) = run(
        &[
            "simulate",
            "--policy",
            &guarded,
            "--requests",
            "6000",
            "--fail",
            "a=503:100%@10-20",
        ],
        "",
    );
    assert!(
        shown.contains("Breakers over 60 s") && shown.contains("now closed"),
        "{shown}"
    );
    for wrong in [
        "openai",
        "openai=timeout",
        "openai=timeout:101%",
        "openai=timeout:1%@5",
        "=x:1%",
    ] {
        assert_ne!(
            run(
                &["simulate", "--policy", CHAT, "--requests", "1", "--fail", wrong],
                ""
            )
            .0,
            0,
            "{wrong}"
        );
    }
}

#[test]
fn a_difference_names_whom_it_moves() {
    let dir = tempfile::tempdir().unwrap();
    let old = write(
        dir.path(),
        "old.json",
        "{\"weights\":{\"a\":0.5,\"b\":0.5},\"fallbacks\":[{\"when\":{\"status\":[\"timeout\"]},\"retry\":0,\"to\":\"c\"}]}",
    );
    let new = write(
        dir.path(),
        "new.json",
        "{\"weights\":{\"a\":0.5,\"b\":0.5},\"fallbacks\":[{\"when\":{\"status\":[\"timeout\"]},\"retry\":0,\"to\":\"d\"}]}",
    );
    let (code, out, _) = run(&["diff", &old, &old, "--fail-on-change"], "");
    assert_eq!(code, 0);
    assert!(out.starts_with("No decision changes"), "{out}");
    let (code, out, _) = run(&["diff", &old, &new, "--fail-on-change", "--seeds", "10"], "");
    assert_eq!(code, 1);
    assert!(
        out.contains("old: fallback c 100 %") && out.contains("new: fallback d 100 %"),
        "{out}"
    );
    let requests = write(
        dir.path(),
        "requests.ndjson",
        "{}\n{\"current_provider\":\"a\",\"status\":\"timeout\"}\n",
    );
    let (code, out, _) = run(&["diff", &old, &new, "--requests", &requests, "--json"], "");
    let report = parsed(&out);
    assert_eq!(
        (
            code,
            &report["requests"],
            &report["changed_requests"],
            &report["moved_share"]
        ),
        (0, &json!(2), &json!(1), &json!(0.5))
    );
}

#[test]
fn a_difference_says_what_moves_with_the_same_seeds_and_what_must_at_least() {
    let dir = tempfile::tempdir().unwrap();
    let policy = |name: &str, weights: &str| write(dir.path(), name, &format!("{{\"weights\":{weights}}}"));
    // The first fifth of all seeds goes from b to a new provider, and the last fifth of them from c to b.
    let old = policy("old.json", "{\"b\":0.6,\"c\":0.4}");
    let new = policy("new.json", "{\"a\":0.2,\"b\":0.6,\"c\":0.2}");
    let (_, out, _) = run(&["diff", &old, &new, "--json", "--seeds", "20000"], "");
    let report = parsed(&out);
    let share = |key: &str| report[key].as_f64().unwrap();
    assert!((share("moved_share") - 0.4).abs() < 0.02, "{out}");
    assert!((share("least_moved_share") - 0.2).abs() < 0.02, "{out}");
    let (_, out, _) = run(&["diff", &old, &new, "--seeds", "20000"], "");
    let words = format!(
        "With the same seeds {:.1} % of all decisions move; {:.1} % must at least.",
        100.0 * share("moved_share"),
        100.0 * share("least_moved_share")
    );
    assert!(out.contains(&words), "{out}");
    // Names alone can move every decision, and no share.
    let swapped = policy("swapped.json", "{\"b\":0.6,\"a\":0.4}");
    let renamed = policy("renamed.json", "{\"a\":0.6,\"b\":0.4}");
    let (code, out, _) = run(&["diff", &swapped, &renamed, "--json", "--fail-on-change"], "");
    assert_eq!(code, 1, "{out}");
}

#[test]
fn a_simulated_failure_that_no_rule_matches_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let policy = write(
        dir.path(),
        "numbers.json",
        "{\"weights\":{\"a\":1},\"fallbacks\":[{\"when\":{\"status\":[503,\"429\"]},\"to\":\"b\"}]}",
    );
    let simulate = |status: &str, json: &[&str]| {
        let fail = format!("a={status}:100%");
        let arguments = [
            "simulate",
            "--policy",
            &policy,
            "--requests",
            "10",
            "--fail",
            &fail,
        ];
        run(&[&arguments[..], json].concat(), "")
    };
    let told = "--fail a=503: no fallback rule of the policy matches the status \"503\"";
    let (code, _, err) = simulate("503", &[]);
    assert_eq!(code, 0);
    assert!(err.contains(told), "{err}");
    assert_eq!(parsed(&simulate("503", &["--json"]).1)["warnings"], json!([told]));
    assert_eq!(parsed(&simulate("429", &["--json"]).1)["warnings"], json!([]));
    let (_, out, _) = run(&["check", &policy], "");
    assert!(out.contains("a status is a text, and 503 is none"), "{out}");
}

#[test]
fn what_is_unhealthy_is_left_out_with_breakers_and_else_said_to_have_no_effect() {
    let dir = tempfile::tempdir().unwrap();
    let memory = write(dir.path(), "memory.yaml", "unhealthy: [a]\nbreakers: {a: open}\n");
    let explain = |name: &str, more: &str| {
        let policy = format!("{{\"weights\":{{\"a\":0.9,\"b\":0.1}}{more}}}");
        let policy = write(dir.path(), name, &policy);
        let arguments = [
            "explain",
            "--policy",
            &policy,
            "--request",
            "-",
            "--memory",
            &memory,
        ];
        run(&[&arguments[..], &["--seed", "1", "--json"]].concat(), "{}")
    };
    let (_, out, err) = explain("plain.json", "");
    assert_eq!(parsed(&out)["explanation"]["provider_id"], "a");
    for key in ["breakers", "unhealthy"] {
        assert!(err.contains(&format!("{key} in --memory has no effect")), "{err}");
    }
    for (name, more) in [
        ("breakers.json", ",\"circuit_breaker\":{\"enabled\":true}"),
        ("checks.json", ",\"health_check\":{\"enabled\":true}"),
    ] {
        let (_, out, err) = explain(name, more);
        assert_eq!(parsed(&out)["explanation"]["provider_id"], "b", "{name}");
        assert!(!err.contains("unhealthy in --memory"), "{err}");
    }
    let only = write(dir.path(), "only.yaml", "unhealthy: [a]\n");
    let policy = dir.path().join("breakers.json");
    let arguments = [
        "explain",
        "--policy",
        policy.to_str().unwrap(),
        "--request",
        "-",
        "--memory",
        &only,
        "--json",
    ];
    let (_, out, err) = run(&arguments, "{}");
    assert_eq!(
        parsed(&out)["explanation"]["evidence"]["candidates"][0]["removed_by"],
        "unhealthy"
    );
    assert!(err.is_empty(), "{err}");
}

/// Every command of the page with its output: readers follow it step by step.
#[test]
fn the_page_for_authors_shows_what_the_commands_print() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/policies.md")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_beamline-sidecar"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut compared = 0;
    for (_, rest) in page
        .match_indices("```sh\n")
        .map(|(at, fence)| page.split_at(at + fence.len()))
    {
        let (command, rest) = rest.split_once("```\n").unwrap();
        let Some(shown) = rest
            .strip_prefix("\n```\n")
            .and_then(|rest| rest.split_once("```\n"))
        else {
            continue;
        };
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(root)
            .env("PATH", &path)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), shown.0, "{command}");
        compared += 1;
    }
    assert!(compared >= 3, "{compared}");
}

/// Every policy that the page shows is one that can be written.
#[test]
fn the_page_for_authors_shows_policies_without_a_mistake() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies.md")).unwrap();
    let mut seen = 0;
    for part in page.split("```json\n").skip(1) {
        let (policy, _) = part.split_once("```").unwrap();
        let problems = beamline_sidecar::policy::check(&policy.as_bytes().to_vec().into());
        assert!(problems.is_empty(), "{policy}{problems:?}");
        seen += 1;
    }
    let fields = parsed(&run(&["schema"], "").1)["properties"].clone();
    for field in fields.as_object().unwrap().keys() {
        assert!(page.contains(&format!("`{field}")), "{field} is not on the page");
    }
    assert!(seen >= 2, "{seen}");
}

#[test]
fn a_failure_of_nobody_is_refused() {
    let failing = [
        "simulate",
        "--policy",
        CHAT,
        "--requests",
        "1",
        "--fail",
        "openia=timeout:1%",
    ];
    let (code, _, err) = run(&failing, "");
    assert_eq!(code, 64);
    assert!(
        err.contains("no such provider; it has anthropic, local_llm, openai"),
        "{err}"
    );
}

#[test]
fn what_is_remembered_can_be_told_to_explain() {
    let dir = tempfile::tempdir().unwrap();
    let policy = write(
        dir.path(),
        "policy.json",
        "{\"weights\":{\"a\":0.5,\"b\":0.5},\"circuit_breaker\":{\"enabled\":true},\"sticky\":{\"enabled\":true}}",
    );
    let memory = "breakers: {a: open}\nsticky: [{session: s, provider: a}, {session: t, provider: b}]\n";
    let memory = write(dir.path(), "memory.yaml", memory);
    let arguments = [
        "explain",
        "--policy",
        &policy,
        "--request",
        "-",
        "--memory",
        &memory,
    ];
    let (code, out, _) = run(&arguments, "{\"session_id\":\"s\"}");
    assert_eq!(code, 0);
    for part in [
        "b   weighted, priority 50\n",
        "1. Checked sticky session: its provider a is not available\n",
        "  a           0.50  open       circuit_breaker_open\n",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (_, out, _) = run(&arguments, "{\"session_id\":\"t\"}");
    assert!(out.starts_with("b   sticky, priority 100\n"), "{out}");
    let wrong = write(dir.path(), "wrong.yaml", "breaker: {a: open}\n");
    let (code, _, err) = run(
        &[
            "explain",
            "--policy",
            &policy,
            "--request",
            "-",
            "--memory",
            &wrong,
        ],
        "{}",
    );
    assert!(
        code == 64 && err.contains("wrong.yaml") && err.contains("`breaker`"),
        "{err}"
    );
}

#[test]
fn a_difference_of_directories_is_told_policy_by_policy() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["old/acme", "new/acme", "new/globex"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let rule = "\"fallbacks\":[{\"when\":{\"status\":[\"timeout\"]},\"retry\":2,\"to\":\"b\"}]";
    let with = |rule: &str| format!("{{\"weights\":{{\"a\":1.0}},{rule}}}");
    write(dir.path(), "old/acme/chat.json", &with(rule));
    write(dir.path(), "new/acme/chat.json", &with(&rule.replace(":2", ":3")));
    for name in [
        "old/acme/same.json",
        "new/acme/same.json",
        "old/acme/gone.json",
        "new/globex/come.json",
    ] {
        write(dir.path(), name, "{\"weights\":{\"a\":1.0}}");
    }
    let [old, new] = ["old", "new"].map(|name| dir.path().join(name).display().to_string());
    let (code, out, _) = run(&["diff", &old, &new, "--fail-on-change", "--seeds", "10"], "");
    assert_eq!(code, 1);
    assert!(
        out.starts_with("acme/chat.json\n\nfallbacks[0].retry\n  - 2\n  + 3\n"),
        "{out}"
    );
    // The third attempt, which only the new policy makes.
    let request = "Request {\"current_provider\":\"a\",\"retry_attempts\":2,\"status\":\"timeout\"}\n  old: fallback b 100 %\n";
    assert!(
        out.contains(request) && out.contains("  new: retry a 100 %\n"),
        "{out}"
    );
    let end = "Only in the old: acme/gone.json\nOnly in the new: globex/come.json\nDecisions change under 1 of 2 policies; \
               1 removed, 1 added.\n";
    assert!(out.ends_with(end), "{out}");
    let (code, out, _) = run(&["diff", &old, &old, "--fail-on-change"], "");
    assert_eq!(
        (code, out.as_str()),
        (0, "Decisions change under 0 of 3 policies; 0 removed, 0 added.\n")
    );
    let (_, out, _) = run(&["diff", &old, &new, "--json", "--seeds", "10"], "");
    let report = parsed(&out);
    assert_eq!(report["removed"], json!(["acme/gone.json"]));
    assert_eq!(
        report["policies"][0]["policy_changes"],
        json!([{"path": "fallbacks[0].retry", "old": 2, "new": 3}])
    );
    // Whole requests are asked of their own policy.
    let request = crate::decide::request("acme", "same", json!({"status": "timeout", "retry_attempts": 2}));
    let requests = write(dir.path(), "requests.ndjson", &format!("{request}\n"));
    let (_, out, _) = run(
        &[
            "diff",
            &old,
            &new,
            "--requests",
            &requests,
            "--json",
            "--seeds",
            "10",
        ],
        "",
    );
    let asked: Vec<(Value, Value)> = parsed(&out)["policies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|policy| (policy["policy"].clone(), policy["requests"].clone()))
        .collect();
    assert_eq!(
        asked,
        [
            (json!("acme/chat.json"), json!(0)),
            (json!("acme/same.json"), json!(1))
        ]
    );
    let file = dir.path().join("old/acme/chat.json").display().to_string();
    assert_eq!(run(&["diff", &file, &new], "").0, 64);
    let broken = write(dir.path(), "broken.ndjson", "{}\n[]\n");
    let (code, _, err) = run(&["diff", &file, &file, "--requests", &broken], "");
    assert!(code == 64 && err.contains("broken.ndjson:2:"), "{err}");
}
