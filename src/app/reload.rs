//! Applies changes of the configuration and of the files it names, while everything runs.
//!
//! A configuration with a mistake changes nothing, and every mistake is reported. Of a valid one, the live keys are
//! applied; the others are listed, because they wait for a restart.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::watch::Watched;
use crate::{
    admin::Admin,
    config::{self, Config, Environment, Loaded, Mistakes},
    extensions::Look,
    heir::HeirClient,
    plain_file,
    readiness::Readiness,
    refresh::{Directory, RefreshConfig, Refresher, reload_extensions},
    snapshot::SnapshotStore,
    telemetry::Logs,
    write::Writer,
};

/// Where the configuration is read from, the first time and again.
#[derive(Debug, Clone, Default)]
pub struct ConfigSource {
    /// The YAML file; `None`: the environment and the defaults alone.
    pub file: Option<PathBuf>,
    /// The variables that take precedence over the file.
    pub environment: Environment,
    /// This program, to be started for what needs a process of its own. Empty: the one that runs, even if its file
    /// has been replaced since.
    pub program: PathBuf,
}

impl ConfigSource {
    /// The program to start.
    pub fn program(&self) -> &Path {
        if self.program.as_os_str().is_empty() {
            Path::new("/proc/self/exe")
        } else {
            &self.program
        }
    }

    /// The configuration as it is now.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Loaded, Mistakes> {
        config::load_apart(self.program(), self.file.as_deref(), &self.environment)
    }
}

/// The parts that a change applies to.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) store: Arc<SnapshotStore>,
    pub(super) client: Option<Arc<HeirClient>>,
    pub(super) refresher: Option<Arc<Refresher>>,
    pub(super) writer: Arc<Writer>,
    pub(super) admin: Arc<Admin>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) directory: Option<Arc<Directory>>,
}

#[derive(Debug)]
pub(super) struct Reloader {
    source: ConfigSource,
    /// As it was started with, with the live keys as they are now.
    current: Config,
    /// Keys already reported as waiting for a restart.
    waiting: Vec<String>,
    live: Arc<ArcSwap<RefreshConfig>>,
    logs: Logs,
    metrics: Arc<Metrics>,
    refused: Option<String>,
    /// Why `policies_dir` could not be read the last time.
    unreadable: Option<String>,
}

