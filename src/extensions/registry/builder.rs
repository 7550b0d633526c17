//! Builds the registry of a snapshot from manifests and modules. It is done while the snapshot is published, so nothing is
//! fetched or compiled.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    config_check::{Checker, Checking, ConfigChecks, Judged, PATIENCE},
    extension::{Extension, ManifestSource, Target, Variant},
    index::{Origin, Registry},
    kept::KeptRecords,
    limits::{call_limits, concurrency},
    links::{Links, Refusal},
    switches::Switches,
};
use crate::{
    extensions::{
        component_cache::{Built, Modules},
        config::ExtensionsConfig,
        digest::ModuleDigest,
        health::HealthTable,
        manifest::{ExtensionRecords, Instance, Manifest, ManifestDirectory, Module, Release},
        metrics::ExtensionMetrics,
        revision::Revision,
        sandbox::{CallLimits, Kind, Prepared},
        signing::Trust,
    },
    policy::{Pipeline, Problem, Severity, TenantId},
};

/// The weight of the only instance, where a manifest names none.
const DEFAULT_WEIGHT: u32 = 100;

/// For how long a record's extensions are asked about its configurations at a time: others are linked too.
const MAX_ASKING: Duration = Duration::from_secs(1);

/// Builds registries, and keeps what the next one can use again.
#[derive(Debug)]
pub(in crate::extensions) struct RegistryBuilder {
    config: Arc<ExtensionsConfig>,
    trust: Arc<Trust>,
    metrics: Arc<ExtensionMetrics>,
    revision: Revision,
    switches: Switches,
    links: Links,
    checks: ConfigChecks,
    health: HealthTable,
    /// What could be called before, in an earlier run too.
    kept: KeptRecords,
}

/// A module that can be called for a manifest.
struct LinkedModule<'m> {
    module: &'m Module,
    prepared: Arc<Prepared>,
    built: Arc<Built>,
    limits: CallLimits,
}

/// Why a module cannot be called for a manifest.
enum Missing {
    /// It is not here, not compiled or not linked yet.
    Pending,
    Refused(Refusal),
}

impl From<Refusal> for Missing {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl RegistryBuilder {
    /// A builder that has built nothing yet.
    pub(in crate::extensions) fn new(
        config: Arc<ExtensionsConfig>,
        trust: Arc<Trust>,
        metrics: Arc<ExtensionMetrics>,
        revision: Revision,
        kept: KeptRecords,
    ) -> Self {
        Self {
            kept,
            config,
            trust,
            metrics,
            switches: Switches::default(),
            links: Links::new(revision.clone()),
            checks: ConfigChecks::default(),
            health: HealthTable::default(),
            revision,
        }
    }

    /// Whether a registry would be built from something else now.
    pub(in crate::extensions) fn has_changed(&self, registry: &Registry) -> bool {
        registry.origin.revision != self.revision.current()
    }

    /// What could be called before, in an earlier run too.
    pub(in crate::extensions) fn kept(&self) -> &KeptRecords {
        &self.kept
    }

    /// The registry for HEIR's records and those of the local directory. The one before is used again as far as nothing
    /// changed.
    pub(in crate::extensions) fn build(
        &self,
        before: &Arc<Registry>,
        heir: &Arc<ExtensionRecords>,
        directory: &ManifestDirectory,
        modules: &Modules,
    ) -> Arc<Registry> {
        let revision = self.revision.current();
        if before.origin.revision == revision && Arc::ptr_eq(&before.origin.records, heir) {
            return before.clone();
        }
        self.links.begin();
        let files = directory.files();
        let mut build = Build {
            builder: self,
            modules,
            before,
            registry: Registry {
                origin: Origin {
                    records: heir.clone(),
                    revision,
                },
                ..Registry::default()
            },
        };
        if self.config.enabled {
            for (id, text) in heir.iter() {
                build.add(id, text, ManifestSource::Heir);
            }
            // A record of HEIR hides one of the local directory, as it does with policies.
            for (id, text) in files.records.iter().filter(|(id, _)| !heir.contains_key(*id)) {
                build.add(id, text, ManifestSource::File);
            }
            for (id, problems) in &files.problems {
                let known = build.registry.problems.entry(id.clone()).or_default();
                known.extend(problems.iter().cloned());
            }
        }
        let registry = build.registry;
        self.forget_unused(&registry, directory, modules);
        self.metrics
            .registered(registry.len(), registry.problems.len(), registry.pending.len());
        log_problems(before, &registry);
        Arc::new(registry)
    }

