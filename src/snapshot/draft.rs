//! The next snapshot while it is being made from the current one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hashbrown::HashMap;
use http::HeaderValue;

use super::{
    broken::{Broken, BrokenPolicy},
    key::{Key, Problems},
    metrics::SnapshotMetrics,
    policy::{Entry, Policy, Queued},
    provenance::{Coverage, Origin, Position},
    state::Snapshot,
    tenant::Tenant,
};
use crate::{
    extensions::{Checking, ExtensionHost, ExtensionRecords, Judged, Registry},
    policy::{PolicyId, TenantId, errors},
};

/// Policies that a line is logged for at a time.
const LOGGED: usize = 20;

/// A copy of a snapshot that shares every tenant until it is touched.
#[derive(Debug)]
pub struct Draft<'a> {
    next: Snapshot,
    metrics: &'a SnapshotMetrics,
    touched: BTreeSet<TenantId>,
    last_good: Option<HashMap<Key, Arc<Policy>>>,
}

/// What the extensions that a policy names have against their configurations there, as far as it is known: the snapshot waits
/// for none of them.
fn judged_by_extensions(
    tenant: &TenantId,
    policy: &Policy,
    registry: &Registry,
    host: Option<&ExtensionHost>,
    checking: Checking,
) -> Judged {
    let Some(host) = host.filter(|_| policy.has_extensions()) else {
        return Judged::default();
    };
    let (routing, _) = crate::policy::read_for_routing(policy.document.bytes());
    let pipeline = routing.pipeline.as_deref();
    pipeline.map_or_else(Judged::default, |pipeline| {
        host.check_pipeline(registry, tenant, pipeline, checking)
    })
}

/// Asks the extensions that a policy names about their configurations there, for so long, so that the next snapshot knows what
/// they say.
pub(super) fn ask_extensions(
    tenant: &TenantId,
    policy: &Policy,
    registry: &Registry,
    host: &ExtensionHost,
    (within, patience): (Duration, Duration),
) {
    let checking = Checking::For { within, patience };
    judged_by_extensions(tenant, policy, registry, Some(host), checking);
}

/// Whether a policy names an extension that is not there, and so could not be asked about it. It may still come: its module, or
/// even its record.
fn names_absent(policy: &Policy, registry: &Registry) -> bool {
    if !policy.has_extensions() {
        return false;
    }
    let (routing, _) = crate::policy::read_for_routing(policy.document.bytes());
    let Some(pipeline) = routing.pipeline.as_deref() else {
        return false;
    };
    let pre = pipeline.pre.iter().map(|it| &it.item);
    let validators = pipeline.validators.iter().map(|it| &it.item);
    let scorers = pipeline.scorers.iter().map(|it| &it.item);
    let post = pipeline.post.iter().map(|it| &it.item);
    let mut items = pre.chain(validators).chain(scorers).chain(post);
    items.any(|item| item.id.as_deref().is_some_and(|id| registry.get(id).is_none()))
}

/// Whether a version that was found in a tenant was broken there.
fn was_broken(tenant: &Tenant, id: &PolicyId, policy: &Policy) -> bool {
    tenant.errors_of(id.as_str(), policy) > 0
}

/// Whether a policy was not broken before, or in another way.
fn is_news(before: &Snapshot, tenant: &TenantId, id: &PolicyId, now: &Arc<Policy>, known: &Broken) -> bool {
    let Some(tenant) = before.tenants.get(tenant) else {
        return true;
    };
    let was = tenant.policies.get(id).and_then(|entry| entry.found());
    let is_same = was.is_some_and(|was| Arc::ptr_eq(was.policy, now));
    let of_extensions = tenant.broken.get(id).map_or(&[][..], |was| &was.of_extensions);
    !is_same || of_extensions != known.of_extensions
}

