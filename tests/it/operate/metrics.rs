//! `docs/metrics.md` against the code, and the bound of its labels.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use beamline_sidecar::store::Level;
use http::StatusCode;

use serde_json::json;

use crate::extensions::place::Place;
use crate::support::{Heir, Sidecar, eventually};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

/// What the page says of the sidecar, and of the injector, which is a program of its own.
fn parts() -> (&'static str, &'static str) {
    DOCUMENT.split_once("\n## The injector\n").unwrap()
}

/// The source of every file that registers metrics.
fn sources() -> String {
    let mut found = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(source) = fs::read_to_string(&path)
                && source.contains("Registry")
            {
                found.push_str(&source);
            }
        }
    }
    found
}

/// A metric's type, and what each of its labels may be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

type Metrics = BTreeMap<String, Metric>;

fn plain(text: &str) -> String {
    text.trim().trim_matches('`').to_owned()
}

fn documented(page: &str) -> Metrics {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 5, "{row}");
        let labels = cells[2]
            .split(';')
            .filter(|label| !label.trim().is_empty())
            .map(|label| {
                let (name, values) = label.split_once(':').unwrap();
                (plain(name), values.split(',').map(plain).collect())
            });
        let metric = Metric {
            kind: plain(cells[1]),
            labels: labels.collect(),
        };
        (plain(cells[0]), metric)
    })
    .collect()
}

/// The types, and the labels of the series with the values seen.
fn scraped(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, labels) = match line.split_once('{') {
            Some((series, rest)) => (series, rest.split_once('}').unwrap().0),
            None => (line.split_once(' ').unwrap().0, ""),
        };
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| series.strip_suffix(suffix))
            .find(|name| metrics.contains_key(*name))
            .unwrap_or(series);
        let metric = metrics.get_mut(name).unwrap();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap();
            if label != "le" {
                let values = metric.labels.entry(label.to_owned()).or_default();
                values.insert(value.trim_matches('"').to_owned());
            }
        }
    }
    metrics
}

#[tokio::test]
async fn metrics_document_matches_a_scrape() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/chat", "{}").await;
    let place = Place::new();
    place.misbehaving("does", "validator", json!({"timeout_ms": 1_000}));
    // After the loops the first one hardly runs where the tests leave no processor idle.
    place.misbehaving("traps", "validator", json!({}));
    let yaml = format!(
        "extensions_dir: {}\nextensions: {{quarantine_after: 1}}",
        place.path("extensions").display()
    );
    let sidecar = Sidecar::start(&heir.url(), &yaml);
    sidecar.wait_for("live").await;
    sidecar.wait_for_modules().await;
    for deed in ["count-metrics", "flood-log", "loop", "loop", "loop", "trap"] {
        let id = if deed == "trap" { "traps" } else { "does" };
        let policy = json!({"weights": {"a": 1.0}, "validators": [{"id": id, "on_fail": "warn", "config": {"do": deed}}]});
        let name = format!("acme/{deed}");
        assert!(
            sidecar
                .client()
                .put_policy(&name, policy.to_string())
                .await
                .status
                .is_success()
        );
        let request = crate::decide::request("acme", deed, json!({}));
        assert_eq!(
            crate::decide::decide(&sidecar.client(), &request, &[])
                .await
                .status,
            200
        );
    }
    // Most metrics with labels are counted at least once by this.
    let client = sidecar.client();
    assert_eq!(client.policy("acme/chat").await.status, StatusCode::OK);
    assert_eq!(client.policy("acme/none").await.status, StatusCode::NOT_FOUND);
    assert!(
        client
            .put_policy("acme/chat", "{\"a\":1}")
            .await
            .status
            .is_success()
    );
    assert_eq!(client.get("/api/v1/extensions").await.status, StatusCode::OK);
    let policy = r#"{"weights":{"a":1.0},"sticky":{"enabled":true,"session_key":"s"},"circuit_breaker":{"enabled":true,"failure_threshold":1},
        "rate_limit":{"enabled":true,"burst":2,"requests_per_second":1}}"#;
    assert!(
        client
            .put_policy("acme/default", policy)
            .await
            .status
            .is_success()
    );
    let request = crate::decide::request("acme", "default", serde_json::json!({"s": "x"}));
    let failed =
        r#"{"tenant_id":"acme","request_id":"r","status":"timeout","provider_id":"a","latency_ms":5}"#;
    assert_eq!(crate::decide::decide(&client, &request, &[]).await.status, 200);
    assert_eq!(client.post("/api/v1/results", failed).await.status, 202);
    assert_eq!(client.post("/api/v1/results", "{}").await.status, 400);
    assert_eq!(crate::decide::decide(&client, &request, &[]).await.status, 503);
    assert_eq!(crate::decide::decide(&client, &request, &[]).await.status, 429);
    sidecar.reload().await;
    eventually("the reload is counted", || async {
        sidecar
            .metric("beamline_sidecar_config_reloads_total{outcome=\"applied\"}")
            .await
            == 1.0
    })
    .await;
    let scraped = scraped(sidecar.admin().get("/metrics").await.text());
    let documented = documented(parts().0);
    let names = |metrics: &Metrics| metrics.keys().cloned().collect::<Vec<_>>();
    let (seen, told) = (names(&scraped), names(&documented));
    let unknown: Vec<_> = seen.iter().filter(|name| !told.contains(name)).collect();
    assert_eq!(unknown, Vec::<&String>::new());
    // Changes that time alone makes, fallbacks, and known sessions are not among what was done here.
    let unseen: Vec<_> = told.iter().filter(|name| !seen.contains(name)).collect();
    assert_eq!(
        unseen,
        [
            "router_circuit_breaker_timeout_transitions_total",
            "router_fallback_activation_total",
            "router_sticky_hits_total"
        ]
    );
    for (name, found) in &scraped {
        let told = &documented[name];
        assert_eq!(found.kind, told.kind, "{name}");
        let labels = |metric: &Metric| metric.labels.keys().cloned().collect::<Vec<_>>();
        assert_eq!(labels(found), labels(told), "{name}");
        for (label, values) in &found.labels {
            if !matches!(
                label.as_str(),
                "tenant_id" | "provider_id" | "policy_id" | "extension_id" | "name" | "version" | "commit"
            ) {
                let unknown: Vec<_> = values.difference(&told.labels[label]).collect();
                assert_eq!(unknown, Vec::<&String>::new(), "{name} {label}");
            }
        }
    }
    sidecar.stop().await;
}