impl Reloader {
    pub(super) fn new(
        source: ConfigSource,
        current: Config,
        live: Arc<ArcSwap<RefreshConfig>>,
        logs: Logs,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            source,
            current,
            waiting: Vec::new(),
            live,
            logs,
            metrics,
            refused: None,
            unreadable: None,
        }
    }

    /// Reloads whenever `asked` or a file's change says so.
    pub(super) async fn run(
        mut self,
        targets: Targets,
        mut asked: mpsc::Receiver<()>,
        stop: CancellationToken,
    ) {
        let heir = &self.current.heir;
        let files = [
            self.source.file.as_deref().unwrap_or(Path::new("")),
            &heir.token_file,
            &heir.tls.ca_file,
            &heir.tls.cert_file,
            &heir.tls.key_file,
            &self.current.admin.token_file,
        ];
        let watched = Watched::new(
            files,
            [
                self.current.policies_dir.as_path(),
                self.current.extensions_dir.as_path(),
            ],
        );
        let (changed, mut changes) = mpsc::channel(1);
        let watching = tokio::spawn(watched.run(changed));
        loop {
            let asked = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(()) = asked.recv() => {
                    self.refused = None;
                    true
                }
                Some(()) = changes.recv() => false,
                else => {
                    stop.cancelled().await;
                    break;
                }
            };
            // A file system that hangs must not keep the process from ending.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.reload(&targets, asked) => {}
            }
        }
        watching.abort();
    }

    /// Reads the files on a thread that may wait for them. `None`: the configuration cannot have changed.
    async fn read_files(&self, targets: &Targets) -> Option<Result<Config, Mistakes>> {
        let (client, admin, source) = (targets.client.clone(), targets.admin.clone(), self.source.clone());
        let reading = tokio::task::spawn_blocking(move || {
            if let Some(client) = client {
                client.reread_files();
            }
            admin.access().reread();
            // The environment cannot change, and without a file there is nothing else. One that was handed over was read.
            source
                .file
                .as_deref()
                .filter(|file| !plain_file::is_handed_over(file))?;
            Some(source.load().map(|loaded| loaded.config))
        });
        reading.await.unwrap_or_else(|error| {
            tracing::error!(%error, "Reading the configuration failed.");
            None
        })
    }

    async fn reload(&mut self, targets: &Targets, asked: bool) {
        let read = self.read_files(targets).await;
        // First, so that changes of extensions and of the policies that name them apply together.
        if let Err(error) = reload_extensions(&targets.store, Look::Files).await {
            tracing::warn!(%error, "extensions_dir cannot be read; what was read before stays.");
        }
        if let Some(directory) = &targets.directory {
            let unreadable = reread_directory(directory, targets).await;
            // It may be read again and again; only the first miss is logged.
            if let Some(error) = &unreadable
                && self.unreadable != unreadable
            {
                let path = directory.path().display();
                tracing::warn!(error, %path, "policies_dir cannot be read; its last good policies stay.");
            }
            self.unreadable = unreadable;
        }
        match read.unwrap_or_else(|| Ok(self.current.clone())) {
            Ok(config) => {
                self.refused = None;
                self.apply(config, targets, asked);
            }
            Err(mistakes) => {
                let text = mistakes.to_string();
                // A change of another file must not repeat the same warning.
                if self.refused.as_deref() != Some(&text) {
                    tracing::warn!(mistakes = text, "The changed configuration is not applied.");
                    self.metrics.config_reload("refused");
                }
                self.refused = Some(text);
            }
        }
    }

    fn apply(&mut self, next: Config, targets: &Targets, asked: bool) {
        let changed = changed_keys(&self.current, &next);
        let (live, waiting): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| config::is_live(key));
        if waiting != self.waiting && !waiting.is_empty() {
            tracing::warn!(
                keys = waiting.join(", "),
                "These keys have changed and wait for a restart."
            );
        }
        self.waiting = waiting;
        if live.is_empty() && !asked {
            return;
        }
        let refresh = &next.refresh;
        targets.store.freshness().set_limits(
            refresh.stale_after_ms,
            refresh.expired_after_ms,
            refresh.when_expired,
        );
        targets.store.set_broken_policies(refresh.broken_policies);
        self.live.store(Arc::new(refresh.clone()));
        targets.writer.configure(&next.writes);
        if self.current.log.filter != next.log.filter
            && let Err(error) = self.logs.set_filter(&next.log.filter)
        {
            tracing::warn!(error, "The log filter is not applied.");
        }
        if let Some(refresher) = &targets.refresher {
            refresher.wake();
        }
        self.current.refresh = next.refresh;
        self.current.writes = next.writes;
        self.current.log.filter = next.log.filter;
        self.metrics.config_reload("applied");
        tracing::info!(keys = live.join(", "), "The configuration was read again.");
    }
}

/// Publishes the content of `policies_dir`; returns why where it cannot be read.
async fn reread_directory(directory: &Arc<Directory>, targets: &Targets) -> Option<String> {
    let (directory, store) = (directory.clone(), targets.store.clone());
    match tokio::task::spawn_blocking(move || directory.load_into(&store)).await {
        Ok(Ok(policies)) => {
            tracing::debug!(policies, "Read the local policies again.");
            if policies > 0 {
                targets.readiness.has_files();
            }
            None
        }
        Ok(Err(error)) => Some(error.to_string()),
        Err(error) => Some(format!("the reading failed: {error}")),
    }
}

/// The paths of the keys in which two configurations differ.
fn changed_keys(old: &Config, new: &Config) -> Vec<String> {
    fn collect(path: &str, old: &Value, new: &Value, changed: &mut Vec<String>) {
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                for (key, value) in new {
                    let below = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    collect(&below, old.get(key).unwrap_or(&Value::Null), value, changed);
                }
            }
            (old, new) if old != new => changed.push(path.to_owned()),
            _ => {}
        }
    }
    let value = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let mut changed = Vec::new();
    collect("", &value(old), &value(new), &mut changed);
    changed
}
