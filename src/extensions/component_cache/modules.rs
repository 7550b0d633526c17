//! The modules that the manifests name, and what became of each: a component, or the reason why there is none. To obtain
//! one may take seconds, so it comes before a registry is built.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use hashbrown::HashMap;

use super::{
    cache::{Built, ComponentCache},
    compile::Compiler,
    fetch::Fetcher,
};
use crate::{
    extensions::{
        config::ExtensionsConfig,
        manifest::{Module, ModuleDigest, ModuleSource},
        metrics::ExtensionMetrics,
        revision::Revision,
        sandbox::{Budget, EngineError, Engines},
    },
    heir::HeirClient,
};

/// Modules that are fetched at a time.
const MAX_FETCHES: usize = 8;

/// Which modules are fetched that are not on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those that were not tried before. A snapshot waits for them, which no server may hold up for long.
    New,
    /// Those too that could not be fetched before.
    Missing,
}

impl Wanted {
    const fn timeout(self) -> Duration {
        match self {
            Self::New => Duration::from_secs(10),
            Self::Missing => Duration::from_secs(60),
        }
    }
}

/// Fetches and builds modules.
#[derive(Debug)]
pub(in crate::extensions) struct Modules {
    config: Arc<ExtensionsConfig>,
    metrics: Arc<ExtensionMetrics>,
    revision: Revision,
    /// `extensions_dir`, for modules that are files.
    dir: Option<PathBuf>,
    compiler: Compiler,
    /// Where compiled code is kept; `None`: nowhere.
    compiled: Option<PathBuf>,
    fetcher: Fetcher,
    /// Made for the first extension: most sidecars have none, and the pools take memory.
    cache: OnceLock<Result<ComponentCache, EngineError>>,
    obtained: Mutex<HashMap<Module, Result<Arc<Built>, String>>>,
}

impl Modules {
    /// No modules yet. `dir` is the local directory, `state` the private one below `state_dir`.
    pub(in crate::extensions) fn new(
        config: Arc<ExtensionsConfig>,
        metrics: Arc<ExtensionMetrics>,
        revision: Revision,
        dir: Option<&Path>,
        state: Option<&Path>,
        program: PathBuf,
    ) -> Self {
        Self {
            metrics,
            revision,
            dir: dir.map(Path::to_owned),
            compiler: Compiler {
                program,
                timeout: Duration::from_millis(config.compile_timeout_ms),
                memory_bytes: config.max_compile_memory_bytes,
            },
            compiled: state.map(|state| state.join("compiled")),
            fetcher: Fetcher::new(&config, state),
            cache: OnceLock::new(),
            obtained: Mutex::default(),
            config,
        }
    }

    /// The cache of components, made for the first that needs it.
    ///
    /// # Errors
    /// When its engines cannot be made.
    pub(in crate::extensions) fn cache(&self) -> Result<&ComponentCache, String> {
        let make = || {
            let budget = Budget::new(self.config.max_total_memory_bytes);
            let engines = Engines::within(self.config.max_instances, self.config.max_memory_bytes, budget)?;
            Ok(ComponentCache::new(
                Arc::new(engines),
                self.compiler.clone(),
                self.compiled.as_deref(),
            ))
        };
        self.cache.get_or_init(make).as_ref().map_err(ToString::to_string)
    }

    /// Calls that are running.
    pub(in crate::extensions) fn running_calls(&self) -> usize {
        let cache = self.cache.get().and_then(|cache| cache.as_ref().ok());
        cache.map_or(0, |cache| cache.engines().clock().calls())
    }

    /// Memory of all calls that are under way, in bytes.
    pub(in crate::extensions) fn memory_in_use(&self) -> usize {
        let cache = self.cache.get().and_then(|cache| cache.as_ref().ok());
        cache.map_or(0, |cache| cache.engines().budget().used())
    }

    /// What became of a module; `None`: it was not tried yet.
    pub(in crate::extensions) fn get(&self, module: &Module) -> Option<Result<Arc<Built>, String>> {
        self.obtained().get(module).cloned()
    }

    /// Whether a module could not be fetched. It may be available by now.
    pub(in crate::extensions) fn misses_any(&self) -> bool {
        let is_remote = |module: &Module| !matches!(module.source, ModuleSource::File(_));
        self.obtained()
            .iter()
            .any(|(module, built)| is_remote(module) && built.is_err())
    }

    /// Forgets the other modules.
    pub(in crate::extensions) fn retain(&self, needed: &[&Module]) {
        self.obtained().retain(|module, _| needed.contains(&module));
    }

    /// Builds modules that are not on this machine as well.
    pub(in crate::extensions) async fn obtain(
        self: &Arc<Self>,
        modules: Vec<Module>,
        heir: Option<&HeirClient>,
        wanted: Wanted,
    ) {
        let mut missing = Vec::new();
        for module in modules {
            let (this, local) = (self.clone(), module.clone());
            // A panic in there would be a bug of ours, and leaves the module missing.
            let is_missing = tokio::task::spawn_blocking(move || this.obtain_here(&local)).await;
            let was_tried = self.obtained().contains_key(&module);
            if is_missing.unwrap_or_default() && (wanted == Wanted::Missing || !was_tried) {
                missing.push(module);
            }
        }
        let timeout = wanted.timeout();
        let fetch = async |module: Module| {
            let fetched = tokio::time::timeout(timeout, self.fetcher.fetch(&module, heir)).await;
            let late = || Err(format!("it was not here within {} s", timeout.as_secs()));
            (fetched.unwrap_or_else(|_elapsed| late()), module)
        };
        let mut fetches = stream::iter(missing).map(fetch).buffer_unordered(MAX_FETCHES);
        while let Some((bytes, module)) = fetches.next().await {
            let this = self.clone();
            let _built = tokio::task::spawn_blocking(move || this.build(&module, bytes)).await;
        }
    }

    /// Builds a module that is on this machine. Returns whether it has to be fetched.
    pub(in crate::extensions) fn obtain_here(&self, module: &Module) -> bool {
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

    /// A file may have changed; any other module is what its digest says, once it is here.
    fn is_needed(&self, module: &Module) -> bool {
        matches!(module.source, ModuleSource::File(_)) || !matches!(self.obtained().get(module), Some(Ok(_)))
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
            let cache = self.cache()?;
            let is_new = cache.known(&digest).is_none();
            let built = cache.build(&bytes).map_err(|error| error.to_string())?;
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
            self.revision.advance();
        }
    }

    fn obtained(&self) -> MutexGuard<'_, HashMap<Module, Result<Arc<Built>, String>>> {
        self.obtained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
