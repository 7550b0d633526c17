//! A component that is ready to be called: compiled, linked, and checked to be of its world.

use std::{fmt, sync::Arc, time::Duration};

use wasmtime::{
    Engine, Store,
    component::{Component, ComponentExportIndex, InstancePre, types::ComponentItem},
};

use super::{
    budget::Budget,
    call,
    engine::{Engines, Profile},
    error::CallError,
    imports::{self, CallState, Ended},
    timer::Timer,
    turns::Turns,
    types::{CallEnv, CallLimits, Capability, GuestOutput, Kind, Raw, Time, Work},
    wire::{CallRecord, ConfigProblem},
};

/// Why a component cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It imports WASI.
    #[error("it imports {import}, which is WASI: there is none here; {WASI_REMEDY}")]
    Wasi {
        /// The first such import.
        import: String,
    },
    /// It imports what its record does not grant.
    #[error(
        "it imports {import}, which it was not granted: add \"{capability}\" to \"capabilities\" of its record, if it may"
    )]
    NotGranted {
        /// The import.
        import: String,
        /// The capability that the import needs.
        capability: &'static str,
    },
    /// It imports what no extension can.
    #[error(
        "it imports {import}, which this host does not have: it offers log, clock, random and metrics of beamline:extension@0.1.0"
    )]
    UnknownImport {
        /// The import.
        import: String,
    },
    /// Its exports are not those of its kind.
    #[error("it is not of the world `{expected}`: {reason}")]
    WrongWorld {
        /// The world of the kind.
        expected: &'static str,
        /// What differs.
        reason: String,
    },
    /// It cannot be linked or instantiated.
    #[error("it cannot be linked: {reason}")]
    Link {
        /// What the engine reports.
        reason: String,
    },
    /// Nothing is wrong with it: all instances are in use.
    #[error("there is no instance left to look at it; it is tried again with the next reload")]
    NoInstance,
}

const WASI_REMEDY: &str = "build it for wasm32-unknown-unknown (Rust), or with the stubs that `ext new` sets up (JavaScript: --backend-qjs-stub-wasi, Python: --stub-wasi)";

/// What a component imports and exports.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Interface {
    /// Names of interfaces and functions.
    pub imports: Vec<String>,
    /// Names of functions.
    pub exports: Vec<String>,
}

impl Interface {
    /// The interface of a component.
    pub(in crate::extensions) fn of(component: &Component) -> Self {
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
    pre: InstancePre<CallState>,
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

/// A call that is over.
#[derive(Debug)]
pub struct CallOutput<T> {
    /// What it returned, or why it failed.
    pub result: Result<T, CallError>,
    /// What it logged and counted.
    pub output: GuestOutput,
    /// How long it took.
    pub took: Duration,
    /// Counts from its beginning, on its thread.
    pub timer: Timer,
    /// The most linear memory that it had.
    pub memory_bytes: usize,
    /// What it computed, where that is counted.
    pub fuel: Option<u64>,
    /// To be dropped, at once or when the answer is sent.
    pub spent: SpentStore,
}

/// The instance of a call that is over. Dropping it cleans its place for another one, which takes microseconds, many for an
/// interpreter.
#[must_use]
pub struct SpentStore {
    _store: Store<CallState>,
}

impl fmt::Debug for SpentStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpentStore").finish_non_exhaustive()
    }
}

impl Prepared {
    /// Links a component and checks that it is what its record says.
    ///
    /// # Errors
    /// The first thing that stands against it, with its remedy.
    pub(in crate::extensions) fn link(
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
        let linker = imports::linker(&engine, capabilities).map_err(link)?;
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
        let time = Time::of(Duration::from_secs(2));
        let mut store = self.store(engine, limits, time, None, CallEnv { now_ms: 0, seed: 0 });
        let _running = self.engines.clock().running(store.data().watch());
        let instance = self.pre.instantiate(&mut store).map_err(|error| {
            let is_full = error.downcast_ref::<Ended>() == Some(&Ended::NoRoom);
            if is_full || error.is::<wasmtime::PoolConcurrencyLimitError>() {
                return Unusable::NoInstance;
            }
            Unusable::Link {
                reason: format!("it does not start: {error:#}"),
            }
        })?;
        call::check_types(&mut store, &instance, self.kind, &self.work, &self.check).map_err(wrong)
    }

    /// The memory of all calls that are under way.
    pub(in crate::extensions) fn budget(&self) -> &Arc<Budget> {
        self.engines.budget()
    }

