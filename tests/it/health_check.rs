//! Active checks over real sockets: what they make of a provider, whom they ask, and whom they never ask.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{collections::HashMap, sync::Arc};

use beamline_sidecar::{
    decide::memory::{Memory, MemoryLimits},
    health_check::{CheckerError, HealthCheckMetrics, HealthChecker, HealthChecksConfig},
    policy::{HealthCheck, PolicyDocument, PolicyId, Provider, ProviderId, RoutingPolicy, TenantId},
    snapshot::{Policy, SnapshotMetrics, SnapshotStore},
    telemetry::registry::scrape,
};
use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Say, Scripted, eventually};

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn check(url: Option<String>) -> Option<Box<HealthCheck>> {
    Some(Box::new(HealthCheck {
        enabled: true,
        url: url.map(Into::into),
        interval_ms: 20,
        timeout_ms: 10_000,
        unhealthy_threshold: 3,
        healthy_threshold: 2,
    }))
}

/// A policy with these providers; `None`: no check of its own.
fn policy(whole: Option<Box<HealthCheck>>, providers: &[(&str, Option<Box<HealthCheck>>)]) -> RoutingPolicy {
    let mut providers: Vec<Provider> = providers
        .iter()
        .map(|(name, health_check)| Provider {
            id: ProviderId::new(name),
            weight: 1.0,
            timeout_ms: None,
            health_check: health_check.clone(),
        })
        .collect();
    providers.sort_by(|a, b| a.id.cmp(&b.id));
    RoutingPolicy {
        version: "1.0".into(),
        providers: providers.into(),
        fallbacks: Box::default(),
        last_resort: None,
        sticky: None,
        circuit_breaker: None,
        rate_limit: None,
        pipeline: None,
        timeout_ms: None,
        health_check: whole,
        detail_level: None,
        deprecated: None,
    }
}

