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
    /// Those that are registered and disabled, by id.
    pub disabled: Vec<DisabledEntry>,
    /// Those whose modules are fetched or compiled at present, by id. One that could be called before goes on as it was.
    pub pending: Vec<String>,
    /// What is wrong with records, by extension.
    pub problems: BTreeMap<String, Vec<Problem>>,
    /// Calls of all extensions that run now.
    pub instances: InstanceCounts,
    /// Calls that wait for the slow worker threads.
    pub slow_lane: WorkerPool,
}

/// An extension that can be called.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ExtensionEntry {
    /// The id that policies name.
    pub id: String,
    /// What kind of extension it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// From its manifest.
    pub description: String,
    /// Where its manifest came from.
    pub source: ManifestSource,
    /// What its manifest allows it to do.
    pub capabilities: Vec<Capability>,
    /// Most calls at one time.
    pub concurrency: u32,
    /// Every instance of every version.
    pub versions: Vec<TargetEntry>,
    /// Where its calls run: `fast`, `slow` or `idle`.
    pub lane: &'static str,
    /// Of its breaker: `closed`, `open` or `half_open`.
    pub state: &'static str,
}

/// One instance of one version.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TargetEntry {
    /// The version of the release.
    pub version: String,
    /// `null` where the manifest names no instances.
    pub instance_id: Option<String>,
    /// Share of calls, relative to the weights of the other instances.
    pub weight: u32,
    /// Where the module is from: the instance's own, else the version's.
    pub module: String,
    /// Of the module, in hex.
    pub sha256: String,
    /// Of the module.
    pub bytes: usize,
    /// `compact` or `interpreter`, with `-metered` where its calls have fuel.
    pub profile: &'static str,
    /// The host interfaces that the module imports.
    pub imports: Vec<String>,
    /// What one call of it may use.
    pub limits: TargetLimits,
}

/// What one call may use.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct TargetLimits {
    /// Most linear memory, in bytes.
    pub memory_bytes: usize,
    /// Longest output, in bytes.
    pub output_bytes: usize,
    /// Most elements of one table.
    pub table_elements: usize,
    /// What it may compute, where its record says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
}

/// An extension that is registered and not to be called.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DisabledEntry {
    /// The id that policies name.
    pub id: String,
    /// What disabled it.
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
    /// Calls that run now.
    pub running: usize,
    /// Most calls at one time, `extensions.max_instances`.
    pub most: u32,
}

/// Calls that wait for threads of their own.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct WorkerPool {
    /// Calls that wait for a thread.
    pub waiting: usize,
    /// Threads of the pool.
    pub threads: u32,
    /// Most calls that may wait, `extensions.max_queued_calls`.
    pub most: u32,
}

/// One extension: one that can be called, or one that cannot.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ExtensionView {
    /// It can be called.
    Callable(Box<ExtensionDetail>),
    /// It is disabled or its record is unusable.
    Unavailable(Unavailable),
}

/// One extension that can be called, with its health and its last crashes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ExtensionDetail {
    /// The extension as the list has it.
    #[serde(flatten)]
    pub entry: ExtensionEntry,
    /// What is wrong with its record; it then runs as it did before.
    pub problems: Option<Vec<Problem>>,
    /// Recent calls and their outcomes.
    pub health: HealthReport,
    /// The breaker that stops calls after repeated failures.
    pub circuit_breaker: BreakerReport,
    /// Its last crashes.
    pub last_traps: Vec<LastTrap>,
}

/// One extension that is registered and cannot be called.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Unavailable {
    /// The id that policies name.
    pub id: String,
    /// Whether it is disabled, not merely broken.
    pub disabled: bool,
    /// What disabled it.
    pub by: DisabledBy,
    /// Whether its module is fetched or compiled at present.
    pub pending: bool,
    /// What is wrong with its record; `null`: nothing.
    pub problems: Option<Vec<Problem>>,
}

impl ExtensionEntry {
    /// The extension as it can be called now.
    pub(super) fn of(extension: &Extension) -> Self {
        let versions = extension.targets().map(|(release, target)| TargetEntry {
            version: release.version.to_string(),
            instance_id: target.instance.as_deref().map(ToOwned::to_owned),
            weight: target.weight,
            module: target.module.source.to_string(),
            sha256: target.built.digest.to_string(),
            bytes: target.built.bytes,
            profile: target.built.profile.as_str(),
            imports: target.built.interface.imports.clone(),
            limits: TargetLimits {
                memory_bytes: target.limits.memory_bytes,
                output_bytes: target.limits.output_bytes,
                table_elements: target.limits.table_elements,
                fuel: target.limits.fuel,
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