fn log_broken(tenant: &TenantId, id: &PolicyId, policy: &Arc<Policy>, known: &Broken) {
    let problems = BrokenPolicy::new(policy.clone(), known.clone()).problems();
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    tracing::warn!(
        tenant = tenant.as_str(),
        policy = id.as_str(),
        problems = text.join("; "),
        has_last_good = known.last_good.is_some(),
        "A policy is broken: lookups get it as it is, decisions its last good version."
    );
}

impl<'a> Draft<'a> {
    pub(super) fn of(base: &Snapshot, metrics: &'a SnapshotMetrics) -> Self {
        let next = Snapshot {
            tenants: base.tenants.clone(),
            coverage: base.coverage,
            origin: base.origin,
            position: base.position.clone(),
            revision_header: base.revision_header.clone(),
            extensions: base.extensions.clone(),
            problems: base.problems.clone(),
            registry: base.registry.clone(),
            generation: base.generation + 1,
        };
        Self {
            next,
            metrics,
            touched: BTreeSet::new(),
            last_good: None,
        }
    }

    /// The state reached so far.
    pub fn snapshot(&self) -> &Snapshot {
        &self.next
    }

    pub(super) fn tenant(&mut self, tenant: &TenantId) -> &mut Tenant {
        if !self.touched.contains(tenant) {
            self.touched.insert(tenant.clone());
        }
        let metrics = self.metrics;
        let shared = self.next.tenants.entry(tenant.clone()).or_insert_with(|| {
            let policies = HashMap::new();
            Arc::new(Tenant {
                policies,
                listed: false,
                size: 0,
                bytes: 0,
                noted: 0,
                broken: BTreeMap::new(),
                broken_count: 0,
                metrics: metrics.tenant(tenant),
            })
        });
        Arc::make_mut(shared)
    }

    fn edit(&mut self, (tenant, policy): &Key, edit: impl FnOnce(&mut Entry)) {
        let policies = &mut self.tenant(tenant).policies;
        let mut entry = policies.remove(policy).unwrap_or_default();
        edit(&mut entry);
        if !entry.is_vacant() {
            policies.insert(policy.clone(), entry);
        }
    }

    /// HEIR's version, or that HEIR has none.
    pub fn set_heir(&mut self, key: &Key, policy: Option<Arc<Policy>>) {
        self.edit(key, |entry| entry.heir = policy);
    }

    /// A write that waits for HEIR, or that none does.
    pub fn set_queued(&mut self, key: &Key, queued: Option<Queued>) {
        self.edit(key, |entry| entry.set_queued(queued));
    }

    /// All policies of the local directory, in place of those it had before.
    pub fn set_files(&mut self, files: HashMap<Key, Arc<Policy>>) {
        let before: Vec<Key> = self
            .next
            .tenants
            .iter()
            .flat_map(|(tenant, t)| {
                t.policies
                    .iter()
                    .filter(|(_, entry)| entry.file().is_some())
                    .map(|(id, _)| (tenant.clone(), id.clone()))
            })
            .collect();
        for key in before.iter().filter(|key| !files.contains_key(*key)) {
            self.edit(key, |entry| entry.set_file(None));
        }
        for (key, policy) in files {
            self.edit(&key, |entry| entry.set_file(Some(policy)));
        }
    }

