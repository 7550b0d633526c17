//! Cases that are read, cases that are none, and cases that do not hold.

use serde_json::{Map, Value, json};

use super::*;
use crate::extensions::sandbox::{BreakerState, ConfigProblem, GuestFailure, Kind};

fn mistakes(text: &str) -> Vec<String> {
    read(text).unwrap_err().iter().map(ToString::to_string).collect()
}

fn only(text: &str) -> ExtensionCase {
    match read(text) {
        Ok(mut file) if file.cases.len() == 1 => file.cases.remove(0),
        other => panic!("{other:?}"),
    }
}

/// A case of a kind that has what the kind needs, and expects this.
fn expecting(kind: &str, expect: &str) -> ExtensionCase {
    let given = match kind {
        "scorer" => "candidates: [{provider_id: a}, {provider_id: b}],",
        "post" => "",
        _ => "message: {message_id: m, payload: {text: hello}},",
    };
    only(&format!(
        "extension: {kind}\ncases: [{{name: x, {given} expect: {expect}}}]"
    ))
}

#[test]
fn a_case_says_everything_or_next_to_nothing() {
    let text = "extension: scorer
cases:
  - name: everything
    message: {message_id: m, message_type: chat, payload: [no, 1, 1.5, null], metadata: {flow_id: f}}
    context: {tenant_id: acme}
    config: {floor: 0.1}
    candidates: [{provider_id: a, weight: 0.5, breaker: half_open, latency_ms: 120, error_rate: 0.1, cost: 0.2}]
    now_ms: 1000
    seed: 18446744073709551615
    expect: {scores: {a: 1}}
  - {name: next to nothing, candidates: [{provider_id: a}], expect: {scores: {a: 1.0}}}
";
    let file = read(text).unwrap();
    assert_eq!(file.kind, Kind::Scorer);
    let [everything, nothing] = file.cases.as_slice() else {
        panic!("{file:?}")
    };
    assert_eq!((everything.line, nothing.line), (3, 11));
    assert_eq!(everything.message.payload, json!(["no", 1, 1.5, null]));
    assert_eq!(
        everything.message.metadata,
        *json!({"flow_id": "f"}).as_object().unwrap()
    );
    assert_eq!(
        everything.candidates,
        [CaseCandidate {
            provider_id: "a".into(),
            weight: 0.5,
            breaker: BreakerState::HalfOpen,
            latency_ms: Some(120.0),
            error_rate: Some(0.1),
            cost: Some(0.2)
        }]
    );
    assert_eq!((everything.now_ms, everything.seed), (1_000, u64::MAX));
    assert_eq!(nothing.message, MessageValue::default());
    assert_eq!(
        (nothing.candidates[0].weight, nothing.candidates[0].cost),
        (1.0, None)
    );
    assert_eq!((nothing.now_ms, nothing.seed), (0, 1));
    assert_eq!(expecting("post", "unchanged").decision, CaseDecision::default());
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let text = "extension: validator
cases:
  - name: one
    mesage: {}
    message: {paylod: 1, message_type: 7}
    candidates: []
    seed: -1
    expect: {reject: {reasons: x}}
  - expect: {scores: {a: 1}}
  - name: three
    expect: {failure: x, error: trap}
  - name: four
    expect: {error: broken}
  - 5
";
    assert_eq!(
        mistakes(text),
        [
            "4:13: a case has no `mesage`: did you mean `message`?",
            "5:23: a message has no `paylod`: did you mean `payload`?",
            "5:40: message_type is a text",
            "6:17: only a scorer is given `candidates`, and this is a validator",
            "7:11: seed is a whole number, 0 or more",
            "8:32: a rejection has no `reasons`: did you mean `reason`?",
            "9:5: give the case a `name`: a sentence that says what it shows",
            "9:22: what a validator is expected to do has no `scores`: there are reject, failure, config_problems, error",
            "11:13: only one of failure, error can come of a call",
            "13:21: error is one of timeout, trap, fuel, memory, table, output",
            "14:5: a case is an object with name, message, context, config, candidates, decision, now_ms, seed, policy_id, trace_id, request_id, expect",
        ]
    );
    for (text, why) in [
        ("extension: validator\ncases: []", "there are no cases"),
        ("extension: validator", "there are no cases"),
        ("cases: [{name: x, expect: accept}]", "say what `extension` it is"),
        (
            "extension: provider\ncases: [{name: x, expect: accept}]",
            "there is no extension of kind \"provider\"",
        ),
        ("extension: validator\ncases: [{name: x}]", "say what to `expect`"),
        (
            "extension: validator\ncases: [{name: x, expect: pass}]",
            "expect accept, or one of reject",
        ),
        (
            "extension: pre\ncases: [{name: x, expect: accept}]",
            "expect unchanged, or one of message",
        ),
        (
            "extension: scorer\ncases: [{name: x, expect: {scores: {}}}]",
            "give the scorer `candidates`",
        ),
        (
            "extension: post\ncases: [{name: x, message: {}, expect: unchanged}]",
            "not the message",
        ),
        (
            "extension: validator\ncases: [{name: x, expect: {config_problems: []}}]",
            "name the places",
        ),
        (
            "extension: scorer\ncases: [{name: x, candidates: [{provider_id: a}, {provider_id: a}], expect: {error: trap}}]",
            "two candidates \"a\"",
        ),
        (
            "extension: scorer\ncases: [{name: x, candidates: [{provider_id: a, error_rate: 2}], expect: {error: trap}}]",
            "error_rate is a number, from 0 to 1",
        ),
        ("extension: [", ""),
    ] {
        let told = mistakes(text);
        assert!(told.len() == 1 && told[0].contains(why), "{text}: {told:?}");
    }
}

