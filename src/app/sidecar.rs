//! The whole: built from its parts, run, and shut down in order.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    directories::{extension_host, load_directory},
    error::BuildError,
    memory,
    memory_limit::buffered_bytes,
    metrics::Metrics,
    own_runtime::{OwnRuntime, keep_a_thread},
    reload::{ConfigSource, Reloader, Targets},
    report::report,
    serving::{Handover, LAST_PROBES, Listeners},
    state_dir::StateDir,
    tasks::{Task, Tasks},
    upstream,
};
use crate::{
    admin::{Access, Admin},
    config::{Config, ShutdownConfig},
    heartbeat::Heartbeat,
    intake::{BufferedBytes, Intake, WaitingRequests},
    listener::Address,
    operate::Operator,
    parent::Parent,
    readiness::Readiness,
    refresh::{ask_extensions, supply_extensions},
    route::Router,
    snapshot::SnapshotStore,
    telemetry::Logs,
    write::{Journal, Ledger, Writer},
};

/// What background tasks get to save what they have, where clients took all the time that stopping may take.
const LAST_SAVES: Duration = Duration::from_millis(500);

/// A sidecar that is ready to run: its state read, its sockets bound.
#[derive(Debug)]
pub struct App {
    shutdown: ShutdownConfig,
    /// Held until the process ends.
    _state: Option<StateDir>,
    listeners: Listeners,
    router: Arc<Router>,
    admin: Arc<Admin>,
    readiness: Arc<Readiness>,
    reloader: (Reloader, Targets),
    tasks: Vec<Task>,
    /// Ends with the value.
    work_runtime: OwnRuntime,
    parent: Arc<Parent>,
    heartbeat: Arc<Heartbeat>,
    stuck_after: Duration,
}

/// How a process tells the sidecar to stop.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Finish what is under way, then end.
    pub gracefully: CancellationToken,
    /// End now.
    pub at_once: CancellationToken,
    /// Told to others: nothing is left to be done but to end.
    pub finished: CancellationToken,
}

impl App {
    /// Builds from a configuration that was checked: reads, connects what can be connected, and binds every socket.
    ///
    /// # Errors
    /// Everything that can keep a sidecar from starting; nothing of it can happen later.
    pub fn build(
        config: Config,
        source: ConfigSource,
        logs: Logs,
        handover: Handover,
    ) -> Result<Self, BuildError> {
        let parent = handover.parent.clone();
        let metrics = Arc::new(Metrics::register(config.metrics.max_tenant_labels)?);
        for (cause, count) in parent.restarts() {
            metrics.worker_restarts(cause, *count);
        }
        let start_timeout = Duration::from_millis(config.runtime.start_timeout_ms);
        parent.tell_progress(start_timeout);
        let state = StateDir::take(&config, &parent)?;
        // Another process may have had the directory until now.
        parent.tell_progress(start_timeout);
        let state_path = state.as_ref().map(StateDir::path);
        let host = extension_host(&config, state_path, &source, &metrics.extensions)?;
        let store = SnapshotStore::start_with(metrics.snapshot.clone(), Some(host.clone()))
            .map_err(BuildError::Thread)?;
        let store = Arc::new(store);
        let refresh = &config.refresh;
        store.freshness().set_limits(
            refresh.stale_after_ms,
            refresh.expired_after_ms,
            refresh.when_expired,
        );
        store.set_broken_policies(refresh.broken_policies);
        let mut tasks = Vec::new();
        let evictions = metrics.write.ledger_evictions.clone();
        let (journal, ledger) = match &state {
            Some(state) => {
                let ledger = Arc::new(state.open_ledger(evictions));
                tasks.push(state.restore_snapshot(&store, &ledger));
                (state.open_journal()?, ledger)
            }
            None => (Journal::in_memory(), Arc::new(Ledger::in_memory(evictions))),
        };
        parent.tell_progress(start_timeout);
        let work_runtime = OwnRuntime::work().map_err(BuildError::Thread)?;
        let live = Arc::new(ArcSwap::from_pointee(refresh.clone()));
        let (heir, heir_tasks) = upstream::build(&config, &store, &live, &metrics, work_runtime.handle())?;
        tasks.extend(heir_tasks);
        let (upstream, restored) = match heir {
            Some(part) => (Some(part.upstream), Some(part.restored)),
            None => (None, None),
        };
        let client = upstream.as_ref().map(|upstream| upstream.client.clone());
        let fetcher = upstream.as_ref().map(|upstream| upstream.fetcher.clone());
        let refresher = upstream.as_ref().map(|upstream| upstream.refresher.clone());
        let writer = Arc::new(Writer::new(
            client.clone(),
            store.clone(),
            fetcher.clone(),
            journal,
            ledger,
            metrics.write.clone(),
        ));
        writer.configure(&config.writes);
        if let Some(state) = &state {
            tasks.push(state.keep(writer.clone()));
        }
        if let Some(restored) = restored {
            let writer = writer.clone();
            tasks.push(Task::new("replay", async move |stop| {
                writer.run(restored, stop).await;
            }));
        }
        let data_runtime = OwnRuntime::data(config.runtime.workers).map_err(BuildError::Thread)?;
        let stuck_after = Duration::from_millis(config.runtime.stuck_after_ms);
        let heartbeat = Heartbeat::start(
            data_runtime.handle(),
            stuck_after,
            metrics.silence_seconds.clone(),
        );
        let watched = heartbeat.clone();
        tasks.push(Task::new("heartbeat", move |stop| watched.watch(stop)));
        let readiness = Arc::new(Readiness::new(
            store.clone(),
            refresher.clone(),
            heartbeat.clone(),
            config.extensions.required_at_start.clone(),
        ));
        let directory = load_directory(&config, &store, &readiness)?;
        parent.tell_progress(start_timeout);
        let (memory, memory_tasks) = memory::build(&config, state.as_ref(), &store, &metrics)?;
        tasks.extend(memory_tasks);
        let (fetched_for, heir) = (store.clone(), client.clone());
        tasks.push(Task::new("modules", move |stop| {
            supply_extensions(fetched_for, heir, stop)
        }));
        let asked_for = store.clone();
        tasks.push(Task::new("configurations", move |stop| {
            ask_extensions(asked_for, stop)
        }));
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
        let router = Arc::new(Router {
            store: store.clone(),
            upstream,
            writer: writer.clone(),
            readiness: readiness.clone(),
            limits: config.limits.clone(),
            metrics: metrics.route.clone(),
            intake,
            waiting,
            buffered: Arc::new(BufferedBytes::new(
                buffered_bytes(config.limits.max_buffered_bytes),
                metrics.intake.buffered_bytes.clone(),
            )),
            work: work_runtime.handle().clone(),
        });
        let access = Access::load(&config.admin).map_err(BuildError::Token)?;
        let operator = Operator {
            store: store.clone(),
            client: client.clone(),
            refresher: refresher.clone(),
            writer: writer.clone(),
            readiness: readiness.clone(),
            heartbeat: heartbeat.clone(),
            registry: metrics.registry.clone(),
            intake_metrics: metrics.intake.clone(),
            extension_metrics: metrics.extensions.clone(),
            log_metrics: metrics.logs.clone(),
            logs: logs.clone(),
            directory: directory.clone(),
            memory,
        };
        let admin = Arc::new(Admin::new(access, operator));
        let listeners = Listeners::bind(data_runtime, &config, &metrics, handover)?;
        let targets = Targets {
            store,
            client,
            refresher,
            writer,
            admin: admin.clone(),
            readiness: readiness.clone(),
            directory,
        };
        let shutdown = config.shutdown.clone();
        let reloader = Reloader::new(source, config, live, logs, metrics);
        Ok(Self {
            shutdown,
            _state: state,
            listeners,
            router,
            admin,
            readiness,
            reloader: (reloader, targets),
            tasks,
            work_runtime,
            parent,
            heartbeat,
            stuck_after,
        })
    }

