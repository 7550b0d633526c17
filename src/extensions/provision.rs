//! Brings modules to where they can be run, and makes the registry of a snapshot. Fetching and compiling come first and may
//! take seconds; the registry itself is then put together from what is there, while the snapshot is published.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use hashbrown::HashMap;

use super::{
    compile::Compiler,
    component::{CallLimits, Kind, Prepared, Unusable},
    config::ExtensionsConfig,
    config_check::ConfigChecks,
    engine::{EngineError, Engines},
    fetch::Fetcher,
    host::Capability,
    module::{ModuleDigest, ModuleSource},
    record::{Module, Record, Release},
    registry::{Extension, RecordSource, Registry, Target, Variant, kind_of},
    slow::SlowLane,
    vitals::Vitals,
    workshop::{Built, Workshop},
};
use crate::{heir::HeirClient, policy::Problem, snapshot::ExtensionRecords, telemetry::Metrics};

/// Instances of one call may be this large in all; more would let one extension have the pool.
const DEFAULT_OUTPUT_BYTES: usize = 1 << 20;
const DEFAULT_CONCURRENCY: u32 = 64;
const DEFAULT_TABLE_ELEMENTS: u32 = 10_000;
/// A record of the local directory.
const RECORD_BYTES: u64 = 1 << 20;
/// Modules that are fetched at a time.
const FETCHES: usize = 8;

/// Everything that extensions need of this process.
#[derive(Debug)]
pub struct ExtensionHost {
    pub(super) config: ExtensionsConfig,
    pub(super) metrics: Arc<Metrics>,
    compiler: Compiler,
    /// Below `state_dir`; `None`: nothing is kept on disk.
    state: Option<PathBuf>,
    /// `extensions_dir`.
    dir: Option<PathBuf>,
    /// Made for the first extension: most sidecars have none, and the pools take memory.
    workshop: OnceLock<Result<Workshop, EngineError>>,
    slow: OnceLock<Result<SlowLane, io::Error>>,
    fetcher: Fetcher,
    obtained: Mutex<HashMap<Module, Result<Arc<Built>, String>>>,
    files: Mutex<Arc<Files>>,
    vitals: Mutex<HashMap<Arc<str>, Arc<Vitals>>>,
    /// Switched off by an operator, whatever their records say, until this process ends.
    switched_off: Mutex<std::collections::BTreeSet<String>>,
    pub(super) checks: ConfigChecks,
    links: Mutex<HashMap<Linked, Link>>,
    /// Counts what changes a registry besides HEIR's records.
    revision: AtomicU64,
}

/// What was linked, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Linked {
    digest: ModuleDigest,
    kind: Kind,
    capabilities: Vec<Capability>,
    limits: CallLimits,
}

/// What came of it. Refusals are remembered too: to look at a module that never ends takes its time.
#[derive(Debug)]
struct Link {
    result: Result<Arc<Prepared>, Unusable>,
    /// Since the last registry was begun.
    used: bool,
}

/// Why a module is not run for a record.
#[derive(Debug)]
struct Refusal {
    message: String,
    remedy: &'static str,
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

/// Records of the local directory.
#[derive(Debug, Default, PartialEq)]
struct Files {
    records: ExtensionRecords,
    problems: BTreeMap<String, Vec<Problem>>,
    /// The file that each record is from, by the record's id.
    from: BTreeMap<String, PathBuf>,
}

impl Files {
    fn id_in(&self, path: &Path) -> Option<&String> {
        let in_it = |(_, from): &(&String, &PathBuf)| *from == path;
        self.from.iter().find(in_it).map(|(id, _)| id)
    }

    fn problem(&mut self, id: String, message: String, remedy: &str) {
        let problem = Problem::error("$", message, remedy);
        self.problems.entry(id).or_default().push(problem);
    }

    /// Takes what was read of a file, or leaves what it held before.
    fn take(&mut self, before: &Self, path: PathBuf, name: &str, read: io::Result<String>) {
        let known = before.id_in(&path);
        let text = match read {
            Ok(text) => text.into(),
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                let id = known.map_or(name, String::as_str);
                self.problem(id.to_owned(), message, "put it right");
                let Some(last) = before.records.get(id).filter(|_| known.is_some()) else {
                    return;
                };
                last.clone()
            }
        };
        let named = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|record| Some(record.get("id")?.as_str()?.to_owned()));
        let id = named.unwrap_or_else(|| known.map_or(name, String::as_str).to_owned());
        if let Some(other) = self.from.get(&id) {
            let message = format!(
                "{} and {} both hold a record {id:?}",
                other.display(),
                path.display()
            );
            self.problem(id.clone(), message, "remove one of them");
            if before.from.get(&id) != Some(&path) {
                return;
            }
        }
        self.records.insert(id.clone(), text);
        self.from.insert(id, path);
    }
}

