//! The registry of a snapshot, put together from records and from modules that are here already. It is done while the
//! snapshot is published, so nothing is fetched or compiled.

use std::sync::{Arc, MutexGuard, PoisonError, atomic::Ordering};

use hashbrown::HashMap;

use super::{
    ExtensionHost,
    component::{CallLimits, Kind, Prepared, Unusable},
    host::Capability,
    module::ModuleDigest,
    record::{Module, Record, Release},
    registry::{Extension, RecordSource, Registry, Target, Variant, kind_of},
    vitals::Vitals,
    workshop::Built,
};
use crate::{policy::Problem, snapshot::ExtensionRecords};

/// Where a record does not say: bytes that a call may hand over at once.
const DEFAULT_OUTPUT_BYTES: usize = 1 << 20;
/// Calls of an extension at a time.
const DEFAULT_CONCURRENCY: u32 = 64;
/// Elements of a table.
const DEFAULT_TABLE_ELEMENTS: u32 = 10_000;

/// What was linked, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Linked {
    digest: ModuleDigest,
    kind: Kind,
    capabilities: Vec<Capability>,
    limits: CallLimits,
}

/// What came of it. Refusals are remembered too: to look at a module that never ends takes its time.
#[derive(Debug)]
pub(super) struct Link {
    result: Result<Arc<Prepared>, Unusable>,
    /// Since the last registry was begun.
    used: bool,
}

/// Why a module is not run for a record.
#[derive(Debug)]
pub(super) struct Refusal {
    message: String,
    remedy: &'static str,
}

/// What a registry was put together from.
#[derive(Debug, Default, Clone)]
pub(super) struct Origin {
    pub(super) records: Arc<ExtensionRecords>,
    pub(super) revision: u64,
}

impl ExtensionHost {
    /// Whether a registry would be put together from something else now.
    pub fn has_changed(&self, registry: &Registry) -> bool {
        registry.origin.revision != self.revision.load(Ordering::SeqCst) || self.checks.has_unasked()
    }

    /// The registry for these records of HEIR's and the local directory's. The one before is used again as far as
    /// nothing changed.
    pub fn assemble(&self, before: &Arc<Registry>, heir: &Arc<ExtensionRecords>) -> Arc<Registry> {
        let revision = self.revision.load(Ordering::SeqCst);
        let unasked = self.checks.begin();
        if before.origin.revision == revision && Arc::ptr_eq(&before.origin.records, heir) && !unasked {
            return before.clone();
        }
        self.links().values_mut().for_each(|link| link.used = false);
        let files = self.files();
        let mut registry = Registry {
            origin: Origin {
                records: heir.clone(),
                revision,
            },
            ..Registry::default()
        };
        if self.config.enabled {
            for (id, text) in heir.iter() {
                self.add(&mut registry, before, id, text, RecordSource::Heir);
            }
            // What HEIR has hides the local directory's, as it does with policies.
            for (id, text) in files.records.iter().filter(|(id, _)| !heir.contains_key(*id)) {
                self.add(&mut registry, before, id, text, RecordSource::File);
            }
            for (id, problems) in &files.problems {
                registry
                    .problems
                    .entry(id.clone())
                    .or_default()
                    .extend(problems.iter().cloned());
            }
        }
        self.forget_unused(&registry);
        self.metrics.registered(registry.len(), registry.problems.len());
        for (id, problems) in registry
            .problems
            .iter()
            .filter(|(id, now)| before.problems.get(*id) != Some(now))
        {
            let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
            tracing::warn!(
                extension = id,
                problems = text.join("; "),
                "Something is wrong with an extension."
            );
        }
        Arc::new(registry)
    }

