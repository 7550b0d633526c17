//! The limits of calls, where a manifest sets them and where it does not.

use super::links::Refusal;
use crate::extensions::{
    config::ExtensionsConfig,
    manifest::ManifestLimits,
    sandbox::{CallLimits, Profile},
};

/// Bytes that a call may hand over at once, by default.
const DEFAULT_OUTPUT_BYTES: u64 = 1 << 20;
/// Calls of an extension at a time, by default.
const DEFAULT_CONCURRENCY: u32 = 64;

/// The limits of the calls of a module.
///
/// # Errors
/// When the manifest asks for more memory or output than the sidecar allows.
pub fn call_limits(
    limits: &ManifestLimits,
    profile: Profile,
    config: &ExtensionsConfig,
) -> Result<CallLimits, Refusal> {
    let max_memory = config.max_memory_bytes;
    if let Some(memory) = limits.memory_bytes.filter(|memory| *memory > max_memory) {
        return Err(Refusal {
            message: format!(
                "limits.memory_bytes ({memory}) is more than extensions.max_memory_bytes ({max_memory})"
            ),
            remedy: "ask for less, or raise the limit",
        });
    }
    let max_output = config.max_output_bytes;
    if let Some(output) = limits.output_bytes.filter(|output| *output > max_output) {
        return Err(Refusal {
            message: format!(
                "limits.output_bytes ({output}) is more than extensions.max_output_bytes ({max_output})"
            ),
            remedy: "ask for less, or raise the limit",
        });
    }
    let output = limits.output_bytes.unwrap_or(DEFAULT_OUTPUT_BYTES);
    let memory = limits.memory_bytes.unwrap_or(profile.default_memory_bytes());
    Ok(CallLimits {
        memory_bytes: usize::try_from(memory.min(max_memory)).unwrap_or(usize::MAX),
        table_elements: limits.table_elements.unwrap_or(profile.default_table_elements()) as usize,
        output_bytes: usize::try_from(output.min(max_output)).unwrap_or(usize::MAX),
        fuel: limits.fuel,
    })
}

/// Calls of an extension at a time.
pub(super) fn concurrency(limits: &ManifestLimits) -> u32 {
    limits.concurrency.unwrap_or(DEFAULT_CONCURRENCY)
}
