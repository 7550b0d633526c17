//! Components that were built against each version of the package, kept as they were built: an extension that ran once
//! goes on running.

use std::{path::Path, sync::Arc};

use beamline_sidecar::extensions::{
    BreakerState, Built, CallEnv, CallError, CallOutput, CandidateRecord, Capability, DecisionRecord,
    GuestFailure, Kind, MessageRecord, ModuleDigest, NewMessage, Prepared, Raw, Rejection, WireScore,
    WireVerdict, Work,
};
use serde_json::json;

use super::{LIMITS, TIME, component_cache, place::Place, record};
use crate::decide::{decide, outcome, request};

/// They are never rebuilt: a new build would prove nothing.
const KEPT: [(&str, &str); 5] = [
    (
        "pii-guard",
        "05c599452deca3ced88fafd625f21a96aeaa1b76e6ff97ab7411469822e82008",
    ),
    (
        "post-processor",
        "69932bc3a8007f4340ba99cce46cf111c5b3c4cfc409609b7fc399a2a7b1515d",
    ),
    (
        "pre-processor",
        "f2b37c6d5fd82421d673668a2865e118b1a85e2c34c511eb33b650bf5df18061",
    ),
    (
        "scorer",
        "03685b00bf6c2e592de0f4f953f25027ca1f67ccfa86b27d3fbc3e3df9e155f8",
    ),
    (
        "validator",
        "d557ba9048caa4d104159f5d3a0702712d1e28e60158132dd6031ee239cb8080",
    ),
];

pub(crate) fn kept(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/extensions/0.1.0");
    std::fs::read(dir.join(format!("{name}.wasm"))).unwrap()
}