/// A running checker, and the policies that it gets: a document holds its policy's number.
struct Running {
    store: Arc<SnapshotStore>,
    memory: Arc<Memory>,
    registry: Registry,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Running {
    fn start(config: HealthChecksConfig, policies: Vec<(&str, &str, RoutingPolicy)>) -> Self {
        let registry = Registry::new();
        let metrics = Arc::new(HealthCheckMetrics::register(&registry).unwrap());
        let store =
            Arc::new(SnapshotStore::start(SnapshotMetrics::register(&registry, 10).unwrap().into()).unwrap());
        let memory = Arc::new(Memory::new(MemoryLimits {
            sessions: 10,
            buckets: 10,
            providers: 10_000,
        }));
        let mut known: HashMap<Vec<u8>, RoutingPolicy> = HashMap::new();
        for (number, (tenant, id, routing)) in policies.into_iter().enumerate() {
            let text = format!("{{\"n\":{number}}}");
            known.insert(text.clone().into_bytes(), routing);
            put(&store, tenant, id, Some(text));
        }
        let known: &'static HashMap<Vec<u8>, RoutingPolicy> = Box::leak(Box::new(known));
        let routing = for_any(|policy| known.get(&policy.document.bytes()[..]));
        let stop = CancellationToken::new();
        let checker = HealthChecker::connect(config, metrics.clone()).unwrap();
        let running = tokio::spawn(checker.run_by(store.clone(), memory.clone(), routing, stop.clone()));
        Self {
            store,
            memory,
            registry,
            stop,
            running,
        }
    }

    fn is_unhealthy(&self, tenant_id: &str, provider: &str) -> bool {
        self.memory.health.is_unhealthy(&tenant(tenant_id), provider)
    }

    async fn wait_for(&self, tenant: &str, provider: &str, unhealthy: bool) {
        eventually(&format!("{tenant}/{provider} unhealthy: {unhealthy}"), || async {
            self.is_unhealthy(tenant, provider) == unhealthy
        })
        .await;
    }

    fn metric(&self, series: &str) -> f64 {
        let scrape = String::from_utf8(scrape(&self.registry).unwrap()).unwrap();
        let line = scrape
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

/// Lets the compiler see that the function takes policies of any lifetime.
fn for_any<F: for<'a> Fn(&'a Policy) -> Option<&'a RoutingPolicy>>(function: F) -> F {
    function
}

fn put(store: &SnapshotStore, tenant_id: &str, id: &str, text: Option<String>) {
    let key = (tenant(tenant_id), PolicyId::parse(id).unwrap());
    let policy = text.map(|text| {
        let document = PolicyDocument::parse(text.into()).unwrap();
        Arc::new(Policy::new(document, None))
    });
    assert!(store.apply_write(&key, policy, None));
}

fn config(allow: &[&Scripted]) -> HealthChecksConfig {
    HealthChecksConfig {
        enabled: true,
        allow: allow.iter().map(|server| server.address.to_string()).collect(),
        ..HealthChecksConfig::default()
    }
}

fn status(status: u16) -> Say {
    Say::Json(status, "", "{}".into())
}

#[tokio::test]
async fn a_provider_is_left_out_after_three_failures_and_back_after_two_successes() {
    let server = Scripted::start().await;
    server.on("GET /ok", status(200));
    server.on("GET /flaky", status(503));
    let url = |path: &str| check(Some(format!("{}/{path}", server.url())));
    let policy = policy(url("ok"), &[("azure", None), ("openai", url("flaky"))]);
    let running = Running::start(config(&[&server]), vec![("acme", "chat", policy)]);
    running.wait_for("acme", "openai", true).await;
    assert!(server.count("GET /flaky") >= 3);
    assert_eq!(running.metric("beamline_sidecar_providers_unhealthy"), 1.0);
    assert!(
        !running.is_unhealthy("acme", "azure"),
        "its check is the policy's, and passes"
    );
    assert!(!running.is_unhealthy("other", "openai"));
    server.on("GET /flaky", status(302));
    let before = server.count("GET /flaky");
    running.wait_for("acme", "openai", false).await;
    assert!(
        server.count("GET /flaky") >= before + 2,
        "a redirection is an answer"
    );
    eventually("the gauge follows", || async {
        running.metric("beamline_sidecar_providers_unhealthy") == 0.0
    })
    .await;
    let outcome = |name: &str| {
        running.metric(&format!(
            "beamline_sidecar_health_checks_total{{outcome=\"{name}\"}}"
        ))
    };
    assert!(outcome("unhealthy") >= 3.0 && outcome("healthy") >= 2.0);
    running.stop().await;
}

#[tokio::test]
async fn silence_refusal_and_nonsense_are_failures() {
    let server = Scripted::start().await;
    server.on("GET /silent", Say::Silence);
    server.on("GET /nonsense", Say::Bytes(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()));
    // A good answer whose body never ends is a good answer.
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
    server.on("GET /endless", Say::Endless(head, vec![b'x'; 10_000]));
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = |path: &str| check(Some(format!("{}/{path}", server.url())));
    let mut silent = url("silent");
    if let Some(silent) = &mut silent {
        silent.timeout_ms = 30;
    }
    let policy = policy(
        None,
        &[
            ("closed", check(Some(format!("http://{closed}/")))),
            ("endless", url("endless")),
            ("nonsense", url("nonsense")),
            ("silent", silent),
            ("unchecked", None),
        ],
    );
    let mut config = config(&[&server]);
    config.allow.push(closed.to_string());
    let running = Running::start(config, vec![("acme", "chat", policy)]);
    for provider in ["closed", "nonsense", "silent"] {
        running.wait_for("acme", provider, true).await;
    }
    eventually("the endless one was asked often", || async {
        server.count("GET /endless") >= 4
    })
    .await;
    assert!(!running.is_unhealthy("acme", "endless"));
    assert!(!running.is_unhealthy("acme", "unchecked"));
    for outcome in ["timeout", "unreachable"] {
        let series = format!("beamline_sidecar_health_checks_total{{outcome=\"{outcome}\"}}");
        assert!(running.metric(&series) >= 3.0, "{outcome}");
    }
    running.stop().await;
}

#[tokio::test]
async fn no_policy_sends_the_sidecar_to_a_host_that_is_not_listed() {
    let (listed, secret) = (Scripted::start().await, Scripted::start().await);
    let elsewhere = format!("location: {}/secret\r\n", secret.url());
    let redirect = format!("HTTP/1.1 302 X\r\n{elsewhere}content-length: 0\r\n\r\n");
    listed.on("GET /redirect", Say::Bytes(redirect.into_bytes()));
    listed.on("GET /own", status(200));
    let port = secret.address.port();
    let mut providers: Vec<(String, Option<Box<HealthCheck>>)> = [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://{}@127.0.0.1:{port}/", listed.address),
        format!("http://{}.evil:{port}/", listed.address.ip()),
        "file:///etc/passwd".to_owned(),
        "//127.0.0.1/".to_owned(),
        format!("{}/redirect", listed.url()),
    ]
    .into_iter()
    .enumerate()
    .map(|(index, url)| (format!("p{index}"), check(Some(url))))
    .collect();
    // The operator's own address needs no listing; a provider without any is not asked.
    providers.push(("owned".into(), check(None)));
    providers.push(("nowhere".into(), check(None)));
    let names: Vec<_> = providers
        .iter()
        .map(|(name, check)| (name.as_str(), check.clone()))
        .collect();
    let mut config = config(&[&listed]);
    config.allow = vec![listed.address.to_string()];
    config
        .endpoints
        .insert("owned".into(), format!("{}/own", listed.url()));
    let running = Running::start(config, vec![("acme", "chat", policy(None, &names))]);
    eventually("what is listed is asked again and again", || async {
        listed.count("GET /redirect") >= 5 && listed.count("GET /own") >= 5
    })
    .await;
    assert_eq!(secret.requests(), Vec::<String>::new());
    assert!(running.memory.health.is_empty());
    let request = listed.requests().swap_remove(0);
    assert!(
        request.contains("user-agent: beamline-sidecar-health-check"),
        "{request}"
    );
    running.stop().await;
}

#[tokio::test]
async fn five_hundred_tenants_with_one_provider_are_one_address() {
    let server = Scripted::start().await;
    server.on("GET /health", status(500));
    let url = format!("{}/health", server.url());
    let names: Vec<String> = (0..500).map(|index| format!("t{index}")).collect();
    let policies = names
        .iter()
        .map(|name| {
            (
                name.as_str(),
                "chat",
                policy(None, &[("openai", check(Some(url.clone())))]),
            )
        })
        .collect();
    let running = Running::start(config(&[&server]), policies);
    eventually("all are unhealthy", || async {
        running.memory.health.len() == 500
    })
    .await;
    // Three answers were enough, for all tenants; more may have come while this looked, but not one per tenant.
    let asked = server.count("GET /health");
    assert!((3..500).contains(&asked), "{asked}");
    running.stop().await;
}

#[tokio::test]
async fn what_a_snapshot_no_longer_asks_for_is_forgotten() {
    let server = Scripted::start().await;
    let url = |path: &str| check(Some(format!("{}/{path}", server.url())));
    server.on("GET /bad", status(500));
    server.on("GET /late", status(500));
    let policies = vec![
        ("acme", "chat", policy(None, &[("openai", url("bad"))])),
        ("other", "chat", policy(None, &[("openai", url("bad"))])),
        ("third", "chat", policy(None, &[("azure", url("late"))])),
    ];
    let running = Running::start(config(&[&server]), policies);
    for (tenant, provider) in [("acme", "openai"), ("other", "openai"), ("third", "azure")] {
        running.wait_for(tenant, provider, true).await;
    }
    put(&running.store, "acme", "chat", None);
    put(&running.store, "third", "chat", None);
    running.wait_for("acme", "openai", false).await;
    running.wait_for("third", "azure", false).await;
    assert!(running.is_unhealthy("other", "openai"), "that one is still asked");
    let (bad, late) = (server.count("GET /bad"), server.count("GET /late"));
    eventually("the others go on", || async {
        server.count("GET /bad") >= bad + 20
    })
    .await;
    // At most the one that was under way.
    assert!(server.count("GET /late") <= late + 1);
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_asked_unless_it_is_turned_on() {
    let server = Scripted::start().await;
    let url = check(Some(server.url()));
    let off = HealthChecksConfig {
        enabled: false,
        ..config(&[&server])
    };
    let running = Running::start(
        off,
        vec![("acme", "chat", policy(None, &[("openai", url.clone())]))],
    );
    running.running.await.unwrap();
    assert_eq!(server.requests(), Vec::<String>::new());
    // Nor where a policy's own check says that it is off.
    let mut disabled = url.clone();
    if let Some(check) = &mut disabled {
        check.enabled = false;
    }
    server.on("GET /", status(500));
    let policy = policy(url, &[("azure", None), ("openai", disabled)]);
    let running = Running::start(config(&[&server]), vec![("acme", "chat", policy)]);
    running.wait_for("acme", "azure", true).await;
    assert!(!running.is_unhealthy("acme", "openai"));
    running.stop().await;
}

#[tokio::test]
async fn a_policy_as_it_is_stored_is_read_for_its_checks() {
    let server = Scripted::start().await;
    server.on("GET /bad", status(500));
    let registry = Registry::new();
    let metrics = Arc::new(HealthCheckMetrics::register(&registry).unwrap());
    let store =
        Arc::new(SnapshotStore::start(SnapshotMetrics::register(&registry, 10).unwrap().into()).unwrap());
    let text = format!(
        r#"{{"providers": [{{"name": "openai", "weight": 100}}], "health_check":
            {{"enabled": true, "url": "{}/bad", "interval_ms": 1000, "unhealthy_threshold": 1}}}}"#,
        server.url()
    );
    put(&store, "acme", "chat", Some(text));
    put(&store, "acme", "plain", Some("{}".into()));
    let snapshot = store.load_full();
    let has = |id| {
        snapshot
            .tenant("acme")
            .unwrap()
            .found()
            .any(|(found, policy)| found.as_str() == id && policy.policy.has_health_check())
    };
    assert!(has("chat") && !has("plain"));
    drop(snapshot);
    let limits = MemoryLimits {
        sessions: 1,
        buckets: 1,
        providers: 1,
    };
    let (memory, stop) = (Arc::new(Memory::new(limits)), CancellationToken::new());
    let checker = HealthChecker::connect(config(&[&server]), metrics).unwrap();
    let running = tokio::spawn(checker.run(store, memory.clone(), stop.clone()));
    eventually("it is unhealthy", || async {
        memory.health.is_unhealthy(&tenant("acme"), "openai")
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    let registry = Registry::new();
    let metrics = Arc::new(HealthCheckMetrics::register(&registry).unwrap());
    let mut config = HealthChecksConfig::default();
    config.endpoints.insert("openai".into(), "ftp://a/".into());
    let refused = HealthChecker::connect(config, metrics.clone()).unwrap_err();
    assert!(matches!(refused, CheckerError::Endpoint { .. }), "{refused}");
    let config = HealthChecksConfig {
        allow: vec!["http://a/".into()],
        ..HealthChecksConfig::default()
    };
    let refused = HealthChecker::connect(config, metrics).unwrap_err();
    assert!(matches!(refused, CheckerError::Allow { .. }), "{refused}");
}
