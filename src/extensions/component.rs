//! A component that is ready to be called: compiled, linked, and checked to be of its world.

use std::{fmt, sync::Arc, time::Duration};

use wasmtime::{
    Engine, Store,
    component::{Component, ComponentExportIndex, InstancePre, types::ComponentItem},
};

use super::{
    call::{self, CallError},
    engine::{Engines, Profile},
    host::{self, Capability, Host, Said, Time},
    wire::{
        CallRecord, CandidateRecord, DecisionRecord, MessageRecord, NewMessage, PreOutput, WireScore,
        WireVerdict,
    },
};

/// What an extension is for. Each kind is a world of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A pre-processor.
    Pre,
    Validator,
    Scorer,
    /// A post-processor.
    Post,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Pre, Self::Validator, Self::Scorer, Self::Post];

    /// As registry records, metrics and explanations name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Validator => "validator",
            Self::Scorer => "scorer",
            Self::Post => "post",
        }
    }

    /// The name of its world.
    pub const fn world(self) -> &'static str {
        match self {
            Self::Pre => "pre-processor",
            Self::Validator => "validator",
            Self::Scorer => "scorer",
            Self::Post => "post-processor",
        }
    }

    const fn export(self) -> &'static str {
        match self {
            Self::Pre | Self::Post => "process",
            Self::Validator => "validate",
            Self::Scorer => "score",
        }
    }
}

/// Why a component cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("it imports {import}, which is WASI: there is none here; {WASI_REMEDY}")]
    Wasi { import: String },
    #[error(
        "it imports {import}, which it was not granted: add \"{capability}\" to \"capabilities\" of its record, if it may"
    )]
    NotGranted {
        import: String,
        capability: &'static str,
    },
    #[error(
        "it imports {import}, which this host does not have: it offers log, clock, random and metrics of beamline:extension@0.1.0"
    )]
    UnknownImport { import: String },
    #[error("it is not of the world `{expected}`: {reason}")]
    WrongWorld { expected: &'static str, reason: String },
    #[error("it cannot be linked: {reason}")]
    Link { reason: String },
    /// Nothing of the component's.
    #[error("there is no instance left to look at it; it is tried again with the next reload")]
    NoInstance,
}

const WASI_REMEDY: &str = "build it for wasm32-unknown-unknown (Rust), or with the stubs that `ext new` sets up (JavaScript: --backend-qjs-stub-wasi, Python: --stub-wasi)";

/// What a component asks of its host, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Interface {
    /// Names of interfaces and functions.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

impl Interface {
    pub(super) fn of(component: &Component) -> Self {
        let engine = component.engine();
        let types = component.component_type();
        let name = |(name, _): (&str, _)| name.to_owned();
        Self {
            imports: types.imports(engine).map(name).collect(),
            exports: types.exports(engine).map(name).collect(),
        }
    }

    /// The capabilities that the imports need.
    pub fn needs(&self) -> Vec<Capability> {
        let is_needed = |capability: &Capability| {
            let prefix = format!("beamline:extension/{}@", capability.as_str());
            self.imports.iter().any(|import| import.starts_with(&prefix))
        };
        Capability::ALL.into_iter().filter(is_needed).collect()
    }
}

/// A component of a known kind, ready to be called any number of times.
#[derive(Clone)]
pub struct Prepared {
    kind: Kind,
    profile: Profile,
    engines: Arc<Engines>,
    pre: InstancePre<Host>,
    work: ComponentExportIndex,
    check: ComponentExportIndex,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("kind", &self.kind)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// Limits of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallLimits {
    /// Linear memory, of all memories together.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// What it may hand to the host at once.
    pub output_bytes: usize,
}

/// What a call is given to work on.
#[derive(Debug, Clone, Copy)]
pub enum Work<'a> {
    Pre(MessageRecord<'a>),
    Validator(MessageRecord<'a>),
    Scorer(MessageRecord<'a>, &'a [CandidateRecord<'a>]),
    Post(DecisionRecord<'a>),
}

impl Work<'_> {
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Pre(_) => Kind::Pre,
            Self::Validator(_) => Kind::Validator,
            Self::Scorer(..) => Kind::Scorer,
            Self::Post(_) => Kind::Post,
        }
    }
}

/// What a component answered, unchecked.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    Pre {
        message: Option<NewMessage>,
        context: Option<String>,
    },
    Verdict(WireVerdict),
    Scores(Vec<WireScore>),
    Metadata(Option<String>),
}

/// A call that is over.
#[derive(Debug)]
pub struct Ran<T> {
    pub result: Result<T, CallError>,
    pub said: Said,
    pub took: Duration,
    /// The most linear memory that it had.
    pub memory_bytes: usize,
    /// To be dropped, at once or when the answer is out.
    pub remains: Remains,
}

/// What a call leaves behind of its instance. To drop it cleans its place for another one, which takes microseconds, many
/// for an interpreter.
#[must_use]
pub struct Remains {
    _store: Store<Host>,
}

impl fmt::Debug for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remains").finish_non_exhaustive()
    }
}

/// Circumstances of a call that its component may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Ambience {
    pub now_ms: u64,
    pub seed: u64,
}

