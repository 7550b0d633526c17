//! Row 11 of the list of hostile inputs: no tenant ever sees another's policy, whatever both call theirs.

use std::collections::HashMap;

use beamline_sidecar::store::Level;
use http::StatusCode;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use crate::support::{Heir, QUICK, Say, Scripted, Sidecar, eventually, send};

/// Few names, so that tenants share them, and names that run together the same: `a` + `a-b`, `a-a` + `b`.
fn name() -> impl Strategy<Value = String> {
    "[aA][-._]?[aA]?|t|T|policies|health|\\.[a-]"
}

#[derive(Debug, Clone)]
enum Step {
    Put(String, String),
    Delete(String, String),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (any::<bool>(), any::<bool>(), name(), name()).prop_map(|(a, b, tenant, policy)| {
        if a || b {
            Step::Put(tenant, policy)
        } else {
            Step::Delete(tenant, policy)
        }
    });
    proptest::collection::vec(step, 1..25)
}

#[tokio::test]
async fn hostile_11_no_tenant_is_answered_with_anothers_policy() {
    for level in [Level::Changes, Level::List, Level::Single] {
        let heir = Heir::start(level).await;
        let sidecar = Sidecar::start(
            &heir.url(),
            "refresh: {interval_ms: 50, long_poll_timeout_ms: 1000, negative_ttl_ms: 0}",
        );
        sidecar.wait_for("live").await;
        let client = sidecar.client();
        let mut runner = TestRunner::new(Config::default());
        let mut stored: HashMap<(String, String), String> = HashMap::new();
        let mut names: Vec<String> = Vec::new();
        for round in 0..12 {
            for (index, step) in steps()
                .new_tree(&mut runner)
                .unwrap()
                .current()
                .iter()
                .enumerate()
            {
                // Every second round through the sidecar, the others behind its back.
                let writer = if round % 2 == 0 {
                    client.clone()
                } else {
                    heir.client()
                };
                match step {
                    Step::Put(tenant, policy) => {
                        let body = format!("{{\"is\":\"{tenant}/{policy}/{round}/{index}\"}}");
                        let put = writer
                            .put_policy(&format!("{tenant}/{policy}"), body.clone())
                            .await;
                        assert!(put.status.is_success(), "{}", put.text());
                        stored.insert((tenant.clone(), policy.clone()), body);
                        names.extend([tenant.clone(), policy.clone()]);
                    }
                    Step::Delete(tenant, policy) => {
                        writer.delete_policy(&format!("{tenant}/{policy}")).await;
                        stored.remove(&(tenant.clone(), policy.clone()));
                    }
                }
            }
            names.sort_unstable();
            names.dedup();
            for tenant in &names {
                for policy in &names {
                    let path = format!("{tenant}/{policy}");
                    let expected = stored.get(&(tenant.clone(), policy.clone()));
                    // The header must not lead to another tenant's policy either.
                    let other = [("x-tenant-id", names[0].as_str())];
                    eventually(&format!("{level} {path} is {expected:?}"), || async {
                        let answer = client.get_with(&format!("/api/v1/policies/{path}"), &other).await;
                        if answer.status == StatusCode::OK {
                            // At no moment, while changes arrive, may the body be of another key.
                            let own = format!("{{\"is\":\"{path}/");
                            assert!(answer.text().starts_with(&own), "{path}: {}", answer.text());
                        }
                        match expected {
                            Some(body) => answer.text() == body,
                            None => answer.status == StatusCode::NOT_FOUND,
                        }
                    })
                    .await;
                }
            }
        }
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_tenant_whose_policies_heir_never_sends_leaves_connections_to_the_others() {
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    heir.on("GET /api/v1/policies/acme/", Say::Silence);
    heir.on("PUT /api/v1/policies/acme/", Say::Silence);
    heir.on(
        "GET /api/v1/policies/beta/p",
        Say::Json(200, "", r#"{"weights":{"a":1.0}}"#.into()),
    );
    heir.on("PUT /api/v1/policies/beta/p", Say::Json(201, "", "{}".into()));
    let sidecar = Sidecar::try_start(&format!(
        "{QUICK}heir: {{url: '{}', timeout_ms: 60000, pool: {{max_requests: 8}}}}",
        heir.url()
    ))
    .unwrap();
    sidecar.wait_for("live").await;
    let mut acme = Vec::new();
    for index in 0..20 {
        for head in ["GET", "PUT"] {
            let request = format!(
                "{head} /api/v1/policies/acme/{head}{index} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}"
            );
            acme.push(send(sidecar.data, &request).await);
        }
    }
    let asked = || heir.count("GET /api/v1/policies/acme/") + heir.count("PUT /api/v1/policies/acme/");
    eventually("HEIR is asked", || async { asked() >= 4 }).await;
    let client = sidecar.client();
    assert_eq!(client.policy("beta/p").await.status, StatusCode::OK);
    assert_eq!(
        client
            .put_policy("beta/p", r#"{"weights":{"a":1.0}}"#)
            .await
            .status,
        StatusCode::CREATED
    );
    assert_eq!(asked(), 4);
    drop(acme);
    sidecar.stop().await;
}