    /// All of HEIR's policies of one tenant, in place of those known before.
    pub(super) fn set_heir_tenant(
        &mut self,
        tenant: &TenantId,
        mut policies: HashMap<PolicyId, Arc<Policy>>,
    ) {
        if let Some(known) = self.next.tenants.get(tenant) {
            let same = known
                .policies
                .iter()
                .all(|(id, entry)| match (&entry.heir, policies.get(id)) {
                    (None, None) => true,
                    (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                    _ => false,
                })
                && policies.keys().all(|id| known.policies.contains_key(id));
            if same {
                return;
            }
        }
        let known = &mut self.tenant(tenant).policies;
        known.retain(|id, entry| {
            entry.heir = policies.remove(id);
            !entry.is_vacant()
        });
        known.reserve(policies.len());
        for (id, policy) in policies {
            known.insert(id, Entry::of_heir(policy));
        }
    }

    /// HEIR has listed a tenant whole.
    pub fn set_listed(&mut self, tenant: &TenantId) {
        if !self.next.tenants.get(tenant).is_some_and(|t| t.listed) {
            self.tenant(tenant).listed = true;
        }
    }

    /// Where only single policies can be asked for, no tenant is known whole any longer: a list from before says
    /// nothing about what has come since.
    pub fn set_coverage(&mut self, coverage: Coverage) {
        self.next.coverage = coverage;
        if coverage == Coverage::Keys {
            let listed = self.next.tenants.iter().filter(|(_, t)| t.listed);
            let listed: Vec<TenantId> = listed.map(|(tenant, _)| tenant.clone()).collect();
            for tenant in listed {
                self.tenant(&tenant).listed = false;
            }
        }
    }

    /// Where HEIR's part came from.
    pub fn set_origin(&mut self, origin: Origin) {
        self.next.origin = origin;
    }

    /// Which point of HEIR's history HEIR's part is.
    pub fn set_position(&mut self, position: Position) {
        self.next.revision_header = position
            .revision
            .map_or(HeaderValue::from_static("none"), HeaderValue::from);
        self.next.position = position;
    }

    pub(super) fn set_extensions(&mut self, extensions: ExtensionRecords) {
        if *self.next.extensions != extensions {
            self.next.extensions = Arc::new(extensions);
        }
    }

    pub(super) fn edit_extensions(&mut self, edit: impl FnOnce(&mut ExtensionRecords)) {
        edit(Arc::make_mut(&mut self.next.extensions));
    }

    pub(super) fn edit_problems(&mut self, edit: impl FnOnce(&mut Problems)) {
        edit(Arc::make_mut(&mut self.next.problems));
    }

    /// Policies with notes that the snapshot before did not have, for the log: the first few, and how many.
    pub(super) fn newly_noted(&self, before: &Snapshot) -> (Vec<(Key, Arc<Policy>)>, usize) {
        let (mut first, mut count) = (Vec::new(), 0);
        for id in &self.touched {
            let known = before.tenants.get(id);
            let is_known = |policy_id: &PolicyId, policy: &Arc<Policy>| {
                let entry = known.and_then(|tenant| tenant.policies.get(policy_id));
                entry.is_some_and(|entry| entry.holds(policy))
            };
            let policies = self
                .next
                .tenants
                .get(id)
                .into_iter()
                .flat_map(|tenant| tenant.found());
            for (policy_id, found) in policies {
                let is_news = found.policy.is_noted() && found.policy.errors() == 0;
                if !is_news || is_known(policy_id, found.policy) {
                    continue;
                }
                count += 1;
                if first.len() < LOGGED {
                    first.push(((id.clone(), policy_id.clone()), found.policy.clone()));
                }
            }
        }
        (first, count)
    }

    /// What an earlier run knew to be the last good versions of broken policies.
    pub(super) fn set_last_good(&mut self, last_good: HashMap<Key, Arc<Policy>>) {
        self.last_good = Some(last_good);
    }

    /// Extensions were asked about policies of a tenant.
    pub(super) fn judge_again(&mut self, tenant: &TenantId) {
        if self.next.tenants.contains_key(tenant) {
            self.touched.insert(tenant.clone());
        }
    }

    /// Makes the registry of the extensions, and finds which policies are broken where either has changed.
    pub(super) fn judge(&mut self, before: &Snapshot, host: Option<&ExtensionHost>) {
        let mut anew = false;
        if let Some(host) = host {
            let registry = host.assemble(&before.registry, &self.next.extensions);
            anew = !Arc::ptr_eq(&registry, &before.registry);
            self.next.registry = registry;
        }
        let registry = self.next.registry.clone();
        let host = host.filter(|_| !registry.is_empty() || !registry.problems().is_empty());
        let tenants: Vec<TenantId> = if anew {
            self.next.tenants.keys().cloned().collect()
        } else {
            self.touched.iter().cloned().collect()
        };
        let mut lines = LOGGED;
        for id in tenants {
            let Some(tenant) = self.next.tenants.get(&id) else {
                continue;
            };
            let (mut broken, mut count) = (BTreeMap::new(), 0);
            let was = before
                .tenants
                .get(&id)
                .filter(|_| !anew && self.last_good.is_none());
            for (policy_id, found) in tenant.found() {
                if found.policy.errors() == 0 && !found.policy.has_extensions() {
                    continue;
                }
                // What has not changed is judged as before: one change must not cost all broken policies of its tenant.
                let same = was.filter(|was| {
                    let entry = was.policies.get(policy_id).and_then(|entry| entry.found());
                    let is_unasked = was.broken.get(policy_id).is_some_and(|known| known.is_unasked);
                    !is_unasked && entry.is_some_and(|entry| Arc::ptr_eq(entry.policy, found.policy))
                });
                if let Some(was) = same {
                    count += usize::from(was.errors_of(policy_id.as_str(), found.policy) > 0);
                    if let Some(known) = was.broken.get(policy_id) {
                        broken.insert(policy_id.clone(), known.clone());
                    }
                    continue;
                }
                let judged = judged_by_extensions(&id, found.policy, &registry, host, Checking::Known);
                let (of_extensions, is_unasked) = (judged.problems, judged.has_unasked);
                let is_broken = found.policy.errors() > 0 || errors(&of_extensions).next().is_some();
                count += usize::from(is_broken);
                // What an extension has against it is known once it is there and was asked. Until then the version before is
                // kept: it may be the last good one.
                let is_unjudged = !is_broken && (is_unasked || names_absent(found.policy, &registry));
                let known = Broken {
                    last_good: if is_broken || is_unjudged {
                        self.last_good_of(before, &id, policy_id, found.policy)
                    } else {
                        None
                    },
                    of_extensions,
                    is_unasked,
                };
                if is_broken && lines > 0 && is_news(before, &id, policy_id, found.policy, &known) {
                    lines -= 1;
                    log_broken(&id, policy_id, found.policy, &known);
                }
                if !known.is_empty() {
                    broken.insert(policy_id.clone(), known);
                }
            }
            if (&tenant.broken, tenant.broken_count) != (&broken, count) {
                let tenant = self.tenant(&id);
                (tenant.broken, tenant.broken_count) = (broken, count);
            }
        }
    }

    /// The version that decisions keep of a policy that is broken now.
    fn last_good_of(
        &self,
        before: &Snapshot,
        tenant: &TenantId,
        id: &PolicyId,
        now: &Arc<Policy>,
    ) -> Option<Arc<Policy>> {
        let key = (tenant.clone(), id.clone());
        let from_disk = self.last_good.as_ref().and_then(|good| good.get(&key));
        let good = from_disk.cloned().or_else(|| {
            let tenant = before.tenants.get(tenant)?;
            let found = tenant.policies.get(id)?.found()?.policy;
            if was_broken(tenant, id, found) || Arc::ptr_eq(found, now) {
                tenant.broken.get(id)?.last_good.clone()
            } else {
                Some(found.clone())
            }
        })?;
        // An extension that refuses today what it accepted yesterday leaves no other version.
        (!Arc::ptr_eq(now, &good)).then_some(good)
    }

    pub(super) fn finish(mut self) -> Snapshot {
        for tenant in &self.touched {
            if let Some(tenant) = self.next.tenants.get_mut(tenant) {
                let tenant = Arc::make_mut(tenant);
                let (mut size, mut bytes, mut noted) = (0, 0, 0);
                for (id, found) in tenant.found() {
                    size += 1;
                    bytes += found.policy.document.bytes().len();
                    noted += usize::from(tenant.is_noted(id.as_str(), found.policy));
                }
                (tenant.size, tenant.bytes, tenant.noted) = (size, bytes, noted);
            }
            if self
                .next
                .tenants
                .get(tenant)
                .is_some_and(|t| t.policies.is_empty() && !t.listed)
            {
                self.next.tenants.remove(tenant);
            }
        }
        self.next
    }
}
