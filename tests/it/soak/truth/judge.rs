//! The end: sidecar and store have the same, and every acknowledged write is there or reported.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{faults::Stage, world::World};
use crate::support::{Answer, Client, within};

/// Writes that wait for an operator: which write of which policy, by its tag.
type Reported = HashMap<(String, String), Vec<Option<String>>>;

pub(super) async fn judge(world: &Arc<World>, stage: &Stage) {
    let admin = stage.sidecar.admin();
    within(600, "the journal has drained", || async {
        admin.get("/admin/writes").await.json()["queued"] == 0
    })
    .await;
    // Everything that HEIR has now is in memory after this.
    within(300, "a refresh succeeds", || async {
        admin.post("/admin/refresh", "").await.status == StatusCode::OK
    })
    .await;
    stage.sidecar.wait_for("live").await;
    // Lost writes are looked for beside the refresh that found the loss; `live` does not wait for them.
    stage.until_restores_are_noticed().await;
    let reported = reported(&admin.get("/admin/writes").await.json());
    let conflicts: usize = reported.values().map(Vec::len).sum();
    let shown = everything(world, &stage.sidecar.client()).await;
    let stored = everything(world, &stage.store.client()).await;
    for (index, policy) in world.policies.iter().enumerate() {
        let history = policy.turn.lock().await;
        let (shown, stored) = (&shown[index], &stored[index]);
        let mut wrong = Vec::new();
        if (shown.status, &shown.body) != (stored.status, &stored.body) {
            wrong.push(format!(
                "the sidecar has {} {:?}, the store {} {:?}",
                shown.status, shown.body, stored.status, stored.body
            ));
        }
        if let Some(effect) = world.look(policy, stored) {
            let key = (policy.tenant.clone(), policy.id.clone());
            // A later one, unanswered because the sidecar was killed, may have taken the acknowledged one's place in the journal.
            let is_reported = reported.get(&key).is_some_and(|writes| {
                let mut any = [history.acknowledged]
                    .into_iter()
                    .chain(history.unanswered.iter().copied());
                any.any(|effect| writes.contains(&policy.etag(effect)))
            });
            if effect == history.acknowledged || is_reported {
            } else if history.unanswered.contains(&effect) {
                world.count("made without an answer");
            } else {
                wrong.push(format!(
                    "{:?} was acknowledged, the store has {effect:?}, reported are {:?}",
                    history.acknowledged,
                    reported.get(&key)
                ));
            }
        }
        for wrong in wrong {
            world.complain(format!(
                "{}: {wrong}\n  {}",
                policy.path(),
                history.log.join("\n  ")
            ));
        }
    }
    if world.level >= Level::List {
        lists(world, stage).await;
    }
    println!("conflicts {conflicts}, {}", world.counts());
}

fn reported(page: &Value) -> Reported {
    let mut reported = Reported::new();
    for write in page["writes"].as_array().unwrap() {
        let text = |field: &str| write[field].as_str().map(str::to_owned);
        let key = (text("tenant_id").unwrap(), text("policy_id").unwrap());
        assert_eq!(write["status"]["state"], "conflict");
        reported.entry(key).or_default().push(text("etag"));
    }
    reported
}

/// What a server answers for every policy, in their order.
async fn everything(world: &Arc<World>, client: &Client) -> Vec<Answer> {
    const AT_ONCE: usize = 8;
    let mut tasks = JoinSet::new();
    for worker in 0..AT_ONCE {
        let (world, client) = (world.clone(), client.clone());
        tasks.spawn(async move {
            let mut answers = Vec::new();
            for index in (worker..world.policies.len()).step_by(AT_ONCE) {
                answers.push((index, client.get(&world.policies[index].path()).await));
            }
            answers
        });
    }
    let mut all: Vec<(usize, Answer)> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, answer)| answer).collect()
}

/// The lists of all tenants are the same, and name what the single answers named.
async fn lists(world: &Arc<World>, stage: &Stage) {
    let mut tenants: BTreeMap<&str, ()> = BTreeMap::new();
    for policy in &world.policies {
        tenants.insert(&policy.tenant, ());
    }
    let (sidecar, store) = (stage.sidecar.client(), stage.store.client());
    for tenant in tenants.keys() {
        let path = format!("/api/v1/policies/{tenant}");
        let (ours, theirs) = (sidecar.get(&path).await, store.get(&path).await);
        if ours.json()["policies"] != theirs.json()["policies"] {
            world.complain(format!(
                "the list of {tenant}: the sidecar has {}, the store {}",
                ours.text(),
                theirs.text()
            ));
        }
    }
}
