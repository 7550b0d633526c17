//! Revisions: snapshots, changes, and histories that were compacted or restored.

use std::time::{Duration, Instant};

use beamline_sidecar::{heir::wire, policy::ETag};
use http::{Method, StatusCode};
use serde_json::json;

use super::{
    P, SNAPSHOT, policy,
    running::{Running, config, read_snapshot},
    scratch::everywhere,
};

#[tokio::test]
async fn a_snapshot_is_one_moment_however_much_is_written() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let client = store.client.clone();
                tokio::spawn(async move {
                    for n in 0..30 {
                        let document = format!("{{\n\"n\": {n}}}");
                        let put = client
                            .put(&policy(format!("w{writer}-{}", n % 7)), document)
                            .await;
                        assert!(put.status.is_success());
                    }
                })
            })
            .collect();
        let mut last = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            let snapshot = store.get(SNAPSHOT).await;
            let (revision, found) = read_snapshot(&snapshot.body);
            assert_eq!(snapshot.revision(), revision);
            // Nothing is deleted here, so the newest write is always in sight.
            let newest = found.values().map(|(revision, _)| *revision).max().unwrap_or(0);
            assert_eq!(newest, revision);
            assert!(revision >= last);
            last = revision;
        }
        for writer in writers {
            writer.await.unwrap();
        }
        let snapshot = store.get(SNAPSHOT).await;
        assert_eq!(snapshot.find_header("content-type"), Some("application/x-ndjson"));
        let (revision, found) = read_snapshot(&snapshot.body);
        assert_eq!((revision, found.len()), (120, 28));
        assert_eq!(found["acme/w0-0"].1, "{\n\"n\": 28}");
        let known = [("if-none-match", snapshot.etag())];
        let same = store.request(Method::GET, SNAPSHOT, &known, "").await;
        assert_eq!((same.status, same.revision()), (StatusCode::NOT_MODIFIED, 120));
        store.put(&policy("new"), "{}").await;
        assert_eq!(store.request(Method::GET, SNAPSHOT, &known, "").await.status, 200);
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn changes_lead_from_any_revision_to_the_present() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let (start, genesis) = store.position().await;
        assert_eq!(start, 0);
        store.put(P, "{\n}").await;
        let (_, first) = store.position().await;
        store.put(&policy("b"), "{\"b\":1}").await;
        store.delete(P).await;
        let (now, last) = store.position().await;
        assert_eq!(now, 3);

        let answer = store
            .get(&format!("/api/v1/changes?since=0&chain={genesis}"))
            .await;
        let changes: wire::Changes<'_> = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((changes.from, changes.to), (0, 3));
        assert_eq!(changes.from_chain.as_deref(), Some(&*genesis));
        assert_eq!(changes.to_chain.as_deref(), Some(&*last));
        let told: Vec<_> = changes
            .changes
            .iter()
            .map(|c| (&*c.op, c.revision.unwrap(), c.policy_id.as_deref().unwrap()))
            .collect();
        assert_eq!(told, [("put", 1, "chat"), ("put", 2, "b"), ("delete", 3, "chat")]);
        let put = &changes.changes[0];
        assert_eq!(
            wire::exact_bytes(put.policy.unwrap(), put.policy_text.as_deref()),
            "{\n}"
        );
        assert_eq!(put.etag.as_deref(), Some(ETag::of_bytes(b"{\n}").as_str()));
        assert_eq!(put.tenant_id.as_deref(), Some("acme"));

        let some = store.get(&format!("/api/v1/changes?since=1&chain={first}")).await;
        assert_eq!(some.json()["changes"].as_array().unwrap().len(), 2);
        let none = store.get("/api/v1/changes?since=3").await;
        let expected = json!({"from": 3, "to": 3, "from_chain": last, "to_chain": last, "changes": []});
        assert_eq!(none.json(), expected);
        for bad in ["", "?since=x", "?since=0&wait_ms=-1", "?since=0&chain=zz"] {
            let refused = store.get(&format!("/api/v1/changes{bad}")).await;
            assert_eq!(refused.error(), (400, "invalid_request".into()), "{bad}");
        }
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_waiting_client_hears_of_a_write_at_once() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let wait = |since: u64, wait_ms: u64| {
            let client = store.client.clone();
            tokio::spawn(async move {
                let path = format!("/api/v1/changes?since={since}&wait_ms={wait_ms}");
                let answer = client.get(&path).await;
                (answer.json()["to"].as_u64().unwrap(), Instant::now())
            })
        };
        let started = Instant::now();
        let (to, heard) = wait(0, 300).await.unwrap();
        assert_eq!(to, 0);
        assert!(heard - started >= Duration::from_millis(300));

        let mut round = 0;
        loop {
            let waiting: Vec<_> = (0..10).map(|_| wait(round, 30_000)).collect();
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(waiting.iter().all(|client| !client.is_finished()));
            store.put(P, format!("{{\"n\":{round}}}")).await;
            let written = Instant::now();
            let mut slowest = Duration::ZERO;
            for client in waiting {
                let (to, heard) = client.await.unwrap();
                assert_eq!(to, round + 1);
                slowest = slowest.max(heard.saturating_duration_since(written));
            }
            round += 1;
            // Heard of by looking once a second, each round but the first would take the better part of one. On a
            // busy machine it may take some rounds until all hear of it sooner.
            if round > 2 && slowest < Duration::from_millis(300) {
                break;
            }
            assert!(round < 100, "{slowest:?}");
        }
        // A stop does not wait for those who wait.
        let waiting = wait(round, 30_000);
        tokio::time::sleep(Duration::from_millis(200)).await;
        store.stop().await;
        assert_eq!(waiting.await.unwrap().0, round);
    })
    .await;
}

