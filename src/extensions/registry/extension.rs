//! One extension with everything that a call needs: its versions, their instances, and its health.

use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    decide::Context,
    extensions::{
        component_cache::Built,
        health::{ExtensionHealth, TargetHealth},
        manifest::{Manifest, Module, Release},
        metrics::{Execution, ExecutionSeries, ExtensionMetrics},
        sandbox::{CallLimits, Kind, Prepared},
        signing::KeySet,
    },
    policy::{PolicyId, TenantId},
};

/// Where a manifest came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ManifestSource {
    /// HEIR, the policy store.
    Heir,
    /// The local directory.
    File,
}

/// One extension, ready to be called.
#[derive(Debug)]
pub struct Extension {
    /// The name that policies call it by.
    pub id: Arc<str>,
    /// What it is called for.
    pub kind: Kind,
    /// Where its manifest came from.
    pub source: ManifestSource,
    /// Its record, as it was written.
    pub(in crate::extensions) record: Arc<str>,
    /// What its record says.
    pub manifest: Manifest,
    pub(super) variants: Vec<Variant>,
    /// Calls at a time.
    pub concurrency: u32,
    /// How it fares. It outlives the registry.
    pub health: Arc<ExtensionHealth>,
    pub(super) series: RwLock<HashMap<(TenantId, PolicyId), Arc<ExecutionSeries>>>,
}

/// Policies whose series are kept; past that all are looked up anew.
const MAX_SERIES: usize = 10_000;

/// One version, with its instances.
#[derive(Debug)]
pub(in crate::extensions) struct Variant {
    pub(in crate::extensions) release: Release,
    /// The configuration in JSON, for calls whose policy does not override it.
    pub(in crate::extensions) config_text: Box<str>,
    pub(super) instances: Vec<Target>,
}

/// What is called.
#[derive(Debug, Clone)]
pub struct Target {
    /// The id of the instance, where the record names any.
    pub instance: Option<Box<str>>,
    /// Its share of the calls of its version: 0 to 100.
    pub weight: u32,
    /// The linked component.
    pub prepared: Arc<Prepared>,
    /// Where that is from.
    pub module: Module,
    /// Who signed it, of those whose keys are known.
    pub(in crate::extensions) signed_by: KeySet,
    /// The module that it was made of.
    pub built: Arc<Built>,
    /// The limits of its calls.
    pub limits: CallLimits,
    /// How it fares. It outlives the registry.
    pub health: Arc<TargetHealth>,
}

/// The version and the instance that a call goes to.
#[derive(Debug, Clone, Copy)]
pub(in crate::extensions) struct Routed<'a> {
    pub(in crate::extensions) variant: &'a Variant,
    pub(in crate::extensions) target: &'a Target,
}

impl Extension {
    /// The first version whose rules match the context, else the newest; and one of its instances, by weight.
    pub(in crate::extensions) fn route(&self, context: &Context, chance: u64) -> Option<Routed<'_>> {
        let matches = |variant: &&Variant| match_rules(&variant.release.routing_rules, context);
        let variant = self
            .variants
            .iter()
            .find(matches)
            .or_else(|| self.variants.first())?;
        Some(Routed {
            variant,
            target: choose(&variant.instances, chance)?,
        })
    }

    /// The series that calls for a policy are counted in.
    pub(in crate::extensions) fn series(
        &self,
        metrics: &ExtensionMetrics,
        tenant: &TenantId,
        policy: &PolicyId,
    ) -> Arc<ExecutionSeries> {
        let key = (tenant.clone(), policy.clone());
        let known = self
            .series
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        known.unwrap_or_else(|| {
            let series = Arc::new(metrics.series(Execution {
                extension: &self.id,
                kind: self.kind.as_str(),
                tenant: tenant.as_str(),
                policy: policy.as_str(),
            }));
            let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= MAX_SERIES {
                all.clear();
            }
            all.insert(key, series.clone());
            series
        })
    }

    /// Everything that may be called, with its version.
    pub fn targets(&self) -> impl Iterator<Item = (&Release, &Target)> {
        self.variants.iter().flat_map(|variant| {
            variant
                .instances
                .iter()
                .map(move |target| (&variant.release, target))
        })
    }
}

fn match_rules(rules: &Map<String, Value>, context: &Context) -> bool {
    rules.iter().all(|(key, wanted)| {
        context.get(key).is_some_and(|value| match wanted {
            Value::Array(any) => any.contains(value),
            scalar => scalar == value,
        })
    })
}

/// One of the targets by weight; where all weigh nothing, the first.
fn choose(targets: &[Target], chance: u64) -> Option<&Target> {
    let total: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
    if targets.len() <= 1 || total == 0 {
        return targets.first();
    }
    let mut drawn = chance % total;
    for target in targets {
        let weight = u64::from(target.weight);
        if drawn < weight {
            return Some(target);
        }
        drawn -= weight;
    }
    targets.first()
}

/// The configuration of a call: that of the record, with the keys of the policy's item in their place.
pub fn merged(base: &Map<String, Value>, item: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = base.clone();
    merged.extend(item.iter().map(|(key, value)| (key.clone(), value.clone())));
    merged
}
