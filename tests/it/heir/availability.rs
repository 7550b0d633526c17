//! When HEIR is asked, and what is said about it: a HEIR that comes late, that asks for a pause, that refuses the token.

use beamline_sidecar::store::Level;
use http::StatusCode;

use crate::support::{Fault, Faulty, Heir, QUICK, Seen, Sidecar, eventually};

const LEVELS: [Level; 4] = [Level::Single, Level::List, Level::Snapshot, Level::Changes];

/// Neither the health check nor the end of the breaker's pause comes during a test: only the refresher finds HEIR.
fn with_late_checks(heir: &str) -> String {
    format!("{QUICK}heir: {{url: '{heir}', health_interval_ms: 3600000, breaker: {{open_ms: 3600000}}}}")
}

#[tokio::test]
async fn a_heir_that_comes_late_is_found_long_before_the_breaker_or_the_health_check_would() {
    for level in LEVELS {
        let mut heir = Heir::start(level).await;
        heir.client().put_policy("t/a", "{}").await;
        heir.gone().await;
        let sidecar = Sidecar::try_start(&with_late_checks(&heir.url())).unwrap();
        eventually("the breaker is open", || async {
            sidecar.metric("beamline_sidecar_heir_breaker_state").await == 1.0
        })
        .await;
        let unready = sidecar.admin().get("/ready").await;
        assert_eq!(unready.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(unready.text().contains("cannot be reached"), "{}", unready.text());
        // A client is told when HEIR is really asked the next time, and not when the breaker alone would.
        let refused = sidecar.client().policy("t/a").await;
        assert_eq!(refused.code(), "heir_unavailable");
        let seconds: u64 = refused.header("retry-after").parse().unwrap();
        assert!(seconds <= 3, "{level}: {seconds}");
        heir.back().await;
        sidecar.wait_for("live").await;
        assert_eq!(
            sidecar.client().policy("t/a").await.status,
            StatusCode::OK,
            "{level}"
        );
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn an_operator_refreshes_although_the_breaker_is_open() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("t/a", "{}").await;
    let sidecar = Sidecar::try_start(&with_late_checks(&heir.url())).unwrap();
    sidecar.wait_for("live").await;
    heir.gone().await;
    eventually("the breaker is open", || async {
        sidecar.metric("beamline_sidecar_heir_breaker_state").await == 1.0
    })
    .await;
    heir.back().await;
    let refreshed = sidecar.admin().post("/admin/refresh", "").await;
    assert_eq!(refreshed.status, StatusCode::OK, "{}", refreshed.text());
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_44_a_pause_that_heir_asks_for_is_kept_whatever_its_health_check_says() {
    for level in LEVELS {
        let heir = Heir::start(level).await;
        heir.client().put_policy("t/a", "{}").await;
        let faulty = Faulty::start(heir.address()).await;
        let sidecar = Sidecar::start(
            &faulty.url(),
            "refresh: {interval_ms: 50, long_poll_timeout_ms: 50}",
        );
        sidecar.wait_for("live").await;
        assert_eq!(sidecar.client().policy("t/a").await.status, StatusCode::OK);
        faulty.rule(|seen: &Seen| {
            if seen.is("GET /health") {
                Fault::None
            } else {
                Fault::Say(429, &[("retry-after", "60")], "{}".into())
            }
        });
        let asked = || faulty.seen().len() - faulty.count("GET /health");
        sidecar.wait_for("degraded").await;
        eventually("no request is under way", || async { faulty.is_idle() }).await;
        let before = asked();
        let healthy = faulty.count("GET /health");
        eventually("it was healthy several times", || async {
            faulty.count("GET /health") >= healthy + 5
        })
        .await;
        // Neither the loop, nor an operator, nor a client.
        assert_eq!(
            sidecar.admin().post("/admin/refresh", "").await.code(),
            "heir_unavailable"
        );
        if matches!(level, Level::Single | Level::List) {
            let refused = sidecar.client().policy("t/unknown").await;
            assert_eq!(refused.code(), "heir_unavailable", "{level}");
            let seconds: u64 = refused.header("retry-after").parse().unwrap();
            assert!((30..=61).contains(&seconds), "{level}: {seconds}");
        }
        assert_eq!(
            asked(),
            before,
            "{level}: HEIR was asked during the pause that it asked for"
        );
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_token_that_heir_refuses_does_not_look_healthy() {
    for level in LEVELS {
        let heir = Heir::start(level).await;
        heir.client().put_policy("t/a", "{}").await;
        let faulty = Faulty::start(heir.address()).await;
        faulty.rule(|seen: &Seen| {
            if seen.is("GET /health") {
                Fault::None
            } else {
                Fault::Say(401, &[], "{}".into())
            }
        });
        let sidecar = Sidecar::start(
            &faulty.url(),
            "refresh: {interval_ms: 50, long_poll_timeout_ms: 50}",
        );
        let counted = async |outcome: &str| {
            let mut sum = 0.0;
            for call in ["get", "list", "snapshot", "changes"] {
                let series =
                    format!("beamline_sidecar_heir_requests_total{{call=\"{call}\",outcome=\"{outcome}\"}}");
                sum += sidecar.metric(&series).await;
            }
            sum
        };
        eventually("it is counted as what it is", || async {
            counted("unauthorized").await > 2.0
        })
        .await;
        assert_eq!(counted("ok").await, 0.0, "{level}");
        assert_eq!(sidecar.metric("beamline_sidecar_heir_up").await, 0.0, "{level}");
        let ready = sidecar.admin().get("/ready").await;
        assert!(ready.text().contains("401"), "{level}: {}", ready.text());
        sidecar.stop().await;
    }
}