    /// Where the Router reaches this sidecar; ports that were 0 are now what the kernel chose.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners.addresses()
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> &Address {
        self.listeners.admin_address()
    }

    /// How long a graceful stop takes at most.
    pub fn longest_stop(&self) -> Duration {
        let ShutdownConfig {
            lame_duck_ms,
            drain_timeout_ms,
        } = self.shutdown;
        Duration::from_millis(lame_duck_ms + drain_timeout_ms) + LAST_SAVES + LAST_PROBES
    }

    /// Serves until told to stop. `reload` wakes a re-read of the configuration, besides changes of the files.
    pub async fn run(self, shutdown: Shutdown, reload: mpsc::Receiver<()>) {
        let _work_runtime = self.work_runtime;
        let serving = self.listeners.serve(&self.router, &self.admin);
        let mut tasks = self.tasks;
        let (reloader, targets) = self.reloader;
        tasks.push(Task::new("reload", move |stop| {
            reloader.run(targets, reload, stop)
        }));
        tasks.push(Task::new("threads", async move |stop| {
            stop.run_until_cancelled(keep_a_thread()).await;
        }));
        let tasks = Tasks::start(tasks);
        // Not one of the tasks: it goes on to the very end.
        let _reporting = tokio::spawn(report(
            self.parent.clone(),
            self.heartbeat,
            self.readiness.clone(),
            self.stuck_after,
        ));

        shutdown.gracefully.cancelled().await;
        let graceful = async {
            tracing::info!("Stopping: clients are told to go elsewhere.");
            self.parent.tell("STOPPING=1");
            self.readiness.stop();
            serving.drain();
            tokio::time::sleep(Duration::from_millis(self.shutdown.lame_duck_ms)).await;
            let deadline = Instant::now() + Duration::from_millis(self.shutdown.drain_timeout_ms);
            serving.close(deadline).await;
            tasks.stop(deadline.max(Instant::now() + LAST_SAVES)).await;
            serving.close_admin().await;
            tracing::info!("Stopped.");
            // Giving back what is left, such as files on a disk that hangs, is not waited for.
            shutdown.finished.cancel();
        };
        tokio::select! {
            () = graceful => {}
            () = shutdown.at_once.cancelled() => tracing::warn!("Stopped at once, on a second signal."),
        }
    }
}