fn read_record(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = fs::File::open(path)?.take(RECORD_BYTES + 1);
    file.read_to_string(&mut text)?;
    if text.len() as u64 > RECORD_BYTES {
        return Err(io::Error::other(format!("it has more than {RECORD_BYTES} bytes")));
    }
    Ok(text)
}

/// What a registry was put together from.
#[derive(Debug, Default, Clone)]
pub(super) struct Origin {
    pub(super) records: Arc<ExtensionRecords>,
    pub(super) revision: u64,
}

impl ExtensionHost {
    pub fn new(
        config: ExtensionsConfig,
        dir: Option<&Path>,
        state_dir: Option<&Path>,
        program: PathBuf,
        metrics: Arc<Metrics>,
    ) -> Self {
        let compiler = Compiler {
            program,
            timeout: std::time::Duration::from_millis(config.compile_timeout_ms),
            memory_bytes: config.compile_memory_bytes,
        };
        let state = state_dir.map(|dir| dir.join("extensions"));
        let fetcher = Fetcher::new(&config, state.as_deref());
        Self {
            compiler,
            state,
            dir: dir.map(Path::to_owned),
            workshop: OnceLock::new(),
            slow: OnceLock::new(),
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
            let engines = Engines::new(self.config.instances, self.config.max_memory_bytes)?;
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

    pub(super) fn slow(&self) -> Result<&SlowLane, &io::Error> {
        self.slow
            .get_or_init(|| SlowLane::start(self.config.slow_threads, self.config.slow_queue))
            .as_ref()
    }

    /// Calls that wait for a thread of the slow lane, and calls under way.
    pub fn load(&self) -> (usize, usize) {
        let waiting = self
            .slow
            .get()
            .and_then(|slow| slow.as_ref().ok())
            .map_or(0, SlowLane::waiting);
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
        let (before, mut files) = (self.files(), Files::default());
        let mut paths: Vec<PathBuf> = fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        paths.sort_unstable();
        for path in paths {
            let is_record = path.extension().is_some_and(|extension| extension == "json");
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            // Kubernetes keeps a mounted ConfigMap's generations under names that begin with a dot.
            if !is_record || name.starts_with('.') || !path.is_file() {
                continue;
            }
            let read = read_record(&path);
            files.take(&before, path, &name, read);
        }
        let count = files.records.len();
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if **known != files {
            *known = Arc::new(files);
            self.changed();
        }
        Ok(count)
    }

    fn files(&self) -> Arc<Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn changed(&self) {
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

    fn needed<'a>(&self, records: impl Iterator<Item = &'a str>) -> Vec<Module> {
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

    fn obtained(&self) -> MutexGuard<'_, HashMap<Module, Result<Arc<Built>, String>>> {
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
                self.metrics.extensions.compiled(took);
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

    /// Whether a registry would be put together from something else now.
    pub fn has_changed(&self, registry: &Registry) -> bool {
        registry.origin.revision != self.revision.load(Ordering::SeqCst) || self.checks.has_unasked()
    }

    /// The registry for these records of HEIR's and the local directory's. The one before is used again as far as
    /// nothing changed.
    pub fn assemble(&self, before: &Arc<Registry>, heir: &Arc<ExtensionRecords>) -> Arc<Registry> {
        let revision = self.revision.load(Ordering::SeqCst);
        let unasked = self.checks.begin();
        if before.origin.revision == revision && Arc::ptr_eq(&before.origin.records, heir) && !unasked {
            return before.clone();
        }
        self.links().values_mut().for_each(|link| link.used = false);
        let files = self.files();
        let mut registry = Registry {
            origin: Origin {
                records: heir.clone(),
                revision,
            },
            ..Registry::default()
        };
        if self.config.enabled {
            for (id, text) in heir.iter() {
                self.add(&mut registry, before, id, text, RecordSource::Heir);
            }
            // What HEIR has hides the local directory's, as it does with policies.
            for (id, text) in files.records.iter().filter(|(id, _)| !heir.contains_key(*id)) {
                self.add(&mut registry, before, id, text, RecordSource::File);
            }
            for (id, problems) in &files.problems {
                registry
                    .problems
                    .entry(id.clone())
                    .or_default()
                    .extend(problems.iter().cloned());
            }
        }
        self.forget_unused(&registry);
        self.metrics
            .extensions
            .registered(registry.len(), registry.problems.len());
        for (id, problems) in registry
            .problems
            .iter()
            .filter(|(id, now)| before.problems.get(*id) != Some(now))
        {
            let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
            tracing::warn!(
                extension = id,
                problems = text.join("; "),
                "Something is wrong with an extension."
            );
        }
        Arc::new(registry)
    }

    fn add(
        &self,
        registry: &mut Registry,
        before: &Registry,
        id: &str,
        text: &Arc<str>,
        source: RecordSource,
    ) {
        let mut problems = Vec::new();
        let known = before.extensions.get(id);
        let read = Record::read(text);
        if self.is_switched_off(id) {
            registry.disabled.insert(id.to_owned(), source);
            let problems = match read {
                Ok((_, notes)) => notes,
                Err(errors) => errors,
            };
            if !problems.is_empty() {
                registry.problems.insert(id.to_owned(), problems);
            }
            return;
        }
        match read {
            Ok((record, notes)) => {
                problems.extend(notes);
                if *record.id != *id {
                    problems.push(Problem::error(
                        "$.id",
                        format!("the record is kept under {id:?}"),
                        "use one name",
                    ));
                } else if !record.enabled {
                    registry.disabled.insert(id.to_owned(), source);
                    if !problems.is_empty() {
                        registry.problems.insert(id.to_owned(), problems);
                    }
                    return;
                } else if kind_of(&record).is_none() {
                    // A provider is described here and called by others.
                    if !problems.is_empty() {
                        registry.problems.insert(id.to_owned(), problems);
                    }
                    return;
                } else {
                    match self.extension(record, source, &mut problems) {
                        Some(extension) => {
                            registry.extensions.insert(id.into(), extension);
                        }
                        None => {
                            if let Some(known) = known {
                                registry.extensions.insert(id.into(), known.clone());
                            }
                        }
                    }
                    if !problems.is_empty() {
                        registry.problems.insert(id.to_owned(), problems);
                    }
                    return;
                }
            }
            Err(errors) => problems = errors,
        }
        // A broken record leaves what was good before.
        if let Some(known) = known {
            registry.extensions.insert(id.into(), known.clone());
        }
        registry.problems.insert(id.to_owned(), problems);
    }

    fn extension(
        &self,
        record: Record,
        source: RecordSource,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Extension>> {
        let kind = kind_of(&record)?;
        let mut releases: Vec<Release> = record.versions.clone();
        if releases.is_empty() {
            releases.push(record.base.clone());
        }
        let mut variants = Vec::with_capacity(releases.len());
        let mut failed = false;
        for release in releases {
            let at = if record.versions.is_empty() {
                "$".to_owned()
            } else {
                format!("$.versions[{}]", release.version)
            };
            let mut instances = Vec::new();
            let listed: Vec<_> = if record.instances.is_empty() {
                vec![(None, 100, release.module.as_ref(), format!("{at}.module"))]
            } else {
                let of = |instance: &'_ super::record::Instance| (Some(instance.id.clone()), instance.weight);
                record
                    .instances
                    .iter()
                    .map(|instance| {
                        let (id, weight) = of(instance);
                        let module = instance.module.as_ref().or(release.module.as_ref());
                        (id, weight, module, format!("$.instances[{}].module", instance.id))
                    })
                    .collect()
            };
            for (instance, weight, module, at) in listed {
                match self.target(&record, kind, module) {
                    Ok((prepared, built, limits)) => instances.push(Target {
                        instance,
                        weight,
                        prepared,
                        built,
                        limits,
                    }),
                    Err(Refusal { message, remedy }) => {
                        failed = true;
                        problems.push(Problem::error(at, message, remedy));
                    }
                }
            }
            let config_text = serde_json::Value::Object(release.config.clone())
                .to_string()
                .into();
            variants.push(Variant {
                release,
                config_text,
                instances,
            });
        }
        if !failed {
            for variant in &variants {
                for target in &variant.instances {
                    for problem in self.checks.of(target, &variant.config_text) {
                        problems.push(problem.in_record());
                    }
                }
            }
        }
        let is_bad = |problem: &Problem| problem.severity == crate::policy::Severity::Error;
        if failed || problems.iter().any(is_bad) {
            return None;
        }
        let first = variants.first()?.instances.first()?;
        let starts_slow = first.prepared.profile() == super::Profile::Interpreter;
        let id: Arc<str> = Arc::from(&*record.id);
        let vitals = {
            let mut all = self.vitals.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(id.clone())
                .or_insert_with(|| Arc::new(Vitals::new(starts_slow)))
                .clone()
        };
        vitals.runs_module(first.built.digest, starts_slow);
        let concurrency = record.limits.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
        Some(Arc::new(Extension {
            id,
            kind,
            source,
            variants,
            concurrency,
            vitals,
            record,
            series: std::sync::RwLock::default(),
        }))
    }

    fn target(
        &self,
        record: &Record,
        kind: Kind,
        module: Option<&Module>,
    ) -> Result<(Arc<Prepared>, Arc<Built>, CallLimits), Refusal> {
        let Some(module) = module else {
            return Err(Refusal {
                message: "there is no module for it".into(),
                remedy: "name one in the record, its versions or its instances",
            });
        };
        let refused = |reason: String| Refusal {
            message: format!("{}: {reason}", module.source),
            remedy: "correct the module or the record",
        };
        let built = match self.obtained().get(module) {
            Some(Ok(built)) => built.clone(),
            Some(Err(reason)) => return Err(refused(reason.clone())),
            None => {
                return Err(Refusal {
                    message: format!("{} is not here yet", module.source),
                    remedy: "wait for the next refresh, or see why it cannot be fetched",
                });
            }
        };
        let limits = self.limits(record, &built)?;
        let prepared = self.link(record, kind, &built, limits).map_err(refused)?;
        Ok((prepared, built, limits))
    }

    /// Limits of a module's calls.
    fn limits(&self, record: &Record, built: &Built) -> Result<CallLimits, Refusal> {
        let memory = record
            .limits
            .memory_bytes
            .unwrap_or(built.profile.default_memory_bytes());
        if memory > self.config.max_memory_bytes && record.limits.memory_bytes.is_some() {
            return Err(Refusal {
                message: format!(
                    "limits.memory_bytes ({memory}) is more than extensions.max_memory_bytes ({})",
                    self.config.max_memory_bytes
                ),
                remedy: "ask for less, or raise the limit",
            });
        }
        Ok(CallLimits {
            memory_bytes: usize::try_from(memory.min(self.config.max_memory_bytes)).unwrap_or(usize::MAX),
            table_elements: record.limits.table_elements.unwrap_or(DEFAULT_TABLE_ELEMENTS) as usize,
            output_bytes: record.limits.output_bytes.map_or(DEFAULT_OUTPUT_BYTES, |bytes| {
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }),
        })
    }

    fn links(&self) -> MutexGuard<'_, HashMap<Linked, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Links a module, once for each way in which records use it.
    fn link(
        &self,
        record: &Record,
        kind: Kind,
        built: &Built,
        limits: CallLimits,
    ) -> Result<Arc<Prepared>, String> {
        let linked = Linked {
            digest: built.digest,
            kind,
            capabilities: record.capabilities.clone(),
            limits,
        };
        if let Some(link) = self.links().get_mut(&linked) {
            link.used = true;
            return link.result.clone().map_err(|error| error.to_string());
        }
        let result = self
            .workshop()?
            .link_within(built, kind, &record.capabilities, limits)
            .map(Arc::new);
        if result.as_ref().err() == Some(&Unusable::NoInstance) {
            self.changed();
        } else {
            let link = Link {
                result: result.clone(),
                used: true,
            };
            self.links().insert(linked, link);
        }
        result.map_err(|error| error.to_string())
    }

    /// Lets go of modules and health that nothing registered needs.
    fn forget_unused(&self, registry: &Registry) {
        let in_use = |id: &str| registry.extensions.contains_key(id) || registry.disabled.contains_key(id);
        self.vitals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| in_use(id));
        // What runs, and what the records ask for: a broken record's last good state may run another module.
        let mut needed = self.needed(registry.origin.records.values().map(|text| &**text));
        let running = registry.extensions.values();
        needed.extend(running.flat_map(|extension| extension.record.modules().cloned()));
        self.obtained().retain(|module, _| needed.contains(module));
        self.links().retain(|_, link| link.used);
    }
}