    /// What it is called for.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The engine that it runs on.
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    fn store(
        &self,
        engine: &Engine,
        limits: CallLimits,
        time: Time,
        turns: Option<Arc<dyn Turns>>,
        env: CallEnv,
    ) -> Store<CallState> {
        let share = self.engines.budget().share();
        let mut store = Store::new(engine, CallState::new(limits, time, turns, env, share));
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(limits.output_bytes);
        store.epoch_deadline_callback(imports::at_tick);
        store.set_epoch_deadline(1);
        if self.profile.is_metered() {
            // Fails for engines that do not count only.
            let _counts = store.set_fuel(limits.fuel.unwrap_or(u64::MAX));
        }
        store
    }

    /// Calls it, in an instance of its own that is never used again, on this thread, to its end or its limit.
    pub fn call(
        &self,
        record: CallRecord<'_>,
        work: Work<'_>,
        limits: CallLimits,
        time: Time,
        env: CallEnv,
    ) -> CallOutput<Raw> {
        self.call_in_turns(record, work, limits, time, env, None)
    }

    /// As [`Self::call`], on a thread where calls take turns.
    pub(in crate::extensions) fn call_in_turns(
        &self,
        record: CallRecord<'_>,
        work: Work<'_>,
        limits: CallLimits,
        time: Time,
        env: CallEnv,
        turns: Option<Arc<dyn Turns>>,
    ) -> CallOutput<Raw> {
        self.run(limits, time, turns, env, |store| {
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
    ) -> CallOutput<Vec<ConfigProblem>> {
        self.run(limits, time, None, CallEnv { now_ms: 0, seed: 0 }, |store| {
            let instance = self.pre.instantiate(&mut *store)?;
            call::check_config(store, &instance, &self.check, config)
        })
    }

    fn run<T>(
        &self,
        limits: CallLimits,
        time: Time,
        turns: Option<Arc<dyn Turns>>,
        env: CallEnv,
        run: impl FnOnce(&mut Store<CallState>) -> wasmtime::Result<Result<T, CallError>>,
    ) -> CallOutput<T> {
        let mut store = self.store(self.pre.engine(), limits, time, turns, env);
        let running = self.engines.clock().running(store.data().watch());
        let result = match run(&mut store) {
            Ok(result) => result,
            Err(error) => Err(CallError::of(&error, &store.data().limiter)),
        };
        drop(running);
        let timer = store.data().timer;
        let took = timer.elapsed();
        let memory_bytes = store.data().limiter.peak;
        let fuel = match limits.fuel {
            Some(fuel) if self.profile.is_metered() => {
                store.get_fuel().ok().map(|left| fuel.saturating_sub(left))
            }
            _ => None,
        };
        let output = std::mem::take(&mut store.data_mut().output);
        CallOutput {
            result,
            output,
            took,
            timer,
            memory_bytes,
            fuel,
            spent: SpentStore { _store: store },
        }
    }
}

fn check_imports(interface: &Interface, capabilities: &[Capability]) -> Result<(), Unusable> {
    interface
        .imports
        .iter()
        .try_for_each(|import| check_import(import, capabilities))
}

/// Whether an import is one that there is here, and that was granted.
///
/// # Errors
/// Why it is not linked.
pub fn check_import(import: &str, capabilities: &[Capability]) -> Result<(), Unusable> {
    let import = import.to_owned();
    if import.starts_with("wasi:") {
        return Err(Unusable::Wasi { import });
    }
    let Some((interface, version)) = import
        .strip_prefix("beamline:extension/")
        .map(|rest| rest.split_once('@').unwrap_or((rest, "")))
    else {
        return Err(Unusable::UnknownImport { import });
    };
    // They have no functions: what is not compatible is seen where the functions are.
    if interface == "types" {
        return Ok(());
    }
    // Versions of one minor version are compatible with each other, as long as the major one is 0.
    if !version.starts_with("0.1.") {
        return Err(Unusable::UnknownImport { import });
    }
    if interface == "log" {
        return Ok(());
    }
    let known = Capability::ALL
        .into_iter()
        .find(|capability| capability.as_str() == interface);
    match known {
        Some(capability) if capabilities.contains(&capability) => Ok(()),
        Some(capability) => Err(Unusable::NotGranted {
            capability: capability.as_str(),
            import,
        }),
        None => Err(Unusable::UnknownImport { import }),
    }
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