    fn add(
        &self,
        registry: &mut Registry,
        before: &Registry,
        id: &str,
        text: &Arc<str>,
        source: RecordSource,
    ) {
        let mut problems = Vec::new();
        let known = before.extensions.get(id);
        let read = Record::read(text);
        if self.is_switched_off(id) {
            registry.disabled.insert(id.to_owned(), source);
            let problems = match read {
                Ok((_, notes)) => notes,
                Err(errors) => errors,
            };
            if !problems.is_empty() {
                registry.problems.insert(id.to_owned(), problems);
            }
            return;
        }
        match read {
            Ok((record, notes)) => {
                problems.extend(notes);
                if *record.id != *id {
                    problems.push(Problem::error(
                        "$.id",
                        format!("the record is kept under {id:?}"),
                        "use one name",
                    ));
                } else if !record.enabled {
                    registry.disabled.insert(id.to_owned(), source);
                    if !problems.is_empty() {
                        registry.problems.insert(id.to_owned(), problems);
                    }
                    return;
                } else if kind_of(&record).is_none() {
                    // A provider is described here and called by others.
                    if !problems.is_empty() {
                        registry.problems.insert(id.to_owned(), problems);
                    }
                    return;
                } else {
                    match self.extension(record, source, &mut problems) {
                        Some(extension) => {
                            registry.extensions.insert(id.into(), extension);
                        }
                        None => {
                            if let Some(known) = known {
                                registry.extensions.insert(id.into(), known.clone());
                            }
                        }
                    }
                    if !problems.is_empty() {
                        registry.problems.insert(id.to_owned(), problems);
                    }
                    return;
                }
            }
            Err(errors) => problems = errors,
        }
        // A broken record leaves what was good before.
        if let Some(known) = known {
            registry.extensions.insert(id.into(), known.clone());
        }
        registry.problems.insert(id.to_owned(), problems);
    }

