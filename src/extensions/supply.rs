//! Gets the modules that the records name: which are missing, in which order they are had, and what that may cost.
//!
//! Nothing waits for it. What is small comes first, and what takes long is put off for what does not: each module has a
//! short turn of the compiler first, then a longer one, then all the time that one may take.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{
    at_start::processors,
    budget::Budget,
    component_cache::{Attempt, Need},
    host::ExtensionHost,
    looks::Asked,
    manifest::{ExtensionRecords, Manifest, Module},
    registry::Registry,
};
use crate::heir::HeirClient;

/// The turns of a module before the one that takes as long as it takes.
const TURNS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];
/// Modules that are fetched at a time.
const MAX_FETCHES: usize = 8;
/// Extensions that are linked at a time. Their start functions may not end.
const MAX_LINKS: usize = 2;
/// When an extension is linked again for which there was no instance.
const LINK_AGAIN: Duration = Duration::from_secs(1);

type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What has been done.
enum Done {
    Built(Module, Attempt),
    Fetched(Module),
    Linked(Box<str>),
}

/// What the records need, and what is done about it.
pub struct Supply {
    host: Arc<ExtensionHost>,
    heir: Option<Arc<HeirClient>>,
    manifests: Vec<Arc<Manifest>>,
    /// The modules of the manifests, with the ids of these.
    modules: BTreeMap<Module, BTreeSet<Box<str>>>,
    planned: Planned,
    asked: Asked,
    /// Files that are to be looked at again.
    stale: HashSet<Module>,
    /// How many turns modules have had.
    turns: HashMap<Module, usize>,
    jobs: FuturesUnordered<Job>,
    building: HashSet<Module>,
    fetching: HashSet<Module>,
    linking: HashSet<Box<str>>,
    link_again: HashMap<Box<str>, Instant>,
    budget: Budget,
    /// All was had that could be, once. Until then all processors are used.
    is_settled: bool,
}

/// What the manifests were read from.
#[derive(Debug, Default, PartialEq)]
struct Planned {
    records: Arc<ExtensionRecords>,
    asked: Asked,
    /// Ids that cannot be called, as far as they have a last good state.
    broken: BTreeSet<String>,
    /// How often an operator switched one on or off.
    switched: u64,
}

impl std::fmt::Debug for Supply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supply").finish_non_exhaustive()
    }
}

impl Supply {
    /// Nothing is known to be needed yet.
    pub fn new(host: Arc<ExtensionHost>, heir: Option<Arc<HeirClient>>) -> Self {
        let one = Duration::from_millis(host.config().compile_timeout_ms);
        Self {
            host,
            heir,
            manifests: Vec::new(),
            modules: BTreeMap::new(),
            planned: Planned::default(),
            asked: Asked::default(),
            stale: HashSet::new(),
            turns: HashMap::new(),
            jobs: FuturesUnordered::new(),
            building: HashSet::new(),
            fetching: HashSet::new(),
            linking: HashSet::new(),
            link_again: HashMap::new(),
            budget: Budget::new(one, Instant::now()),
            is_settled: false,
        }
    }