#[test]
fn what_is_expected_holds() {
    let object = |value: Value| value.as_object().cloned().unwrap();
    let failed = |error| {
        Outcome::Error(FailedCall {
            error,
            reason: "x".into(),
            frames: Vec::new(),
            offsets: Vec::new(),
        })
    };
    let message = |payload| MessageValue {
        message_id: "m".into(),
        payload,
        ..MessageValue::default()
    };
    let same = || Some(message(json!({"text": "hello"})));
    for (kind, expect, outcome) in [
        ("validator", "accept", Outcome::Accept),
        (
            "validator",
            "{reject: {}}",
            Outcome::Reject {
                reason: "any".into(),
                details: json!({"any": 1}),
            },
        ),
        (
            "validator",
            "{reject: {reason: r, details: {n: 0.3}}}",
            Outcome::Reject {
                reason: "r".into(),
                details: json!({"n": 0.1 + 0.2}),
            },
        ),
        (
            "post",
            "{failure: no_config}",
            Outcome::Failure(GuestFailure {
                code: "no_config".into(),
                message: "any".into(),
            }),
        ),
        (
            "pre",
            "{config_problems: [/b, /a]}",
            Outcome::ConfigProblems(vec![
                ConfigProblem {
                    path: "/a".into(),
                    message: "any".into(),
                },
                ConfigProblem {
                    path: "/b".into(),
                    message: "any".into(),
                },
            ]),
        ),
        (
            "pre",
            "{}",
            Outcome::Changed {
                message: None,
                context: Map::new(),
            },
        ),
        (
            "pre",
            "unchanged",
            Outcome::Changed {
                message: same(),
                context: Map::new(),
            },
        ),
        (
            "pre",
            "{message: {payload: 1}, context: {a: b}}",
            Outcome::Changed {
                message: Some(message(json!(1))),
                context: object(json!({"a": "b"})),
            },
        ),
        (
            "scorer",
            "{scores: {a: 0.1, b: 1}}",
            Outcome::Scores([("a".into(), 0.1000004), ("b".into(), 1.0)].into()),
        ),
        (
            "post",
            "{metadata: {a: 1}}",
            Outcome::Metadata(object(json!({"a": 1}))),
        ),
        ("post", "{metadata: null}", Outcome::Metadata(Map::new())),
        ("scorer", "{error: memory}", failed(CaseError::Memory)),
    ] {
        let case = expecting(kind, expect);
        assert_eq!(compare(&case, &outcome), [], "{kind} {expect}");
        let other = failed(CaseError::Output);
        let differences = compare(&case, &other);
        assert_eq!(differences.len(), 1, "{kind} {expect}");
        assert_eq!(
            (differences[0].path.as_str(), &differences[0].got),
            ("", &json!({"error": "output", "reason": "x"}))
        );
    }
}

