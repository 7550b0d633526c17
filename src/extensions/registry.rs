//! The extensions of one snapshot: found by id, each with everything that a call needs. Immutable; it changes together with
//! the policies that name them.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use hashbrown::HashMap;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    component::{CallLimits, Kind, Prepared},
    record::{Record, RecordKind, Release},
    vitals::Vitals,
    workshop::Built,
};
use crate::{
    decide::Context,
    policy::{PolicyId, Problem, TenantId},
    telemetry::extensions::{Execution, ExecutionSeries, ExtensionMetrics},
};

/// Where a record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordSource {
    Heir,
    File,
}

/// Everything that is registered.
#[derive(Debug, Default)]
pub struct Registry {
    pub(super) extensions: HashMap<Box<str>, Arc<Extension>>,
    /// What is wrong with records, by their ids. One with errors keeps its last good state, if it had one.
    pub(super) problems: BTreeMap<String, Vec<Problem>>,
    /// Registered and not to be called.
    pub(super) disabled: BTreeMap<String, RecordSource>,
    pub(super) origin: super::assemble::Origin,
}

/// One extension, ready to be called.
#[derive(Debug)]
pub struct Extension {
    pub id: Arc<str>,
    pub kind: Kind,
    pub source: RecordSource,
    pub record: Record,
    pub(super) variants: Vec<Variant>,
    pub concurrency: u32,
    pub vitals: Arc<Vitals>,
    pub(super) series: RwLock<HashMap<(TenantId, PolicyId), Arc<ExecutionSeries>>>,
}

/// Policies whose series are kept at hand; past that they are looked up anew.
const SERIES: usize = 10_000;

/// One version, with its instances.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) release: Release,
    pub(super) config_text: Box<str>,
    pub(super) instances: Vec<Target>,
}

/// What is called.
#[derive(Debug, Clone)]
pub struct Target {
    /// Of the record, where it names any.
    pub instance: Option<Box<str>>,
    pub weight: u32,
    pub prepared: Arc<Prepared>,
    pub built: Arc<Built>,
    pub limits: CallLimits,
}

/// What a call was routed to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routed<'a> {
    pub(super) variant: &'a Variant,
    pub(super) target: &'a Target,
}

impl Registry {
    pub fn get(&self, id: &str) -> Option<&Arc<Extension>> {
        self.extensions.get(id)
    }

    /// All that can be called, by id.
    pub fn sorted(&self) -> Vec<&Arc<Extension>> {
        let mut all: Vec<_> = self.extensions.values().collect();
        all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all
    }

    pub fn problems(&self) -> &BTreeMap<String, Vec<Problem>> {
        &self.problems
    }

    /// Registered and not to be called.
    pub fn disabled(&self) -> &BTreeMap<String, RecordSource> {
        &self.disabled
    }

    pub fn len(&self) -> usize {
        self.extensions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.extensions.is_empty()
    }
}

impl Extension {
    /// The first version whose rules the context keeps, else the newest; and one of its instances, by weight.
    pub(super) fn route(&self, context: &Context, chance: u64) -> Option<Routed<'_>> {
        let matches = |variant: &&Variant| follows(&variant.release.routing_rules, context);
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

    /// What a call for a policy is counted under.
    pub(super) fn series(
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
            if all.len() >= SERIES {
                all.clear();
            }
            all.insert(key, series.clone());
            series
        })
    }

    /// Everything that may be called.
    pub fn targets(&self) -> impl Iterator<Item = (&Release, &Target)> {
        self.variants.iter().flat_map(|variant| {
            variant
                .instances
                .iter()
                .map(move |target| (&variant.release, target))
        })
    }
}

fn follows(rules: &Map<String, Value>, context: &Context) -> bool {
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

/// The configuration of a call: the record's with the policy item's laid over it, key by key.
pub fn merged(base: &Map<String, Value>, item: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = base.clone();
    merged.extend(item.iter().map(|(key, value)| (key.clone(), value.clone())));
    merged
}

/// What a record describes, for whoever asks.
pub(super) const fn kind_of(record: &Record) -> Option<Kind> {
    match record.kind {
        RecordKind::Runs(kind) => Some(kind),
        RecordKind::Provider => None,
    }
}
