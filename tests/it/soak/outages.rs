//! An outage of five minutes, of every kind at once, for fleets of ten sidecars. `BEAMLINE_SOAK_SECONDS` shortens it.

use std::time::Duration;

use crate::heir::coming_back::{Fleet, Outage};

const LONGEST: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_hostile_58_a_fleet_is_soon_back_after_minutes() {
    let environment = beamline_sidecar::config::environment();
    let Some(seconds) = environment
        .get("BEAMLINE_SOAK_SECONDS")
        .and_then(|seconds| seconds.parse::<u64>().ok())
    else {
        return;
    };
    let length = Duration::from_secs(seconds.min(LONGEST));
    let suffer = async |outage| {
        let fleet = Fleet::start().await;
        fleet.suffers(outage, length).await;
        fleet.stop().await;
    };
    tokio::join!(
        suffer(Outage::Refused),
        suffer(Outage::Hanging),
        suffer(Outage::Errors)
    );
}
