//! The extensions that the commands for policies try a policy with: scripted ones, or real ones of a directory.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::{
    decide::{
        Answer, Call, DecideContext, DecisionInput, ExtensionError, Extensions, Outcome, Rules, Scripted,
        TIMEOUT_MS, decide, decide_now, memory::Memory,
    },
    extensions::{
        Asking, Calls, ExtensionHost, ExtensionMetrics, ExtensionRecords, ExtensionsConfig, Registry,
    },
    policy::{RoutingPolicy, Severity},
};

/// Extensions for trying a policy.
#[derive(Debug)]
pub(super) enum TriedExtensions {
    /// Those of a script.
    Scripted,
    /// Those of a directory, and of a script what the directory does not have.
    Real(Box<RealExtensions>),
}

/// The extensions of a directory, as a sidecar with that `extensions_dir` has them.
#[derive(Debug)]
pub(super) struct RealExtensions {
    host: Arc<ExtensionHost>,
    registry: Arc<Registry>,
    runtime: Runtime,
}

/// Every extension succeeds and changes nothing.
pub(super) fn all_succeed() -> Scripted {
    Scripted {
        others_succeed: true,
        ..Scripted::default()
    }
}

impl TriedExtensions {
    /// The real ones of a directory, where one is named.
    ///
    /// # Errors
    /// What is wrong with the directory, its records and its modules.
    pub(super) fn of(dir: Option<&Path>) -> io::Result<Self> {
        match dir {
            Some(dir) => Ok(Self::Real(Box::new(RealExtensions::load(dir)?))),
            None => Ok(Self::Scripted),
        }
    }

    /// Decides.
    pub(super) fn decide(
        &self,
        policy: &RoutingPolicy,
        input: DecisionInput<'_>,
        rules: &Rules,
        memory: &Memory,
        script: &Scripted,
        at: DecideContext<'_>,
    ) -> Outcome {
        match self {
            Self::Scripted => decide_now(policy, input, rules, memory, script, at),
            Self::Real(real) => {
                let called = Called {
                    calls: real.host.calls(&real.registry, Asking::default()),
                    registry: &real.registry,
                    script,
                };
                real.runtime
                    .block_on(decide(policy, input, rules, memory, &called, at))
            }
        }
    }
}

impl RealExtensions {
    fn load(dir: &Path) -> io::Result<Self> {
        let named = |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", dir.display()));
        let absolute = dir.canonicalize().map_err(|error| named(&error))?;
        let config = ExtensionsConfig {
            // A few are cleaned later than their call, so one call at a time needs more than one.
            max_instances: 32,
            worker_threads: 1,
            compile_timeout_ms: 300_000,
            // Each decision is tried by itself: what crashed in another one blocks nothing here.
            quarantine_after: u32::MAX,
            ..ExtensionsConfig::default()
        };
        let metrics = ExtensionMetrics::register(&prometheus::Registry::new()).map_err(io::Error::other)?;
        let program = std::env::current_exe()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let state = kept_in(&absolute);
        let host = ExtensionHost::new(
            config,
            Some(&absolute),
            state.as_deref(),
            program,
            Arc::new(metrics),
        );
        host.read_directory().map_err(|error| named(&error))?;
        let none = Arc::new(ExtensionRecords::default());
        host.build_here();
        let registry = host.assemble(&Arc::new(Registry::default()), &none);
        let problems = registry.problems().iter().flat_map(|(id, problems)| {
            let errors = problems
                .iter()
                .filter(|problem| problem.severity == Severity::Error);
            errors.map(move |problem| format!("{}: {id}: {problem}", dir.display()))
        });
        let problems: Vec<String> = problems.collect();
        if !problems.is_empty() {
            return Err(io::Error::other(problems.join("\n")));
        }
        if registry.is_empty() {
            return Err(named(
                &"there is no extension there: it holds records, *.json, and their modules",
            ));
        }
        Ok(Self {
            host: Arc::new(host),
            registry,
            runtime,
        })
    }
}

/// Where the compiled extensions of a directory are kept for the next run.
fn kept_in(dir: &Path) -> Option<PathBuf> {
    let name = hex::encode(&Sha256::digest(dir.as_os_str().as_encoded_bytes())[..8]);
    Some(super::cache_dir()?.join("directories").join(name))
}

/// The extensions of a directory, and a script for those that it does not have.
struct Called<'a> {
    calls: Calls<'a>,
    registry: &'a Registry,
    script: &'a Scripted,
}

impl Extensions for Called<'_> {
    async fn call(&self, call: &Call<'_>) -> Result<Answer, ExtensionError> {
        let is_there = self.registry.get(call.id).is_some() || self.registry.disabled().contains_key(call.id);
        if !is_there {
            return self.script.call(call).await;
        }
        // As much time as a call can have: the same input decides the same on a busy machine.
        let patient = Call {
            timeout_ms: Some(*TIMEOUT_MS.end()),
            retry: Some(0),
            ..*call
        };
        self.calls.call(&patient).await
    }
}
