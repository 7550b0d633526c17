//! Brings modules to where they can be run: fetched, compiled and linked, which may take seconds and comes before the
//! registry of a snapshot is put together (`assemble.rs`).

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use hashbrown::HashMap;

use super::{
    assemble::{Link, Linked},
    compile::Compiler,
    config::ExtensionsConfig,
    config_check::ConfigChecks,
    directory::Files,
    engine::{EngineError, Engines},
    fetch::Fetcher,
    module::{ModuleDigest, ModuleSource},
    record::{Module, Record},
    registry::kind_of,
    slow::SlowLane,
    vitals::Vitals,
    workshop::{Built, Workshop},
};
use crate::{
    heir::HeirClient, snapshot::ExtensionRecords, telemetry::extensions::ExtensionMetrics,
    thread_priority::Priority,
};

/// Modules that are fetched at a time.
const FETCHES: usize = 8;

/// Everything that extensions need of this process.
#[derive(Debug)]
pub struct ExtensionHost {
    pub(super) config: ExtensionsConfig,
    pub(super) metrics: Arc<ExtensionMetrics>,
    compiler: Compiler,
    /// Below `state_dir`; `None`: nothing is kept on disk.
    state: Option<PathBuf>,
    /// `extensions_dir`.
    dir: Option<PathBuf>,
    /// Made for the first extension: most sidecars have none, and the pools take memory.
    workshop: OnceLock<Result<Workshop, EngineError>>,
    slow: OnceLock<Result<SlowLane, io::Error>>,
    idle: OnceLock<Result<SlowLane, io::Error>>,
    /// Calls whose places are cleaned once their answers are out.
    pub(super) to_clean: AtomicUsize,
    fetcher: Fetcher,
    obtained: Mutex<HashMap<Module, Result<Arc<Built>, String>>>,
    files: Mutex<Arc<Files>>,
    pub(super) vitals: Mutex<HashMap<Arc<str>, Arc<Vitals>>>,
    /// Switched off by an operator, whatever their records say, until this process ends.
    switched_off: Mutex<std::collections::BTreeSet<String>>,
    pub(super) checks: ConfigChecks,
    pub(super) links: Mutex<HashMap<Linked, Link>>,
    /// Counts what changes a registry besides HEIR's records.
    pub(super) revision: AtomicU64,
}

/// Which modules are fetched that are not on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those that were not tried before: something waits for it, a snapshot say, which no server may hold up for long.
    New,
    /// Those that could not be had as well.
    Missing,
}

impl Wanted {
    const fn patience(self) -> Duration {
        match self {
            Self::New => Duration::from_secs(10),
            Self::Missing => Duration::from_secs(60),
        }
    }
}

impl ExtensionHost {
    pub fn new(
        config: ExtensionsConfig,
        dir: Option<&Path>,
        state_dir: Option<&Path>,
        program: PathBuf,
        metrics: Arc<ExtensionMetrics>,
    ) -> Self {
        let compiler = Compiler {
            program,
            timeout: std::time::Duration::from_millis(config.compile_timeout_ms),
            memory_bytes: config.max_compile_memory_bytes,
        };
        let state = state_dir.map(|dir| dir.join("extensions"));
        let fetcher = Fetcher::new(&config, state.as_deref());
        Self {
            compiler,
            state,
            dir: dir.map(Path::to_owned),
            workshop: OnceLock::new(),
            slow: OnceLock::new(),
            idle: OnceLock::new(),
            to_clean: AtomicUsize::new(0),
            fetcher,
            obtained: Mutex::default(),
            files: Mutex::default(),
            vitals: Mutex::default(),
            switched_off: Mutex::default(),
            checks: ConfigChecks::default(),
            links: Mutex::default(),
            revision: AtomicU64::new(1),
            config,
            metrics,
        }
    }

    pub fn config(&self) -> &ExtensionsConfig {
        &self.config
    }