    /// Links the modules of a manifest that are here, and asks them about their configurations, so that the next registry finds
    /// it done: while one is built, writes wait.
    pub(in crate::extensions) fn link(&self, manifest: &Manifest, modules: &Modules) {
        let Some(kind) = manifest.runs() else { return };
        for (_, built, limits) in self.unlinked(manifest, kind, modules) {
            if let Ok(cache) = modules.cache() {
                self.links
                    .link(cache, &built, kind, &manifest.capabilities, limits);
            }
        }
        let until = Instant::now() + MAX_ASKING;
        let unasked = self.unasked(manifest, kind, modules);
        for (built, limits, prepared, config) in &unasked {
            if Instant::now() < until {
                self.checks
                    .ask(checker(built, *limits, prepared), config, PATIENCE);
            }
        }
        if !unasked.is_empty() {
            self.revision.advance();
        }
    }

    /// Whether a module of a manifest is here that was not linked yet, or not asked about a configuration.
    pub(in crate::extensions) fn is_unlinked(&self, manifest: &Manifest, modules: &Modules) -> bool {
        let is_unlinked = |kind| {
            let is_linked = self.unlinked(manifest, kind, modules).is_empty();
            !is_linked || !self.unasked(manifest, kind, modules).is_empty()
        };
        manifest.runs().is_some_and(is_unlinked)
    }

    /// What is linked of a manifest and was not asked about its configurations, with these.
    fn unasked(
        &self,
        manifest: &Manifest,
        kind: Kind,
        modules: &Modules,
    ) -> Vec<(Arc<Built>, CallLimits, Arc<Prepared>, String)> {
        let called = releases(manifest)
            .iter()
            .flat_map(|release| listed(manifest, release).into_iter().map(move |it| (release, it)));
        let unasked = called.filter_map(|(release, (_, module, _))| {
            let built = modules.get(module?)?.ok()?;
            let limits = call_limits(&manifest.limits, built.profile, &self.config).ok()?;
            let capabilities = &manifest.capabilities;
            let linked = self.links.find(&built, kind, capabilities, limits);
            let prepared = linked?.ok()?;
            let config = config_text(release);
            let known = self.checks.known(checker(&built, limits, &prepared), &config);
            known.is_none().then_some((built, limits, prepared, config))
        });
        unasked.collect()
    }

    fn unlinked<'a>(
        &self,
        manifest: &'a Manifest,
        kind: Kind,
        modules: &Modules,
    ) -> Vec<(&'a Module, Arc<Built>, CallLimits)> {
        let called = releases(manifest)
            .iter()
            .flat_map(|release| listed(manifest, release));
        let modules: Vec<_> = called
            .filter_map(|(_, module, _)| {
                let built = modules.get(module?)?.ok()?;
                // A refusal is reported when the registry is built.
                let limits = call_limits(&manifest.limits, built.profile, &self.config).ok()?;
                Some((module?, built, limits))
            })
            .collect();
        let is_new = |(_, built, limits): &(&Module, Arc<Built>, CallLimits)| {
            self.links
                .find(built, kind, &manifest.capabilities, *limits)
                .is_none()
        };
        modules.into_iter().filter(is_new).collect()
    }

    /// What the extensions that a pipeline names find wrong with their configurations there.
    pub(in crate::extensions) fn check_pipeline(
        &self,
        registry: &Registry,
        tenant: &TenantId,
        pipeline: &Pipeline,
        checking: Checking,
    ) -> Judged {
        let is_admitted = |target: &Target| self.trust.admits(tenant.as_str(), target.signed_by);
        self.checks.pipeline(registry, is_admitted, pipeline, checking)
    }

    /// Switches an extension off or on again, for this process. Returns whether that changed anything.
    pub(in crate::extensions) fn switch(&self, id: &str, on: bool) -> bool {
        let changed = self.switches.set(id, on);
        if changed {
            self.revision.advance();
        }
        changed
    }

    /// Whether an operator switched an extension off.
    pub(in crate::extensions) fn is_switched_off(&self, id: &str) -> bool {
        self.switches.is_off(id)
    }

    /// How often an operator switched an extension on or off.
    pub(in crate::extensions) fn switched(&self) -> u64 {
        self.switches.times()
    }

