//! Everything that extensions need of this process, put together.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    at_start,
    component_cache::Modules,
    config::ExtensionsConfig,
    invoke::{Asking, Calls, Invoker},
    looks::Looks,
    manifest::{ExtensionRecords, Manifest, ManifestDirectory, Module},
    metrics::ExtensionMetrics,
    recording::Recorder,
    registry::{Checking, Judged, KeptRecords, Registry, RegistryBuilder},
    revision::Revision,
    signing::Trust,
};
use crate::policy::{Pipeline, TenantId};

/// Obtains the modules of extensions, builds the registries of snapshots, and calls extensions.
#[derive(Debug)]
pub struct ExtensionHost {
    config: Arc<ExtensionsConfig>,
    directory: ManifestDirectory,
    modules: Arc<Modules>,
    builder: RegistryBuilder,
    invoker: Invoker,
    looks: Looks,
}

impl ExtensionHost {
    /// A host that has read no records yet. `dir` is the directory of local extensions; without a `state_dir` nothing is
    /// kept on disk; `program` is the path of this program, which compiles modules.
    pub fn new(
        config: ExtensionsConfig,
        dir: Option<&Path>,
        state_dir: Option<&Path>,
        program: PathBuf,
        metrics: Arc<ExtensionMetrics>,
    ) -> Self {
        let config = Arc::new(config);
        let revision = Revision::new();
        let state = state_dir.map(|dir| dir.join("extensions"));
        let trust = Arc::new(Trust::read_or_refuse(&config.signatures));
        Self {
            directory: ManifestDirectory::new(dir, revision.clone()),
            modules: Arc::new(Modules::new(
                config.clone(),
                trust.clone(),
                metrics.clone(),
                revision.clone(),
                dir,
                state.as_deref(),
                program,
            )),
            builder: RegistryBuilder::new(
                config.clone(),
                trust.clone(),
                metrics.clone(),
                revision,
                KeptRecords::open(state.as_deref()),
            ),
            looks: Looks::default(),
            invoker: Invoker::new(
                config.clone(),
                trust,
                Recorder::start(&config.record, state_dir, &metrics),
                metrics,
            ),
            config,
        }
    }

    /// How extensions are run here.
    pub fn config(&self) -> &ExtensionsConfig {
        &self.config
    }

    /// The directory of local extensions.
    pub fn dir(&self) -> Option<&Path> {
        self.directory.path()
    }

    /// Calls that wait for a worker thread, and calls that are running.
    pub fn load(&self) -> (usize, usize) {
        (self.invoker.waiting_calls(), self.modules.running_calls())
    }

    /// Memory of all calls that are under way, in bytes.
    pub fn memory_in_use(&self) -> usize {
        self.modules.memory_in_use()
    }

    /// Reads the records of the local directory. Returns how many there are.
    ///
    /// # Errors
    /// When the directory itself cannot be read; the last good records stay.
    pub fn read_directory(&self) -> io::Result<usize> {
        self.directory.read()
    }

    /// Takes the modules that the local directory's records and these need, as far as they were compiled before and are on
    /// disk, for no longer than this. The others come later.
    pub fn load_compiled(self: &Arc<Self>, heir: &ExtensionRecords, within: Duration) {
        if !self.config.enabled {
            return;
        }
        let manifests = self.needed(heir, |id| self.builder.kept().has(id));
        let modules: BTreeSet<Module> = manifests.iter().flat_map(Manifest::modules).cloned().collect();
        let (loading, linking) = (self.clone(), self.clone());
        let left = at_start::in_parallel(modules, within, move |module| loading.modules.load(&module));
        let link = move |manifest: Manifest| linking.builder.link(&manifest, &linking.modules);
        at_start::in_parallel(manifests, left, link);
    }

    /// Builds the modules that the local directory's records name and that are on this machine, however long it takes. For
    /// commands, which have nothing to do before they have them.
    pub fn build_here(&self) {
        let timeout = Duration::from_millis(self.config.compile_timeout_ms);
        for manifest in self.needed(&ExtensionRecords::default(), |_| false) {
            for module in manifest.modules() {
                self.modules.build(module, timeout);
            }
            self.builder.link(&manifest, &self.modules);
        }
    }

