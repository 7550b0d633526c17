//! Any bytes as a policy: they are refused with a reason, or read into a policy that reads the same once written out.

#![no_main]

use beamline_sidecar::policy::{PolicyDocument, RoutingPolicy, Severity, check, read, refuse_document};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let judged = check(&bytes);
    let Ok(document) = PolicyDocument::parse(bytes) else {
        assert!(!judged.is_empty(), "refused without a reason");
        // As a stored document: it is read in any case, and nothing breaks.
        let _ = read(data);
        return;
    };
    let (policy, problems) = read(document.bytes());
    assert_eq!(judged, problems, "a write and a load see the same problems");
    if problems.iter().all(|problem| problem.severity != Severity::Error) {
        let object = serde_json::from_slice(data).expect("it was parsed above");
        assert_eq!(
            refuse_document(&object),
            None,
            "accepted, and refused in the platform's words"
        );
    }
    let written = serde_json::to_vec(&policy.to_json()).expect("a policy is JSON");
    assert_eq!(within_scale(policy), within_scale(read(&written).0));
});

/// A weight above 1 is a percentage when it is written as a float, so those alone do not read the same.
fn within_scale(mut policy: RoutingPolicy) -> RoutingPolicy {
    for provider in &mut policy.providers {
        provider.weight = provider.weight.min(0.01);
    }
    policy
}
