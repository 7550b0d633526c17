//! Makes components of modules: from memory, from the private directory, or by the compiler, once for each.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use wasmtime::component::Component;

use super::{
    artifact::{Artifacts, Trusted},
    compile::{CompileError, Compiler},
};
use crate::extensions::{
    manifest::ModuleDigest,
    sandbox::{CallLimits, Capability, Engines, Interface, Kind, Prepared, Profile, Unusable},
};

/// Modules that were refused, which are remembered so that each costs its compilation once.
const MAX_REFUSED: usize = 256;
/// How often a module is tried that the compiler does not finish because the machine is busy.
const MAX_TRIES: u32 = 3;

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
}

#[derive(Debug)]
enum Known {
    Built(Weak<Built>),
    Refused(NotBuilt),
    /// So many times the compiler did not get enough of the processor.
    Starved(u32),
}

/// Whose fault it is that there is no component.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Its,
    Ours,
    /// It took long, and the machine is busy.
    Unclear,
}

/// Makes components of modules, and remembers them.
#[derive(Debug)]
pub struct ComponentCache {
    engines: Arc<Engines>,
    compiler: Compiler,
    artifacts: Option<Artifacts>,
    known: Mutex<HashMap<ModuleDigest, Known>>,
    /// Held while the compiler runs: one at a time, so that it never takes more than one processor.
    compiling: Mutex<()>,
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
            compiling: Mutex::default(),
        }
    }

    /// The engines that the components run on.
    pub fn engines(&self) -> &Arc<Engines> {
        &self.engines
    }

    /// A module that was built before, or why it was not. Never compiles.
    pub fn known(&self, digest: &ModuleDigest) -> Option<Result<Arc<Built>, NotBuilt>> {
        match self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)?
        {
            Known::Built(built) => built.upgrade().map(Ok),
            Known::Refused(why) => Some(Err(why.clone())),
            Known::Starved(_) => None,
        }
    }

    fn starved(&self, digest: &ModuleDigest) -> u32 {
        match self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)
        {
            Some(Known::Starved(times)) => *times,
            _ => 0,
        }
    }

    /// Makes a component of a module: milliseconds for a small one, seconds for an interpreter.
    ///
    /// # Errors
    /// What is wrong with it, with a remedy where there is one. A compiler that could not be started is not held
    /// against the module, nor, the first times, one that had to wait for the processor.
    pub fn build(&self, module: &[u8]) -> Result<Arc<Built>, NotBuilt> {
        let digest = ModuleDigest::of(module);
        let _one_at_a_time = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.known(&digest) {
            return known;
        }
        let (known, result) = match self.build_new(module, digest) {
            Ok(built) => {
                let built = Arc::new(built);
                (Some(Known::Built(Arc::downgrade(&built))), Ok(built))
            }
            Err((why, fault)) => {
                let starved = self.starved(&digest) + 1;
                let known = match fault {
                    Fault::Ours => None,
                    Fault::Unclear if starved < MAX_TRIES => Some(Known::Starved(starved)),
                    Fault::Its | Fault::Unclear => Some(Known::Refused(why.clone())),
                };
                (known, Err(why))
            }
        };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, known| !matches!(known, Known::Built(built) if built.strong_count() == 0));
        if all.len() >= MAX_REFUSED {
            all.retain(|_, known| matches!(known, Known::Built(_)));
        }
        if let Some(known) = known {
            all.insert(digest, known);
        }
        result
    }

    fn build_new(&self, module: &[u8], digest: ModuleDigest) -> Result<Built, (NotBuilt, Fault)> {
        let theirs = |reason: String| (NotBuilt { reason }, Fault::Its);
        check_header(module).map_err(theirs)?;
        let profile = Profile::of(module);
        let engine = self.engines.engine(profile).map_err(|error| {
            (
                NotBuilt {
                    reason: error.to_string(),
                },
                Fault::Ours,
            )
        })?;
        let began = Instant::now();
        let cached = self.artifacts.as_ref().and_then(|artifacts| {
            artifacts.load(profile, &digest).unwrap_or_else(|tampered| {
                tracing::error!("{tampered}");
                None
            })
        });
        // Code of another version has another name; what does not load all the same is made anew.
        let cached = cached.and_then(|code| code.load(engine).ok());
        let (component, compiled_in) = match cached {
            Some(component) => (component, None),
            None => {
                let compiled = self.compiler.compile(module, profile).map_err(|error| {
                    let fault = match error {
                        CompileError::Start(_) | CompileError::CutOff => Fault::Ours,
                        CompileError::Starved { .. } => Fault::Unclear,
                        CompileError::Timeout { .. }
                        | CompileError::Killed { .. }
                        | CompileError::Refused { .. } => Fault::Its,
                    };
                    let reason = match &error {
                        CompileError::Start(source) => format!("{error}: {source}"),
                        _ => error.to_string(),
                    };
                    (NotBuilt { reason }, fault)
                })?;
                let code = Trusted::from(compiled);
                let component = code.load(engine).map_err(|error| {
                    (
                        NotBuilt {
                            reason: format!("its code cannot be loaded: {error:#}"),
                        },
                        Fault::Ours,
                    )
                })?;
                if let Some(artifacts) = &self.artifacts
                    && let Err(error) = artifacts.keep(profile, &digest, &code)
                {
                    tracing::warn!(%error, %digest, "A compiled extension was not kept on disk.");
                }
                (component, Some(began.elapsed()))
            }
        };
        Ok(Built {
            digest,
            bytes: module.len(),
            profile,
            interface: Interface::of(&component),
            compiled_in,
            component: Handle(component),
        })
    }

    /// Links a built module as an extension of a kind, within the limits that calls have unless their record says
    /// otherwise.
    pub fn link(&self, built: &Built, kind: Kind, capabilities: &[Capability]) -> Result<Prepared, Unusable> {
        let limits = CallLimits {
            memory_bytes: usize::try_from(built.profile.default_memory_bytes()).unwrap_or(usize::MAX),
            table_elements: 20_000,
            output_bytes: 1 << 16,
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