    /// Finds what is needed now, and begins with it.
    pub async fn advance(&mut self, records: &Arc<ExtensionRecords>, registry: &Registry, asked: Asked) {
        self.plan(records, registry, asked).await;
        self.start().await;
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Waits until something has been done that was under way, or there is something to be done again.
    pub async fn progress(&mut self) {
        let wake = self.next_wake(Instant::now());
        let pause = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let done = async {
            match self.jobs.next().await {
                Some(done) => done,
                None => std::future::pending().await,
            }
        };
        let done = tokio::select! {
            done = done => done,
            () = pause => return,
        };
        self.note(done);
    }

    /// All that could be had was had, and can be called.
    pub fn settle(&mut self) {
        self.is_settled = true;
    }

    async fn plan(&mut self, records: &Arc<ExtensionRecords>, registry: &Registry, asked: Asked) {
        let kept = self.host.builder().kept();
        let cannot_be_called = |id: &&String| registry.get(id).is_none() && kept.has(id);
        let problems = registry.problems().keys().chain(registry.pending());
        let planned = Planned {
            records: records.clone(),
            asked,
            broken: problems.filter(cannot_be_called).cloned().collect(),
            switched: self.host.builder().switched(),
        };
        let is_same = Arc::ptr_eq(&planned.records, &self.planned.records)
            && (&planned.asked, &planned.broken, planned.switched)
                == (&self.planned.asked, &self.planned.broken, self.planned.switched);
        if !is_same {
            let (host, records, broken) = (self.host.clone(), records.clone(), planned.broken.clone());
            let read = move || host.needed(&records, |id| broken.contains(id));
            // A panic in there would be a bug of ours, and leaves what was planned before.
            let Ok(manifests) = tokio::task::spawn_blocking(read).await else {
                return;
            };
            self.take(manifests);
            self.planned = planned;
        }
        if asked.times != self.asked.times {
            // An operator who corrects a file of a record expects that it is compiled.
            let files = self.modules.iter().filter(|(module, _)| module.may_change());
            for id in files.flat_map(|(_, ids)| ids) {
                self.budget.forget(id);
            }
            self.stale
                .extend(self.modules.keys().filter(|module| module.may_change()).cloned());
        }
        if asked.everything != self.asked.everything {
            self.host.modules().forgive();
            self.budget.begin();
            self.turns.clear();
        }
        self.asked = asked;
    }

    fn take(&mut self, manifests: Vec<Manifest>) {
        self.modules.clear();
        for manifest in &manifests {
            for module in manifest.modules() {
                let ids = self.modules.entry(module.clone()).or_default();
                ids.insert(manifest.id.clone());
            }
        }
        let ids: BTreeSet<&str> = manifests.iter().map(|manifest| &*manifest.id).collect();
        self.budget.retain(|id| ids.contains(id));
        self.link_again.retain(|id, _| ids.contains(&**id));
        self.stale.retain(|module| self.modules.contains_key(module));
        self.turns.retain(|module, _| self.modules.contains_key(module));
        self.manifests = manifests.into_iter().map(Arc::new).collect();
    }

    async fn start(&mut self) {
        self.start_links(Instant::now());
        let mut here = Vec::new();
        for (module, size) in self.due().await {
            match size {
                Some(size) => {
                    let turn = self.turns.get(&module).copied().unwrap_or(0);
                    here.push((turn, size, module));
                }
                None if self.fetching.len() < MAX_FETCHES && self.host.modules().has_room() => {
                    self.start_fetch(module);
                }
                None => {}
            }
        }
        here.sort_unstable();
        for (turn, _, module) in here {
            if self.building.len() >= self.compilers() || self.budget.next(Instant::now()).is_some() {
                break;
            }
            self.start_build(turn, module);
        }
    }

    /// Modules that are to be had now, with their sizes where they need not be fetched.
    async fn due(&mut self) -> Vec<(Module, Option<u64>)> {
        let now = Instant::now();
        let is_due = |module: &&Module| {
            let is_needed = match self.host.modules().need(module) {
                Need::New => true,
                Need::Again(at) => at <= now,
                Need::None => false,
            };
            let is_begun = self.building.contains(*module) || self.fetching.contains(*module);
            (is_needed || self.stale.contains(*module)) && !is_begun
        };
        let due: Vec<Module> = self.modules.keys().filter(is_due).cloned().collect();
        if due.is_empty() {
            return Vec::new();
        }
        let modules = self.host.modules().clone();
        let with_size = move |module: Module| {
            let size = modules.size_here(&module);
            (module, size)
        };
        // A file system may hang.
        let looked = tokio::task::spawn_blocking(move || due.into_iter().map(with_size).collect());
        looked.await.unwrap_or_default()
    }

    fn start_fetch(&mut self, module: Module) {
        self.fetching.insert(module.clone());
        let (modules, heir) = (self.host.modules().clone(), self.heir.clone());
        self.jobs.push(Box::pin(async move {
            modules.fetch(&module, heir.as_deref()).await;
            Done::Fetched(module)
        }));
    }

    /// How many modules are compiled at a time.
    fn compilers(&self) -> usize {
        if self.is_settled {
            // Serving comes first.
            processors().div_ceil(2)
        } else {
            processors()
        }
    }

    fn start_build(&mut self, turn: usize, module: Module) {
        self.stale.remove(&module);
        let ids = self.modules.get(&module).into_iter().flatten();
        if !self.budget.allows(ids.map(|id| &**id)) {
            // What is known of it stays: why it was refused says more than that it is not tried again.
            if self.host.modules().get(&module).is_some() {
                return;
            }
            let most = self.budget.of_record().as_millis();
            let reason = format!(
                "it is not compiled: another module of its record was refused for what compiling it took, or all of them \
                 together took longer than {most} ms, four times extensions.compile_timeout_ms"
            );
            self.host.modules().refuse(&module, reason);
            return;
        }
        let all = Duration::from_millis(self.host.config().compile_timeout_ms);
        let timeout = TURNS.get(turn).copied().unwrap_or(all).min(all);
        self.building.insert(module.clone());
        let modules = self.host.modules().clone();
        self.jobs.push(Box::pin(async move {
            let built = module.clone();
            // A panic in there would be a bug of ours, and leaves the module as it was.
            let attempt = tokio::task::spawn_blocking(move || modules.build(&built, timeout)).await;
            Done::Built(module, attempt.unwrap_or_default())
        }));
    }

    fn start_links(&mut self, now: Instant) {
        for manifest in &self.manifests {
            if self.linking.len() >= MAX_LINKS {
                return;
            }
            let id = &manifest.id;
            let is_due = !self.linking.contains(id) && self.link_again.get(id).is_none_or(|at| *at <= now);
            if !is_due || !self.host.builder().is_unlinked(manifest, self.host.modules()) {
                continue;
            }
            self.linking.insert(id.clone());
            let (host, manifest) = (self.host.clone(), manifest.clone());
            self.jobs.push(Box::pin(async move {
                let id = manifest.id.clone();
                let link = move || host.builder().link(&manifest, host.modules());
                // As above.
                let _linked = tokio::task::spawn_blocking(link).await;
                Done::Linked(id)
            }));
        }
    }

    fn note(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Fetched(module) => {
                self.fetching.remove(&module);
            }
            Done::Linked(id) => {
                self.linking.remove(&id);
                let of_id = |manifest: &&Arc<Manifest>| manifest.id == id;
                let manifest = self.manifests.iter().find(of_id);
                let again = manifest
                    .is_some_and(|manifest| self.host.builder().is_unlinked(manifest, self.host.modules()));
                if again {
                    self.link_again.insert(id, now + LINK_AGAIN);
                } else {
                    self.link_again.remove(&id);
                }
            }
            Done::Built(module, attempt) => {
                self.building.remove(&module);
                let ids = self.modules.get(&module).into_iter().flatten();
                let ids = ids.map(|id| &**id);
                self.budget
                    .spend(ids, attempt.compiling, attempt.was_too_costly, now);
                if attempt.is_postponed {
                    *self.turns.entry(module).or_default() += 1;
                } else {
                    self.turns.remove(&module);
                }
            }
        }
    }

    /// When something is due that is not now.
    fn next_wake(&mut self, now: Instant) -> Option<Instant> {
        let retries = self
            .modules
            .keys()
            .filter_map(|module| match self.host.modules().need(module) {
                Need::Again(at) if at > now => Some(at),
                _ => None,
            });
        let links = self.link_again.values().copied().filter(|at| *at > now);
        let first = retries.chain(links).min();
        // Something may be due already that there is no budget for.
        first.into_iter().chain(self.budget.next(now)).min()
    }
}
