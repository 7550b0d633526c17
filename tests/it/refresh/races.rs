//! Refreshes and writes that cross each other.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use beamline_sidecar::store::Level;
use http::StatusCode;

use crate::support::{Client, Fault, Faulty, Heir, Sidecar, eventually};

const SOON: &str =
    "refresh: {interval_ms: 50, long_poll_timeout_ms: 2000, negative_ttl_ms: 50, jitter_seed: 1}";

/// Waits until a lookup answers with this text, or with 404 for none.
async fn waits_for(client: &Client, name: &str, text: Option<&str>) {
    eventually(&format!("{name} is {text:?}"), || async {
        let answer = client.policy(name).await;
        match text {
            Some(text) => answer.status == 200 && answer.text() == text,
            None => answer.status == 404,
        }
    })
    .await;
}

#[tokio::test]
async fn a_refresh_that_was_under_way_does_not_undo_a_write() {
    for level in [Level::Single, Level::List, Level::Snapshot, Level::Changes] {
        let heir = Heir::start(level).await;
        heir.client().put_policy("acme/a", "{\"v\":1}").await;
        let faulty = Faulty::start(heir.address()).await;
        let sidecar = Sidecar::start(&faulty.url(), SOON);
        sidecar.wait_for("live").await;
        let client = sidecar.client();
        waits_for(&client, "acme/a", Some("{\"v\":1}")).await;
        for turn in 0..5 {
            // Everything HEIR reads out arrives late: it is older than a write that is made meanwhile.
            static READS: AtomicUsize = AtomicUsize::new(0);
            READS.store(0, SeqCst);
            faulty.rule(|seen| {
                if seen.method == "GET" && !seen.is("GET /health") {
                    READS.fetch_add(1, SeqCst);
                    Fault::Late(Duration::from_millis(40))
                } else {
                    Fault::None
                }
            });
            if level != Level::Changes {
                eventually("a refresh is under way", || async { READS.load(SeqCst) > 0 }).await;
            }
            let text = format!("{{\"turn\":{turn}}}");
            assert_eq!(
                client.put_policy("acme/a", text.clone()).await.status,
                StatusCode::OK
            );
            let until = Instant::now() + Duration::from_millis(100);
            while Instant::now() < until {
                assert_eq!(client.policy("acme/a").await.text(), text, "{level}");
            }
            let gone = turn % 5 == 4;
            if gone {
                READS.store(0, SeqCst);
                if level != Level::Changes {
                    eventually("a refresh is under way", || async { READS.load(SeqCst) > 0 }).await;
                }
                assert_eq!(
                    client.delete_policy("acme/a").await.status,
                    StatusCode::NO_CONTENT
                );
                let until = Instant::now() + Duration::from_millis(100);
                while Instant::now() < until {
                    assert_eq!(
                        client.policy("acme/a").await.status,
                        StatusCode::NOT_FOUND,
                        "{level}"
                    );
                }
                assert_eq!(
                    client.put_policy("acme/a", "{}").await.status,
                    StatusCode::CREATED
                );
                assert_eq!(client.policy("acme/a").await.text(), "{}");
            }
        }
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_policy_changed_back_behind_a_write_is_seen_where_heir_only_lists() {
    let heir = Heir::start(Level::List).await;
    heir.client().put_policy("acme/a", "{\"v\":1}").await;
    let faulty = Faulty::start(heir.address()).await;
    let sidecar = Sidecar::start(&faulty.url(), SOON);
    sidecar.wait_for("live").await;
    waits_for(&sidecar.client(), "acme/a", Some("{\"v\":1}")).await;
    eventually("the list was read", || async {
        faulty.count("GET /api/v1/policies/acme ") + faulty.count("GET /api/v1/policies/acme") > 2
    })
    .await;
    // Between two polls: a write through this sidecar, and one past it that undoes it.
    let held = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let holding = held.clone();
    faulty.rule(move |seen| {
        if holding.load(SeqCst) && seen.is("GET /api/v1/policies/acme") {
            Fault::Say(400, &[], "{}".into())
        } else {
            Fault::None
        }
    });
    assert_eq!(
        sidecar.client().put_policy("acme/a", "{\"v\":2}").await.status,
        StatusCode::OK
    );
    heir.client().put_policy("acme/a", "{\"v\":1}").await;
    held.store(false, SeqCst);
    waits_for(&sidecar.client(), "acme/a", Some("{\"v\":1}")).await;
    sidecar.stop().await;
}
