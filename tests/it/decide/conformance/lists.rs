//! Cases about stored policies: what a tenant has, and what is not there. Asked over HTTP, of a sidecar and a store.

use beamline_sidecar::store::Level;
use serde_json::{Value, json};

use super::{Case, documents::each};
use crate::support::{Client, Heir, Sidecar};

const POLICY: &str = r#"{"weights":{"a":1.0}}"#;

/// Whether the case gives tenants their policies: `"tenant_a": ["x", "y"]`.
pub(super) fn is_list(case: &Case) -> bool {
    !case.given.is_empty()
        && case
            .given
            .iter()
            .all(|(key, value)| key.starts_with("tenant_") && key != "tenant_id" && value.is_array())
}

pub(super) async fn run(case: &mut Case) -> Result<(), String> {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    let client = sidecar.client();
    let done = match (case.take("operations"), case.take("request")) {
        (Some(operations), _) => operate(case, &client, &operations).await,
        (None, Some(request)) => request_for(case, &client, &request).await,
        (None, None) => lists(case, &client).await,
    };
    sidecar.stop().await;
    done
}

async fn lists(case: &mut Case, client: &Client) -> Result<(), String> {
    for (name, policies) in std::mem::take(&mut case.given) {
        let tenant = name.trim_start_matches("tenant_").to_owned();
        for policy in each(&policies) {
            let policy = policy.as_str().ok_or("a policy's name")?;
            let answer = client.put_policy(&format!("{tenant}/{policy}"), POLICY).await;
            if !answer.status.is_success() {
                return Err(format!("PUT {tenant}/{policy}: {}", answer.status));
            }
        }
    }
    for key in case.expect.keys() {
        let parts: Vec<&str> = key.split('_').collect();
        let got = match parts[..] {
            ["list", tenant] => listed(client, tenant).await,
            ["get", tenant, policy] => got(client, tenant, policy).await,
            _ => continue,
        };
        case.expect.check(&key, &got);
    }
    Ok(())
}

async fn listed(client: &Client, tenant: &str) -> Value {
    let answer = client.get(&format!("/api/v1/policies/{tenant}")).await;
    let list = answer.json()["policies"].clone();
    list.as_array()
        .into_iter()
        .flatten()
        .map(|policy| policy["policy_id"].clone())
        .collect()
}

async fn got(client: &Client, tenant: &str, policy: &str) -> Value {
    let answer = client.policy(&format!("{tenant}/{policy}")).await;
    match answer.status.as_u16() {
        200 => "ok".into(),
        404 => "not_found".into(),
        other => json!(other),
    }
}

/// `upsert x`, `get x`, `delete x`, `list`, each of tenant `t`.
async fn operate(case: &mut Case, client: &Client, operations: &Value) -> Result<(), String> {
    let mut results = Vec::new();
    for operation in operations.as_array().ok_or("given.operations")? {
        let text = operation.as_str().ok_or("given.operations")?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let named = |name: &str| {
            if name.contains('/') {
                name.to_owned()
            } else {
                format!("t/{name}")
            }
        };
        results.push(match &words[..] {
            ["upsert" | "put", rest @ ..] => {
                let answer = client
                    .put_policy(&named(rest.first().unwrap_or(&"p")), POLICY)
                    .await;
                if answer.status.is_success() {
                    json!("ok")
                } else {
                    json!(answer.code())
                }
            }
            ["delete", rest @ ..] => {
                let answer = client.delete_policy(&named(rest.first().unwrap_or(&"p"))).await;
                match answer.status.as_u16() {
                    404 => json!("not_found"),
                    status if status < 300 => json!("ok"),
                    _ => json!(answer.code()),
                }
            }
            ["get", rest @ ..] => {
                let name = named(rest.first().unwrap_or(&"p"));
                let (tenant, policy) = name.split_once('/').unwrap_or(("t", &name));
                got(client, tenant, policy).await
            }
            ["list"] => listed(client, "t").await,
            ["list", tenant] => listed(client, tenant).await,
            _ => return Err(format!("the operation {text:?}")),
        });
    }
    case.expect.check_each("result", &results);
    Ok(())
}

/// A request for a decision that is refused before there is anything to decide. What the case says of it stands in an
/// otherwise whole request; null takes a field out.
async fn request_for(case: &mut Case, client: &Client, request: &Value) -> Result<(), String> {
    let mut whole = json!({
        "version": "1", "request_id": "r-1", "tenant_id": "default_tenant", "policy_id": "default",
        "task": {"type": "chat", "payload": {"text": "hello"}},
    });
    let given = request.as_object().ok_or("given.request")?;
    if given.is_empty() {
        whole = json!({});
    }
    for (key, value) in given {
        whole[key] = value.clone();
        if value.is_null() {
            whole.as_object_mut().ok_or("given.request")?.remove(key);
        }
    }
    client.put_policy("default_tenant/default", POLICY).await;
    let answer = client.post("/api/v1/decide", whole.to_string()).await;
    let body = answer.json();
    let error = &body["error"];
    let kind = [
        &error["details"]["error_type"],
        &error["details"]["reason"],
        &error["code"],
    ];
    let kind = kind
        .into_iter()
        .find(|kind| kind.is_string())
        .cloned()
        .unwrap_or_default();
    case.expect.check("error", &kind);
    case.expect.check("wire_code", &error["code"]);
    case.expect.check("message", &error["message"]);
    // A request that is decided after all shows the context that it was decided in.
    let decision = &body["decision"];
    for key in ["context", "metadata"] {
        case.expect.check(key, &decision["metadata"]);
    }
    for key in [
        "provider_id",
        "reason",
        "priority",
        "expected_latency_ms",
        "expected_cost",
    ] {
        case.expect.check(key, &decision[key]);
    }
    case.expect.check("http", &json!(answer.status.as_u16()));
    case.expect.check("status", &json!(answer.status.as_u16()));
    case.expect.set_aside("grpc", "there is no gRPC here");
    Ok(())
}
