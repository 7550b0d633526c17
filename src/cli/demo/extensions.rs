//! The part of the demonstration that shows extensions: a guard that refuses, a scorer that changes the weights, and a
//! record that is replaced while decisions are made.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::steps::{DECIDE, TIMEOUT, ask, print_decision, title, until};
use crate::{cli::output::print, extensions::ModuleDigest, listener::Address};

const POLICY: &str = "/api/v1/policies/acme/guarded";
/// Decisions whose providers are counted.
const COUNTED: usize = 200;
/// How often the guard is replaced under load.
const RELOADS: usize = 10;

/// A guard before the choice, and providers weighed by their reported latencies.
fn policy() -> Value {
    json!({
        "version": "1.0",
        "providers": [{"name": "openai", "weight": 50}, {"name": "anthropic", "weight": 50}],
        "validators": [{"id": "pii_guard", "on_fail": "block"}],
        "scorers": [{"id": "latency_scorer"}],
    })
}

fn request(text: &str, more: Value) -> String {
    let mut request = json!({
        "version": "1", "request_id": "r-9", "tenant_id": "acme", "policy_id": "guarded",
        "task": {"type": "chat", "payload": {"text": text}},
    });
    request["metadata"] = more;
    request.to_string()
}

pub(super) async fn show(
    components: &Path,
    heir: &Address,
    sidecar: &Address,
    admin: &Address,
) -> io::Result<()> {
    title(
        "4",
        "Two extensions are put into the store: a guard against personal data, and a scorer; and a policy that names them",
    );
    for (id, kind, file) in [
        ("pii_guard", "validator", "pii-guard.wasm"),
        ("latency_scorer", "scorer", "latency-scorer.wasm"),
    ] {
        let module = fs::read(components.join(file)).map_err(|error| {
            io::Error::other(format!(
                "{}: {error}: run `make demo`",
                components.join(file).display()
            ))
        })?;
        let (digest, size) = (ModuleDigest::of(&module), module.len());
        let put = ask(heir, "PUT", &format!("/api/v1/modules/{digest}"), module).await?;
        let record = record(id, kind, &digest, &json!({}));
        let registered = ask(
            heir,
            "PUT",
            &format!("/api/v1/extensions/{id}"),
            record.to_string(),
        )
        .await?;
        print(&format!(
            "   {id}: {size} bytes of WebAssembly, sha256 {}…   module {}, record {}",
            digest.to_string().chars().take(12).collect::<String>(),
            put.status,
            registered.status
        ));
    }
    ask(sidecar, "PUT", POLICY, policy().to_string()).await?;
    ready(admin, "latency_scorer").await?;
    let body = request("Good morning", json!({"detail_level": "verbose"}));
    print_decision(
        sidecar,
        &body,
        &ask(sidecar, "POST", DECIDE, body.as_str()).await?,
    );
    let body = request("My card is 4111 1111 1111 1111", json!({}));
    let blocked: Value = serde_json::from_str(&ask(sidecar, "POST", DECIDE, body).await?.body)?;
    let (Some(code), Some(message)) = (
        blocked["error"]["code"].as_str(),
        blocked["error"]["message"].as_str(),
    ) else {
        return Err(io::Error::other(format!("the guard let a card pass: {blocked}")));
    };
    print(&format!(
        "   $ curl -d '{{…, \"text\": \"My card is 4111 1111 1111 1111\"}}' http://{sidecar}{DECIDE}\n   {code}: {message}"
    ));

    title(
        "5",
        "Results say that openai takes 900 ms and anthropic 90: the scorer changes their weights",
    );
    let before = shares(sidecar).await?;
    for turn in 0..20 {
        for (provider, latency_ms) in [("openai", 900), ("anthropic", 90)] {
            let result = json!({
                "tenant_id": "acme", "request_id": format!("{provider}-{turn}"), "status": "success",
                "provider_id": provider, "latency_ms": latency_ms,
            });
            ask(sidecar, "POST", "/api/v1/results", result.to_string()).await?;
        }
    }
    let after = shares(sidecar).await?;
    print(&format!(
        "   of {COUNTED} decisions, openai had {before} before and has {after} now"
    ));
    let body = request("Good morning", json!({"detail_level": "verbose"}));
    let answer = ask(sidecar, "POST", DECIDE, body).await?;
    let decided: Value = serde_json::from_str(&answer.body)?;
    print(&format!(
        "   factors: {}",
        decided["decision"]["explanation"]["evidence"]["factors"]
    ));

    title("6", "The guard is replaced ten times while decisions are made");
    reload_under_load(components, heir, sidecar).await
}

fn record(id: &str, kind: &str, digest: &ModuleDigest, config: &Value) -> Value {
    json!({
        "id": id, "type": kind, "subject": format!("beamline.ext.{kind}.{id}.v1"),
        "module": format!("heir:sha256/{digest}"), "config": config,
    })
}

/// Waits until an extension can be called, and all others that were registered before.
async fn ready(admin: &Address, id: &str) -> io::Result<()> {
    until(admin, "/admin/extensions", |answer| {
        // A body that is not the page, such as an error, means not ready yet; the wait is bounded.
        serde_json::from_str::<Value>(&answer.body).is_ok_and(|page| {
            let mut listed = page["extensions"].as_array().into_iter().flatten();
            listed.any(|extension| extension["id"] == id) && page["pending"] == json!([])
        })
    })
    .await
    .map(|_| ())
}

/// How many of `COUNTED` decisions chose openai.
async fn shares(sidecar: &Address) -> io::Result<usize> {
    let mut chosen = 0;
    for _ in 0..COUNTED {
        let answer = ask(sidecar, "POST", DECIDE, request("Good morning", json!({}))).await?;
        let decided: Value = serde_json::from_str(&answer.body)?;
        chosen += usize::from(decided["decision"]["provider_id"] == "openai");
    }
    Ok(chosen)
}

async fn reload_under_load(components: &Path, heir: &Address, sidecar: &Address) -> io::Result<()> {
    let digest = ModuleDigest::of(&fs::read(components.join("pii-guard.wasm"))?);
    let (stop, decided, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (sidecar, stop, decided, failed) =
                (sidecar.clone(), stop.clone(), decided.clone(), failed.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask(&sidecar, "POST", DECIDE, request("Good morning", json!({}))).await;
                    decided.fetch_add(1, Ordering::Relaxed);
                    if !answer.is_ok_and(|answer| answer.status == 200) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let mut kinds = ["card", "email"].iter().cycle();
    for _ in 0..RELOADS {
        let kind = kinds.next().copied().unwrap_or("card");
        let record = record("pii_guard", "validator", &digest, &json!({"kinds": [kind]}));
        ask(heir, "PUT", "/api/v1/extensions/pii_guard", record.to_string()).await?;
        // The sidecar has applied the record once a decision shows it.
        let deadline = Instant::now() + TIMEOUT;
        let refused = format!("{kind}: 4111 1111 1111 1111 ada@example.com");
        loop {
            let answer = ask(sidecar, "POST", DECIDE, request(&refused, json!({}))).await?;
            if answer.body.contains(&format!("{kind} (1)")) {
                break;
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the sidecar did not apply a record"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.map_err(io::Error::other)?;
    }
    let (decided, failed) = (decided.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    print(&format!(
        "   {RELOADS} reloads, each visible in decisions; {decided} decisions meanwhile, {failed} failed"
    ));
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::other("decisions failed while the guard was replaced")),
    }
}