fn build(module: &[u8]) -> Arc<Built> {
    component_cache()
        .build(module)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Links one with what it asks for.
fn prepare(name: &str, kind: Kind) -> Prepared {
    let built = build(&kept(name));
    component_cache()
        .link(&built, kind, &built.interface.needs())
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

const MESSAGE: MessageRecord<'static> = MessageRecord {
    message_id: "m-1",
    message_type: "chat",
    payload: r#"{"text":"Grüße"}"#,
    metadata: r#"{"run_id":"r"}"#,
};

fn call(prepared: &Prepared, work: Work<'_>, config: &str) -> CallOutput<Raw> {
    let env = CallEnv {
        now_ms: 1_800_000_000_000,
        seed: 1,
    };
    let mut call = record(config);
    (call.trace_id, call.context) = ("t-1", r#"{"user":"ada"}"#);
    let ran = prepared.call(call, work, LIMITS, TIME, env);
    // Every capability was there, and did what it says.
    let lines: Vec<_> = ran.output.lines.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(lines, ["main"]);
    assert_eq!(
        ran.output.counters,
        [
            ("calls".to_owned(), 1_800_000_000_000),
            ("chance".to_owned(), 10_451_216_379_200_822_465),
        ]
    );
    ran
}

#[test]
fn those_of_0_1_0_are_as_they_were_built() {
    for (name, digest) in KEPT {
        assert_eq!(ModuleDigest::of(&kept(name)).to_string(), digest, "{name}");
    }
}

#[test]
fn those_of_0_1_0_need_their_capabilities() {
    for kind in Kind::ALL {
        let built = build(&kept(kind.world()));
        assert_eq!(built.interface.needs(), Capability::ALL);
        for missing in Capability::ALL {
            let granted: Vec<_> = Capability::ALL
                .into_iter()
                .filter(|one| *one != missing)
                .collect();
            let refused = component_cache()
                .link(&built, kind, &granted)
                .unwrap_err()
                .to_string();
            let remedy = format!("add \"{}\" to \"capabilities\"", missing.as_str());
            assert!(refused.contains(&remedy), "{refused}");
        }
    }
}

#[test]
fn those_of_0_1_0_check_their_configurations() {
    for kind in Kind::ALL {
        let prepared = prepare(kind.world(), kind);
        let check = |config: &str| prepared.check_config(config, LIMITS, TIME).result.unwrap();
        assert_eq!(check("{}"), []);
        let long = format!(r#"{{"key":"{}"}}"#, "x".repeat(64));
        let [problem] = &check(&long)[..] else {
            panic!("no problem");
        };
        assert_eq!((&*problem.path, &*problem.message), ("/", &*long));
    }
}

#[test]
fn a_validator_of_0_1_0_answers() {
    let prepared = prepare("validator", Kind::Validator);
    let ran = call(&prepared, Work::Validator(MESSAGE), r#"{"a":1}"#);
    let reason = concat!(
        r#"acme|main|t-1|r-1|{"user":"ada"}|{"a":1}|"#,
        r#"m-1|chat|{"text":"Grüße"}|{"run_id":"r"}|"#
    );
    let rejection = Rejection {
        reason: reason.into(),
        details: r#"{"a":1}"#.into(),
    };
    assert_eq!(ran.result, Ok(Raw::Verdict(WireVerdict::Reject(rejection))));
}

#[test]
fn a_pre_processor_of_0_1_0_answers() {
    let prepared = prepare("pre-processor", Kind::Pre);
    let ran = call(&prepared, Work::Pre(MESSAGE), r#"{"a":1}"#);
    let message = NewMessage {
        message_id: MESSAGE.message_id.into(),
        message_type: MESSAGE.message_type.into(),
        payload: MESSAGE.payload.into(),
        metadata: MESSAGE.metadata.into(),
    };
    let context = Some(r#"{"a":1}"#.to_owned());
    assert_eq!(
        ran.result,
        Ok(Raw::Pre {
            message: Some(message),
            context
        })
    );
}

#[test]
fn a_scorer_of_0_1_0_answers() {
    let prepared = prepare("scorer", Kind::Scorer);
    let candidate = |provider_id, breaker, known: [Option<f64>; 3]| CandidateRecord {
        provider_id,
        weight: 1000.0,
        breaker,
        latency_ms: known[0],
        error_rate: known[1],
        cost: known[2],
    };
    let candidates = [
        candidate("alpha", BreakerState::Closed, [None, None, None]),
        candidate("beta", BreakerState::HalfOpen, [Some(100.0), None, Some(0.5)]),
        candidate("gamma", BreakerState::Open, [None, Some(0.25), None]),
    ];
    let ran = call(&prepared, Work::Scorer(MESSAGE, &candidates), "{}");
    let score = |provider_id: &str, factor| WireScore {
        provider_id: provider_id.into(),
        factor,
    };
    let scores = vec![
        score("alpha", 1000.0),
        score("beta", 1101.5),
        score("gamma", 1002.25),
    ];
    assert_eq!(ran.result, Ok(Raw::Scores(scores)));
}

#[test]
fn a_post_processor_of_0_1_0_answers() {
    let prepared = prepare("post-processor", Kind::Post);
    let work = Work::Post(DecisionRecord {
        provider_id: "alpha",
        reason: "weighted",
        priority: 50,
    });
    let ran = call(&prepared, work, r#"{"a":1}"#);
    assert_eq!(ran.result, Ok(Raw::Metadata(Some(r#"{"a":1}"#.into()))));
    let failure = GuestFailure {
        code: "chance".into(),
        message: "alpha|weighted|2".into(),
    };
    assert_eq!(
        call(&prepared, work, "{}").result,
        Err(CallError::Failure(failure))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_0_1_0_take_part_in_a_decision() {
    let place = Place::new();
    for (id, kind, config) in [
        ("pre-processor", "pre", json!({"added": true})),
        ("validator", "validator", json!({})),
        ("scorer", "scorer", json!({})),
        ("post-processor", "post", json!({"note": "kept"})),
        ("pii-guard", "validator", json!({})),
    ] {
        place.bytes(&kept(id), &format!("{id}.wasm"));
        let mut record = json!({
            "id": id, "type": kind, "module": format!("file:{id}.wasm"), "config": config,
            "capabilities": ["clock", "random", "metrics"],
        });
        if id == "pii-guard" {
            record["capabilities"] = json!([]);
        }
        place.record(id, record);
    }
    place.policy(
        "chat",
        json!({
            "pre": [{"id": "pre-processor", "mode": "required"}],
            "validators": [{"id": "pii-guard", "on_fail": "block"}, {"id": "validator", "on_fail": "warn", "when": {"added": true}}],
            "scorers": [{"id": "scorer", "mode": "required"}],
            "post": [{"id": "post-processor", "mode": "required"}],
        }),
    );
    let sidecar = place.start("");
    let answer = decide(&sidecar.client(), &request("acme", "chat", json!({})), &[]).await;
    assert!(outcome(&answer).starts_with("weighted "), "{}", answer.text());
    let metadata = &answer.json()["decision"]["metadata"];
    assert_eq!(metadata["note"], "kept");
    let ran: Vec<_> = metadata["executed_extensions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!(
                "{} {}",
                one["id"].as_str().unwrap(),
                one["status"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        ran,
        [
            "pre-processor ok",
            "pii-guard ok",
            "validator warn",
            "scorer ok",
            "post-processor ok"
        ]
    );
    // What one call adds to a counter is cut to 32 bits.
    let counted = r#"beamline_sidecar_extension_counter_total{extension_id="scorer",name="calls"}"#;
    assert!((sidecar.metric(counted).await - f64::from(u32::MAX)).abs() < 0.5);
}

/// The validator as if it had been built against another version, or asked for another function.
fn instead(of: &str, other: &str) -> Vec<u8> {
    assert_eq!(of.len(), other.len(), "lengths are written before names");
    let mut module = kept("validator");
    let found: Vec<usize> = module
        .windows(of.len())
        .enumerate()
        .filter_map(|(at, window)| (window == of.as_bytes()).then_some(at))
        .collect();
    assert!(!found.is_empty());
    for at in found {
        module[at..at + of.len()].copy_from_slice(other.as_bytes());
    }
    module
}

/// A later patch version is taken as long as it asks for nothing new.
#[test]
fn one_of_a_later_patch_version_runs() {
    let built = build(&instead("@0.1.0", "@0.1.7"));
    assert!(
        built
            .interface
            .imports
            .contains(&"beamline:extension/log@0.1.7".to_owned())
    );
    assert_eq!(built.interface.needs(), Capability::ALL);
    let prepared = component_cache()
        .link(&built, Kind::Validator, &Capability::ALL)
        .unwrap_or_else(|error| panic!("{error}"));
    let ran = call(&prepared, Work::Validator(MESSAGE), "{}");
    assert!(
        matches!(ran.result, Ok(Raw::Verdict(WireVerdict::Reject(_)))),
        "{ran:?}"
    );
    // It is no way around a capability.
    let refused = component_cache().link(&built, Kind::Validator, &[]).unwrap_err();
    assert!(refused.to_string().contains("was not granted"), "{refused}");
}

#[test]
fn what_this_host_does_not_have_is_refused_by_its_name() {
    for (of, other, says) in [
        ("@0.1.0", "@0.2.0", "log@0.2.0"),
        ("@0.1.0", "@1.1.0", "log@1.1.0"),
        // A function that a later version might have.
        ("now-ms", "now-ns", "now-ns"),
        ("/random@", "/secret@", "beamline:extension/secret@0.1.0"),
    ] {
        let refused = match component_cache().build(&instead(of, other)) {
            Err(error) => error.to_string(),
            Ok(built) => component_cache()
                .link(&built, Kind::Validator, &Capability::ALL)
                .unwrap_err()
                .to_string(),
        };
        assert!(refused.contains(says), "{other}: {refused}");
    }
}
