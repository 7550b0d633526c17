//! Any bytes as the module of an extension, of each kind: it is refused with a reason, or it is linked, called, and ends in
//! time and within its memory, with an answer or a named failure. The compiler runs in this process here.

#![no_main]

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use beamline_sidecar::extensions::{
    CallEnv, BreakerState, CallLimits, CallRecord, CandidateRecord, Compiler, DecisionRecord, Engines, Kind,
    MessageRecord, Time, Work, ComponentCache, check_answer,
};
use libfuzzer_sys::fuzz_target;

const LIMITS: CallLimits = CallLimits {
    memory_bytes: 2 << 20,
    table_elements: 1_000,
    output_bytes: 1 << 16,
};

static COMPONENT_CACHE: LazyLock<ComponentCache> = LazyLock::new(|| {
    let engines = Engines::new(4, LIMITS.memory_bytes as u64).expect("an engine");
    let compiler = Compiler {
        program: "unused".into(),
        timeout: Duration::from_secs(10),
        memory_bytes: 1 << 30,
        in_background: false,
    };
    ComponentCache::new(Arc::new(engines), compiler, None)
});

fuzz_target!(|module: &[u8]| {
    let built = match COMPONENT_CACHE.build(module) {
        Ok(built) => built,
        Err(refused) => {
            assert!(!refused.to_string().is_empty());
            return;
        }
    };
    for kind in [Kind::Pre, Kind::Validator, Kind::Scorer, Kind::Post] {
        let prepared = match COMPONENT_CACHE.link_within(&built, kind, &built.interface.needs(), LIMITS) {
            Ok(prepared) => prepared,
            Err(unusable) => {
                assert!(!unusable.to_string().is_empty());
                continue;
            }
        };
        let record = CallRecord {
            tenant_id: "acme",
            policy_id: "chat",
            trace_id: "",
            request_id: "r-1",
            context: "{}",
            config: "{}",
            remaining_ms: 5,
        };
        let message = MessageRecord {
            message_id: "",
            message_type: "chat",
            payload: r#"{"text":"Good morning"}"#,
            metadata: "{}",
        };
        let candidates = [CandidateRecord {
            provider_id: "a",
            weight: 1.0,
            breaker: BreakerState::Closed,
            latency_ms: None,
            error_rate: Some(0.5),
            cost: None,
        }];
        let decision = DecisionRecord {
            provider_id: "a",
            reason: "weighted",
            priority: 50,
        };
        let work = match kind {
            Kind::Pre => Work::Pre(message),
            Kind::Validator => Work::Validator(message),
            Kind::Scorer => Work::Scorer(message, &candidates),
            Kind::Post => Work::Post(decision),
        };
        let time = Time {
            deadline: Duration::from_millis(5),
            fast: None,
        };
        let env = CallEnv { now_ms: 0, seed: 7 };
        let ran = prepared.call(record, work, LIMITS, time, env);
        assert!(ran.memory_bytes <= LIMITS.memory_bytes, "{}", ran.memory_bytes);
        assert!(ran.said.lines.len() <= 32);
        if let Ok(raw) = ran.result {
            let _ = check_answer(raw, &["a"]);
        }
    }
});
