//! A sidecar that is killed while writes wait in its journal.

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use tokio::task::JoinSet;

use crate::support::{Client, SidecarProcess, StoreProcess, within};

/// What a policy was acknowledged to be: this body, or deleted.
type Acknowledged = BTreeMap<String, Option<String>>;

/// Writes to one policy until the sidecar is gone. The last acknowledged write, and the one that got no answer.
async fn write(
    client: Client,
    name: String,
    round: usize,
) -> (String, Option<Option<String>>, Option<String>) {
    let path = format!("/api/v1/policies/{name}");
    let mut acknowledged = None;
    for number in 0.. {
        let body = (number % 4 != 3).then(|| format!("{{\"round\": {round}, \"number\": {number}}}"));
        let (method, sent) = match &body {
            Some(body) => (http::Method::PUT, body.clone()),
            None => (http::Method::DELETE, String::new()),
        };
        match client.send(method, &path, &[], sent).await {
            Ok(answer) => {
                assert!(answer.status.is_success(), "{}", answer.text());
                assert_eq!(answer.header("x-beamline-write"), "queued");
                acknowledged = Some(body);
            }
            Err(_gone) => return (name, acknowledged, body),
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_writes_outlive_every_kill_at_any_moment() {
    const ROUNDS: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let mut store = StoreProcess::start(&folder.path().join("heir.db"), None).await;
    let heir = crate::support::Proxy::start(store.address()).await;
    let mut sidecar = SidecarProcess::start(folder.path(), heir.address, "").await;
    sidecar.wait_for("live").await;
    within(30, "the sidecar has a snapshot on disk", || async {
        folder.path().join("state/snapshot").exists()
    })
    .await;
    store.kill();
    let mut random = fastrand::Rng::new();
    let mut known = Acknowledged::new();
    let mut entries = 0;
    for round in 0..ROUNDS {
        let mut writers = JoinSet::new();
        for writer in 0..4 {
            // Some policies are new in each round, others are written again.
            let name = format!("t{writer}/p{}", round % 7);
            writers.spawn(write(sidecar.client(), name, round));
        }
        tokio::time::sleep(Duration::from_micros(random.u64(3_000..60_000))).await;
        sidecar.process.kill();
        let ended = writers.join_all().await;
        sidecar.up().await;
        let client = sidecar.client();
        for (name, acknowledged, unanswered) in ended {
            if let Some(acknowledged) = acknowledged {
                known.insert(name.clone(), acknowledged);
            }
            // A write whose answer was lost is there or not; which of them counts from here on.
            let shown = client.policy(&name).await;
            let shown = (shown.status == StatusCode::OK).then(|| shown.text().to_owned());
            if known.get(&name).cloned().flatten() != shown {
                assert_eq!(shown, unanswered, "{name} in round {round}");
                known.insert(name, shown);
            }
        }
        for (name, expected) in &known {
            let answer = client.policy(name).await;
            let shown = (answer.status == StatusCode::OK).then(|| answer.text().to_owned());
            assert_eq!(shown, *expected, "{name} in round {round}");
        }
        let page = sidecar.admin().get("/admin/writes").await.json();
        let queued = page["queued"].as_u64().unwrap();
        assert!(
            queued >= entries,
            "{queued} writes after {entries} in round {round}"
        );
        assert_eq!(page["conflicts"], 0);
        let listed = |name: &str| {
            page["writes"].as_array().unwrap().iter().any(|write| {
                format!(
                    "{}/{}",
                    write["tenant_id"].as_str().unwrap(),
                    write["policy_id"].as_str().unwrap()
                ) == name
            })
        };
        assert!(known.keys().all(|name| listed(name)), "in round {round}");
        entries = queued;
    }
    assert!(entries > 0);
    // And all of it gets into HEIR, in order.
    store.up().await;
    heir.lead_to(store.address());
    within(120, "the journal has drained", || async {
        let page = sidecar.admin().get("/admin/writes").await.json();
        page["queued"] == 0
    })
    .await;
    let page = sidecar.admin().get("/admin/writes").await.json();
    assert_eq!(page["conflicts"], 0, "{page}");
    for (name, expected) in &known {
        let answer = store.client().policy(name).await;
        let stored = (answer.status == StatusCode::OK).then(|| answer.text().to_owned());
        assert_eq!(stored, *expected, "{name}");
    }
}