    /// The directory of local extensions.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    pub(super) fn workshop(&self) -> Result<&Workshop, String> {
        let make = || {
            let engines = Engines::new(self.config.max_instances, self.config.max_memory_bytes)?;
            let compiled = self.state.as_ref().map(|state| state.join("compiled"));
            Ok(Workshop::new(
                Arc::new(engines),
                self.compiler.clone(),
                compiled.as_deref(),
            ))
        };
        self.workshop
            .get_or_init(make)
            .as_ref()
            .map_err(ToString::to_string)
    }

    /// The threads for extensions that are run there.
    pub(super) fn slow(&self, idle: bool) -> Result<&SlowLane, &io::Error> {
        let (lane, priority) = if idle {
            (&self.idle, Priority::Idle)
        } else {
            (&self.slow, Priority::Low)
        };
        lane.get_or_init(|| {
            SlowLane::start(self.config.worker_threads, self.config.max_queued_calls, priority)
        })
        .as_ref()
    }

    /// Calls that wait for a thread of the slow lanes, and calls under way.
    pub fn load(&self) -> (usize, usize) {
        let waiting = [&self.slow, &self.idle]
            .into_iter()
            .filter_map(|lane| lane.get()?.as_ref().ok())
            .map(SlowLane::waiting)
            .sum();
        let running = self.workshop.get().and_then(|workshop| workshop.as_ref().ok());
        (
            waiting,
            running.map_or(0, |workshop| workshop.engines().clock().calls()),
        )
    }

    /// Reads the records of the local directory. The number of records.
    ///
    /// # Errors
    /// When the directory itself cannot be read; the last good records stay.
    pub fn read_directory(&self) -> io::Result<usize> {
        let Some(dir) = &self.dir else { return Ok(0) };
        let files = Files::read(dir, &self.files())?;
        let count = files.records.len();
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if **known != files {
            *known = Arc::new(files);
            self.changed();
        }
        Ok(count)
    }

    pub(super) fn files(&self) -> Arc<Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn changed(&self) {
        self.revision.fetch_add(1, Ordering::SeqCst);
    }

    /// Gets and compiles what the local directory's records and these need, as far as it is on this machine.
    pub fn obtain_here(&self, heir: &ExtensionRecords) {
        for module in self.needed(heir.values().map(|text| &**text)) {
            self.obtain_one_here(&module);
        }
    }

    /// Gets and compiles all that the local directory's records and these need. To be awaited before a snapshot with
    /// these records is published.
    pub async fn obtain(self: &Arc<Self>, records: Vec<Arc<str>>, heir: Option<&HeirClient>, wanted: Wanted) {
        if !self.config.enabled {
            return;
        }
        let (this, all) = (self.clone(), records.clone());
        let needed = move || this.needed(all.iter().map(|text| &**text));
        let Ok(modules) = tokio::task::spawn_blocking(needed).await else {
            return;
        };
        let mut missing = Vec::new();
        for module in modules {
            let (this, of) = (self.clone(), module.clone());
            // A panic in there would be a bug of ours, and leaves the module missing.
            let is_missing = tokio::task::spawn_blocking(move || this.obtain_one_here(&of)).await;
            let was_tried = self.obtained().contains_key(&module);
            if is_missing.unwrap_or_default() && (wanted == Wanted::Missing || !was_tried) {
                missing.push(module);
            }
        }
        let patience = wanted.patience();
        let fetch = async |module: Module| {
            let fetched = tokio::time::timeout(patience, self.fetcher.fetch(&module, heir)).await;
            let late = || Err(format!("it was not here within {} s", patience.as_secs()));
            (fetched.unwrap_or_else(|_elapsed| late()), module)
        };
        let mut fetches = stream::iter(missing).map(fetch).buffer_unordered(FETCHES);
        while let Some((bytes, module)) = fetches.next().await {
            let this = self.clone();
            let _built = tokio::task::spawn_blocking(move || this.build(&module, bytes)).await;
        }
        // Here, so that a registry finds it done: while one is put together, writes wait.
        let this = self.clone();
        let link = move || this.link_needed(records.iter().map(|text| &**text));
        let _linked = tokio::task::spawn_blocking(link).await;
    }

    /// Compiles a module that is on this machine. Whether it has to be fetched.
    fn obtain_one_here(&self, module: &Module) -> bool {
        if !self.is_needed(module) {
            return false;
        }
        match self.fetcher.here(module, self.dir.as_deref()) {
            Some(bytes) => {
                self.build(module, bytes);
                false
            }
            None => true,
        }
    }

    /// Whether a module could not be fetched, and may be to be had by now.
    pub fn misses_modules(&self) -> bool {
        let is_far = |module: &Module| !matches!(module.source, ModuleSource::File(_));
        self.obtained()
            .iter()
            .any(|(module, built)| is_far(module) && built.is_err())
    }

    pub(super) fn needed<'a>(&self, records: impl Iterator<Item = &'a str>) -> Vec<Module> {
        let mut modules = Vec::new();
        self.each_enabled(records, |record| modules.extend(record.modules().cloned()));
        modules
    }

    /// These records and the local directory's, as far as they can be used.
    fn each_enabled<'a>(&self, records: impl Iterator<Item = &'a str>, mut each: impl FnMut(&Record)) {
        let files = self.files();
        let mut read = |text: &str| {
            if let Ok((record, _)) = Record::read(text)
                && record.enabled
            {
                each(&record);
            }
        };
        records.for_each(&mut read);
        files.records.values().for_each(|text| read(text));
    }

    fn link_needed<'a>(&self, records: impl Iterator<Item = &'a str>) {
        self.each_enabled(records, |record| {
            let Some(kind) = kind_of(record) else { return };
            for module in record.modules() {
                let built = match self.obtained().get(module) {
                    Some(Ok(built)) => built.clone(),
                    _ => continue,
                };
                if let Ok(limits) = self.limits(record, &built) {
                    // What came of it is kept for the registry.
                    let _refused = self.link(record, kind, &built, limits);
                }
            }
        });
    }

    /// A file may have changed; anything else is what its digest says, once it is here.
    fn is_needed(&self, module: &Module) -> bool {
        matches!(module.source, ModuleSource::File(_)) || !matches!(self.obtained().get(module), Some(Ok(_)))
    }

    pub(super) fn obtained(&self) -> MutexGuard<'_, HashMap<Module, Result<Arc<Built>, String>>> {
        self.obtained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn build(&self, module: &Module, bytes: Result<Vec<u8>, String>) {
        let built = bytes.and_then(|bytes| {
            let digest = ModuleDigest::of(&bytes);
            if let Some(wanted) = module.digest
                && wanted != digest
            {
                return Err(format!(
                    "its SHA-256 is {digest}, not {wanted} as the record says"
                ));
            }
            let workshop = self.workshop()?;
            let is_new = workshop.known(&digest).is_none();
            let built = workshop.build(&bytes).map_err(|error| error.to_string())?;
            if let Some(took) = built.compiled_in.filter(|_| is_new) {
                self.metrics.compiled(took);
            }
            Ok(built)
        });
        let mut obtained = self.obtained();
        let same = match (obtained.get(module), &built) {
            (Some(Ok(known)), Ok(new)) => Arc::ptr_eq(known, new),
            (Some(Err(known)), Err(new)) => known == new,
            _ => false,
        };
        if !same {
            obtained.insert(module.clone(), built);
            drop(obtained);
            self.changed();
        }
    }

    /// Switches an extension off or on again, for this process. Whether that changed anything.
    pub fn switch(&self, id: &str, on: bool) -> bool {
        let mut off = self.switched_off.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = if on {
            off.remove(id)
        } else {
            off.insert(id.to_owned())
        };
        drop(off);
        if changed {
            self.changed();
        }
        changed
    }

    pub fn is_switched_off(&self, id: &str) -> bool {
        self.switched_off
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(id)
    }
}
