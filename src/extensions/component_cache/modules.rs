//! The modules that the manifests name, and what became of each: a component, or the reason why there is none. To obtain
//! one may take seconds, so nothing waits for it but the module's own extensions.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use hashbrown::HashMap;

use super::{
    cache::{Built, ComponentCache, Fault, NotBuilt},
    compile::Compiler,
    fetch::{Fetcher, wrong_digest},
    retry::{Cause, Retry},
};
use crate::{
    extensions::{
        config::ExtensionsConfig,
        digest::ModuleDigest,
        manifest::Module,
        metrics::ExtensionMetrics,
        revision::Revision,
        sandbox::{Budget, EngineError, Engines},
        signing::{KeySet, Trust},
    },
    heir::HeirClient,
};

/// What is to be done about a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extensions) enum Need {
    /// It was not tried yet.
    New,
    /// It was had, or refused for good.
    None,
    /// It was tried in vain, and is tried again then.
    Again(Instant),
}

/// How an attempt to build a module ended that was here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::extensions) struct Attempt {
    /// The time that its compiler took.
    pub(in crate::extensions) compiling: Duration,
    /// Its turn was over before it was compiled.
    pub(in crate::extensions) is_postponed: bool,
    /// It was refused for what compiling it takes.
    pub(in crate::extensions) was_too_costly: bool,
}

/// What became of a module.
#[derive(Debug)]
struct Obtained {
    result: Result<Arc<Built>, String>,
    signed_by: KeySet,
    /// When it is tried again, where it was tried in vain.
    retry: Option<Retry>,
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
    obtained: Mutex<HashMap<Module, Obtained>>,
}