#[test]
fn a_difference_is_told_where_it_is() {
    let paths = |kind: &str, expect: &str, outcome: &Outcome| -> Vec<String> {
        let differences = compare(&expecting(kind, expect), outcome);
        differences
            .into_iter()
            .map(|difference| difference.path)
            .collect()
    };
    let rejected = Outcome::Reject {
        reason: "r".into(),
        details: json!({"found": [{"count": 2, "kind": "card"}], "more": 1}),
    };
    assert_eq!(
        paths(
            "validator",
            "{reject: {reason: s, details: {found: [{count: 1, kind: card}]}}}",
            &rejected
        ),
        [
            "reject.reason",
            "reject.details.found[0].count",
            "reject.details.more"
        ]
    );
    assert_eq!(
        paths("validator", "{reject: {details: {found: []}}}", &rejected),
        ["reject.details.found", "reject.details.more"]
    );
    let changed = Outcome::Changed {
        message: Some(MessageValue::default()),
        context: json!({"a": 1}).as_object().cloned().unwrap(),
    };
    assert_eq!(
        paths("pre", "{}", &changed),
        ["message.message_id", "message.payload", "context.a"]
    );
    let scores = Outcome::Scores([("a".into(), 0.5)].into());
    assert_eq!(
        paths("scorer", "{scores: {a: 0.50001, b: 1}}", &scores),
        ["scores.a", "scores.b"]
    );
    let counted = Outcome::Metadata(
        json!({"n": 9_007_199_254_740_993_u64})
            .as_object()
            .cloned()
            .unwrap(),
    );
    assert_eq!(
        paths("post", "{metadata: {n: 9007199254740992}}", &counted),
        ["metadata.n"]
    );
}

#[test]
fn what_is_shown_can_be_written_into_a_case() {
    for (kind, expect) in [
        ("validator", "accept"),
        ("validator", r#"{"reject":{"details":{"a":1},"reason":"r"}}"#),
        ("pre", "unchanged"),
        ("pre", r#"{"context":{"a":1},"message":{"payload":2}}"#),
        ("scorer", r#"{"scores":{"a":1.0,"b":0.5}}"#),
        ("post", r#"{"metadata":{"a":1}}"#),
        ("post", r#"{"error":"timeout"}"#),
        ("post", r#"{"config_problems":["/a"]}"#),
    ] {
        let shown = expecting(kind, expect).expect.to_json().to_string();
        assert_eq!(
            expecting(kind, &shown).expect,
            expecting(kind, expect).expect,
            "{shown}"
        );
    }
}

#[test]
fn answers_are_refused_where_a_sidecar_refuses_them() {
    use crate::extensions::sandbox::{NewMessage, Raw, Rejection, WireScore, WireVerdict, check_answer};
    let message = |payload: &str, metadata: &str| Raw::Pre {
        message: Some(NewMessage {
            message_id: "m".into(),
            message_type: "chat".into(),
            payload: payload.into(),
            metadata: metadata.into(),
        }),
        context: None,
    };
    let context = |text: &str| Raw::Pre {
        message: None,
        context: Some(text.into()),
    };
    let reject = |details: &str| {
        Raw::Verdict(WireVerdict::Reject(Rejection {
            reason: "r".into(),
            details: details.into(),
        }))
    };
    let scores = |scores: &[(&str, f64)]| {
        let score = |(provider_id, factor): &(&str, f64)| WireScore {
            provider_id: (*provider_id).into(),
            factor: *factor,
        };
        Raw::Scores(scores.iter().map(score).collect())
    };
    let case = expecting("scorer", "{error: output}");
    for (raw, is_valid) in [
        (message("1", "{}"), true),
        (message("", "{}"), false),
        (message("1", "[]"), false),
        (context("{}"), true),
        (context("null"), false),
        (reject("{}"), true),
        (reject("[1]"), false),
        (Raw::Metadata(None), true),
        (Raw::Metadata(Some("{}".into())), true),
        (Raw::Metadata(Some("{".into())), false),
        (scores(&[("b", 0.0), ("a", 2.5)]), true),
        (scores(&[("a", 1.0)]), false),
        (scores(&[("a", 1.0), ("b", 1.0), ("b", 1.0)]), false),
        (scores(&[("a", 1.0), ("c", 1.0)]), false),
        (scores(&[("a", 1.0), ("b", f64::NAN)]), false),
        (scores(&[("a", 1.0), ("b", f64::INFINITY)]), false),
        (scores(&[("a", 1.0), ("b", -0.1)]), false),
    ] {
        let here = run::checked(raw.clone(), &case);
        assert_eq!(here.is_ok(), is_valid, "{raw:?}: {here:?}");
        assert_eq!(
            check_answer(raw.clone(), &["a", "b"]).is_ok(),
            is_valid,
            "{raw:?}"
        );
    }
}
