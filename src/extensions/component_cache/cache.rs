//! Makes components of modules: from memory, from the private directory, or by the compiler, once for each.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use wasmtime::component::Component;

use super::{
    artifact::{Allowed, Artifacts, Trusted},
    compile::{CompileError, Compiler},
};
use crate::extensions::{
    digest::ModuleDigest,
    sandbox::{CallLimits, Capability, Engines, Interface, Kind, Prepared, Profile, Unusable},
};

/// Modules that were refused, which are remembered so that each costs its compilation once.
const MAX_REFUSED: usize = 256;
/// A refusal that took longer is kept on disk.
const COSTLY: Duration = Duration::from_secs(1);

/// A compiled module.
#[derive(Debug)]
pub struct Built {
    /// The digest of the module.
    pub digest: ModuleDigest,
    /// Size of the module.
    pub bytes: usize,
    /// The engine that it runs on.
    pub profile: Profile,
    /// What it imports and exports.
    pub interface: Interface,
    /// How long it took, where it was compiled by this process.
    pub compiled_in: Option<Duration>,
    component: Handle,
}

impl Built {
    fn new(
        module: &[u8],
        (digest, profile): Key,
        component: Component,
        compiled_in: Option<Duration>,
    ) -> Self {
        Self {
            digest,
            bytes: module.len(),
            profile,
            interface: Interface::of(&component),
            compiled_in,
            component: Handle(component),
        }
    }
}

struct Handle(Component);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Component")
    }
}

/// Why a module does not become a component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotBuilt {
    /// What is wrong with it, with a remedy where there is one.
    pub reason: String,
    pub(super) fault: Fault,
}

/// Whose fault it is that there is no component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The module's: it is refused for good. `costly`: and not before it had used what the compiler may use.
    Its { costly: bool },
    /// Not the module's.
    Ours,
    /// The compiler was ended from outside, or the machine is busy: nothing is known about the module.
    Unclear,
    /// Its turn was over. There is more time for it in another.
    Postponed,
}

impl NotBuilt {
    fn its(reason: String) -> Self {
        let fault = Fault::Its { costly: false };
        Self { reason, fault }
    }

    fn ours(reason: String) -> Self {
        let fault = Fault::Ours;
        Self { reason, fault }
    }
}

/// A module, as it is compiled for one engine.
type Key = (ModuleDigest, Profile);

#[derive(Debug)]
enum Known {
    Built(Weak<Built>),
    Refused(NotBuilt),
}

/// Makes components of modules, and remembers them.
#[derive(Debug)]
pub struct ComponentCache {
    engines: Arc<Engines>,
    compiler: Compiler,
    artifacts: Option<Artifacts>,
    known: Mutex<HashMap<Key, Known>>,
    /// Modules that are being built: another that has the same bytes waits for the result.
    building: Mutex<HashSet<Key>>,
    built: Condvar,
}

/// While it is there, no other thread builds the module.
struct Building<'a>(&'a ComponentCache, Key);

impl Drop for Building<'_> {
    fn drop(&mut self) {
        let mut building = self.0.building.lock().unwrap_or_else(PoisonError::into_inner);
        building.remove(&self.1);
        self.0.built.notify_all();
    }
}

impl ComponentCache {
    /// An empty cache. Compiled code is kept in the directory, where there is one.
    pub fn new(engines: Arc<Engines>, compiler: Compiler, dir: Option<&Path>) -> Self {
        let artifacts = dir.and_then(|dir| match Artifacts::open(dir.to_owned()) {
            Ok(artifacts) => Some(artifacts),
            Err(error) => {
                tracing::error!(%error, path = %dir.display(), "Compiled extensions cannot be kept on disk.");
                None
            }
        });
        Self {
            engines,
            compiler,
            artifacts,
            known: Mutex::default(),
            building: Mutex::default(),
            built: Condvar::new(),
        }
    }

    /// The engines that the components run on.
    pub fn engines(&self) -> &Arc<Engines> {
        &self.engines
    }

    /// Whether what it builds is kept on disk.
    pub fn keeps(&self) -> bool {
        self.artifacts.is_some()
    }

