//! A HEIR that flaps, drips, asks to be left alone, or whose answers are lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Fault, Faulty, Heir, QUICK, Sidecar, eventually, within};

const SOON: &str = "refresh: {interval_ms: 100, long_poll_timeout_ms: 1000}";

async fn writes(sidecar: &Sidecar) -> Value {
    sidecar.admin().get("/admin/writes").await.json()
}

#[tokio::test]
async fn hostile_44_lookups_do_not_notice_a_heir_that_flaps() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("t/a", "{\"v\":1}").await;
    let sidecar = Sidecar::start(&heir.url(), SOON);
    sidecar.wait_for("live").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (client, stopped) = (sidecar.client(), stop.clone());
    let looking = tokio::spawn(async move {
        let mut looked = 0;
        while !stopped.load(SeqCst) {
            assert_eq!(client.policy("t/a").await.status, StatusCode::OK);
            looked += 1;
        }
        looked
    });
    for turn in 0..8 {
        heir.gone().await;
        eventually("gone", || async {
            sidecar.admin().get("/ready").await.json()["state"] == "degraded"
        })
        .await;
        heir.back().await;
        let text = format!("{{\"turn\":{turn}}}");
        heir.client().put_policy("t/a", text.clone()).await;
        eventually("back", || async {
            sidecar.client().policy("t/a").await.text() == text
        })
        .await;
    }
    sidecar.wait_for("live").await;
    stop.store(true, SeqCst);
    assert!(looking.await.unwrap() > 100);
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_44_a_heir_that_drips_holds_up_nobody() {
    let heir = Heir::start(Level::Snapshot).await;
    heir.client().put_policy("t/a", "{\"v\":1}").await;
    let faulty = Faulty::start(heir.address()).await;
    let sidecar = Sidecar::start(&faulty.url(), SOON);
    sidecar.wait_for("live").await;
    heir.client().put_policy("t/a", "{\"v\":2}").await;
    faulty.rule(|seen| {
        if seen.is("GET /api/v1/snapshot") {
            Fault::Drip("\n", Duration::from_millis(50))
        } else {
            Fault::None
        }
    });
    eventually("it drips", || async {
        !faulty.is_idle() || faulty.count("GET /api/v1/snapshot") > 2
    })
    .await;
    let dripping = faulty.count("GET /api/v1/snapshot");
    for _ in 0..3 {
        // A lookup does not notice, whatever HEIR is busy with; a list waits for a while and is then answered from memory.
        let before = faulty.count("GET /api/v1/policies");
        assert_eq!(sidecar.client().policy("t/a").await.status, StatusCode::OK);
        assert_eq!(faulty.count("GET /api/v1/policies"), before, "from memory");
        let list = sidecar.client().get("/api/v1/policies/t").await;
        assert_eq!(
            (list.status, list.header("x-beamline-stale")),
            (StatusCode::OK, "true")
        );
    }
    // Given up and asked again, and not too often.
    eventually("it is asked again", || async {
        faulty.count("GET /api/v1/snapshot") >= dripping + 2
    })
    .await;
    sidecar.wait_for("degraded").await;
    faulty.rule(|_| Fault::None);
    eventually("it has come through", || async {
        sidecar.client().policy("t/a").await.text() == "{\"v\":2}"
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_44_retry_after_is_heeded_and_capped() {
    let heir = Heir::start(Level::Single).await;
    let faulty = Faulty::start(heir.address()).await;
    let sidecar = Sidecar::start(&faulty.url(), SOON);
    sidecar.wait_for("live").await;
    // A year, while it calls itself healthy.
    faulty.rule(|seen| {
        if seen.is("GET /health") {
            Fault::None
        } else {
            Fault::Say(429, &[("retry-after", "31536000")], "{}".into())
        }
    });
    let began = Instant::now();
    let first = sidecar.client().policy("t/none").await;
    assert_eq!(
        (first.status, first.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "heir_unavailable".into())
    );
    let asked = faulty.count("GET /api/v1/policies");
    for _ in 0..50 {
        let next = sidecar.client().policy("t/none").await;
        let seconds: u64 = next.header("retry-after").parse().unwrap();
        assert!((50..=61).contains(&seconds), "{seconds}");
    }
    assert_eq!(faulty.count("GET /api/v1/policies"), asked, "HEIR is left alone");
    faulty.rule(|_| Fault::None);
    within(180, "HEIR is used again after a minute", || async {
        sidecar.client().policy("t/none").await.status == StatusCode::NOT_FOUND
    })
    .await;
    // The pause began after this did.
    assert!(
        began.elapsed() >= Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_44_a_fleet_that_starts_together_asks_for_little() {
    const FLEET: usize = 20;
    let heir = Heir::start(Level::Changes).await;
    for id in 0..50 {
        heir.client().put_policy(&format!("t/{id}"), "{}").await;
    }
    let faulty = Faulty::start(heir.address()).await;
    // With all the time that twenty starting at once need.
    let url = faulty.url();
    let yaml = format!(
        "{QUICK}heir: {{url: '{url}', timeout_ms: 30000, health_interval_ms: 200, breaker: {{open_ms: 200}}, retry: {{initial_ms: 10}}}}\n{SOON}"
    );
    let fleet: Vec<Sidecar> = (0..FLEET).map(|_| Sidecar::try_start(&yaml).unwrap()).collect();
    for sidecar in &fleet {
        sidecar.wait_for("live").await;
    }
    assert_eq!(faulty.count("GET /api/v1/snapshot"), FLEET, "one snapshot each");
    // HEIR goes for two seconds and is asked now and then by each, with pauses of its own.
    faulty.rule(|_| Fault::Refuse);
    for sidecar in &fleet {
        sidecar.wait_for("degraded").await;
    }
    let began = Instant::now();
    let before = faulty.seen().len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = faulty.seen().len() - before;
    let seconds = began.elapsed().as_secs_f64();
    // Per sidecar: health every 200 ms, and a refresh whenever that or the breaker lets it.
    assert!(
        (asked as f64) < FLEET as f64 * seconds * 30.0,
        "{asked} requests in {seconds} s of outage"
    );
    faulty.rule(|_| Fault::None);
    for sidecar in &fleet {
        sidecar.wait_for("live").await;
    }
    assert_eq!(
        faulty.count("GET /api/v1/snapshot"),
        FLEET,
        "memory goes on from where it was"
    );
    for sidecar in fleet {
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn hostile_46_a_write_whose_answer_is_lost_is_made_once() {
    for late in [false, true] {
        let heir = Heir::start(Level::Changes).await;
        heir.client().put_policy("t/a", "{\"v\":1}").await;
        let faulty = Faulty::start(heir.address()).await;
        let state = tempfile::tempdir().unwrap();
        let sidecar = Sidecar::start(
            &faulty.url(),
            &format!("state_dir: {}\n{SOON}", state.path().display()),
        );
        sidecar.wait_for("live").await;
        let puts = Arc::new(AtomicUsize::new(0));
        let counted = puts.clone();
        faulty.rule(move |seen| {
            if !seen.is("PUT") {
                return Fault::None;
            }
            match (counted.fetch_add(1, SeqCst), late) {
                (0, true) => Fault::Late(Duration::from_secs(3)),
                (0 | 1, false) => Fault::Lose,
                _ => Fault::None,
            }
        });
        let put = sidecar.client().put_policy("t/a", "{\"v\":2}").await;
        assert_eq!(
            (put.status, put.header("x-beamline-write")),
            (StatusCode::OK, "queued")
        );
        eventually("it is replayed", || async {
            writes(&sidecar).await["queued"] == 0
        })
        .await;
        assert_eq!(writes(&sidecar).await["writes"], json!([]));
        // HEIR is asked before a write is repeated.
        assert!(faulty.count("GET /api/v1/policies/t/a") >= 1);
        let keys: std::collections::BTreeSet<String> = faulty
            .seen()
            .iter()
            .filter(|seen| seen.is("PUT"))
            .map(|seen| seen.header("idempotency-key").to_owned())
            .collect();
        assert_eq!(keys.len(), 1, "{keys:?}");
        let stored = heir.client().policy("t/a").await;
        assert_eq!(
            (stored.text(), stored.header("x-heir-revision")),
            ("{\"v\":2}", "2"),
            "made once"
        );
        assert_eq!(sidecar.client().policy("t/a").await.text(), "{\"v\":2}");
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn hostile_46_a_remembered_answer_does_not_bring_an_old_version_back() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("t/a", "{\"v\":1}").await;
    let faulty = Faulty::start(heir.address()).await;
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(
        &faulty.url(),
        &format!("state_dir: {}\n{SOON}", state.path().display()),
    );
    sidecar.wait_for("live").await;
    let (puts, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    let (counted, holds) = (puts.clone(), held.clone());
    faulty.rule(move |seen| match seen.is("PUT") {
        true if counted.fetch_add(1, SeqCst) == 0 => Fault::Lose,
        true if holds.load(SeqCst) => Fault::Refuse,
        _ => Fault::None,
    });
    assert_eq!(
        sidecar
            .client()
            .put_policy("t/a", "{\"v\":2}")
            .await
            .header("x-beamline-write"),
        "queued"
    );
    // HEIR has it; then another client writes, and memory sees that before the write is replayed.
    heir.client().put_policy("t/a", "{\"v\":3}").await;
    eventually("memory is past the write", || async {
        sidecar.admin().get("/admin/snapshot").await.json()["revision"] == 3
    })
    .await;
    held.store(false, SeqCst);
    eventually("it is replayed", || async {
        writes(&sidecar).await["queued"] == 0
    })
    .await;
    assert_eq!(heir.client().policy("t/a").await.text(), "{\"v\":3}");
    assert_eq!(sidecar.client().policy("t/a").await.text(), "{\"v\":3}");
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_46_without_a_journal_a_lost_answer_is_said_to_be_unknown() {
    let heir = Heir::start(Level::Changes).await;
    let faulty = Faulty::start(heir.address()).await;
    let sidecar = Sidecar::start(&faulty.url(), SOON);
    sidecar.wait_for("live").await;
    for (fault, status) in [(Fault::Lose, 503), (Fault::Late(Duration::from_secs(3)), 504)] {
        faulty.rule(move |seen| {
            if seen.is("PUT") {
                fault.clone()
            } else {
                Fault::None
            }
        });
        let put = sidecar
            .client()
            .put_policy("t/a", format!("{{\"v\":{status}}}"))
            .await;
        assert_eq!(put.status.as_u16(), status);
        assert!(
            put.json()["error"]["details"]["outcome"]
                .as_str()
                .unwrap()
                .starts_with("unknown")
        );
        // The result is seen nevertheless, as soon as HEIR answers.
        eventually("HEIR's version shows", || async {
            sidecar.client().policy("t/a").await.body == format!("{{\"v\":{status}}}")
        })
        .await;
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_46_a_client_that_leaves_does_not_tear_its_write() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("t/a", "{\"v\":1}").await;
    let faulty = Faulty::start(heir.address()).await;
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(
        &faulty.url(),
        &format!("state_dir: {}\n{SOON}", state.path().display()),
    );
    sidecar.wait_for("live").await;
    // HEIR takes longer than it may, so the client is gone before the write is decided.
    let puts = AtomicUsize::new(0);
    faulty.rule(move |seen| match seen.method.as_str() {
        "GET" => Fault::Refuse,
        _ if puts.fetch_add(1, SeqCst) == 0 => Fault::Late(Duration::from_secs(3)),
        _ => Fault::Say(503, &[], "{}".into()),
    });
    let mut leaving = tokio::net::TcpStream::connect(sidecar.data).await.unwrap();
    let put = "PUT /api/v1/policies/t/a HTTP/1.1\r\nhost: x\r\ncontent-length: 7\r\n\r\n{\"v\":2}";
    tokio::io::AsyncWriteExt::write_all(&mut leaving, put.as_bytes())
        .await
        .unwrap();
    eventually("HEIR is asked", || async { faulty.count("PUT") > 0 }).await;
    drop(leaving);
    eventually("the write waits", || async {
        writes(&sidecar).await["queued"] == 1
    })
    .await;
    let files = || std::fs::read_dir(state.path().join("journal")).unwrap().count();
    assert_eq!(files(), 1);
    assert_eq!(sidecar.client().policy("t/a").await.text(), "{\"v\":2}");
    faulty.rule(|_| Fault::None);
    eventually("it is made", || async { writes(&sidecar).await["queued"] == 0 }).await;
    assert_eq!(files(), 0, "and forgotten on disk");
    assert_eq!(heir.client().policy("t/a").await.text(), "{\"v\":2}");
    sidecar.stop().await;
}
