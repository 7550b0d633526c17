//! Extensions as an operator sees them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    clock::now,
    extensions::{BreakerReport, Capability, Extension, HealthReport, Kind, LastTrap, ManifestSource},
    policy::Problem,
};

/// Extensions that can be called, those that cannot, and why.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ExtensionList {
    /// Those that can be called, by id.
    pub extensions: Vec<ExtensionEntry>,
    pub disabled: Vec<DisabledEntry>,
    /// What is wrong with records, by extension.
    pub problems: BTreeMap<String, Vec<Problem>>,
    pub instances: InstanceCounts,
    pub slow_lane: WorkerPool,
}

/// An extension that can be called.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ExtensionEntry {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub description: String,
    pub source: ManifestSource,
    pub capabilities: Vec<Capability>,
    pub concurrency: u32,
    pub versions: Vec<TargetEntry>,
    pub lane: &'static str,
    /// Of its breaker: `closed`, `open` or `half_open`.
    pub state: &'static str,
}

/// One instance of one version.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TargetEntry {
    pub version: String,
    pub instance_id: Option<String>,
    pub weight: u32,
    pub module: Option<String>,
    /// Of the module, in hex.
    pub sha256: String,
    /// Of the module.
    pub bytes: usize,
    /// `compact` or `interpreter`.
    pub profile: &'static str,
    pub imports: Vec<String>,
    pub limits: TargetLimits,
}

/// What one call may use.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct TargetLimits {
    pub memory_bytes: usize,
    pub output_bytes: usize,
    pub table_elements: usize,
}

/// An extension that is registered and not to be called.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DisabledEntry {
    pub id: String,
    pub by: DisabledBy,
}

/// What keeps an extension from being called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DisabledBy {
    /// An operator, until the next start.
    Operator,
    /// Its own record.
    Record,
}

/// Instances that run.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct InstanceCounts {
    pub running: usize,
    pub most: u32,
}

/// Calls that wait for threads of their own.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct WorkerPool {
    pub waiting: usize,
    pub threads: u32,
    pub most: u32,
}

/// One extension: one that can be called, or one that cannot.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ExtensionView {
    Callable(Box<ExtensionDetail>),
    Unavailable(Unavailable),
}

/// One extension that can be called, with its health and its last crashes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ExtensionDetail {
    #[serde(flatten)]
    pub entry: ExtensionEntry,
    /// What is wrong with its record; it then runs as it did before.
    pub problems: Option<Vec<Problem>>,
    pub health: HealthReport,
    pub circuit_breaker: BreakerReport,
    pub last_traps: Vec<LastTrap>,
}

/// One extension that is registered and cannot be called.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Unavailable {
    pub id: String,
    pub disabled: bool,
    pub by: DisabledBy,
    pub problems: Option<Vec<Problem>>,
}

impl ExtensionEntry {
    /// The extension as it can be called now.
    pub(super) fn of(extension: &Extension) -> Self {
        let versions = extension.targets().map(|(release, target)| TargetEntry {
            version: release.version.to_string(),
            instance_id: target.instance.as_deref().map(ToOwned::to_owned),
            weight: target.weight,
            module: release.module.as_ref().map(|module| module.source.to_string()),
            sha256: target.built.digest.to_string(),
            bytes: target.built.bytes,
            profile: target.built.profile.as_str(),
            imports: target.built.interface.imports.clone(),
            limits: TargetLimits {
                memory_bytes: target.limits.memory_bytes,
                output_bytes: target.limits.output_bytes,
                table_elements: target.limits.table_elements,
            },
        });
        Self {
            id: extension.id.to_string(),
            kind: extension.kind,
            description: extension.manifest.description.to_string(),
            source: extension.source,
            capabilities: extension.manifest.capabilities.clone(),
            concurrency: extension.concurrency,
            versions: versions.collect(),
            lane: extension.health.report(&extension.id, now()).lane,
            state: extension.health.breaker(&extension.id, now()).state,
        }
    }
}
