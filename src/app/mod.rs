//! Puts everything together. Building may fail: it reads, connects what can be connected, and binds every socket.
//! Running does not fail: it serves until told to stop, and then finishes what was begun.

mod data_runtime;
mod metrics;
mod reload;
mod tasks;
mod upkeep;
mod watch;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use reload::ConfigSource;

use self::{data_runtime::DataRuntime, metrics::Metrics, reload::Reloader, tasks::Tasks};
use crate::{
    admin::{Access, Admin},
    clock,
    config::Config,
    decide::memory::{Memory, persist},
    extensions::ExtensionHost,
    forward::Forwarder,
    health_check::{CheckerError, HealthChecker},
    heir::{BaseUrl, ConnectError, HeirClient, InvalidBaseUrl},
    intake::{Intake, WaitingRequests},
    listener::{Address, Bound, ConnectionLimits, InvalidAddress, Stop, serve},
    policy::TenantId,
    readiness::Readiness,
    refresh::{Directory, DiskSnapshot, Fetcher, Refresher, Restored},
    route::{Router, Upstream},
    snapshot::SnapshotStore,
    telemetry::{Logs, chain},
    write::{Journal, JournalError, Writer},
};

/// Why the sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("cannot listen at {address}")]
    Listen {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error("admin.listen")]
    AdminListen(#[from] InvalidAddress),
    #[error("heir.url")]
    HeirUrl(#[from] InvalidBaseUrl),
    #[error("cannot prepare the connection to HEIR")]
    Connect(#[from] ConnectError),
    #[error("admin.token_file")]
    Token(#[source] io::Error),
    #[error("cannot use state_dir {path}")]
    StateDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("state_dir {path} is in use by another process; give each sidecar a directory of its own")]
    StateDirInUse { path: PathBuf },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot read policies_dir {path}")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read extensions_dir {path}")]
    ExtensionsDirectory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("health_checks")]
    HealthChecks(#[from] CheckerError),
    #[error("two metrics have the same name")]
    Metrics(#[from] prometheus::Error),
}

/// A sidecar that is ready to run: its state read, its sockets bound.
#[derive(Debug)]
pub struct App {
    config: Config,
    /// Held for as long as this process uses the state directory.
    _state_lock: Option<File>,
    data: DataRuntime,
    listeners: Vec<Bound>,
    admin_listener: Bound,
    router: Arc<Router>,
    admin: Arc<Admin>,
    store: Arc<SnapshotStore>,
    client: Option<Arc<HeirClient>>,
    refresher: Option<Arc<Refresher>>,
    writer: Arc<Writer>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    directory: Option<Arc<Directory>>,
    memory: Arc<Memory>,
    checker: Option<HealthChecker>,
    reloader: Reloader,
    fetches: TaskTracker,
    restored: mpsc::Receiver<Restored>,
}

/// How a process tells the sidecar to stop.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Finish what is under way, then end.
    pub gracefully: CancellationToken,
    /// End now.
    pub at_once: CancellationToken,
}

