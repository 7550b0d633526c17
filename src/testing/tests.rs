//! Cases that hold, that do not, and that are none.

use std::fs;

use super::*;

fn read(text: &str) -> Result<Vec<Case>, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("case.yaml");
    fs::write(&file, text).unwrap();
    let name = dir.path().display().to_string() + "/";
    load(&file).map_err(|error| error.to_string().replace(&name, ""))
}

/// What differs, of every case of a text.
fn differences(text: &str) -> Vec<String> {
    let cases = read(text).unwrap_or_else(|error| panic!("{error}"));
    cases
        .iter()
        .flat_map(|case| run(case).into_iter().map(|mismatch| mismatch.to_string()))
        .collect()
}

const A: &str = "description: x\npolicy: {weights: {a: 1.0}}\n";

#[test]
fn one_case_or_a_list_of_them_however_they_are_indented() {
    for (text, count) in [
        (format!("{A}steps:\n- want: {{provider_id: a}}\n"), 1),
        (format!("{A}steps:\n  - want: {{provider_id: a}}\n"), 1),
        (format!("# first\n\n---\n{A}steps: [{{want: {{}}}}]\n"), 1),
        (
            "- description: x\n  policy: {}\n  steps:\n  - want: {}\n- description: y\n  policy: {}\n  steps: [{want: {}}]"
                .to_owned(),
            2,
        ),
        ("[{description: x, policy: {}, steps: [{want: {}}]}]".to_owned(), 1),
    ] {
        assert_eq!(read(&text).map(|cases| cases.len()), Ok(count), "{text}");
    }
}

