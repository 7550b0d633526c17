//! The embedded HEIR: a policy store in one process, behind `beamline-sidecar store`.
//!
//! It serves the platform's calls, and those that make a sidecar fast: entity tags, a snapshot of everything,
//! a long poll for changes. Documents are stored and returned byte for byte. Every write is one transaction and
//! one revision, on disk before it is acknowledged.

mod aside;
mod chain;
mod changes;
mod check;
mod conditions;
mod db;
mod error;
mod import;
mod key;
mod modules;
mod opening;
mod pages;
mod place;
mod receive;
mod records;
mod routes;
mod rows;
mod service;
mod snapshot;
mod storage;
mod token;
mod transaction;
mod unnamed;
mod write;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

pub use crate::heir::Level;
pub use crate::listener::TlsFiles;
pub use error::StoreError;
pub use import::{BadFile, Import};
use prometheus::{IntCounter, IntGauge};
use secrecy::SecretString;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{db::Db, place::Place, service::Service, snapshot::Snapshots, token::Token};
use crate::{
    intake::BufferedBytes,
    listener::{self, Address, Bound, ConnectionLimits, ListenerMetrics, Stop, Tls},
};

/// How often a store checks whether another process wrote to its database.
const LOOK: Duration = Duration::from_secs(1);

/// The configuration of a store.
#[derive(Clone)]
pub struct StoreConfig {
    /// Where to listen.
    pub listen: Address,
    /// A file for SQLite, `:memory:`, or the URL of a Postgres: `postgres://…`.
    pub database: String,
    /// How much of the API is served.
    pub level: Level,
    /// A directory of `TENANT/POLICY.json` to import at the start.
    pub import: Option<PathBuf>,
    /// Whether documents are stored that every sidecar sets aside, to try what sidecars do with them.
    pub allow_invalid: bool,
    /// The token that clients must send as `Authorization: Bearer …`; `None` admits every client.
    pub token: Option<SecretString>,
    /// A file with that token instead, which is read again when it changes.
    pub token_file: Option<PathBuf>,
    /// The files of TLS; `None` serves HTTP.
    pub tls: Option<TlsFiles>,
    /// The largest policy or extension record, in bytes.
    pub max_body_bytes: usize,
    /// The largest module, in bytes.
    pub max_module_bytes: usize,
    /// The most bytes of bodies in memory at one time, of all clients together; one client, which is one address, may have
    /// half of them. The snapshot that all share is not counted.
    pub max_buffered_bytes: usize,
    /// How long a client may take to send a body; a large one has a second more for each 256 KiB that have arrived.
    pub body_timeout: Duration,
    /// How long a module is kept that no extension's record names; `None` keeps it for ever.
    pub modules_kept: Option<Duration>,
    /// How many changes are kept for `GET /api/v1/changes`.
    pub changes_kept: u64,
    /// The limits of each connection.
    pub limits: ConnectionLimits,
    /// How long requests may continue after the stop.
    pub drain: Duration,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            listen: Address::Tcp(([127, 0, 0, 1], 8081).into()),
            database: "heir.db".to_owned(),
            level: Level::default(),
            import: None,
            allow_invalid: false,
            token: None,
            token_file: None,
            tls: None,
            max_body_bytes: 1024 * 1024,
            max_module_bytes: 64 * 1024 * 1024,
            max_buffered_bytes: 256 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            modules_kept: Some(Duration::from_secs(30 * 24 * 60 * 60)),
            changes_kept: 100_000,
            limits: ConnectionLimits {
                max_connections: 4096,
                max_header_bytes: 16 * 1024,
                header_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(120),
            },
            drain: Duration::from_secs(10),
        }
    }
}

/// Without the database's URL, which may hold a password.
impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("listen", &self.listen)
            .field("database", &Place::parse(&self.database).to_string())
            .field("level", &self.level)
            .field("import", &self.import)
            .field("allow_invalid", &self.allow_invalid)
            .field("token", &self.token)
            .field("token_file", &self.token_file)
            .field("tls", &self.tls)
            .field("max_body_bytes", &self.max_body_bytes)
            .field("max_module_bytes", &self.max_module_bytes)
            .field("max_buffered_bytes", &self.max_buffered_bytes)
            .field("body_timeout", &self.body_timeout)
            .field("modules_kept", &self.modules_kept)
            .field("changes_kept", &self.changes_kept)
            .field("limits", &self.limits)
            .field("drain", &self.drain)
            .finish()
    }
}

/// A policy store that is ready to serve: its database open, its directory imported, its address bound.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    db: Arc<Db>,
    import: Option<Import>,
    bound: Bound,
    metrics: ListenerMetrics,
    buffered: IntGauge,
    token: Arc<Token>,
    tls: Option<Arc<Tls>>,
}

