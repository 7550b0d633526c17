//! The admin listener: probes and metrics for everyone, the rest for operators.
//!
//! Everything but the open paths needs the token; without a token configured, a client on this machine.

mod access;
mod extensions;
mod health;
mod memory;
mod openapi;
mod pages;
mod writes;

use std::{path::PathBuf, sync::Arc};

use http::{Method, Request};
use hyper::body::Incoming;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::Access;
pub use openapi::document as openapi;

use crate::{
    decide::memory::Memory,
    extensions::ExtensionMetrics,
    failure::{ErrorCode, Failure},
    heir::HeirClient,
    intake::IntakeMetrics,
    listener::{Handler, Peer, Reply},
    readiness::Readiness,
    refresh::{Directory, Refresher},
    respond::{self, Response},
    snapshot::SnapshotStore,
    telemetry::Logs,
    write::Writer,
};

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Where `/live`, `/ready`, `/metrics` and `/admin/*` are: `IP:PORT` or `unix:/absolute/path`.
    pub listen: String,
    /// File with the bearer token for `/admin/*`; read again when it changes. Empty: `/admin/*` is for clients on
    /// this machine only.
    pub token_file: PathBuf,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:9901".into(),
            token_file: PathBuf::new(),
        }
    }
}

/// Answers the admin listener.
#[derive(Debug)]
pub struct Admin {
    pub access: Access,
    pub store: Arc<SnapshotStore>,
    pub client: Option<Arc<HeirClient>>,
    pub refresher: Option<Arc<Refresher>>,
    pub writer: Arc<Writer>,
    pub readiness: Arc<Readiness>,
    pub registry: prometheus::Registry,
    pub intake_metrics: Arc<IntakeMetrics>,
    pub extension_metrics: Arc<ExtensionMetrics>,
    pub logs: Logs,
    pub directory: Option<Arc<Directory>>,
    pub memory: Arc<Memory>,
}

impl Handler for Admin {
    fn handle(self: &Arc<Self>, request: Request<Incoming>, peer: Peer) -> Reply {
        let path = request.uri().path();
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        // The whole list of what is open; compared exactly, so that no path can pretend to be one of them.
        match path {
            "/live" if reading => return Reply::Ready(health::live()),
            "/ready" if reading => return Reply::Ready(self.ready()),
            "/metrics" if reading => return Reply::Ready(self.scrape()),
            _ => {}
        }
        if let Err(failure) = self.access.check(&request, peer) {
            return Reply::Ready(respond::failure(failure));
        }
        let this = self.clone();
        Reply::Later(Box::pin(async move {
            this.page(request).await.unwrap_or_else(respond::failure)
        }))
    }
}

impl Admin {
    async fn page(&self, request: Request<Incoming>) -> Result<Response, Failure> {
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let segments: Vec<&str> = parts.uri.path().trim_start_matches('/').split('/').collect();
        match (&parts.method, segments.as_slice()) {
            (&Method::GET, ["admin", "snapshot"]) => Ok(self.snapshot()),
            (&Method::GET, ["admin", "policies"]) => self.policies(&query),
            (&Method::POST, ["admin", "refresh"]) => self.refresh(&query).await,
            (&Method::GET, ["admin", "log"]) => Ok(self.log()),
            (&Method::PUT | &Method::POST, ["admin", "log"]) => self.set_log(body).await,
            (&Method::GET, ["admin", "writes"]) => Ok(self.writes()),
            (&Method::POST, ["admin", "writes", id, action]) => self.settle(id, action).await,
            (&Method::GET, ["admin", "policies", tenant, policy]) => self.policy(tenant, policy),
            (&Method::GET, ["admin", "sticky"]) => self.sessions(&query),
            (&Method::DELETE, ["admin", "sticky"]) => self.forget_sessions(&query),
            (&Method::GET, ["admin", "providers"]) => self.providers(&query),
            (&Method::POST, ["admin", "providers"]) => self.change_provider(&query),
            (&Method::GET, ["admin", "rate-limits"]) => self.rate_limits(&query),
            (&Method::DELETE, ["admin", "rate-limits"]) => self.reset_rate_limit(&query),
            (&Method::GET, ["admin", "openapi.json"]) => Ok(openapi::page()),
            (&Method::GET, ["admin", "extensions"]) => self.extensions(&query),
            (&Method::GET, ["admin", "extensions", "health"]) => self.extension_health(),
            (&Method::GET, ["admin", "extensions", "circuit-breakers"]) => self.extension_breakers(),
            (&Method::POST, ["admin", "extensions", "reload"]) => self.reload_extensions().await,
            (&Method::GET, ["admin", "extensions", id]) => self.extension(id),
            (&Method::POST, ["admin", "extensions", id, action]) => self.change_extension(id, action).await,
            (_, ["admin", "extensions", "reload"] | ["admin", "extensions", _, _]) => {
                Err(Failure::method_not_allowed("POST"))
            }
            (_, ["admin", "extensions"] | ["admin", "extensions", _]) => {
                Err(Failure::method_not_allowed("GET"))
            }
            (_, ["admin", "sticky" | "rate-limits"]) => Err(Failure::method_not_allowed("GET, DELETE")),
            (_, ["admin", "providers"]) => Err(Failure::method_not_allowed("GET, POST")),
            (_, ["admin", "openapi.json"] | ["admin", "policies", _, _]) => {
                Err(Failure::method_not_allowed("GET"))
            }
            (_, ["live" | "ready" | "metrics"] | ["admin", "snapshot" | "policies" | "writes"]) => {
                Err(Failure::method_not_allowed("GET"))
            }
            (_, ["admin", "log"]) => Err(Failure::method_not_allowed("GET, PUT, POST")),
            (_, ["admin", "refresh"] | ["admin", "writes", _, _]) => Err(Failure::method_not_allowed("POST")),
            _ => Err(Failure::new(
                ErrorCode::NotFound,
                "there is no such page; see docs/operations.md",
            )),
        }
    }
}

/// The parameters of a query. Values are names and flags that need no decoding.
struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    fn parse(query: &'a str) -> Self {
        Self(
            query
                .split('&')
                .filter(|p| !p.is_empty())
                .map(|p| p.split_once('=').unwrap_or((p, "")))
                .collect(),
        )
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| *value)
    }
}
