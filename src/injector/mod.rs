//! The webhook that puts the sidecar into pods while they are created.
//!
//! ```text
//!  API server ─ TLS ─► webhook ─► review ─► inject (pure) ─► patch
//!  fragment (ConfigMap), certificates (Secret, or files) ─ looked at again by their content ─┘
//! ```

mod certificates;
mod error;
mod fragment_file;
mod metrics;
mod probes;
mod review;
mod webhook;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use prometheus::Registry;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    certificates::Source,
    fragment_file::FragmentFile,
    metrics::InjectorMetrics,
    probes::{Probes, Readiness},
    webhook::Webhook,
};
pub use self::{
    certificates::{Certificates, Lifetimes, SelfManaged},
    error::InjectorError,
};
use crate::listener::{self, Address, Bound, ConnectionLimits, ListenersMetrics, Stop};

/// The configuration of an injector.
#[derive(Debug, Clone)]
pub struct InjectorConfig {
    /// Where the API server reaches the webhook.
    pub listen: Address,
    /// Where `/live`, `/ready` and `/metrics` are.
    pub admin_listen: Address,
    /// The file with the fragment.
    pub fragment: PathBuf,
    /// Where the certificate is from.
    pub certificates: Certificates,
    /// How often files and certificates are looked at again.
    pub look: Duration,
    /// How long it serves on after the stop, until no API server calls it any more.
    pub lame_duck: Duration,
    /// How long requests may continue after that.
    pub drain: Duration,
    /// The limits of each connection.
    pub limits: ConnectionLimits,
}

/// An injector that is ready to serve: its fragment read, its addresses bound.
#[derive(Debug)]
pub struct Injector {
    config: InjectorConfig,
    fragment: Arc<FragmentFile>,
    source: Arc<Source>,
    metrics: Arc<InjectorMetrics>,
    listeners: ListenersMetrics,
    registry: Registry,
    readiness: Arc<Readiness>,
    webhook: Bound,
    admin: Bound,
}

impl Injector {
    /// Reads the fragment and the certificate, and binds. Everything that can fail for ever does so here.
    ///
    /// # Errors
    /// What keeps it from serving.
    pub fn build(config: InjectorConfig) -> Result<Self, InjectorError> {
        let registry = Registry::new();
        let metrics = Arc::new(InjectorMetrics::register(&registry)?);
        let listeners = ListenersMetrics::register(&registry)?;
        let fragment = FragmentFile::open(config.fragment.clone()).map_err(InjectorError::Fragment)?;
        fragment.report(&metrics);
        let readiness = Arc::new(Readiness::default());
        let source = Source::open(&config.certificates, metrics.clone(), readiness.clone())?;
        let bind = |address: &Address| {
            Bound::bind(address, 0o660, false).map_err(|source| InjectorError::Listen {
                address: address.clone(),
                source,
            })
        };
        Ok(Self {
            webhook: bind(&config.listen)?.with_tls(source.settings()),
            admin: bind(&config.admin_listen)?,
            fragment: Arc::new(fragment),
            source: Arc::new(source),
            metrics,
            listeners,
            registry,
            readiness,
            config,
        })
    }

    /// Where the webhook listens; port 0 is replaced by the port that the kernel chose.
    pub fn address(&self) -> &Address {
        self.webhook.address()
    }

    /// Where the probes are answered.
    pub fn admin_address(&self) -> &Address {
        self.admin.address()
    }

    /// How long a stop may take.
    pub fn longest_stop(&self) -> Duration {
        self.config.lame_duck + self.config.drain
    }

    /// Serves until `stop`, goes on until no API server calls it any more, and finishes the requests in progress.
    pub async fn run(self, stop: CancellationToken) {
        let (tasks, ending, background) = (TaskTracker::new(), Stop::default(), TaskTracker::new());
        let over = CancellationToken::new();
        background.spawn(keep_current(
            self.fragment.clone(),
            self.metrics.clone(),
            self.source.clone(),
            self.config.look,
            over.clone(),
        ));
        let readiness = self.readiness.clone();
        let webhook = listener::serve(
            self.webhook,
            Arc::new(Webhook::new(self.fragment, self.metrics)),
            self.config.limits.clone(),
            self.listeners.listener("webhook"),
            ending.clone(),
            tasks.clone(),
        );
        // Probes are answered until the end.
        let probes_end = Stop::default();
        let probes = listener::serve(
            self.admin,
            Arc::new(Probes {
                readiness: readiness.clone(),
                registry: self.registry,
            }),
            self.config.limits,
            self.listeners.listener("admin"),
            probes_end.clone(),
            background.clone(),
        );
        let stopping = async {
            stop.cancelled().await;
            readiness.is_stopping.store(true, Relaxed);
            ending.draining.cancel();
            // The pod is taken out of its Service meanwhile; API servers that have not heard of it still call.
            sleep(self.config.lame_duck).await;
            ending.closing.cancel();
        };
        let serving = async {
            tokio::join!(webhook, stopping);
            tasks.close();
            if timeout(self.config.drain, tasks.wait()).await.is_err() {
                tracing::warn!("The injector stopped before its last reviews were answered.");
            }
            over.cancel();
            probes_end.closing.cancel();
        };
        tokio::join!(serving, probes);
    }
}

/// Looks at the fragment and the certificates again and again.
async fn keep_current(
    fragment: Arc<FragmentFile>,
    metrics: Arc<InjectorMetrics>,
    source: Arc<Source>,
    look: Duration,
    over: CancellationToken,
) {
    let mut ticks = interval(look);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let read = (fragment.clone(), metrics.clone());
        // A disk that hangs must not hang what is served.
        let looked = tokio::task::spawn_blocking(move || {
            read.0.refresh();
            read.0.report(&read.1);
        });
        tokio::select! {
            () = over.cancelled() => return,
            _ = async { tokio::join!(looked, source.look()) } => {}
        }
    }
}
