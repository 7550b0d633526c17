//! Any bytes as a request for a decision, under any policy: the policy's line first, then the body. A body is refused
//! with a reason or decided on; the decision is the same every time, has a provider, and can be explained and written.

#![no_main]

use beamline_sidecar::{
    decide::{
        DecideContext, Decision, DecisionId, Effects, Explaining, DecisionInput, Metadata, Timestamp, Provenance,
        Refusal, Rules, Scripted, Seed, decide,
        memory::{CallResult, Memory, MemoryLimits},
    },
    policy::{DetailLevel, ProviderId, RoutingPolicy, read},
    intake::DecideRequest,
};
use libfuzzer_sys::fuzz_target;

const POLICY: &[u8] =
    br#"{"providers":[{"name":"a","weight":70},{"name":"b","weight":30}],"sticky":{"enabled":true},
"fallbacks":[{"when":{"status":["timeout","5xx"]},"retry":2,"to":"b"}],"circuit_breaker":{"enabled":true}}"#;

fuzz_target!(|data: &[u8]| {
    let (policy, body) = match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (POLICY, data),
    };
    let (policy, _) = read(policy);
    let first = answer(&policy, body, Effects::Remembered);
    assert_eq!(first, answer(&policy, body, Effects::Remembered));
    let _ = answer(&policy, body, Effects::None);
});

fn answer(policy: &RoutingPolicy, body: &[u8], effects: Effects) -> Option<Result<Decision, Refusal>> {
    let mut request = match DecideRequest::parse(body) {
        Ok(request) => request,
        Err(refused) => {
            assert!(!refused.reason.is_empty() && !refused.message.is_empty());
            return None;
        }
    };
    let memory = Memory::new(MemoryLimits {
        sessions: 4,
        buckets: 4,
        providers: 4,
    });
    let now = Timestamp::from_unix_ms(1_800_000_000_000);
    for provider in policy.providers.iter().take(2) {
        for _ in 0..3 {
            memory
                .breakers
                .record(&request.tenant, &provider.id, CallResult::Failure, None, now);
        }
        memory.health.set(&request.tenant, &ProviderId::new("b"), false);
    }
    let context = request.take_context("fuzz");
    let input = DecisionInput {
        tenant: &request.tenant,
        policy_id: &request.policy_id,
        context: &context,
        message: request.message(),
    };
    let at = DecideContext {
        id: DecisionId(1),
        seed: Seed(7),
        now,
        later: &|| now,
        wall_ahead_ms: 0,
        effects,
    };
    let extensions = Scripted {
        others_succeed: true,
        ..Scripted::default()
    };
    let (rules, runtime) = (
        Rules::default(),
        tokio::runtime::Builder::new_current_thread().build(),
    );
    let outcome = runtime
        .expect("a runtime without drivers needs nothing")
        .block_on(decide(policy, input, &rules, &memory, &extensions, at));
    match &outcome.result {
        Ok(decision) => {
            assert!(!decision.selection.provider.as_str().is_empty());
            let explaining = Explaining {
                decision,
                policy,
                input,
                at,
                memory: &memory,
                provenance: Provenance::default(),
            };
            for level in [DetailLevel::Minimal, DetailLevel::Detailed, DetailLevel::Verbose] {
                let explanation = explaining.explain(level, None);
                serde_json::to_vec(&explanation).expect("an explanation is JSON");
            }
            let extras = decision.extras(policy);
            let metadata = Metadata {
                context: &context,
                extras: &extras,
            };
            serde_json::to_vec(&metadata).expect("metadata is JSON");
        }
        Err(refusal) => {
            assert!(!refusal.message().is_empty() && !refusal.code().as_str().is_empty());
            let _ = refusal.details();
        }
    }
    if effects == Effects::None {
        assert!(memory.sticky.is_empty() && memory.buckets.is_empty());
    }
    Some(outcome.result)
}
