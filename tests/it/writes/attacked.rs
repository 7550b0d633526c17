//! A sidecar that is killed again and again while it replays, on a disk that fills, beside other clients of HEIR.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use beamline_sidecar::store::Level;
use http::StatusCode;

use crate::support::{Client, Heir, Proxy, SidecarProcess, SmallDisk, within};

const ROUNDS: usize = 3;
const KILLS: usize = 4;
const YAML: &str = "refresh: {interval_ms: 100, long_poll_timeout_ms: 1000, negative_ttl_ms: 50}\n";

fn names() -> Vec<String> {
    let of_tenant = |tenant| (0..5).map(move |id| format!("t{tenant}/p{id}"));
    (0..4).flat_map(of_tenant).collect()
}

/// What a policy is: this text, or absent.
async fn has(client: &Client, name: &str) -> Option<String> {
    let answer = client.policy(name).await;
    (answer.status == StatusCode::OK).then(|| answer.text().to_owned())
}

/// Writes that HEIR is not there for; what each policy was last acknowledged to be.
async fn write(
    client: &Client,
    round: usize,
    random: &mut fastrand::Rng,
    acknowledged: &mut BTreeMap<String, Option<String>>,
) {
    for number in 0..50 {
        let name = random.choice(names()).unwrap();
        let length = if random.u8(0..8) == 0 { 900_000 } else { 20 };
        let text = (random.u8(0..5) > 0).then(|| {
            format!(
                "{{\"round\":{round},\"number\":{number},\"x\":\"{}\"}}",
                "x".repeat(length)
            )
        });
        let answer = match &text {
            Some(text) => client.put_policy(&name, text.clone()).await,
            None => client.delete_policy(&name).await,
        };
        if answer.header("x-beamline-write") == "queued" {
            acknowledged.insert(name, text);
        } else {
            // Nothing to delete, or no room.
            let refused = [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE];
            assert!(refused.contains(&answer.status), "{}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_stuck_or_made_over_a_newer_version() {
    for level in [Level::Single, Level::List, Level::Snapshot, Level::Changes] {
        let seed = fastrand::u64(..);
        println!("{level}, seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let Some(disk) = SmallDisk::mount("24m") else {
            return;
        };
        let heir = Heir::start(level).await;
        for name in names() {
            heir.client().put_policy(&name, r#"{"v":0}"#).await;
        }
        let proxy = Proxy::start(heir.address()).await;
        let mut sidecar = SidecarProcess::start(disk.path(), proxy.address, YAML).await;
        sidecar.wait_for("live").await;
        for round in 0..ROUNDS {
            for name in names() {
                has(&sidecar.client(), &name).await;
            }
            proxy.answer_errors();
            let mut acknowledged = BTreeMap::new();
            write(&sidecar.client(), round, &mut random, &mut acknowledged).await;
            // Other clients reach HEIR meanwhile, some of them for the same policies.
            let mut theirs = BTreeSet::new();
            for _ in 0..3 {
                let name = random.choice(names()).unwrap();
                heir.client()
                    .put_policy(&name, format!("{{\"theirs\":{round}}}"))
                    .await;
                theirs.insert(name);
            }
            let is_full = random.bool();
            if is_full {
                disk.fill();
            }
            proxy.pass();
            for _ in 0..KILLS {
                tokio::time::sleep(Duration::from_micros(random.u64(0..150_000))).await;
                sidecar.process.kill();
                // What was replayed already can be overwritten by now; it stays so.
                let name = random.choice(names()).unwrap();
                heir.client()
                    .put_policy(&name, format!("{{\"theirs\":{round}}}"))
                    .await;
                theirs.insert(name);
                sidecar.up().await;
            }
            let what = format!("{level}, seed {seed}, round {round}, full: {is_full}");
            within(60, &format!("{what}: nothing waits"), || async {
                sidecar.admin().get("/admin/writes").await.json()["queued"] == 0
            })
            .await;
            for name in names() {
                let stored = has(&heir.client(), &name).await;
                if theirs.contains(&name) {
                    assert_eq!(stored, Some(format!("{{\"theirs\":{round}}}")), "{what}: {name}");
                } else if let Some(acknowledged) = acknowledged.get(&name) {
                    assert_eq!(&stored, acknowledged, "{what}: {name}");
                }
                within(
                    60,
                    &format!("{what}: {name} is served as HEIR has it"),
                    || async { has(&sidecar.client(), &name).await == stored },
                )
                .await;
            }
            let page = sidecar.admin().get("/admin/writes").await.json();
            for write in page["writes"].as_array().unwrap() {
                let [tenant, policy] = ["tenant_id", "policy_id"].map(|id| write[id].as_str().unwrap());
                assert!(theirs.contains(&format!("{tenant}/{policy}")), "{what}: {write}");
                let path = format!("/admin/writes/{}/discard", write["id"]);
                assert_eq!(sidecar.admin().post(&path, "").await.status, StatusCode::OK);
            }
            if is_full {
                disk.free();
            }
        }
    }
}
