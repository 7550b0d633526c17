//! Everything that extensions need of this process, put together.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    component_cache::{Modules, Wanted},
    config::ExtensionsConfig,
    invoke::{Asking, Calls, Invoker},
    manifest::{ExtensionRecords, Manifest, ManifestDirectory, Module},
    metrics::ExtensionMetrics,
    recording::Recorder,
    registry::{Registry, RegistryBuilder},
    revision::Revision,
};
use crate::{
    heir::HeirClient,
    policy::{Pipeline, Problem},
};

/// Obtains the modules of extensions, builds the registries of snapshots, and calls extensions.
#[derive(Debug)]
pub struct ExtensionHost {
    config: Arc<ExtensionsConfig>,
    directory: ManifestDirectory,
    modules: Arc<Modules>,
    builder: RegistryBuilder,
    invoker: Invoker,
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
        Self {
            directory: ManifestDirectory::new(dir, revision.clone()),
            modules: Arc::new(Modules::new(
                config.clone(),
                metrics.clone(),
                revision.clone(),
                dir,
                state.as_deref(),
                program,
            )),
            builder: RegistryBuilder::new(config.clone(), metrics.clone(), revision),
            invoker: Invoker::new(
                config.clone(),
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

    /// Builds the modules that the local directory's records and these need, as far as they are on this machine.
    pub fn obtain_here(&self, heir: &ExtensionRecords) {
        let manifests = self.directory.enabled_with(heir.values().map(|text| &**text));
        for module in manifests.iter().flat_map(Manifest::modules) {
            self.modules.obtain_here(module);
        }
    }

    /// Fetches and builds all modules that the local directory's records and these need. To be awaited before a snapshot
    /// with these records is published.
    pub async fn obtain(self: &Arc<Self>, records: Vec<Arc<str>>, heir: Option<&HeirClient>, wanted: Wanted) {
        if !self.config.enabled {
            return;
        }
        let host = self.clone();
        let read = move || {
            let manifests = host.directory.enabled_with(records.iter().map(|text| &**text));
            let modules = manifests.iter().flat_map(Manifest::modules).cloned();
            let modules: Vec<Module> = modules.collect();
            (manifests, modules)
        };
        let Ok((manifests, modules)) = tokio::task::spawn_blocking(read).await else {
            return;
        };
        self.modules.obtain(modules, heir, wanted).await;
        let host = self.clone();
        let link = move || host.builder.link_all(&manifests, &host.modules);
        let _linked = tokio::task::spawn_blocking(link).await;
    }

    /// Whether a module could not be fetched. It may be available by now.
    pub fn misses_modules(&self) -> bool {
        self.modules.misses_any()
    }

    /// Whether a registry would be built from something else now.
    pub fn has_changed(&self, registry: &Registry) -> bool {
        self.builder.has_changed(registry)
    }

    /// The registry for these records of HEIR and those of the local directory. The one before is used again as far as
    /// nothing changed.
    pub fn assemble(&self, before: &Arc<Registry>, heir: &Arc<ExtensionRecords>) -> Arc<Registry> {
        self.builder.build(before, heir, &self.directory, &self.modules)
    }

    /// What the extensions that a pipeline names find wrong with their configurations there.
    pub fn check_pipeline(&self, registry: &Registry, pipeline: &Pipeline) -> Vec<Problem> {
        self.builder.check_pipeline(registry, pipeline)
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