impl Store {
    /// Opens the database, imports, and binds. Everything that can fail does so here.
    pub async fn build(config: StoreConfig) -> Result<Self, StoreError> {
        let token = Token::open(config.token.clone(), config.token_file.clone());
        let token = Arc::new(token.map_err(StoreError::Token)?);
        let tls = config.tls.as_ref().map(Tls::open).transpose();
        let tls = tls.map_err(StoreError::Tls)?.map(Arc::new);
        let place = Place::parse(&config.database);
        let db = Db::open(&place, config.changes_kept)
            .await
            .map_err(|source| StoreError::database(&place, source))?;
        let db = Arc::new(db);
        db.look_for_news()
            .await
            .map_err(|source| StoreError::database(&place, source))?;
        let import = match &config.import {
            None => None,
            Some(directory) => {
                let import = import::import(&db, directory, config.max_body_bytes, config.allow_invalid)
                    .await
                    .map_err(|source| StoreError::Import {
                        path: directory.clone(),
                        source: source.into(),
                    })?;
                Some(import)
            }
        };
        let bound = Bound::bind(&config.listen, 0o660, false).map_err(|source| StoreError::Listen {
            address: config.listen.clone(),
            source,
        })?;
        let bound = match &tls {
            Some(tls) => bound.with_tls(tls.settings()),
            None => bound,
        };
        let metrics = ListenerMetrics {
            connections: IntGauge::new("store_connections", "Open connections of the policy store.")?,
            accept_errors: IntCounter::new("store_accept_errors_total", "Connections not accepted.")?,
        };
        Ok(Self {
            config,
            db,
            import,
            bound,
            metrics,
            token,
            tls,
            buffered: IntGauge::new("store_buffered_bytes", "Bytes of bodies in memory.")?,
        })
    }

    /// Where it listens; port 0 is replaced by the port that the kernel chose.
    pub fn address(&self) -> &Address {
        self.bound.address()
    }

    /// The result of the import, if one was configured.
    pub fn import(&self) -> Option<&Import> {
        self.import.as_ref()
    }

    /// Serves until `stop`, finishes the requests in progress, and closes the database.
    pub async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let service = Arc::new(Service {
            db: self.db.clone(),
            snapshots: Arc::new(Snapshots::new(self.db.clone())),
            level: self.config.level,
            token: self.token.clone(),
            allow_invalid: self.config.allow_invalid,
            max_body_bytes: self.config.max_body_bytes,
            max_module_bytes: self.config.max_module_bytes,
            body_timeout: self.config.body_timeout,
            buffered: Arc::new(BufferedBytes::new(self.config.max_buffered_bytes, self.buffered)),
            stopping: stop.clone(),
            tasks: tasks.clone(),
        });
        tasks.spawn(keep_watch(service.clone(), stop.clone()));
        tasks.spawn(keep_current(self.token, self.tls, stop.clone()));
        if let Some(kept) = self.config.modules_kept {
            tasks.spawn(remove_modules(self.db.clone(), kept, stop.clone()));
        }
        let stop = Stop {
            draining: stop.clone(),
            closing: stop,
        };
        listener::serve(
            self.bound,
            service,
            self.config.limits,
            self.metrics,
            stop,
            tasks.clone(),
        )
        .await;
        tasks.close();
        let ending = async {
            tasks.wait().await;
            self.db.close().await;
        };
        if timeout(self.config.drain, ending).await.is_err() {
            tracing::warn!("The policy store stopped before its last requests were answered.");
        }
    }
}

/// Once a second: reads the token and the certificates again.
async fn keep_current(token: Arc<Token>, tls: Option<Arc<Tls>>, stop: CancellationToken) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (token, tls) = (token.clone(), tls.clone());
        // A disk that hangs must not hang what is served.
        let looked = tokio::task::spawn_blocking(move || {
            token.refresh();
            if let Some(tls) = tls {
                tls.refresh();
            }
        });
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looked => {}
        }
    }
}

/// Removes modules that no record has named for so long.
async fn remove_modules(db: Arc<Db>, kept: Duration, stop: CancellationToken) {
    let mut ticks = interval((kept / 4).clamp(Duration::from_millis(100), Duration::from_secs(60 * 60)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match unnamed::remove(&db, kept).await {
            Ok(removed) => {
                for sha256 in removed {
                    tracing::info!(
                        sha256,
                        "A module that no extension has named for long was removed."
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "Could not look for modules that no extension names."),
        }
    }
}

/// Once a second: notices writes of other processes, and drops a snapshot that is no longer requested.
async fn keep_watch(service: Arc<Service>, stop: CancellationToken) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        service.snapshots.drop_unused();
        // Said in the log at once, and not by the next write.
        let _said = service.db.storage.check_file();
        if service.db.storage.trouble().is_some() {
            service.db.try_disk().await;
        }
        if service.db.news.receiver_count() == 0 {
            continue;
        }
        if let Err(error) = service.db.look_for_news().await {
            tracing::warn!(%error, "Could not look for changes of other processes.");
        }
    }
}