    /// The enabled extensions that these records of HEIR and those of the local directory describe, and the last good
    /// states of those that cannot be called now.
    pub(super) fn needed(
        &self,
        heir: &ExtensionRecords,
        lacks_good_state: impl Fn(&str) -> bool,
    ) -> Vec<Manifest> {
        let files = self.directory.files();
        let hidden = |id: &&String| !heir.contains_key(*id);
        let ids = heir.keys().chain(files.records.keys().filter(hidden));
        let ids: Vec<&str> = ids
            .map(String::as_str)
            .filter(|id| !self.is_switched_off(id))
            .collect();
        let read = |id: &&str| {
            let text = heir.get(*id).or_else(|| files.records.get(*id))?;
            let (manifest, _) = Manifest::read(text).ok()?;
            (*manifest.id == **id && manifest.enabled && manifest.runs().is_some()).then_some(manifest)
        };
        let mut manifests: Vec<Manifest> = ids.iter().filter_map(read).collect();
        let broken: Vec<&str> = ids.into_iter().filter(|id| lacks_good_state(id)).collect();
        manifests.extend(self.builder.kept().manifests_of(&broken));
        manifests
    }

    /// Who asked for modules and records to be looked at again.
    pub fn looks(&self) -> &Looks {
        &self.looks
    }

    pub(super) fn modules(&self) -> &Arc<Modules> {
        &self.modules
    }

    pub(super) fn builder(&self) -> &RegistryBuilder {
        &self.builder
    }

    /// Whether a registry would be built from something else now.
    pub fn has_changed(&self, registry: &Registry) -> bool {
        self.builder.has_changed(registry)
    }

    /// Writes down what can be called, for the next run. `knows_heir`: whether all records of HEIR are in the registry.
    pub fn keep_good_state(&self, registry: &Registry, knows_heir: bool) {
        if !self.config.enabled {
            return;
        }
        let kept = self.builder.kept();
        let copy = |module: &Module, digest: &_| self.modules.keep_copy(module, digest);
        if let Err(error) = kept.update(registry, knows_heir, copy) {
            tracing::warn!(%error, "The last good records of extensions were not kept on disk.");
        }
        let digests: BTreeSet<_> = kept.digests().into_iter().collect();
        let called = registry
            .sorted()
            .into_iter()
            .flat_map(|extension| extension.targets().map(|(_, target)| target.built.digest))
            .collect::<BTreeSet<_>>();
        self.modules
            .sweep(|digest| digests.contains(digest) || called.contains(digest));
    }

    /// The registry for these records of HEIR and those of the local directory. The one before is used again as far as
    /// nothing changed.
    pub fn assemble(&self, before: &Arc<Registry>, heir: &Arc<ExtensionRecords>) -> Arc<Registry> {
        self.builder.build(before, heir, &self.directory, &self.modules)
    }

    /// What the extensions that a pipeline names find wrong with their configurations there. Those that are asked take their
    /// time.
    pub fn check_pipeline(
        &self,
        registry: &Registry,
        tenant: &TenantId,
        pipeline: &Pipeline,
        checking: Checking,
    ) -> Judged {
        self.builder.check_pipeline(registry, tenant, pipeline, checking)
    }

    /// Switches an extension off or on again, for this process. Returns whether that changed anything.
    pub fn switch(&self, id: &str, on: bool) -> bool {
        self.builder.switch(id, on)
    }

    /// Whether an operator switched an extension off.
    pub fn is_switched_off(&self, id: &str) -> bool {
        self.builder.is_switched_off(id)
    }

    /// Calls the extensions of a snapshot for one request.
    pub fn calls<'a>(&'a self, registry: &'a Registry, asking: Asking<'a>) -> Calls<'a> {
        self.invoker.calls(registry, asking)
    }
}
