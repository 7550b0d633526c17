//! The same engine that the sidecar runs extensions on, for one component.

use std::{path::Path, sync::Arc, time::Duration};

use crate::extensions::{
    CallLimits, Compiler, ComponentCache, Engines, ExtensionsConfig, Manifest, ManifestLimits, Profile,
};

/// Longer than a sidecar waits, so that an author's busy machine decides nothing. `ext check` reports the difference.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(300);

/// What a call may take where its record does not say, in milliseconds.
pub(super) fn default_timeout_ms() -> u32 {
    ExtensionsConfig::default().timeout_ms
}

/// A component cache with room for so many calls at once. What it compiles is kept nowhere: to load code from a directory that
/// came with a project would be to trust it.
pub(super) fn component_cache(calls: usize, memory_bytes: usize) -> Result<ComponentCache, String> {
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
    };
    Ok(ComponentCache::new(Arc::new(engines), compiler, None::<&Path>))
}

/// The limits of a call, as the sidecar has them for this record.
pub(super) fn limits(profile: Profile, record: Option<&Manifest>) -> CallLimits {
    let said = record.map_or_else(ManifestLimits::default, |record| record.limits);
    let size =
        |said: Option<u64>, otherwise: u64| usize::try_from(said.unwrap_or(otherwise)).unwrap_or(usize::MAX);
    let table_elements = match profile {
        Profile::Compact => 10_000,
        Profile::Interpreter => 20_000,
    };
    CallLimits {
        memory_bytes: size(said.memory_bytes, profile.default_memory_bytes()),
        table_elements: size(said.table_elements.map(u64::from), table_elements),
        output_bytes: size(said.output_bytes, 1 << 20),
    }
}
