//! The same engine that the sidecar runs extensions on, for one component.

use std::{path::Path, sync::Arc, time::Duration};

use super::target::Target;
use crate::{
    cli::cache_dir,
    extensions::{
        CallLimits, Capability, Compiler, ComponentCache, Engines, ExtensionsConfig, Kind, Manifest,
        ManifestLimits, Prepared, Profile, Refusal, call_limits, testing::CallSettings,
    },
};

/// Longer than a sidecar waits, so that an author's busy machine decides nothing. `ext check` reports the difference.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(300);

/// What a call may take where its record does not say, in milliseconds.
pub(super) fn default_timeout_ms() -> u32 {
    ExtensionsConfig::default().timeout_ms
}

/// A component cache with room for so many calls at once. What it compiles is kept in a directory where one is given.
pub(super) fn component_cache(
    calls: usize,
    memory_bytes: usize,
    dir: Option<&Path>,
) -> Result<ComponentCache, String> {
    let config = ExtensionsConfig::default();
    let instances = u32::try_from(calls).unwrap_or(u32::MAX).max(4);
    let most = config.max_memory_bytes.max(memory_bytes as u64);
    let engines = Engines::new(instances, most).map_err(|error| error.to_string())?;
    let program =
        std::env::current_exe().map_err(|error| format!("this program cannot find itself: {error}"))?;
    let compiler = Compiler {
        program,
        timeout: COMPILE_TIMEOUT,
        memory_bytes: config.max_compile_memory_bytes,
        in_background: false,
    };
    Ok(ComponentCache::new(Arc::new(engines), compiler, dir))
}

/// A component that is ready to be called, and how it is called.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) prepared: Prepared,
    pub(super) settings: CallSettings,
    /// What a sidecar lets a call take, in milliseconds.
    pub(super) timeout_ms: u32,
    /// How long compiling it took; `None` where a run before has compiled it.
    pub(super) compiled_in: Option<Duration>,
}

impl Ready {
    /// Prepares a component for calls of a kind, with the capabilities and limits of its record.
    ///
    /// # Errors
    /// What stands against it.
    pub(super) fn of(
        target: &Target,
        module: &[u8],
        record: Option<&Manifest>,
        kind: Kind,
        deadline: Duration,
    ) -> Result<Self, String> {
        let limits = limits(Profile::of(module), record);
        let profile = Profile::of(module).metered(limits.fuel.is_some());
        let dir = cache_dir().map(|dir| dir.join("compiled"));
        let cache = component_cache(1, limits.memory_bytes, dir.as_deref())?;
        let refused = |reason: String| format!("{}: {reason}", target.file.display());
        let built = cache
            .build_for(module, profile)
            .map_err(|error| refused(error.reason))?;
        let capabilities: Vec<Capability> = match record {
            Some(record) => record.capabilities.clone(),
            None => built.interface.needs(),
        };
        let prepared = cache
            .link(&built, kind, &capabilities)
            .map_err(|error| refused(error.to_string()))?;
        let timeout_ms = record
            .and_then(|record| record.base.timeout_ms)
            .unwrap_or_else(default_timeout_ms);
        Ok(Self {
            prepared,
            settings: CallSettings {
                limits,
                deadline,
                remaining_ms: timeout_ms,
            },
            timeout_ms,
            compiled_in: built.compiled_in,
        })
    }
}

/// The limits of a call, as the sidecar has them for this record; more memory than it gives where the record asks for it.
pub(super) fn limits(profile: Profile, record: Option<&Manifest>) -> CallLimits {
    let said = said(record);
    let generous = ExtensionsConfig {
        max_memory_bytes: u64::MAX,
        ..ExtensionsConfig::default()
    };
    let own = call_limits(&said, profile, &ExtensionsConfig::default());
    let limits = own.or_else(|_refused| call_limits(&said, profile, &generous));
    limits.unwrap_or(CallLimits {
        memory_bytes: usize::MAX,
        table_elements: 0,
        output_bytes: 0,
        fuel: None,
    })
}

/// Why a sidecar that is not configured otherwise refuses the limits of this record.
pub(super) fn refusal(profile: Profile, record: Option<&Manifest>) -> Option<Refusal> {
    call_limits(&said(record), profile, &ExtensionsConfig::default()).err()
}

fn said(record: Option<&Manifest>) -> ManifestLimits {
    record.map_or_else(ManifestLimits::default, |record| record.limits)
}