#[test]
fn a_mistake_is_named_with_its_place() {
    let refused = |text: &str| read(text).unwrap_err();
    let place = refused(&format!("{A}steps:\n  - wnat: {{}}\n"));
    assert!(
        place.starts_with("case.yaml:4:5: ") && place.contains("wnat"),
        "{place}"
    );
    for (rest, why) in [
        ("steps: []", "has no steps"),
        ("steps: [{want: {}, repeat: 0}]", "step 1 is repeated 0 times"),
        (
            "policy_file: x.json\nsteps: [{want: {}}]",
            "a policy and a policy_file",
        ),
        (
            "seed: xyz\nsteps: [{want: {}}]",
            "seed xyz is not 1 to 16 hex digits",
        ),
        ("at: noon\nsteps: [{want: {}}]", "at: noon"),
        ("tenant_id: a b\nsteps: [{want: {}}]", "tenant_id"),
        ("policy_id: a b\nsteps: [{want: {}}]", "policy_id"),
        ("steps: [{want: {}, tenant_id: a b}]", "step 1: tenant_id"),
        ("memory: {breakers: {a: ajar}}\nsteps: [{want: {}}]", "ajar"),
        (
            "steps: [{want: {level: loud}}]",
            "there are minimal, detailed and verbose",
        ),
        ("steps: [{want: {message: x}}]", "name the refusal"),
        (
            "steps: [{want: {provider_id: a, distribution: {runs: 1, shares: {}, tolerance: 0}}}]",
            "two steps",
        ),
        (
            "steps: [{want: {distribution: {runs: 0, shares: {}, tolerance: 0}}}]",
            "no runs",
        ),
        ("steps: [{request: {}, want: {}}]", "Missing version field"),
        (
            "steps: [{request: {message: {message_id: m, tenant_id: t}}, context: {a: 1}, want: {}}]",
            "has its own tenant, context",
        ),
    ] {
        let text = format!("{A}{rest}");
        let error = refused(&text);
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn every_want_is_looked_at() {
    for (want, path) in [
        ("provider_id: b", "provider_id"),
        ("reason: sticky", "reason"),
        ("priority: 100", "priority"),
        ("metadata: {tenant_id: other}", "metadata.tenant_id"),
        ("executed_extensions: [pre x ok]", "executed_extensions"),
        ("refusal: no_provider_available", "refusal"),
        ("steps: []", "steps"),
        ("explanation_context: {}", "explanation_context"),
        ("evidence: {total_weight: 0.5}", "evidence.total_weight"),
        (
            "memory: {sticky: [{session: s, provider: b}]}",
            "memory.sticky[\"s\"]",
        ),
        ("memory: {breakers: {a: closed}}", "memory.breakers.a"),
        (
            "distribution: {runs: 10, shares: {a: 0.5}, tolerance: 0.1}",
            "distribution.a",
        ),
    ] {
        let found = differences(&format!("{A}steps: [{{want: {{{want}}}}}]"));
        let first = found.first().map(String::as_str).unwrap_or_default();
        assert!(
            first.starts_with(&format!("step 1, {path}\n")),
            "{want}: {found:?}"
        );
    }
    let refused = "description: x\npolicy: {}\nsteps: [{want: {refusal: no_provider_available, WHAT}}]";
    for (want, path) in [
        ("code: internal", "code"),
        ("message: nothing", "message"),
        ("details: {policy_id: other}", "details.policy_id"),
        ("memory: {breakers: {a: closed}}", "memory.breakers.a"),
    ] {
        let found = differences(&refused.replace("WHAT", want));
        assert!(found.len() == 1 && found[0].contains(path), "{want}: {found:?}");
    }
    let right = "code: decision_failed, message: 'No provider available: weights failed and no fallback configured', \
                 details: {policy_id: chat}";
    assert_eq!(differences(&refused.replace("WHAT", right)), Vec::<String>::new());
}

#[test]
fn lists_are_shown_line_by_line_and_a_repetition_once() {
    let found = differences(&format!("{A}steps: [{{repeat: 3, want: {{steps: [one, two]}}}}]"));
    assert_eq!(
        found,
        [
            "step 1, steps (1 of 3)\n    wanted\n    - one\n    - two\n    got\n    + 2. Applied weighted distribution: \
          1 providers, total weight: 1.00"
        ]
    );
}

#[test]
fn a_request_is_read_as_the_router_sends_it() {
    let request = "{version: '1', tenant_id: globex, request_id: r, trace_id: 0123456789abcdef0123456789abcdef, policy_id: p, \
                   task: {type: summary, payload: {text: hello}}, metadata: {tier: gold}}";
    let text = format!(
        "description: x\npolicy: {{weights: {{a: 0}}, fallbacks: [{{when: {{message_type: summary, tier: gold}}, to: b}}]}}\n\
         steps: [{{request: {request}, want: {{provider_id: b, metadata: {{tenant_id: globex}}}}}}, \
         {{message_type: summary, context: {{tier: gold}}, want: {{provider_id: b, metadata: {{tenant_id: acme}}}}}}]"
    );
    assert_eq!(differences(&text), Vec::<String>::new());
}

#[test]
fn times_are_read_in_both_forms() {
    let text = "steps: [{context: {deadline: 1738312200000}, want: {provider_id: a}}, {after_ms: 1, context: {deadline: \
                1738312200000}, want: {refusal: deadline_exceeded}}]";
    for at in [
        "2025-01-31T08:30:00Z",
        "1738312200000",
        "'2025-01-31T09:30:00+01:00'",
    ] {
        assert_eq!(
            differences(&format!("{A}at: {at}\n{text}")),
            Vec::<String>::new(),
            "{at}"
        );
    }
}

#[test]
fn what_is_remembered_can_be_wanted() {
    let text = "description: x
policy: {weights: {a: 1.0}, sticky: {enabled: true, session_key: s, ttl: 10s}, circuit_breaker: {enabled: true, failure_threshold: 1}}
memory: {sticky: [{session: old, provider: z, age_seconds: 9, ttl_seconds: 10}]}
steps:
- context: {s: new}
  want: {memory: {sticky: [{session: new, provider: a}, {session: old, provider: z}], breakers: {a: closed, b: null}}}
- after_ms: 2000
  result: {provider_id: a, status: timeout}
  context: {s: new}
  want: {refusal: no_provider_available, memory: {sticky: [{session: new, provider: a}, {session: old, provider: null}], breakers: {a: open}}}
";
    assert_eq!(differences(text), Vec::<String>::new());
}

#[test]
fn only_true_and_false_are_truth_values() {
    let text = "description: x
policy: {fallbacks: [{when: {region: [no, n, off]}, to: b}, {when: {region: true}, to: c}]}
steps:
- {context: {region: no}, want: {provider_id: b, metadata: {region: 'no'}}}
- {context: {region: 'n'}, want: {provider_id: b}}
- {context: {region: false}, want: {refusal: no_provider_available}}
- {context: {region: true}, want: {provider_id: c}}
";
    assert_eq!(differences(text), Vec::<String>::new());
}
