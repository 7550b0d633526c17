//! Lookups, as the Router makes them.

use beamline_sidecar::store::Level;
use http::StatusCode;

use crate::support::{Heir, Sidecar};

#[tokio::test]
async fn a_policy_is_answered_byte_for_byte_with_what_is_known_about_it() {
    let heir = Heir::start(Level::Changes).await;
    let text = "{ \"version\": \"1.0\",\n  \"weights\": {\"a\": 50.0}, \"unknown\": [null] }\n";
    heir.client().put_policy("acme/chat", text).await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    let answer = sidecar.client().policy("acme/chat").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.text(), text);
    assert_eq!(answer.header("x-beamline-source"), "heir");
    assert_eq!(answer.header("x-beamline-freshness"), "fresh");
    assert_eq!(answer.header("x-beamline-snapshot-revision"), "1");
    assert!(
        answer
            .header("x-beamline-snapshot-age-ms")
            .parse::<u64>()
            .unwrap()
            < 5_000
    );
    assert_eq!(
        answer.header("etag"),
        heir.client().policy("acme/chat").await.header("etag")
    );
    let tag = answer.header("etag").to_owned();
    let again = sidecar
        .client()
        .get_with("/api/v1/policies/acme/chat", &[("if-none-match", &tag)])
        .await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(again.header("etag"), tag);
    sidecar.stop().await;
}