impl App {
    /// Builds from a configuration that was checked.
    pub fn build(config: Config, source: ConfigSource, logs: Logs) -> Result<Self, BuildError> {
        let metrics = Arc::new(Metrics::register(config.metrics.max_tenant_labels)?);
        let state_dir = Some(config.state_dir.as_path()).filter(|dir| !dir.as_os_str().is_empty());
        let state_lock = state_dir.map(lock_state_dir).transpose()?;
        let host = extension_host(&config, state_dir, &source, &metrics)?;
        let store = SnapshotStore::start_with(metrics.snapshot.clone(), Some(host.clone()))
            .map_err(BuildError::Thread)?;
        let store = Arc::new(store);
        let refresh = &config.refresh;
        store.freshness().set_limits(
            refresh.stale_after_ms,
            refresh.expired_after_ms,
            refresh.when_expired,
        );
        if let Some(dir) = state_dir {
            load_disk(dir, &store);
        }
        let journal = match state_dir {
            Some(dir) => open_journal(dir)?,
            None => Journal::in_memory(),
        };
        let fetches = TaskTracker::new();
        let (restores, restored) = mpsc::channel(4);
        let live = Arc::new(ArcSwap::from_pointee(config.refresh.clone()));
        let upstream = connect(&config, &store, &live, &metrics, &fetches, restores)?;
        let client = upstream.as_ref().map(|upstream| upstream.client.clone());
        let fetcher = upstream.as_ref().map(|upstream| upstream.fetcher.clone());
        let refresher = upstream.as_ref().map(|upstream| upstream.refresher.clone());
        if upstream.is_none() {
            store.freshness().set_authoritative();
            store.edit(|draft| draft.set_coverage(crate::snapshot::Coverage::Whole));
        }
        let writer = Arc::new(Writer::new(
            client.clone(),
            store.clone(),
            fetcher.clone(),
            journal,
            metrics.write.clone(),
        ));
        writer.configure(&config.writes);
        let readiness = Arc::new(Readiness::new(store.clone(), refresher.clone()));
        let directory = load_directory(&config, &store, &readiness)?;
        let memory = remembered(&config, state_dir);
        let checker = config
            .health_checks
            .enabled
            .then(|| HealthChecker::connect(config.health_checks.clone(), metrics.health_check.clone()))
            .transpose()?;
        let waiting = Arc::new(WaitingRequests::new(
            config.limits.max_waiting_requests,
            metrics.intake.waiting_requests.clone(),
        ));
        let intake = Arc::new(Intake::new(
            &config.decide,
            store.clone(),
            fetcher,
            waiting.clone(),
            memory.clone(),
            host,
            metrics.intake.clone(),
        ));
        let router = Router::new(
            store.clone(),
            upstream,
            writer.clone(),
            readiness.clone(),
            config.limits.clone(),
            metrics.route.clone(),
            intake,
            waiting,
        );
        let admin = Arc::new(Admin {
            access: Access::load(&config.admin).map_err(BuildError::Token)?,
            store: store.clone(),
            client: client.clone(),
            refresher: refresher.clone(),
            writer: writer.clone(),
            readiness: readiness.clone(),
            registry: metrics.registry.clone(),
            intake_metrics: metrics.intake.clone(),
            extension_metrics: metrics.extensions.clone(),
            logs: logs.clone(),
            directory: directory.clone(),
            memory: memory.clone(),
        });
        let data = DataRuntime::start(config.runtime.workers).map_err(BuildError::Thread)?;
        let listeners = data.within(|| {
            let addresses = config.listen_addresses();
            addresses
                .iter()
                .map(|address| bind(&config, address))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let admin_listener = bind(&config, &config.admin.listen.parse()?)?;
        let reloader = Reloader::new(source, config.clone(), live, logs, metrics.clone());
        Ok(Self {
            config,
            _state_lock: state_lock,
            data,
            listeners,
            admin_listener,
            router,
            admin,
            store,
            client,
            refresher,
            writer,
            readiness,
            metrics,
            directory,
            memory,
            checker,
            reloader,
            fetches,
            restored,
        })
    }

    /// Where the Router reaches this sidecar; ports that were 0 are now what the kernel chose.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners
            .iter()
            .map(|bound| bound.address().clone())
            .collect()
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> &Address {
        self.admin_listener.address()
    }

    /// Serves until told to stop. `reload` wakes a re-read of the configuration, besides changes of the files.
    pub async fn run(self, shutdown: Shutdown, reload: mpsc::Receiver<()>) {
        let background = CancellationToken::new();
        let tasks = Tasks::new();
        let stop = Stop::default();
        let admin_stop = Stop::default();
        let connections = TaskTracker::new();
        let limits = self.config.limits.connection();
        for bound in self.listeners {
            let name = match bound.address() {
                Address::Tcp(_) => "data",
                Address::Unix(_) => "data_unix",
            };
            let metrics = self.metrics.listeners.listener(name);
            let served = serve(
                bound,
                self.router.clone(),
                limits.clone(),
                metrics,
                stop.clone(),
                connections.clone(),
            );
            connections.spawn_on(served, self.data.handle());
        }
        let admin_limits = ConnectionLimits {
            max_connections: 256,
            ..limits
        };
        let admin_connections = TaskTracker::new();
        admin_connections.spawn(serve(
            self.admin_listener,
            self.admin.clone(),
            admin_limits,
            self.metrics.listeners.listener("admin"),
            admin_stop.clone(),
            admin_connections.clone(),
        ));
        if let (Some(refresher), Some(client)) = (&self.refresher, &self.client) {
            let (refresher, stopping) = (refresher.clone(), background.clone());
            tasks.spawn("refresh", async move { refresher.run(stopping).await });
            let interval = Duration::from_millis(self.config.heir.health_interval_ms);
            tasks.spawn(
                "health",
                check_health(client.clone(), interval, background.clone()),
            );
            let (writer, restored, stopping) = (self.writer.clone(), self.restored, background.clone());
            tasks.spawn("replay", async move { writer.run(restored, stopping).await });
        }
        if self._state_lock.is_some() {
            let disk = DiskSnapshot::new(&self.config.state_dir);
            tasks.spawn("disk", disk.run(self.store.clone(), background.clone()));
        }
        tasks.spawn(
            "upkeep",
            upkeep::run(self.store.clone(), self.memory.clone(), background.clone()),
        );
        tasks.spawn(
            "modules",
            upkeep::fetch_modules(self.store.clone(), self.client.clone(), background.clone()),
        );
        if let Some(checker) = self.checker {
            tasks.spawn(
                "health_checks",
                checker.run(self.store.clone(), self.memory.clone(), background.clone()),
            );
        }
        if self.config.decide.persist && self._state_lock.is_some() {
            let (dir, every) = (
                self.config.state_dir.clone(),
                self.config.decide.persist_interval_ms,
            );
            let every = Duration::from_millis(every);
            tasks.spawn(
                "remember",
                persist::run(self.memory.clone(), dir, every, background.clone()),
            );
        }
        let reloaded = reload::Targets {
            store: self.store.clone(),
            client: self.client.clone(),
            refresher: self.refresher.clone(),
            writer: self.writer.clone(),
            admin: self.admin.clone(),
            readiness: self.readiness.clone(),
            directory: self.directory.clone(),
        };
        tasks.spawn("reload", self.reloader.run(reloaded, reload, background.clone()));

        shutdown.gracefully.cancelled().await;
        let at_once = shutdown.at_once.clone();
        let graceful = async {
            tracing::info!("Stopping: clients are told to go elsewhere.");
            self.readiness.stop();
            stop.draining.cancel();
            tokio::time::sleep(Duration::from_millis(self.config.shutdown.lame_duck_ms)).await;
            stop.closing.cancel();
            connections.close();
            self.fetches.close();
            let drain = Duration::from_millis(self.config.shutdown.drain_timeout_ms);
            if tokio::time::timeout(drain, connections.wait()).await.is_err() {
                tracing::warn!(
                    connections = connections.len(),
                    "Some clients did not finish in time."
                );
            }
            background.cancel();
            tasks.finish(drain).await;
            admin_stop.closing.cancel();
            admin_connections.close();
            // Whoever still reads a probe's answer gets it; nobody else is worth waiting for.
            let _late = tokio::time::timeout(Duration::from_millis(200), admin_connections.wait()).await;
            tracing::info!("Stopped.");
        };
        tokio::select! {
            () = graceful => {}
            () = at_once.cancelled() => tracing::warn!("Stopped at once, on a second signal."),
        }
    }
}

fn bind(config: &Config, address: &Address) -> Result<Bound, BuildError> {
    Bound::bind(address, config.unix_mode_bits(), config.reuse_port).map_err(|source| BuildError::Listen {
        address: address.clone(),
        source,
    })
}

/// The state directory is private, and one process's at a time.
fn lock_state_dir(dir: &Path) -> Result<File, BuildError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |source| BuildError::StateDir {
        path: dir.to_owned(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    let lock = match File::create(dir.join("lock")) {
        Ok(lock) => lock,
        // What is on a disk that went read-only, or is full, is still worth reading; the directory locks as well.
        Err(error) if cannot_write(&error) => {
            tracing::error!(%error, path = %dir.display(), "state_dir cannot be written; what is in it is used.");
            File::open(dir).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(BuildError::StateDirInUse { path: dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn cannot_write(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | StorageFull)
}

fn load_disk(dir: &Path, store: &SnapshotStore) {
    let (loaded, refused) = DiskSnapshot::new(dir).load();
    for reason in refused {
        tracing::error!(reason, "A disk snapshot cannot be used.");
    }
    if let Some(loaded) = loaded {
        let (policies, revision) = (loaded.incoming.len(), loaded.incoming.position.revision);
        tracing::info!(policies, revision, "Read the disk snapshot.");
        if let Some(host) = store.extensions() {
            host.obtain_here(&loaded.incoming.extensions);
        }
        store.restore(loaded.incoming, &loaded.listed, loaded.confirmed);
    }
}

/// Whoever runs extensions, with those of the local directory read and compiled.
fn extension_host(
    config: &Config,
    state_dir: Option<&Path>,
    source: &ConfigSource,
    metrics: &Arc<Metrics>,
) -> Result<Arc<ExtensionHost>, BuildError> {
    let dir = Some(config.extensions_dir.as_path()).filter(|dir| !dir.as_os_str().is_empty());
    let program = if source.program.as_os_str().is_empty() {
        PathBuf::from("/proc/self/exe")
    } else {
        source.program.clone()
    };
    let host = ExtensionHost::new(
        config.extensions.clone(),
        dir,
        state_dir,
        program,
        metrics.extensions.clone(),
    );
    if let Some(path) = dir {
        let records = host
            .read_directory()
            .map_err(|source| BuildError::ExtensionsDirectory {
                path: path.to_owned(),
                source,
            })?;
        tracing::info!(records, path = %path.display(), "Read the local extensions.");
        host.obtain_here(&crate::snapshot::ExtensionRecords::new());
    }
    Ok(Arc::new(host))
}

/// The decision's memory, with what an earlier run left of it where that is wanted.
fn remembered(config: &Config, state_dir: Option<&Path>) -> Arc<Memory> {
    let memory = Memory::new(config.decide.memory_limits());
    if let Some(dir) = state_dir.filter(|_| config.decide.persist) {
        match persist::load(&memory, dir, clock::now()) {
            Ok(loaded) => tracing::info!(?loaded, "Read what decisions remember."),
            Err(error) => tracing::error!(error = chain(&error), "Decisions begin with an empty memory."),
        }
    }
    Arc::new(memory)
}

fn open_journal(dir: &Path) -> Result<Journal, BuildError> {
    let (journal, refused) = Journal::open(dir)?;
    for reason in refused {
        tracing::error!(reason, "A write in the journal cannot be read.");
    }
    let (queued, conflicts) = journal.counts();
    if queued + conflicts > 0 {
        tracing::warn!(queued, conflicts, "The journal holds writes of an earlier run.");
    }
    Ok(journal)
}

fn load_directory(
    config: &Config,
    store: &SnapshotStore,
    readiness: &Readiness,
) -> Result<Option<Arc<Directory>>, BuildError> {
    let path = &config.policies_dir;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let directory = Directory::new(path, config.limits.max_body_bytes);
    let policies = directory
        .load_into(store)
        .map_err(|source| BuildError::Directory {
            path: path.clone(),
            source,
        })?;
    tracing::info!(policies, path = %path.display(), "Read the local policies.");
    if policies > 0 {
        readiness.has_files();
    }
    Ok(Some(Arc::new(directory)))
}

/// Prepares everything that speaks to HEIR, if there is one.
fn connect(
    config: &Config,
    store: &Arc<SnapshotStore>,
    live: &Arc<ArcSwap<crate::refresh::RefreshConfig>>,
    metrics: &Arc<Metrics>,
    fetches: &TaskTracker,
    restores: mpsc::Sender<Restored>,
) -> Result<Option<Upstream>, BuildError> {
    let Some(url) = config.heir_url() else {
        return Ok(None);
    };
    let timeout = Duration::from_millis(config.heir_timeout_ms());
    let client = Arc::new(HeirClient::connect(
        config.heir.clone(),
        BaseUrl::parse(&url)?,
        timeout,
        metrics.heir.clone(),
    )?);
    let policy_bytes = config.limits.max_body_bytes;
    let fetcher = Fetcher::new(
        client.clone(),
        store.clone(),
        live.clone(),
        policy_bytes,
        fetches.clone(),
    );
    let tenants = config
        .heir
        .tenants
        .iter()
        .filter_map(|tenant| TenantId::parse(tenant).ok())
        .collect();
    let refresher = Refresher::new(
        client.clone(),
        store.clone(),
        live.clone(),
        tenants,
        policy_bytes,
        config.heir.max_answer_bytes,
        metrics.refresh.clone(),
        restores,
    );
    Ok(Some(Upstream {
        forwarder: Forwarder::new(client.clone()),
        client,
        fetcher: Arc::new(fetcher),
        refresher: Arc::new(refresher),
    }))
}

/// Asks HEIR's health from time to time, and looks whether the files it is reached with have changed.
async fn check_health(client: Arc<HeirClient>, interval: Duration, stop: CancellationToken) {
    loop {
        client.reread_files();
        if let Err(error) = client.check_health().await {
            tracing::debug!(error = error.chain(), "HEIR is not healthy.");
        }
        let pause = crate::heir::jittered(interval, &mut fastrand::Rng::new());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