    fn extension(
        &self,
        record: Record,
        source: RecordSource,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Extension>> {
        let kind = kind_of(&record)?;
        let mut releases: Vec<Release> = record.versions.clone();
        if releases.is_empty() {
            releases.push(record.base.clone());
        }
        let mut variants = Vec::with_capacity(releases.len());
        let mut failed = false;
        for release in releases {
            let at = if record.versions.is_empty() {
                "$".to_owned()
            } else {
                format!("$.versions[{}]", release.version)
            };
            let mut instances = Vec::new();
            let listed: Vec<_> = if record.instances.is_empty() {
                vec![(None, 100, release.module.as_ref(), format!("{at}.module"))]
            } else {
                let of = |instance: &'_ super::record::Instance| (Some(instance.id.clone()), instance.weight);
                record
                    .instances
                    .iter()
                    .map(|instance| {
                        let (id, weight) = of(instance);
                        let module = instance.module.as_ref().or(release.module.as_ref());
                        (id, weight, module, format!("$.instances[{}].module", instance.id))
                    })
                    .collect()
            };
            for (instance, weight, module, at) in listed {
                match self.target(&record, kind, module) {
                    Ok((prepared, built, limits)) => instances.push(Target {
                        instance,
                        weight,
                        prepared,
                        built,
                        limits,
                    }),
                    Err(Refusal { message, remedy }) => {
                        failed = true;
                        problems.push(Problem::error(at, message, remedy));
                    }
                }
            }
            let config_text = serde_json::Value::Object(release.config.clone())
                .to_string()
                .into();
            variants.push(Variant {
                release,
                config_text,
                instances,
            });
        }
        if !failed {
            for variant in &variants {
                for target in &variant.instances {
                    for problem in self.checks.of(target, &variant.config_text) {
                        problems.push(problem.in_record());
                    }
                }
            }
        }
        let is_bad = |problem: &Problem| problem.severity == crate::policy::Severity::Error;
        if failed || problems.iter().any(is_bad) {
            return None;
        }
        let first = variants.first()?.instances.first()?;
        let starts_slow = first.prepared.profile() == super::Profile::Interpreter;
        let id: Arc<str> = Arc::from(&*record.id);
        let vitals = {
            let mut all = self.vitals.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(id.clone())
                .or_insert_with(|| Arc::new(Vitals::new(starts_slow)))
                .clone()
        };
        vitals.runs_module(first.built.digest, starts_slow);
        let concurrency = record.limits.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
        Some(Arc::new(Extension {
            id,
            kind,
            source,
            variants,
            concurrency,
            vitals,
            record,
            series: std::sync::RwLock::default(),
        }))
    }

    fn target(
        &self,
        record: &Record,
        kind: Kind,
        module: Option<&Module>,
    ) -> Result<(Arc<Prepared>, Arc<Built>, CallLimits), Refusal> {
        let Some(module) = module else {
            return Err(Refusal {
                message: "there is no module for it".into(),
                remedy: "name one in the record, its versions or its instances",
            });
        };
        let refused = |reason: String| Refusal {
            message: format!("{}: {reason}", module.source),
            remedy: "correct the module or the record",
        };
        let built = match self.obtained().get(module) {
            Some(Ok(built)) => built.clone(),
            Some(Err(reason)) => return Err(refused(reason.clone())),
            None => {
                return Err(Refusal {
                    message: format!("{} is not here yet", module.source),
                    remedy: "wait for the next refresh, or see why it cannot be fetched",
                });
            }
        };
        let limits = self.limits(record, &built)?;
        let prepared = self.link(record, kind, &built, limits).map_err(refused)?;
        Ok((prepared, built, limits))
    }

    /// Limits of a module's calls.
    pub(super) fn limits(&self, record: &Record, built: &Built) -> Result<CallLimits, Refusal> {
        let memory = record
            .limits
            .memory_bytes
            .unwrap_or(built.profile.default_memory_bytes());
        if memory > self.config.max_memory_bytes && record.limits.memory_bytes.is_some() {
            return Err(Refusal {
                message: format!(
                    "limits.memory_bytes ({memory}) is more than extensions.max_memory_bytes ({})",
                    self.config.max_memory_bytes
                ),
                remedy: "ask for less, or raise the limit",
            });
        }
        Ok(CallLimits {
            memory_bytes: usize::try_from(memory.min(self.config.max_memory_bytes)).unwrap_or(usize::MAX),
            table_elements: record.limits.table_elements.unwrap_or(DEFAULT_TABLE_ELEMENTS) as usize,
            output_bytes: record.limits.output_bytes.map_or(DEFAULT_OUTPUT_BYTES, |bytes| {
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }),
        })
    }

    fn links(&self) -> MutexGuard<'_, HashMap<Linked, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Links a module, once for each way in which records use it.
    pub(super) fn link(
        &self,
        record: &Record,
        kind: Kind,
        built: &Built,
        limits: CallLimits,
    ) -> Result<Arc<Prepared>, String> {
        let linked = Linked {
            digest: built.digest,
            kind,
            capabilities: record.capabilities.clone(),
            limits,
        };
        if let Some(link) = self.links().get_mut(&linked) {
            link.used = true;
            return link.result.clone().map_err(|error| error.to_string());
        }
        let result = self
            .workshop()?
            .link_within(built, kind, &record.capabilities, limits)
            .map(Arc::new);
        if result.as_ref().err() == Some(&Unusable::NoInstance) {
            self.changed();
        } else {
            let link = Link {
                result: result.clone(),
                used: true,
            };
            self.links().insert(linked, link);
        }
        result.map_err(|error| error.to_string())
    }

    /// Lets go of modules and health that nothing registered needs.
    fn forget_unused(&self, registry: &Registry) {
        let in_use = |id: &str| registry.extensions.contains_key(id) || registry.disabled.contains_key(id);
        self.vitals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| in_use(id));
        // What runs, and what the records ask for: a broken record's last good state may run another module.
        let mut needed = self.needed(registry.origin.records.values().map(|text| &**text));
        let running = registry.extensions.values();
        needed.extend(running.flat_map(|extension| extension.record.modules().cloned()));
        self.obtained().retain(|module, _| needed.contains(module));
        self.links().retain(|_, link| link.used);
    }
}