    /// A module that was built before for one engine, or why it was not. Never compiles.
    pub fn known(&self, digest: &ModuleDigest, profile: Profile) -> Option<Result<Arc<Built>, NotBuilt>> {
        match self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(*digest, profile))?
        {
            Known::Built(built) => built.upgrade().map(Ok),
            Known::Refused(why) => Some(Err(why.clone())),
        }
    }

    /// Forgets which modules were refused for what compiling them took: the machine may have been busy, or have more
    /// memory now.
    pub(super) fn forgive(&self) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(digest, _), known| {
            let is_costly = matches!(known, Known::Refused(why) if why.fault == Fault::Its { costly: true });
            if let Some(artifacts) = self.artifacts.as_ref().filter(|_| is_costly) {
                artifacts.forgive(digest);
            }
            !is_costly
        });
    }

    /// Makes a component of a module: milliseconds for a small one, seconds for an interpreter.
    ///
    /// # Errors
    /// What is wrong with it, with a remedy where there is one. A compiler that could not be started, that was ended
    /// from outside or that had to wait for the processor is not held against the module.
    pub fn build(&self, module: &[u8]) -> Result<Arc<Built>, NotBuilt> {
        self.build_for(module, Profile::of(module))
    }

    /// As [`build`](Self::build), for one engine.
    ///
    /// # Errors
    /// As those of [`build`](Self::build).
    pub fn build_for(&self, module: &[u8], profile: Profile) -> Result<Arc<Built>, NotBuilt> {
        self.build_within(module, profile, self.compiler.timeout).0
    }

    /// As [`build`](Self::build), with less time for the compiler: one that is not ready then is not refused. Says how long
    /// the compiler ran for it, too.
    pub(super) fn build_within(
        &self,
        module: &[u8],
        profile: Profile,
        timeout: Duration,
    ) -> (Result<Arc<Built>, NotBuilt>, Duration) {
        let key = (ModuleDigest::of(module), profile);
        let _alone = self.wait_for(key);
        if let Some(known) = self.known(&key.0, profile) {
            return (known, Duration::ZERO);
        }
        if let Some(result) = self.load(module, key) {
            return (self.remember(key, result), Duration::ZERO);
        }
        let began = Instant::now();
        let result = self.compile(module, key, timeout.min(self.compiler.timeout));
        let took = began.elapsed();
        (self.remember(key, result), took)
    }

    /// The module, or why it was refused, if that is known, or on disk. Never compiles.
    pub(super) fn build_without_compiling(
        &self,
        module: &[u8],
        profile: Profile,
    ) -> Option<Result<Arc<Built>, NotBuilt>> {
        let key = (ModuleDigest::of(module), profile);
        let _alone = self.wait_for(key);
        if let Some(known) = self.known(&key.0, profile) {
            return Some(known);
        }
        let result = self.load(module, key)?;
        Some(self.remember(key, result))
    }

    fn wait_for(&self, key: Key) -> Building<'_> {
        let building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let mut building = self
            .built
            .wait_while(building, |building| building.contains(&key))
            .unwrap_or_else(PoisonError::into_inner);
        building.insert(key);
        Building(self, key)
    }

    fn remember(&self, key: Key, result: Result<Built, NotBuilt>) -> Result<Arc<Built>, NotBuilt> {
        let result = result.map(Arc::new);
        let known = match &result {
            Ok(built) => Known::Built(Arc::downgrade(built)),
            Err(why) if matches!(why.fault, Fault::Its { .. }) => Known::Refused(why.clone()),
            Err(_) => return result,
        };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, known| !matches!(known, Known::Built(built) if built.strong_count() == 0));
        if all.len() >= MAX_REFUSED {
            all.retain(|_, known| matches!(known, Known::Built(_)));
        }
        all.insert(key, known);
        result
    }

    /// What is on disk of a module.
    fn load(&self, module: &[u8], (digest, profile): Key) -> Option<Result<Built, NotBuilt>> {
        if let Err(reason) = check_header(module) {
            return Some(Err(NotBuilt::its(reason)));
        }
        let artifacts = self.artifacts.as_ref()?;
        let engine = self.engines.engine(profile).ok()?;
        let code = artifacts.load(profile, &digest).unwrap_or_else(|tampered| {
            tracing::error!("{tampered}");
            None
        });
        // Code of another version has another name; what does not load all the same is made anew.
        if let Some(component) = code.and_then(|code| code.load(engine).ok()) {
            return Some(Ok(Built::new(module, (digest, profile), component, None)));
        }
        let refusal = artifacts
            .refusal(profile, &digest, self.allowed())
            .unwrap_or_else(|tampered| {
                tracing::error!("{tampered}");
                None
            });
        refusal.map(|reason| {
            let fault = Fault::Its { costly: true };
            Err(NotBuilt { reason, fault })
        })
    }

    fn allowed(&self) -> Allowed {
        Allowed {
            timeout: self.compiler.timeout,
            memory_bytes: self.compiler.memory_bytes,
        }
    }

    fn compile(&self, module: &[u8], (digest, profile): Key, timeout: Duration) -> Result<Built, NotBuilt> {
        let engine = self
            .engines
            .engine(profile)
            .map_err(|error| NotBuilt::ours(error.to_string()))?;
        let began = Instant::now();
        let compiled = self.compiler.compile(module, profile, timeout).map_err(|error| {
            let is_turn = timeout < self.compiler.timeout;
            let fault = match error {
                CompileError::Start(_) | CompileError::CutOff => Fault::Ours,
                CompileError::Timeout { .. } | CompileError::Starved { .. } if is_turn => Fault::Postponed,
                CompileError::Starved { .. } | CompileError::Killed { .. } => Fault::Unclear,
                CompileError::Timeout { .. } | CompileError::Memory { .. } | CompileError::Crashed { .. } => {
                    Fault::Its { costly: true }
                }
                CompileError::Refused { .. } => Fault::Its {
                    costly: began.elapsed() > COSTLY,
                },
            };
            let reason = match &error {
                CompileError::Start(source) => format!("{error}: {source}"),
                _ => error.to_string(),
            };
            if let Some(artifacts) = self
                .artifacts
                .as_ref()
                .filter(|_| fault == Fault::Its { costly: true })
                && let Err(error) = artifacts.refuse(profile, &digest, self.allowed(), &reason)
            {
                tracing::warn!(%error, %digest, "That a module was refused was not kept on disk.");
            }
            NotBuilt { reason, fault }
        })?;
        let code = Trusted::from(compiled);
        let component = code
            .load(engine)
            .map_err(|error| NotBuilt::ours(format!("its code cannot be loaded: {error:#}")))?;
        if let Some(artifacts) = &self.artifacts
            && let Err(error) = artifacts.keep(profile, &digest, &code)
        {
            tracing::warn!(%error, %digest, "A compiled extension was not kept on disk.");
        }
        let key = (digest, profile);
        Ok(Built::new(module, key, component, Some(began.elapsed())))
    }

    /// Links a built module as an extension of a kind, within the limits that calls have unless their record says
    /// otherwise.
    pub fn link(&self, built: &Built, kind: Kind, capabilities: &[Capability]) -> Result<Prepared, Unusable> {
        let limits = CallLimits {
            memory_bytes: usize::try_from(built.profile.default_memory_bytes()).unwrap_or(usize::MAX),
            table_elements: 20_000,
            output_bytes: 1 << 16,
            fuel: None,
        };
        self.link_within(built, kind, capabilities, limits)
    }

    /// Links a built module as an extension of a kind. It makes one instance, to look at it: what the module needs at
    /// its start must be within the limits.
    pub fn link_within(
        &self,
        built: &Built,
        kind: Kind,
        capabilities: &[Capability],
        limits: CallLimits,
    ) -> Result<Prepared, Unusable> {
        Prepared::link(
            &built.component.0,
            kind,
            built.profile,
            capabilities,
            limits,
            self.engines.clone(),
        )
    }
}

/// Refuses what plainly is no component, and names what it is.
fn check_header(module: &[u8]) -> Result<(), String> {
    const MAGIC: &[u8] = b"\0asm";
    const COMPONENT: &[u8] = &[0x0d, 0, 1, 0];
    const CORE: &[u8] = &[1, 0, 0, 0];
    match (module.get(..4), module.get(4..8)) {
        (Some(MAGIC), Some(COMPONENT)) => Ok(()),
        (Some(MAGIC), Some(CORE)) => Err(
            "it is a core module, not a component: make one of it with `beamline-sidecar ext build`".into(),
        ),
        _ => Err("it is not WebAssembly: a component begins with 00 61 73 6d 0d 00 01 00".into()),
    }
}