#[tokio::test]
async fn forgotten_changes_ask_for_a_snapshot() {
    everywhere(async |scratch| {
        let store = scratch.start_with(|config| config.changes_kept = 5).await;
        let mut chains = vec![store.position().await.1];
        for n in 0..20 {
            store.put(P, format!("{{\"n\":{n}}}")).await;
            chains.push(store.position().await.1);
        }
        assert_eq!(store.get("/api/v1/changes?since=0").await.reason(), "compacted");
        let old = format!("/api/v1/changes?since=3&chain={}", chains[3]);
        assert_eq!(store.get(&old).await.reason(), "compacted");
        for since in 15..=20 {
            let path = format!("/api/v1/changes?since={since}&chain={}", chains[since]);
            let answer = store.get(&path).await;
            assert_eq!(answer.json()["changes"].as_array().unwrap().len(), 20 - since);
            assert_eq!(answer.json()["to_chain"], chains[20].as_str());
        }
        assert_eq!(store.get("/api/v1/changes?since=21").await.reason(), "restored");
        let endless = format!("/api/v1/changes?since={}0", u64::MAX);
        assert_eq!(store.get(&endless).await.reason(), "restored");
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_restored_store_is_not_taken_for_the_one_before() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        store.put(P, "{}").await;
        store.put(P, "{\"n\":2}").await;
        let (revision, shared) = store.position().await;
        assert_eq!(revision, 2);
        store.stop().await;
        let backup = scratch.copy().await;

        let store = scratch.start().await;
        store.put(P, "{\"n\":3}").await;
        let (revision, before) = store.position().await;
        assert_eq!(revision, 3);
        store.stop().await;

        let store = backup.start().await;
        let path = format!("/api/v1/changes?since=3&chain={before}");
        assert_eq!(store.get(&path).await.reason(), "restored");
        store.put(P, "{\"n\":\"another\"}").await;
        assert_eq!(store.position().await.0, 3);
        assert_eq!(store.get(&path).await.reason(), "restored");
        store.put(P, "{\"n\":4}").await;
        assert_eq!(store.get(&path).await.reason(), "restored");
        let path = format!("/api/v1/changes?since=2&chain={shared}");
        assert_eq!(store.get(&path).await.json()["to"], 4);
        store.stop().await;
        backup.remove().await;

        // A new store with the same writes has a history of its own.
        let store = Running::start(config()).await;
        store.put(P, "{}").await;
        store.put(P, "{\"n\":2}").await;
        assert_eq!(store.get(&path).await.reason(), "restored");
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn many_policies_come_in_pages_and_none_is_lost() {
    everywhere(async |scratch| {
        let folder = scratch.folder.path().join("policies");
        for tenant in ["a", "b"] {
            std::fs::create_dir_all(folder.join(tenant)).unwrap();
            for n in 0..600 {
                let path = folder.join(format!("{tenant}/p{n}.json"));
                std::fs::write(path, format!("{{\"n\":{n}}}")).unwrap();
            }
        }
        let store = scratch
            .start_with(|config| config.import = Some(folder.clone()))
            .await;
        let (revision, found) = read_snapshot(&store.get(SNAPSHOT).await.body);
        assert_eq!((revision, found.len()), (1200, 1200));
        let list = store.get("/api/v1/policies/b").await;
        let list: wire::List<'_> = serde_json::from_slice(&list.body).unwrap();
        let ids: Vec<_> = list
            .policies
            .iter()
            .map(|p| {
                let listed: wire::Listed<'_> = serde_json::from_str(p.get()).unwrap();
                listed.policy_id.into_owned()
            })
            .collect();
        assert_eq!((ids.len(), list.etags.len()), (600, 600));
        assert!(ids.is_sorted());

        let first = store.get("/api/v1/changes?since=0").await.json();
        assert_eq!(
            (first["to"].as_u64(), first["changes"].as_array().unwrap().len()),
            (Some(1000), 1000)
        );
        let chain = first["to_chain"].as_str().unwrap();
        let rest = store
            .get(&format!("/api/v1/changes?since=1000&chain={chain}"))
            .await
            .json();
        assert_eq!(
            (rest["to"].as_u64(), rest["changes"].as_array().unwrap().len()),
            (Some(1200), 200)
        );

        let document = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
        for n in 0..12 {
            store.put(&policy(n), document.clone()).await;
        }
        let large = store.get("/api/v1/changes?since=1200").await;
        assert_eq!(large.json()["changes"].as_array().unwrap().len(), 9);
        assert_eq!(large.json()["to"], 1209);
        store.stop().await;
    })
    .await;
}
