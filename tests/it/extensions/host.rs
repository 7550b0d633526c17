//! One call and its limits.

use std::time::Duration;

use beamline_sidecar::extensions::{CallError, CallLimits, Fast, Kind, Raw, Rejection, Time, WireVerdict};

use super::{LIMITS, TIME, built, component_cache, guest, message, misbehave, record};

fn verdict(config: &str) -> Result<Raw, CallError> {
    misbehave(config, LIMITS, TIME).result
}

fn details(config: &str) -> String {
    match verdict(config) {
        Ok(Raw::Verdict(WireVerdict::Reject(Rejection { details, .. }))) => details,
        other => panic!("{config}: {other:?}"),
    }
}

#[test]
fn an_extension_answers() {
    assert_eq!(verdict("{}"), Ok(Raw::Verdict(WireVerdict::Accept)));
}

#[test]
fn each_crash_has_its_name_and_the_next_call_is_normal() {
    let crash = |config: &str| {
        let ran = misbehave(config, LIMITS, TIME);
        assert_eq!(verdict("{}"), Ok(Raw::Verdict(WireVerdict::Accept)));
        ran.result.expect_err(config)
    };
    assert!(
        matches!(crash(r#"{"do":"trap"}"#), CallError::Trap(report) if report.reason.contains("unreachable"))
    );
    assert!(matches!(crash(r#"{"do":"panic"}"#), CallError::Trap(_)));
    assert!(
        matches!(crash(r#"{"do":"recurse"}"#), CallError::Trap(report) if report.reason.contains("stack"))
    );
    assert!(matches!(crash(r#"{"do":"allocate"}"#), CallError::Memory(_)));
    assert!(matches!(
        crash(r#"{"do":"huge-output","bytes":2000000}"#),
        CallError::Output { .. }
    ));
    assert!(matches!(crash(r#"{"do":"failure"}"#), CallError::Failure(failure) if failure.code == "made_up"));
}

#[test]
fn a_crash_says_where() {
    let Err(CallError::Trap(report)) = verdict(r#"{"do":"trap"}"#) else {
        panic!("no trap");
    };
    assert!(!report.frames.is_empty());
}

#[test]
fn hostile_22_a_loop_ends_at_the_deadline_wherever_it_is() {
    let time = Time::of(Duration::from_millis(50));
    for config in [r#"{"do":"loop"}"#, r#"{"do":"loop-in-host"}"#] {
        // It ends at all; how exactly is for the benchmark.
        let ran = misbehave(config, LIMITS, time);
        assert_eq!(ran.result, Err(CallError::Timeout), "{config}");
        assert!(ran.took >= Duration::from_millis(50), "{config}: {:?}", ran.took);
    }
}

#[test]
fn what_overruns_the_fast_lane_is_told_apart_from_a_timeout() {
    for trusted in [false, true] {
        let time = Time {
            patience: Duration::from_secs(60),
            deadline: Duration::from_secs(5),
            fast: Some(Fast {
                after: Duration::from_micros(500),
                trusted,
            }),
        };
        let result = misbehave(r#"{"do":"loop"}"#, LIMITS, time).result;
        assert_eq!(result, Err(CallError::Overrun), "{trusted}");
    }
}

#[test]
fn memory_is_limited_and_its_peak_known() {
    let limits = CallLimits {
        memory_bytes: 4 << 20,
        ..LIMITS
    };
    let ran = misbehave(r#"{"do":"allocate","bytes":20000000}"#, limits, TIME);
    assert!(
        matches!(ran.result, Err(CallError::Memory(_))),
        "{:?}",
        ran.result
    );
    assert!(ran.memory_bytes <= 4 << 20);
    let ran = misbehave(r#"{"do":"allocate","bytes":1000000}"#, limits, TIME);
    assert_eq!(ran.result, Ok(Raw::Verdict(WireVerdict::Accept)));
    assert!(ran.memory_bytes > 1_000_000);
}

#[test]
fn an_instance_remembers_nothing() {
    assert_eq!(details(r#"{"do":"remember"}"#), details(r#"{"do":"remember"}"#));
    assert!(details(r#"{"do":"remember"}"#).contains("null"));
}

#[test]
fn what_it_says_is_bounded() {
    let ran = misbehave(
        r#"{"do":"flood-log"}"#,
        CallLimits {
            output_bytes: 2 << 20,
            ..LIMITS
        },
        TIME,
    );
    assert_eq!(ran.result, Ok(Raw::Verdict(WireVerdict::Accept)));
    assert_eq!(ran.output.lines.len(), 32);
    assert_eq!(ran.output.dropped, 10_001 - 32);
    let ran = misbehave(r#"{"do":"count-metrics"}"#, LIMITS, TIME);
    assert_eq!(ran.output.counters.len(), 32);
    assert!(ran.output.counters.iter().all(|(name, _)| name.len() <= 48));
}

#[test]
fn chance_repeats_and_time_is_given() {
    assert_eq!(details(r#"{"do":"random"}"#), details(r#"{"do":"random"}"#));
    assert!(details(r#"{"do":"clock"}"#).contains(":7}"));
}

#[test]
fn a_configuration_is_checked_with_every_mistake() {
    let built = built("misbehaving-validator");
    let prepared = component_cache()
        .link(&built, Kind::Validator, &built.interface.needs())
        .unwrap();
    let check = |config: &str| prepared.check_config(config, LIMITS, TIME).result;
    assert_eq!(check("{}"), Ok(Vec::new()));
    assert_eq!(check(r#"{"bad":true}"#).unwrap().len(), 2);
    let time = Time::of(Duration::from_millis(30));
    let ran = prepared.check_config(r#"{"check":"loop"}"#, LIMITS, time);
    assert_eq!(ran.result, Err(CallError::Timeout));
}

fn refusal(name: &str, kind: Kind) -> String {
    match component_cache().build(&guest(name)) {
        Err(error) => error.to_string(),
        Ok(built) => match component_cache().link(&built, kind, &[]) {
            Err(error) => error.to_string(),
            Ok(prepared) => panic!("{name}: {prepared:?}"),
        },
    }
}

#[test]
fn hostile_28_what_is_no_extension_is_refused_with_a_remedy() {
    for (name, kind, says) in [
        ("asks-for-wasi", Kind::Validator, "wasi:cli/environment"),
        ("asks-for-everything", Kind::Validator, "\"clock\""),
        ("no-component", Kind::Validator, "core module"),
        ("other-world", Kind::Validator, "world `validator`"),
        ("other-types", Kind::Validator, "world `validator`"),
        ("pii-guard", Kind::Scorer, "looks like a validator"),
        ("large-memory", Kind::Validator, "memory"),
        ("large-table", Kind::Validator, "table"),
        ("loops-at-start", Kind::Validator, "start"),
    ] {
        let refused = refusal(name, kind);
        assert!(refused.contains(says), "{name}: {refused}");
    }
}

#[test]
fn a_pre_processor_is_no_post_processor() {
    let built = built("misbehaving-pre-processor");
    let refused = component_cache()
        .link(&built, Kind::Post, &built.interface.needs())
        .unwrap_err();
    assert!(
        refused.to_string().contains("world `post-processor`"),
        "{refused}"
    );
}

#[test]
fn what_is_no_webassembly_is_refused() {
    let module = guest("pii-guard");
    for bytes in [
        &b""[..],
        b"\0asm",
        b"hello, this is text",
        &module[..module.len() / 2],
        &module[..module.len() - 1],
    ] {
        assert!(component_cache().build(bytes).is_err(), "{} bytes", bytes.len());
    }
}

#[test]
fn guards_find_what_they_look_for() {
    let built = built("pii-guard");
    assert_eq!(built.interface.needs(), []);
    let prepared = component_cache().link(&built, Kind::Validator, &[]).unwrap();
    let guard = |payload: &str| {
        use beamline_sidecar::extensions::{CallEnv, Work};
        let env = CallEnv { now_ms: 0, seed: 0 };
        prepared.call(record("{}"), Work::Validator(message(payload)), LIMITS, TIME, env)
    };
    assert_eq!(
        guard(r#"{"text":"hello"}"#).result,
        Ok(Raw::Verdict(WireVerdict::Accept))
    );
    let ran = guard(r#"{"text":"pay with 4111 1111 1111 1111"}"#);
    assert!(
        matches!(ran.result, Ok(Raw::Verdict(WireVerdict::Reject(_)))),
        "{ran:?}"
    );
}

/// Payloads of almost a mebibyte: one long text, and as many small ones as there can be.
#[test]
fn the_shipped_guards_work_through_inputs_up_to_the_limit() {
    use beamline_sidecar::extensions::{CallEnv, Work};
    let of = |item: &str, most: usize| {
        let items = vec![item; most / (item.len() + 1)].join(",");
        format!("[{items}]")
    };
    let keys: Vec<String> = (0..)
        .map(|number| format!("\"n{number}@b.io\":0"))
        .scan(0, |length, key| {
            *length += key.len() + 1;
            (*length < 700_000).then_some(key)
        })
        .collect();
    let payloads = [
        (
            "one text of addresses",
            format!("\"{}\"", "a@b.io ".repeat(141_000)),
        ),
        ("one text of digits", format!("\"{}\"", "1 ".repeat(495_000))),
        (
            "one text of cards",
            format!("\"{}\"", "4111111111111111,".repeat(58_000)),
        ),
        ("addresses", of("\"a@b.io\"", 990_000)),
        ("escapes", of("\"\\na@b.io\"", 990_000)),
        ("letters", of("\"\u{c0}\"", 990_000)),
        ("digits", of("1", 990_000)),
        ("keys", format!("{{{}}}", keys.join(","))),
    ];
    for (name, kind) in [
        ("mask-pii-pre", Kind::Pre),
        ("pii-guard", Kind::Validator),
        ("normalize-text", Kind::Pre),
    ] {
        let prepared = component_cache().link(&built(name), kind, &[]).unwrap();
        let lowercase = if name == "normalize-text" {
            r#"{"lowercase":true}"#
        } else {
            "{}"
        };
        for (what, payload) in &payloads {
            assert!(payload.len() <= 1 << 20, "{what}: {}", payload.len());
            let of = message(payload);
            let work = if kind == Kind::Pre {
                Work::Pre(of)
            } else {
                Work::Validator(of)
            };
            let env = CallEnv { now_ms: 0, seed: 0 };
            let time = Time::of(Duration::from_secs(60));
            let ran = prepared.call(record(lowercase), work, LIMITS, time, env);
            assert!(ran.result.is_ok(), "{name}: {what}: {:?}", ran.result.err());
        }
    }
}