impl Prepared {
    /// Links a component and checks that it is what its record says.
    ///
    /// # Errors
    /// The first thing that stands against it, with its remedy.
    pub(super) fn link(
        component: &Component,
        kind: Kind,
        profile: Profile,
        capabilities: &[Capability],
        limits: CallLimits,
        engines: Arc<Engines>,
    ) -> Result<Self, Unusable> {
        let engine = component.engine().clone();
        check_imports(&Interface::of(component), capabilities)?;
        let link = |error: wasmtime::Error| Unusable::Link {
            reason: format!("{error:#}"),
        };
        let linker = host::linker(&engine, capabilities).map_err(link)?;
        let pre = linker.instantiate_pre(component).map_err(link)?;
        let export = |name: &str| {
            let found = component.get_export(None, name);
            let lacks = || Unusable::WrongWorld {
                expected: kind.world(),
                reason: format!(
                    "it does not export the function `{name}`{}",
                    looks_like(component)
                ),
            };
            match found {
                Some((ComponentItem::ComponentFunc(_), index)) => Ok(index),
                _ => Err(lacks()),
            }
        };
        let (work, check) = (export(kind.export())?, export("check-config")?);
        let prepared = Self {
            kind,
            profile,
            engines,
            pre,
            work,
            check,
        };
        prepared.check_types(&engine, limits)?;
        Ok(prepared)
    }

    /// The types of functions can be compared only with an instance at hand; making one runs no code of the
    /// component but its start functions, under the limits of a call.
    fn check_types(&self, engine: &Engine, limits: CallLimits) -> Result<(), Unusable> {
        let wrong = |error: wasmtime::Error| Unusable::WrongWorld {
            expected: self.kind.world(),
            reason: format!("{error:#}{}", looks_like(self.pre.component())),
        };
        let time = Time {
            deadline: Duration::from_secs(2),
            fast: None,
        };
        let mut store = self.store(engine, limits, time, Ambience { now_ms: 0, seed: 0 });
        let _running = self.engines.clock().running(store.data().watch());
        let instance = self.pre.instantiate(&mut store).map_err(|error| {
            if error.is::<wasmtime::PoolConcurrencyLimitError>() {
                return Unusable::NoInstance;
            }
            Unusable::Link {
                reason: format!("it does not start: {error:#}"),
            }
        })?;
        call::check_types(&mut store, &instance, self.kind, &self.work, &self.check).map_err(wrong)
    }

    pub const fn kind(&self) -> Kind {
        self.kind
    }

    pub const fn profile(&self) -> Profile {
        self.profile
    }

    fn store(&self, engine: &Engine, limits: CallLimits, time: Time, ambience: Ambience) -> Store<Host> {
        let host = Host::new(
            limits.memory_bytes,
            limits.table_elements,
            time,
            ambience.now_ms,
            ambience.seed,
        );
        let mut store = Store::new(engine, host);
        store.limiter(|host| &mut host.limiter);
        store.set_hostcall_fuel(limits.output_bytes);
        store.epoch_deadline_callback(host::at_tick);
        store.set_epoch_deadline(1);
        store
    }

    /// Calls it, in an instance of its own that is never used again, on this thread, to its end or its limit.
    pub fn call(
        &self,
        record: CallRecord<'_>,
        work: Work<'_>,
        limits: CallLimits,
        time: Time,
        ambience: Ambience,
    ) -> Ran<Raw> {
        self.run(limits, time, ambience, |store| {
            let instance = self.pre.instantiate(&mut *store)?;
            call::work(store, &instance, &self.work, record, work)
        })
    }

    /// Asks it what is wrong with a configuration.
    pub fn check_config(
        &self,
        config: &str,
        limits: CallLimits,
        time: Time,
    ) -> Ran<Vec<super::wire::ConfigProblem>> {
        self.run(limits, time, Ambience { now_ms: 0, seed: 0 }, |store| {
            let instance = self.pre.instantiate(&mut *store)?;
            call::check_config(store, &instance, &self.check, config)
        })
    }

    fn run<T>(
        &self,
        limits: CallLimits,
        time: Time,
        ambience: Ambience,
        run: impl FnOnce(&mut Store<Host>) -> wasmtime::Result<Result<T, CallError>>,
    ) -> Ran<T> {
        let mut store = self.store(self.pre.engine(), limits, time, ambience);
        let running = self.engines.clock().running(store.data().watch());
        let result = match run(&mut store) {
            Ok(result) => result,
            Err(error) => Err(CallError::of(&error, &store.data().limiter)),
        };
        drop(running);
        let took = store.data().elapsed();
        let memory_bytes = store.data().limiter.peak;
        let said = std::mem::take(&mut store.data_mut().said);
        Ran {
            result,
            said,
            took,
            memory_bytes,
            remains: Remains { _store: store },
        }
    }
}

impl From<PreOutput> for Raw {
    fn from(PreOutput { message, context }: PreOutput) -> Self {
        Self::Pre { message, context }
    }
}

fn check_imports(interface: &Interface, capabilities: &[Capability]) -> Result<(), Unusable> {
    for import in &interface.imports {
        let import = || import.clone();
        if import().starts_with("wasi:") {
            return Err(Unusable::Wasi { import: import() });
        }
        let name = import();
        let Some(rest) = name.strip_prefix("beamline:extension/") else {
            return Err(Unusable::UnknownImport { import: name });
        };
        let interface = rest.split('@').next().unwrap_or(rest);
        if matches!(interface, "types" | "log") {
            continue;
        }
        match Capability::ALL
            .into_iter()
            .find(|capability| capability.as_str() == interface)
        {
            Some(capability) if capabilities.contains(&capability) => {}
            Some(capability) => {
                return Err(Unusable::NotGranted {
                    import: name.clone(),
                    capability: capability.as_str(),
                });
            }
            None => return Err(Unusable::UnknownImport { import: name.clone() }),
        }
    }
    Ok(())
}

/// Which kind a component seems to be, for a message about its being another.
fn looks_like(component: &Component) -> String {
    let exports = Interface::of(component).exports;
    let has = |name: &str| exports.iter().any(|export| export == name);
    let kind = if has("validate") {
        "a validator"
    } else if has("score") {
        "a scorer"
    } else if has("process") {
        "a pre-processor or a post-processor"
    } else {
        return String::new();
    };
    format!(" (it looks like {kind})")
}
