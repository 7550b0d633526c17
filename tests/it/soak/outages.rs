//! An outage of five minutes, of every kind at once, for fleets of ten sidecars. `BEAMLINE_SOAK_SECONDS` shortens it.

use std::time::Duration;

use crate::heir::{
    coming_back::{Fleet, Outage},
    name::{NameService, a_fleet_without_names},
};

const LONGEST: u64 = 300;

/// How long the outages are; `None`: this is no run of the long tests.
fn length() -> Option<Duration> {
    let environment = beamline_sidecar::config::environment();
    let seconds = environment.get("BEAMLINE_SOAK_SECONDS")?.parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_hostile_58_a_fleet_is_soon_back_after_minutes() {
    let Some(length) = length() else { return };
    let suffer = async |outage| {
        let fleet = Fleet::start().await;
        fleet.suffers(outage, length).await;
        fleet.stop().await;
    };
    tokio::join!(
        suffer(Outage::Refused),
        suffer(Outage::Hanging),
        suffer(Outage::Swallowing),
        suffer(Outage::Errors),
        suffer(Outage::Busy)
    );
}

#[test]
fn soak_hostile_58_a_fleet_is_soon_back_after_no_name_was_found_for_minutes() {
    if let Some(length) = length() {
        a_fleet_without_names(&[length], &[NameService::Failing, NameService::Silent]);
    }
}
