//! An API server that keeps a few objects as a real one does: with versions, so that a write of something outdated fails.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use beamline_sidecar::{
    injector::{Certificates, Lifetimes, SelfManaged},
    listener::{self, Address, Bound, ConnectionLimits, Handler, ListenerMetrics, Peer, Reply, Stop},
    respond::{Response, json},
};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prometheus::{IntCounter, IntGauge};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

const SECRET: &str = "/api/v1/namespaces/apps/secrets/injector-cert";
const WEBHOOK: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/injector";

pub(super) fn limits() -> ConnectionLimits {
    ConnectionLimits {
        max_connections: 64,
        max_header_bytes: 16 * 1024,
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
    }
}

/// The objects, by path.
#[derive(Default)]
struct Objects {
    objects: Mutex<BTreeMap<String, Value>>,
    versions: AtomicU64,
    conflicts: AtomicU64,
    unauthorized: AtomicU64,
}

/// The API server.
pub(super) struct Cluster {
    objects: Arc<Objects>,
    address: Address,
    service_account: TempDir,
}

impl Cluster {
    /// With an empty Secret and a configuration of two webhooks, as the chart makes them.
    pub(super) fn start() -> Self {
        let objects = Arc::new(Objects::default());
        objects.put(
            SECRET,
            json!({"metadata": {"name": "injector-cert", "labels": {"of": "the chart"}}, "type": "Opaque"}),
        );
        let webhook = |name: &str| json!({"name": name, "clientConfig": {"service": {"name": "injector"}}, "later": "field"});
        objects.put(
            WEBHOOK,
            json!({"metadata": {"name": "injector"}, "webhooks": [webhook("a"), webhook("b")]}),
        );
        let bound = Bound::bind(&Address::Tcp(([127, 0, 0, 1], 0).into()), 0o600, false).unwrap();
        let address = bound.address().clone();
        let metrics = ListenerMetrics {
            connections: IntGauge::new("c", "c").unwrap(),
            accept_errors: IntCounter::new("e", "e").unwrap(),
        };
        tokio::spawn(listener::serve(
            bound,
            objects.clone(),
            limits(),
            metrics,
            Stop::default(),
            TaskTracker::new(),
        ));
        let service_account = tempfile::tempdir().unwrap();
        std::fs::write(service_account.path().join("token"), "a token\n").unwrap();
        Self {
            objects,
            address,
            service_account,
        }
    }

    /// How an injector of this cluster is told to make its certificates.
    pub(super) fn certificates(&self, lifetimes: Lifetimes) -> Certificates {
        Certificates::SelfManaged(SelfManaged {
            api_server: format!("http://{}", self.address),
            service_account: PathBuf::from(self.service_account.path()),
            namespace: "apps".to_owned(),
            secret: "injector-cert".to_owned(),
            webhook_configuration: "injector".to_owned(),
            names: vec!["injector.apps.svc".to_owned()],
            lifetimes,
        })
    }

    pub(super) fn secret(&self) -> Value {
        self.objects.get(SECRET)
    }

    pub(super) fn webhook(&self) -> Value {
        self.objects.get(WEBHOOK)
    }

    /// Tears the content of the Secret, as an operator might.
    pub(super) fn tear_secret(&self) {
        let mut secret = self.secret();
        secret["data"]["ca.key"] = STANDARD.encode("torn").into();
        self.objects.put(SECRET, secret);
    }

    /// The authorities that the API server trusts, in PEM.
    pub(super) fn bundle(&self) -> String {
        let bundle = self.webhook()["webhooks"][0]["clientConfig"]["caBundle"].clone();
        String::from_utf8(STANDARD.decode(bundle.as_str().unwrap_or_default()).unwrap()).unwrap()
    }

    pub(super) fn conflicts(&self) -> u64 {
        self.objects.conflicts.load(SeqCst)
    }

    pub(super) fn unauthorized(&self) -> u64 {
        self.objects.unauthorized.load(SeqCst)
    }
}

impl Objects {
    fn get(&self, path: &str) -> Value {
        self.objects
            .lock()
            .unwrap()
            .get(path)
            .cloned()
            .unwrap_or_default()
    }

    fn put(&self, path: &str, mut object: Value) {
        let version = self.versions.fetch_add(1, SeqCst).to_string();
        object["metadata"]["resourceVersion"] = version.into();
        self.objects.lock().unwrap().insert(path.to_owned(), object);
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> Response {
        let fail = |status: StatusCode| json(status, &json!({"kind": "Status", "message": "no"}));
        let mut objects = self.objects.lock().unwrap();
        let Some(object) = objects.get_mut(path) else {
            return fail(StatusCode::NOT_FOUND);
        };
        let mut next = match *method {
            Method::GET => return json(StatusCode::OK, object),
            Method::PUT => {
                let next: Value = serde_json::from_slice(body).unwrap();
                if next["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                    self.conflicts.fetch_add(1, SeqCst);
                    return fail(StatusCode::CONFLICT);
                }
                next
            }
            Method::PATCH => {
                let patch: json_patch::Patch = serde_json::from_slice(body).unwrap();
                let mut next = object.clone();
                if json_patch::patch(&mut next, &patch).is_err() {
                    self.conflicts.fetch_add(1, SeqCst);
                    return fail(StatusCode::UNPROCESSABLE_ENTITY);
                }
                next
            }
            _ => return fail(StatusCode::METHOD_NOT_ALLOWED),
        };
        let version = self.versions.fetch_add(1, SeqCst).to_string();
        next["metadata"]["resourceVersion"] = version.into();
        *object = next;
        json(StatusCode::OK, object)
    }
}

impl Handler for Objects {
    fn handle(self: &Arc<Self>, request: http::Request<Incoming>, _peer: Peer) -> Reply {
        let objects = self.clone();
        Reply::Later(Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            if head
                .headers
                .get("authorization")
                .is_none_or(|token| token != "Bearer a token")
            {
                objects.unauthorized.fetch_add(1, SeqCst);
            }
            objects.answer(&head.method, head.uri.path(), &body)
        }))
    }
}