    /// The module that a manifest names, linked, and the limits of its calls.
    fn linked<'m>(
        &self,
        manifest: &Manifest,
        kind: Kind,
        module: Option<&'m Module>,
        modules: &Modules,
    ) -> Result<LinkedModule<'m>, Missing> {
        let Some(module) = module else {
            return Err(Missing::Refused(Refusal {
                message: "there is no module for it".into(),
                remedy: "name one in the record, its versions or its instances",
            }));
        };
        let refused = |reason: String| Refusal {
            message: format!("{}: {reason}", module.source),
            remedy: "correct the module or the record",
        };
        let built = modules.get(module).ok_or(Missing::Pending)?.map_err(refused)?;
        let limits = call_limits(&manifest.limits, built.profile, &self.config)?;
        let prepared = self
            .links
            .find(&built, kind, &manifest.capabilities, limits)
            .ok_or(Missing::Pending)?
            .map_err(|error| refused(error.to_string()))?;
        Ok(LinkedModule {
            module,
            prepared,
            built,
            limits,
        })
    }

    /// What is called of a version where the manifest names this module, for an instance if it names one.
    fn target(
        &self,
        manifest: &Manifest,
        kind: Kind,
        (release, instance, module): (&Release, Option<&Instance>, Option<&Module>),
        modules: &Modules,
    ) -> Result<Target, Missing> {
        let LinkedModule {
            module,
            prepared,
            built,
            limits,
        } = self.linked(manifest, kind, module, modules)?;
        let starts_slow = prepared.profile().is_interpreter();
        let name = instance.map(|instance| &*instance.id);
        let health = self.health.of(&manifest.id);
        let health = health.target(&release.version, name, starts_slow);
        Ok(Target {
            instance: name.map(Into::into),
            weight: instance.map_or(DEFAULT_WEIGHT, |instance| instance.weight),
            prepared,
            module: module.clone(),
            signed_by: modules.signed_by(module),
            built,
            limits,
            health,
        })
    }

    /// Forgets modules, links and health that no registered extension needs.
    fn forget_unused(&self, registry: &Registry, directory: &ManifestDirectory, modules: &Modules) {
        let is_registered =
            |id: &str| registry.extensions.contains_key(id) || registry.disabled.contains_key(id);
        self.health.retain(is_registered);
        // What runs, and what the manifests name: the last good state of a broken one may run another module.
        let manifests = directory.enabled_with(registry.origin.records.values().map(|text| &**text));
        let running = registry.extensions.values().map(|extension| &extension.manifest);
        let kept = self.kept.manifests();
        let all = manifests.iter().chain(running).chain(kept.iter());
        let needed: BTreeSet<&Module> = all.flat_map(Manifest::modules).collect();
        let digests: BTreeSet<ModuleDigest> = needed
            .iter()
            .filter_map(|module| Some(modules.get(module)?.ok()?.digest))
            .collect();
        modules.retain(|module| needed.contains(module));
        self.links.forget_unused(|digest| digests.contains(digest));
    }
}

/// A registry that is being built.
struct Build<'a> {
    builder: &'a RegistryBuilder,
    modules: &'a Modules,
    before: &'a Registry,
    registry: Registry,
}

