//! What the policy language demands of writes, and what it says of policies that were stored before.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use serde_json::{Value, json};

use beamline_sidecar::store::Level;

use crate::support::{Heir, Sidecar, eventually};

fn messages(problems: &Value) -> Vec<String> {
    let text = |problem: &Value| {
        format!(
            "{} {} {}",
            problem["severity"], problem["path"], problem["message"]
        )
    };
    problems
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| text(problem).replace('"', ""))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_with_mistakes_is_refused_with_all_of_them_and_heir_never_sees_it() {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::start(&heir.url(), "writes: {validate: strict}");
    sidecar.wait_for("live").await;
    let broken = r#"{"providers":[{"name":"a","weight":101}],"sticky":{"ttl":"soon"},"fallbacks":[{"to":1}],"extra":1}"#;
    let refused = sidecar.client().put_policy("acme/chat", broken).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (422, "invalid_policy")
    );
    assert_eq!(
        messages(&refused.json()["error"]["details"]["problems"]),
        [
            "warning $.extra there is no such field",
            "error $.providers[0].weight Weight must be a number between 0.0 and 1.0",
            "warning $.providers Provider weights do not sum to 100 (the sum is 101.00)",
            "error $.fallbacks[0].to to must be a string",
            "error $.sticky.enabled sticky.enabled is required",
            "error $.sticky.ttl ttl is not a time",
        ]
    );
    assert_eq!(heir.client().policy("acme/chat").await.status, 404);
    let odd = r#"{"providers":[{"name":"a","weight":10}]}"#;
    assert_eq!(sidecar.client().put_policy("acme/chat", odd).await.status, 201);
    assert_eq!(sidecar.client().policy("acme/chat").await.text(), odd);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_policy_with_mistakes_is_served_and_shown() {
    let heir = Heir::start(Level::Changes).await;
    heir.client()
        .put_policy("acme/old", r#"{"weights":{"a":3.5},"fallback":7}"#)
        .await;
    heir.client()
        .put_policy("acme/good", r#"{"weights":{"a":1.0}}"#)
        .await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    let admin = sidecar.admin();
    eventually("the policies are in memory", || async {
        admin.get("/admin/snapshot").await.json()["policies"] == 2
    })
    .await;
    assert_eq!(sidecar.client().policy("acme/old").await.status, 200);
    let page = admin.get("/admin/snapshot").await.json();
    assert_eq!(
        (&page["warning_count"], &page["problem_count"]),
        (&json!(0), &json!(1))
    );
    let [broken] = page["problems"].as_array().unwrap().as_slice() else {
        panic!("{page}")
    };
    assert_eq!(
        (&broken["tenant_id"], &broken["policy_id"]),
        (&json!("acme"), &json!("old"))
    );
    assert_eq!(
        messages(&broken["problems"]),
        [
            "warning $.weights Provider weights do not sum to 100 (the sum is 3.50)",
            "error $.fallback fallback must be an object or string",
        ]
    );
    assert_eq!(sidecar.metric("beamline_sidecar_snapshot_problems").await, 1.0);
    sidecar.stop().await;
}
