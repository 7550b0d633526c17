//! Writes whose acknowledgement is older than what memory already has.

use beamline_sidecar::store::Level;
use http::{Method, StatusCode};

use crate::support::{Heir, Sidecar};

#[tokio::test]
async fn a_write_that_heir_had_made_long_ago_does_not_come_back() {
    let heir = Heir::start(Level::Changes).await;
    let (path, key) = ("/api/v1/policies/acme/a", [("idempotency-key", "one")]);
    let first = heir.client().send(Method::PUT, path, &key, r#"{"n":1}"#).await;
    assert_eq!(first.map(|answer| answer.status), Ok(StatusCode::CREATED));
    heir.client().put_policy("acme/a", r#"{"n":2}"#).await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    // The client never heard that its write was made, and sends it again.
    let again = sidecar.client().send(Method::PUT, path, &key, r#"{"n":1}"#).await;
    assert_eq!(again.map(|answer| answer.status), Ok(StatusCode::CREATED));
    assert_eq!(heir.client().policy("acme/a").await.text(), r#"{"n":2}"#);
    assert_eq!(sidecar.client().policy("acme/a").await.text(), r#"{"n":2}"#);

    heir.client().delete_policy("acme/a").await;
    let refreshed = sidecar.admin().post("/admin/refresh", "").await;
    assert_eq!(refreshed.status, StatusCode::OK);
    let again = sidecar.client().send(Method::PUT, path, &key, r#"{"n":1}"#).await;
    assert_eq!(again.map(|answer| answer.status), Ok(StatusCode::CREATED));
    assert_eq!(
        sidecar.client().policy("acme/a").await.status,
        StatusCode::NOT_FOUND
    );
    sidecar.stop().await;
}