impl Build<'_> {
    fn add(&mut self, id: &str, text: &Arc<str>, source: ManifestSource) {
        let (manifest, mut problems) = match Manifest::read(text) {
            Ok((manifest, warnings)) => (Some(manifest), warnings),
            Err(problems) => (None, problems),
        };
        let extension = match manifest {
            _ if self.builder.is_switched_off(id) => {
                self.registry.disabled.insert(id.to_owned(), source);
                None
            }
            Some(manifest) if *manifest.id != *id => {
                problems.push(Problem::error(
                    "$.id",
                    format!("the record is kept under {id:?}"),
                    "use one name",
                ));
                self.last_good(id)
            }
            Some(manifest) if !manifest.enabled => {
                self.registry.disabled.insert(id.to_owned(), source);
                None
            }
            // A provider is described here and called by others.
            Some(manifest) if manifest.runs().is_none() => None,
            Some(manifest) => {
                let mut is_pending = false;
                let as_written = self.extension(manifest, text, source, &mut problems, &mut is_pending);
                if as_written.is_none() && is_pending {
                    self.registry.pending.insert(id.to_owned());
                }
                as_written.or_else(|| self.last_good(id))
            }
            None => self.last_good(id),
        };
        if let Some(extension) = extension {
            self.registry.extensions.insert(id.into(), extension);
        }
        if !problems.is_empty() {
            self.registry.problems.insert(id.to_owned(), problems);
        }
    }

    /// The extension as it was before its record was broken, if need be in an earlier run.
    fn last_good(&self, id: &str) -> Option<Arc<Extension>> {
        let known = self.before.extensions.get(id).cloned();
        known.or_else(|| {
            let kept = self.builder.kept.get(id)?;
            // What is wrong with it does not matter; it is not what the record says.
            let (mut problems, mut is_pending) = (Vec::new(), false);
            self.extension(
                kept.manifest,
                &kept.record,
                kept.source,
                &mut problems,
                &mut is_pending,
            )
        })
    }

    /// The extension, unless something is wrong with it, or a module is not here yet.
    fn extension(
        &self,
        manifest: Manifest,
        record: &Arc<str>,
        source: ManifestSource,
        problems: &mut Vec<Problem>,
        is_pending: &mut bool,
    ) -> Option<Arc<Extension>> {
        let kind = manifest.runs()?;
        let variants = self.variants(&manifest, kind, problems, is_pending)?;
        for variant in &variants {
            for target in &variant.instances {
                let checker = checker(&target.built, target.limits, &target.prepared);
                let Some(found) = self.builder.checks.known(checker, &variant.config_text) else {
                    *is_pending = true;
                    continue;
                };
                problems.extend(found.into_iter().map(|problem| problem.in_manifest()));
            }
        }
        if *is_pending || problems.iter().any(|problem| problem.severity == Severity::Error) {
            return None;
        }
        variants.first()?.instances.first()?;
        let id: Arc<str> = Arc::from(&*manifest.id);
        let health = self.builder.health.of(&id);
        for target in variants.iter().flat_map(|variant| &variant.instances) {
            let starts_slow = target.prepared.profile().is_interpreter();
            target.health.runs_module(target.built.digest, starts_slow);
        }
        health.retain(|version, instance| {
            let mut of = variants
                .iter()
                .filter(|variant| *variant.release.version == *version);
            of.any(|variant| {
                let mut all = variant.instances.iter();
                all.any(|target| target.instance.as_deref() == instance)
            })
        });
        let concurrency = concurrency(&manifest.limits);
        Some(Arc::new(Extension {
            id,
            kind,
            source,
            variants,
            concurrency,
            health,
            record: record.clone(),
            manifest,
            series: std::sync::RwLock::default(),
        }))
    }

    /// The versions with their instances. `None`: one of them cannot be called.
    fn variants(
        &self,
        manifest: &Manifest,
        kind: Kind,
        problems: &mut Vec<Problem>,
        is_pending: &mut bool,
    ) -> Option<Vec<Variant>> {
        let releases = releases(manifest);
        let mut variants = Vec::with_capacity(releases.len());
        let mut failed = false;
        for release in releases {
            let mut instances = Vec::new();
            for (instance, module, at) in listed(manifest, release) {
                let of = (release, instance, module);
                match self.builder.target(manifest, kind, of, self.modules) {
                    Ok(target) => instances.push(target),
                    Err(Missing::Pending) => {
                        failed = true;
                        *is_pending = true;
                    }
                    Err(Missing::Refused(Refusal { message, remedy })) => {
                        failed = true;
                        problems.push(Problem::error(at, message, remedy));
                    }
                }
            }
            variants.push(Variant {
                release: release.clone(),
                config_text: config_text(release).into(),
                instances,
            });
        }
        (!failed).then_some(variants)
    }
}

fn config_text(release: &Release) -> String {
    serde_json::Value::Object(release.config.clone()).to_string()
}

fn checker<'a>(built: &Built, limits: CallLimits, prepared: &'a Prepared) -> Checker<'a> {
    Checker {
        digest: built.digest,
        prepared,
        limits,
    }
}

/// The versions of a manifest; where it names none, the manifest itself.
fn releases(manifest: &Manifest) -> &[Release] {
    match manifest.versions.as_slice() {
        [] => std::slice::from_ref(&manifest.base),
        versions => versions,
    }
}

/// The instances of a version, with their modules and the paths of these in the record; where the record names no instance,
/// the version itself.
fn listed<'a>(
    manifest: &'a Manifest,
    release: &'a Release,
) -> Vec<(Option<&'a Instance>, Option<&'a Module>, String)> {
    if manifest.instances.is_empty() {
        let at = if manifest.versions.is_empty() {
            "$.module".to_owned()
        } else {
            format!("$.versions[{}].module", release.version)
        };
        return vec![(None, release.module.as_ref(), at)];
    }
    let of = |instance: &'a Instance| {
        let module = instance.module.as_ref().or(release.module.as_ref());
        let at = format!("$.instances[{}].module", instance.id);
        (Some(instance), module, at)
    };
    manifest.instances.iter().map(of).collect()
}

/// Logs the problems that the registry before did not have.
fn log_problems(before: &Registry, registry: &Registry) {
    let is_new = |(id, problems): &(&String, &Vec<Problem>)| before.problems.get(*id) != Some(problems);
    for (id, problems) in registry.problems.iter().filter(is_new) {
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        tracing::warn!(
            extension = id,
            problems = text.join("; "),
            "Something is wrong with an extension."
        );
    }
}