impl Modules {
    /// No modules yet. `dir` is the local directory, `state` the private one below `state_dir`.
    pub(in crate::extensions) fn new(
        config: Arc<ExtensionsConfig>,
        trust: Arc<Trust>,
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
                in_background: true,
            },
            compiled: state.map(|state| state.join("compiled")),
            fetcher: Fetcher::new(&config, trust, state),
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
        self.obtained()
            .get(module)
            .map(|obtained| obtained.result.clone())
    }

    /// Who signed a module that was had.
    pub(in crate::extensions) fn signed_by(&self, module: &Module) -> KeySet {
        let known = self.obtained().get(module).map(|obtained| obtained.signed_by);
        known.unwrap_or_default()
    }

    /// What is to be done about a module.
    pub(in crate::extensions) fn need(&self, module: &Module) -> Need {
        match self.obtained().get(module) {
            None => Need::New,
            Some(Obtained { retry, .. }) => retry
                .and_then(|retry| retry.again)
                .map_or(Need::None, Need::Again),
        }
    }

    /// How large a module is that need not be fetched; `None`: it must be.
    pub(in crate::extensions) fn size_here(&self, module: &Module) -> Option<u64> {
        self.fetcher.size_here(module, self.dir.as_deref())
    }

    /// Whether what is fetched has a place until it is compiled.
    pub(in crate::extensions) fn has_room(&self) -> bool {
        self.fetcher.has_room()
    }

    /// Has everything tried again at once that could not be had, but for modules that are not valid.
    pub(in crate::extensions) fn forgive(&self) {
        if let Some(Ok(cache)) = self.cache.get() {
            cache.forgive();
        }
        let again = Some(Instant::now());
        for obtained in self.obtained().values_mut().filter(|it| it.result.is_err()) {
            obtained.retry = Some(Retry { tries: 0, again });
        }
    }

    /// Forgets the other modules.
    pub(in crate::extensions) fn retain(&self, is_needed: impl Fn(&Module) -> bool) {
        self.obtained().retain(|module, _| is_needed(module));
    }

    /// Fetches a module, so that it is here. Whatever kept it from that is what became of it.
    pub(in crate::extensions) async fn fetch(&self, module: &Module, heir: Option<&HeirClient>) {
        if let Err(error) = self.fetcher.fetch(module, heir).await {
            self.keep(module, Err((error.reason, error.cause)));
        }
    }

    /// Builds a module that is here, with this time for the compiler; to be called where waiting is allowed.
    pub(in crate::extensions) fn build(&self, module: &Module, timeout: Duration) -> Attempt {
        let Some(bytes) = self.fetcher.here(module, self.dir.as_deref()) else {
            // It was here a moment ago.
            return Attempt {
                is_postponed: true,
                ..Attempt::default()
            };
        };
        if let Err(reason) = bytes {
            // Its disk may give it another time.
            self.keep(module, Err((reason, Cause::Away)));
            return Attempt::default();
        }
        let (bytes, signed_by) = match self.checked(module, bytes) {
            Ok(checked) => checked,
            Err(reason) => {
                self.keep(module, Err((reason, Cause::Lasting)));
                return Attempt::default();
            }
        };
        let (built, compiling) = match self.cache() {
            Ok(cache) => cache.build_within(&bytes, module.profile(&bytes), timeout),
            Err(reason) => {
                let fault = Fault::Ours;
                (Err(NotBuilt { reason, fault }), Duration::ZERO)
            }
        };
        let mut attempt = Attempt {
            compiling,
            ..Attempt::default()
        };
        let result = match built {
            Ok(built) => {
                if !compiling.is_zero() {
                    self.metrics.compiled(compiling);
                }
                Ok((built, signed_by))
            }
            Err(NotBuilt { reason, fault }) => match fault {
                Fault::Postponed => {
                    attempt.is_postponed = true;
                    return attempt;
                }
                Fault::Its { costly } => {
                    attempt.was_too_costly = costly;
                    Err((reason, Cause::Lasting))
                }
                Fault::Ours | Fault::Unclear => Err((reason, Cause::Unclear)),
            },
        };
        self.fetcher.release(module);
        self.keep(module, result);
        attempt
    }

    /// Takes a module that was compiled before, and is on disk.
    pub(in crate::extensions) fn load(&self, module: &Module) {
        let Some(Ok(bytes)) = self.fetcher.here(module, self.dir.as_deref()) else {
            return;
        };
        let (Ok((bytes, signed_by)), Ok(cache)) = (self.checked(module, Ok(bytes)), self.cache()) else {
            return;
        };
        if let Some(result) = cache.build_without_compiling(&bytes, module.profile(&bytes)) {
            let result = result.map(|built| (built, signed_by));
            self.keep(module, result.map_err(|error| (error.reason, Cause::Lasting)));
        }
    }

    /// The bytes of a module, if they are those that its record names, and who signed them.
    fn checked(&self, module: &Module, bytes: Result<Vec<u8>, String>) -> Result<(Vec<u8>, KeySet), String> {
        let bytes = checked(module, bytes)?;
        let signed_by = self.fetcher.signers(module, &bytes)?;
        Ok((bytes, signed_by))
    }

    /// Says that a module is not built, and why.
    pub(in crate::extensions) fn refuse(&self, module: &Module, reason: String) {
        self.keep(module, Err((reason, Cause::Lasting)));
    }

    fn keep(&self, module: &Module, result: Result<(Arc<Built>, KeySet), (String, Cause)>) {
        let mut all = self.obtained();
        let before = all.get(module);
        let (result, signed_by, retry) = match result {
            Ok((built, signed_by)) => (Ok(built), signed_by, None),
            Err((reason, cause)) => {
                let before = before.and_then(|before| before.retry);
                let retry = Retry::after(before, cause, Instant::now(), fastrand::f64());
                (Err(reason), KeySet::default(), Some(retry))
            }
        };
        let is_same = match (before.map(|before| &before.result), &result) {
            (Some(Ok(known)), Ok(new)) => Arc::ptr_eq(known, new),
            (Some(Err(known)), Err(new)) => known == new,
            _ => false,
        };
        let obtained = Obtained {
            result,
            signed_by,
            retry,
        };
        all.insert(module.clone(), obtained);
        drop(all);
        if !is_same {
            self.revision.advance();
        }
    }

    /// Keeps a copy of what a module is made of, for the time after a restart. Returns whether there is one.
    pub(in crate::extensions) fn keep_copy(&self, module: &Module, digest: &ModuleDigest) -> bool {
        self.fetcher.keep_copy(module, digest, self.dir.as_deref())
    }

    /// Removes copies that nothing names, where there are many.
    pub(in crate::extensions) fn sweep(&self, is_needed: impl Fn(&ModuleDigest) -> bool) {
        self.fetcher.sweep(is_needed);
    }

    fn obtained(&self) -> MutexGuard<'_, HashMap<Module, Obtained>> {
        self.obtained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a module, if they are those that its record names.
fn checked(module: &Module, bytes: Result<Vec<u8>, String>) -> Result<Vec<u8>, String> {
    let bytes = bytes?;
    if let Some(wanted) = &module.digest {
        let digest = ModuleDigest::of(&bytes);
        if digest != *wanted {
            return Err(wrong_digest(&digest, wanted));
        }
    }
    Ok(bytes)
}

/// Reads a module that is a file below a directory, as a sidecar does; `None`: it is no file.
pub fn read_module_file(
    config: &ExtensionsConfig,
    dir: &Path,
    module: &Module,
) -> Option<Result<Vec<u8>, String>> {
    if !module.may_change() {
        return None;
    }
    let trust = Arc::new(Trust::read_or_refuse(&config.signatures));
    let fetcher = Fetcher::new(config, trust, None);
    let bytes = checked(module, fetcher.here(module, Some(dir))?);
    Some(bytes.and_then(|bytes| fetcher.signers(module, &bytes).map(|_signers| bytes)))
}
