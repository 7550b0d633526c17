//! `limits.fuel`: what a call may compute, the same on every machine; and nothing of it where a record does not ask.

use std::{sync::Arc, time::Duration};

use beamline_sidecar::extensions::{
    CallEnv, CallError, CallLimits, CallOutput, Kind, Prepared, Profile, Raw, Time, Work,
};
use serde_json::json;

use super::{
    LIMITS, component_cache, guest,
    hostile::{ask, problems, reason},
    message,
    place::Place,
    record,
};
use crate::{decide::outcome, support::eventually};

/// A validator that is metered, or is not.
fn prepared(is_metered: bool) -> Arc<Prepared> {
    let module = guest("misbehaving-validator");
    let profile = Profile::of(&module).metered(is_metered);
    let built = component_cache().build_for(&module, profile).unwrap();
    assert_eq!(built.profile, profile);
    let prepared = component_cache().link(&built, Kind::Validator, &built.interface.needs());
    Arc::new(prepared.unwrap())
}

fn call(prepared: &Prepared, config: &str, fuel: Option<u64>) -> CallOutput<Raw> {
    let limits = CallLimits { fuel, ..LIMITS };
    let work = Work::Validator(message("\"seen\""));
    let time = Time::of(Duration::from_secs(60));
    prepared.call(record(config), work, limits, time, CallEnv { now_ms: 7, seed: 1 })
}

#[test]
fn a_call_with_fuel_ends_at_the_same_instruction_each_time() {
    let (metered, free) = (prepared(true), prepared(false));
    // What never ends by itself does, without a clock.
    let ended = call(&metered, r#"{"do":"loop"}"#, Some(10_000_000));
    assert_eq!(ended.result, Err(CallError::Fuel));
    assert_eq!(ended.fuel, Some(10_000_000));
    // An ordinary call takes as much each time: with that it ends well, with half of it it does not.
    let plenty = Some(1_000_000_000);
    let takes = call(&metered, "{}", plenty).fuel.unwrap();
    assert!(takes > 1_000, "{takes}");
    for _ in 0..3 {
        let again = call(&metered, "{}", plenty);
        assert!(
            again.result.is_ok() && again.fuel == Some(takes),
            "{:?}",
            again.fuel
        );
    }
    assert!(call(&metered, "{}", Some(takes)).result.is_ok());
    assert_eq!(call(&metered, "{}", Some(takes / 2)).result, Err(CallError::Fuel));
    // Without fuel nothing is counted.
    let unlimited = call(&free, "{}", None);
    assert!(unlimited.result.is_ok() && unlimited.fuel.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fuel_of_a_record_is_enforced_and_costs_no_other_extension_anything() {
    let place = Place::new();
    let lasting = json!({"timeout_ms": 5_000, "config": {"do": "loop"}, "limits": {"fuel": 1_000_000}});
    place.misbehaving("loops", "validator", lasting);
    place.misbehaving(
        "works",
        "validator",
        json!({"timeout_ms": 5_000, "limits": {"fuel": 1_000_000_000}}),
    );
    place.misbehaving("free", "validator", json!({"timeout_ms": 5_000}));
    place.misbehaving("wrong", "validator", json!({"limits": {"fuel": 1}}));
    for id in ["loops", "works", "free", "wrong"] {
        place.policy(id, json!({"validators": [{"id": id, "on_fail": "block"}]}));
    }
    let sidecar = place.start("");
    let client = sidecar.client();
    for id in ["works", "free"] {
        eventually("it runs", || async {
            outcome(&ask(&client, id).await).starts_with("weighted ")
        })
        .await;
    }
    // Running out of it is no crash: the tenant's calls go on.
    for _ in 0..10 {
        assert_eq!(reason(&ask(&client, "loops").await), "extension_fuel_limit");
    }
    let said = problems(&sidecar, "wrong").await;
    assert!(said.contains("from 1000 to"), "{said}");
    let page = sidecar.admin().get("/admin/extensions").await.json();
    let version = |id: &str| {
        let all = page["extensions"].as_array().unwrap();
        let one = all
            .iter()
            .find(|it| it["id"] == id)
            .unwrap_or_else(|| panic!("{id}: {page}"));
        one["versions"][0].clone()
    };
    assert_eq!(version("works")["profile"], "compact-metered");
    assert_eq!(version("works")["limits"]["fuel"], 1_000_000_000);
    assert_eq!(version("free")["profile"], "compact");
    // One module, compiled for two engines.
    assert_eq!(version("free")["sha256"], version("works")["sha256"]);
}