#[test]
fn metrics_document_names_what_the_code_names() {
    // A metric that nothing counts yet is in no scrape; it is in the code all the same.
    let sources = sources();
    let named: BTreeSet<&str> = sources
        .split('"')
        .filter(|text| {
            ["router_", "policy_", "beamline_sidecar_"]
                .iter()
                .any(|prefix| text.starts_with(prefix))
                && *text != "policy_id"
                && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        })
        .collect();
    let (mut documented, of_injector) = (documented(parts().0), documented(parts().1));
    // Those of the listeners are of both.
    documented.extend(of_injector);
    assert_eq!(
        named.into_iter().collect::<Vec<_>>(),
        documented.keys().map(String::as_str).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn hostile_40_no_client_and_no_heir_can_make_a_label_without_bound() {
    let heir = Heir::start(Level::Changes).await;
    for tenant in ["a", "b", "c", "d", "e"] {
        heir.client().put_policy(&format!("{tenant}/chat"), "{}").await;
    }
    let sidecar = Sidecar::start(&heir.url(), "metrics: {max_tenant_labels: 3}");
    sidecar.wait_for("live").await;
    for tenant in ["a", "b", "c", "d", "e"] {
        assert_eq!(
            sidecar.client().policy(&format!("{tenant}/chat")).await.status,
            StatusCode::OK
        );
    }
    for index in 0..50 {
        sidecar.client().policy(&format!("made-up-{index}/chat")).await;
        sidecar
            .client()
            .get_with("/health", &[("x-tenant-id", &format!("made-up-{index}"))])
            .await;
    }
    let text = sidecar.admin().get("/metrics").await;
    let metrics = scraped(text.text());
    let mut labelled = BTreeSet::new();
    for name in [
        "router_policy_store_cache_hits_total",
        "router_policy_store_cache_misses_total",
        "router_policy_store_lookup_latency_ms",
        "policy_loads_total",
    ] {
        labelled.extend(metrics[name].labels["tenant_id"].iter().cloned());
    }
    assert_eq!(labelled.len(), 4, "{labelled:?}");
    assert!(
        labelled.remove("other") && labelled.iter().all(|tenant| tenant.len() == 1),
        "{labelled:?}"
    );
    let sum = |name: &str| -> f64 {
        let lines = text
            .text()
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")));
        lines
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum()
    };
    assert_eq!(sum("router_policy_store_cache_hits_total"), 5.0);
    assert_eq!(sum("router_policy_store_cache_misses_total"), 50.0);
    assert_eq!(sum("router_policy_store_lookup_latency_ms_count"), 55.0);
    assert_eq!(sum("policy_loads_total"), 5.0);
    for tenant in &labelled {
        let series = format!("policy_loads_total{{source=\"heir\",tenant_id=\"{tenant}\"}}");
        assert_eq!(sidecar.metric(&series).await, 1.0, "{series}");
    }
    assert_eq!(sidecar.metric("router_policy_store_size").await, 5.0);
    assert_eq!(sidecar.metric("router_policy_store_memory_bytes").await, 10.0);
    assert_eq!(sidecar.metric("beamline_sidecar_snapshot_revision").await, 5.0);
    sidecar.stop().await;
}
