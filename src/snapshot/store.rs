//! The one place where the current snapshot is kept, and the only ways to replace it.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{
    ChangeSet, Coverage, Draft, Freshness, Incoming, Key, Operation, Origin, Policy, Position, Snapshot,
    SnapshotMetrics, incoming::Scope,
};
use crate::{
    extensions::{ExtensionHost, Wanted},
    heir::HeirClient,
};

/// Smallest number of policies that the shrink guard looks at.
const SMALLEST_GUARDED: usize = 20;

/// When a fetch began, in terms of the writes made through this sidecar. What it brings is older than any write
/// that came after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchStart(u64);

/// A write made through this sidecar that a refresh under way may not have seen.
#[derive(Debug)]
struct Pin {
    number: u64,
    revision: Option<u64>,
}

/// What only the one who replaces the snapshot needs.
#[derive(Debug, Default)]
struct Writer {
    writes: u64,
    pins: HashMap<Key, Pin>,
    /// The content that the shrink guard holds back until it comes a second time, and when it first came.
    held: Option<(u64, Instant)>,
    /// The number of a write that was put over what memory seemed to know better.
    in_doubt: Option<u64>,
}

/// What an activation did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Activation {
    pub loaded: usize,
    pub removed: usize,
    /// The position went back, or HEIR does not have a write any more that it had acknowledged: it was restored
    /// from a backup.
    pub went_back: bool,
}

/// Why an activation was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    #[error(
        "HEIR's answer would remove {removed} of {known} policies, more than refresh.max_removed_percent allows; \
         it is held back until HEIR gives the same answer again, or POST /admin/refresh?confirm=true"
    )]
    Shrink { removed: usize, known: usize },
    #[error("the changes continue another history than the one in memory")]
    OtherHistory,
    #[error("the snapshot has moved on since the changes were asked for")]
    Outdated,
}

/// What the shrink guard allows.
#[derive(Debug, Clone, Copy)]
pub struct Guarded {
    pub max_removed_percent: u8,
    /// How much later the same answer must come again to count as its confirmation. Without it, a client's list
    /// would confirm within a millisecond what a HEIR that is being filled said.
    pub confirm_after: Duration,
    /// An operator has confirmed the removal.
    pub confirmed: bool,
}

/// Holds the current snapshot. Loading it never waits, whatever is being published.
#[derive(Debug)]
pub struct SnapshotStore {
    current: ArcSwap<Snapshot>,
    writer: Mutex<Writer>,
    retired: mpsc::Sender<Arc<Snapshot>>,
    published: watch::Sender<u64>,
    freshness: Freshness,
    extensions: Option<Arc<ExtensionHost>>,
    metrics: Arc<SnapshotMetrics>,
}

impl SnapshotStore {
    /// Starts empty, with the thread that drops what was replaced.
    pub fn start(metrics: Arc<SnapshotMetrics>) -> io::Result<Self> {
        Self::start_with(metrics, None)
    }

    /// As [`start`](Self::start), for snapshots whose extensions can be called.
    pub fn start_with(
        metrics: Arc<SnapshotMetrics>,
        extensions: Option<Arc<ExtensionHost>>,
    ) -> io::Result<Self> {
        let (retired, retiring) = mpsc::channel();
        std::thread::Builder::new()
            .name("retire".into())
            .spawn(move || drop_retired(&retiring))?;
        Ok(Self {
            current: ArcSwap::from_pointee(Snapshot::empty()),
            writer: Mutex::default(),
            retired,
            published: watch::Sender::new(0),
            freshness: Freshness::new(Instant::now()),
            extensions,
            metrics,
        })
    }

    /// The current snapshot. Load it once per request and pass it down; do not keep it over a wait.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The current snapshot, to be kept for longer.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Whoever runs the extensions of the snapshots.
    pub fn extensions(&self) -> Option<&Arc<ExtensionHost>> {
        self.extensions.as_ref()
    }

    /// Reads the directory of extensions again, gets what is missing, and takes up what has changed.
    ///
    /// # Errors
    /// When the directory cannot be read; what was read before stays.
    pub async fn reload_extensions(
        self: &Arc<Self>,
        heir: Option<&HeirClient>,
        wanted: Wanted,
    ) -> io::Result<()> {
        let Some(host) = self.extensions.clone() else {
            return Ok(());
        };
        let reading = host.clone();
        let read = tokio::task::spawn_blocking(move || reading.read_directory()).await;
        let records = self.load().extensions.values().cloned().collect();
        host.obtain(records, heir, wanted).await;
        if host.has_changed(&self.load().registry) {
            // Extensions are asked about their configurations, and may take their time.
            let this = self.clone();
            tokio::task::spawn_blocking(move || this.edit(|_| ())).await?;
        }
        read?.map(|_| ())
    }

    /// The metrics of the snapshots and their tenants.
    pub fn metrics(&self) -> &SnapshotMetrics {
        &self.metrics
    }

    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Wakes whenever another snapshot is published.
    pub fn published(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call before a fetch is sent.
    pub fn fetch_start(&self) -> FetchStart {
        FetchStart(self.writer().writes)
    }

    /// Replaces the snapshot by an edited copy. Edits are applied one after the other.
    pub fn edit<R>(&self, edit: impl FnOnce(&mut Draft<'_>) -> R) -> R {
        let _one_at_a_time = self.writer();
        let mut draft = Draft::of(&self.current.load(), &self.metrics);
        let result = edit(&mut draft);
        self.publish(draft);
        result
    }

    fn publish(&self, mut draft: Draft<'_>) {
        if let Some(host) = &self.extensions {
            draft.extend(&self.current.load(), host);
        }
        let (newly_noted, newly_noted_count) = draft.newly_noted(&self.current.load());
        let next = draft.finish();
        let size: usize = next.tenants.values().map(|tenant| tenant.size).sum();
        let bytes: usize = next.tenants.values().map(|tenant| tenant.bytes).sum();
        self.metrics
            .store_size
            .set(i64::try_from(size).unwrap_or(i64::MAX));
        self.metrics
            .store_memory_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let noted: usize = next.tenants.values().map(|tenant| tenant.noted).sum();
        self.metrics
            .policy_warnings
            .set(i64::try_from(noted).unwrap_or(i64::MAX));
        self.metrics
            .problems
            .set(i64::try_from(next.problems.len() + next.config_problems.len()).unwrap_or(i64::MAX));
        self.metrics.revision.set(
            next.position
                .revision
                .map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX)),
        );
        let generation = next.generation;
        let old = self.current.swap(Arc::new(next));
        // A reader that still holds the old one must not be the one to drop it. If the thread is gone, so is the
        // process's life, and dropping here is as good.
        let _thread_gone = self.retired.send(old);
        self.published.send_replace(generation);
        log_notes(&newly_noted, newly_noted_count);
    }

    /// A write that HEIR has acknowledged: visible to the next lookup, and to no refresh that began before it.
    /// `false`: nothing was done, because memory has a later version already, or no version although it has come
    /// to the write's revision; what HEIR has is to be looked up.
    #[must_use]
    pub fn apply_write(&self, key: &Key, policy: Option<Arc<Policy>>, revision: Option<u64>) -> bool {
        let mut writer = self.writer();
        let current = self.current.load();
        let is_overtaken = match (current.heir(key.0.as_str(), key.1.as_str()), &policy) {
            (Some(known), _) => revision.is_some() && known.revision > revision,
            (None, Some(_)) => reaches(current.position.revision, revision),
            (None, None) => false,
        };
        if is_overtaken {
            return false;
        }
        self.put_write(&mut writer, key, policy, revision);
        true
    }

    /// As [`apply_write`](Self::apply_write), although memory seems to be past it and HEIR cannot be asked now. The
    /// next refresh takes everything anew, to settle what is true.
    pub fn apply_doubtful_write(&self, key: &Key, policy: Option<Arc<Policy>>, revision: Option<u64>) {
        let mut writer = self.writer();
        self.put_write(&mut writer, key, policy, revision);
        writer.in_doubt = Some(writer.writes);
    }

    fn put_write(&self, writer: &mut Writer, key: &Key, policy: Option<Arc<Policy>>, revision: Option<u64>) {
        writer.writes += 1;
        let number = writer.writes;
        writer.pins.insert(key.clone(), Pin { number, revision });
        let mut draft = Draft::of(&self.current.load(), &self.metrics);
        draft.set_queued(key, None);
        draft.set_heir(key, policy);
        self.publish(draft);
    }

    /// All policies of the local directory, in place of those it had before.
    pub fn set_files(&self, files: hashbrown::HashMap<Key, Arc<Policy>>) {
        for (tenant, id) in files.keys() {
            let known = self.load().file(tenant.as_str(), id.as_str()).map(Arc::as_ptr);
            if known != files.get(&(tenant.clone(), id.clone())).map(Arc::as_ptr) {
                self.metrics.tenant(tenant);
                self.metrics.policies_loaded(tenant, "file", 1);
            }
        }
        self.edit(|draft| draft.set_files(files));
    }

    /// What an earlier run left on disk; only before HEIR has been asked.
    pub fn restore(
        &self,
        incoming: Incoming,
        listed: &[crate::policy::TenantId],
        confirmed: std::time::SystemTime,
    ) {
        for (tenant, policies) in &incoming.policies {
            self.metrics.tenant(tenant);
            self.metrics
                .policies_loaded(tenant, "disk", policies.len() as u64);
        }
        self.edit(|draft| {
            for (tenant, policies) in incoming.policies {
                draft.set_heir_tenant(&tenant, policies);
            }
            for tenant in listed {
                draft.set_listed(tenant);
            }
            draft.set_extensions(incoming.extensions);
            draft.set_position(incoming.position);
            draft.set_coverage(incoming.coverage);
            draft.set_origin(Origin::Disk);
        });
        self.freshness.confirmed_earlier(confirmed);
    }

    /// HEIR's version of one policy, fetched by itself. Ignored if a write came in between, or anything else that
    /// replaced the version which was there when the fetch began.
    pub fn apply_fetch(&self, start: FetchStart, base: &Snapshot, key: &Key, policy: Option<Arc<Policy>>) {
        let mut writer = self.writer();
        if writer.pins.get(key).is_some_and(|pin| pin.number > start.0) {
            return;
        }
        writer.pins.remove(key);
        let current = self.current.load();
        let known = current.heir(key.0.as_str(), key.1.as_str());
        if known.map(Arc::as_ptr) != base.heir(key.0.as_str(), key.1.as_str()).map(Arc::as_ptr) {
            return;
        }
        if known.map(Arc::as_ptr) == policy.as_ref().map(Arc::as_ptr) && !current.problems.contains_key(key) {
            return;
        }
        let mut draft = Draft::of(&current, &self.metrics);
        if policy.is_some() {
            self.metrics.policies_loaded(&key.0, "heir", 1);
            draft.set_origin(Origin::Heir);
        }
        draft.set_heir(key, policy);
        draft.edit_problems(|problems| {
            problems.remove(key);
        });
        self.publish(draft);
    }

    /// Records what is wrong with one policy that was fetched by itself.
    pub fn report_problem(&self, key: Key, found: Vec<crate::policy::Problem>) {
        self.edit(|draft| {
            draft.edit_problems(|problems| {
                problems.insert(key, found);
            });
        });
    }

    /// Activates what HEIR has, whole, or holds it back.
    pub fn activate(
        &self,
        start: FetchStart,
        mut incoming: Incoming,
        guarded: Guarded,
    ) -> Result<Activation, Withheld> {
        let mut writer = self.writer();
        let current = self.current.load_full();
        keep_last_good(&current, &mut incoming);
        let removed = removed_by(&current, &incoming);
        let known = match &incoming.scope {
            Scope::Everything => current.heir_count(),
            Scope::Tenant(tenant) => current.tenant(tenant.as_str()).map_or(0, heir_count),
        };
        writer.allow_removal(removed, known, guarded, || Some(incoming.fingerprint()))?;
        let lost = writer.misses_writes(start, &incoming);
        if incoming.scope == Scope::Everything && writer.in_doubt.is_some_and(|number| number <= start.0) {
            writer.in_doubt = None;
        }
        writer.keep_later_writes(start, &current, &mut incoming);

        let went_back = lost
            || match (current.position.revision, incoming.position.revision) {
                (Some(ours), Some(theirs)) => theirs < ours,
                _ => false,
            };
        let mut loaded = 0;
        for (tenant, policies) in &incoming.policies {
            let new = policies
                .iter()
                .filter(|(id, policy)| {
                    !current
                        .heir(tenant.as_str(), id.as_str())
                        .is_some_and(|old| Arc::ptr_eq(old, policy))
                })
                .count();
            loaded += new;
            if new > 0 {
                // Gives the tenant its label before it is counted under it.
                self.metrics.tenant(tenant);
                self.metrics.policies_loaded(tenant, "heir", new as u64);
            }
        }
        let mut draft = Draft::of(&current, &self.metrics);
        match incoming.scope.clone() {
            Scope::Everything => {
                for tenant in current
                    .tenants
                    .keys()
                    .filter(|tenant| !incoming.policies.contains_key(*tenant))
                {
                    draft.set_heir_tenant(tenant, hashbrown::HashMap::new());
                }
                for (tenant, policies) in std::mem::take(&mut incoming.policies) {
                    draft.set_heir_tenant(&tenant, policies);
                }
                draft.set_extensions(std::mem::take(&mut incoming.extensions));
                draft.set_position(incoming.position);
                draft.edit_problems(|problems| *problems = incoming.problems);
            }
            Scope::Tenant(tenant) => {
                let policies = incoming.policies.remove(&tenant).unwrap_or_default();
                draft.set_heir_tenant(&tenant, policies);
                draft.set_listed(&tenant);
                draft.edit_problems(|problems| {
                    problems.retain(|key, _| key.0 != tenant);
                    problems.extend(incoming.problems);
                });
            }
        }
        draft.set_coverage(incoming.coverage);
        draft.set_origin(Origin::Heir);
        self.publish(draft);
        Ok(Activation {
            loaded,
            removed,
            went_back,
        })
    }

    /// Applies what happened in HEIR since the position of the snapshot, or says why it cannot be applied.
    pub fn apply_changes(&self, changes: ChangeSet, guarded: Guarded) -> Result<Activation, Withheld> {
        let mut writer = self.writer();
        let current = self.current.load_full();
        if current.position.revision != changes.from.revision {
            return Err(Withheld::Outdated);
        }
        if let (Some(ours), Some(theirs)) = (&current.position.chain, &changes.from.chain)
            && ours != theirs
        {
            return Err(Withheld::OtherHistory);
        }
        if writer.in_doubt.is_some() || writer.contradicts(&changes) {
            return Err(Withheld::OtherHistory);
        }
        let removed = changes
            .operations
            .iter()
            .filter(|operation| match operation {
                Operation::Delete { key, .. } => current.heir(key.0.as_str(), key.1.as_str()).is_some(),
                _ => false,
            })
            .count();
        if removed > 0 {
            // Not confirmed by repetition: what is left after so many removals is looked at whole.
            writer.allow_removal(removed, current.heir_count(), guarded, || None)?;
        }
        let mut loaded = 0;
        let mut draft = Draft::of(&current, &self.metrics);
        for operation in changes.operations {
            match operation {
                Operation::Put { key, policy } => {
                    let known = draft.snapshot().heir(key.0.as_str(), key.1.as_str());
                    let older = known.is_some_and(|known| reaches(known.revision, policy.revision));
                    if older
                        || writer
                            .pins
                            .get(&key)
                            .is_some_and(|pin| reaches(pin.revision, policy.revision))
                    {
                        continue;
                    }
                    loaded += 1;
                    self.metrics.tenant(&key.0);
                    self.metrics.policies_loaded(&key.0, "heir", 1);
                    draft.edit_problems(|problems| {
                        problems.remove(&key);
                    });
                    draft.set_heir(&key, Some(policy));
                }
                Operation::Delete { key, revision } => {
                    let known = draft.snapshot().heir(key.0.as_str(), key.1.as_str());
                    let older = known.is_some_and(|known| reaches(known.revision, revision));
                    if older
                        || writer
                            .pins
                            .get(&key)
                            .is_some_and(|pin| reaches(pin.revision, revision))
                    {
                        continue;
                    }
                    draft.edit_problems(|problems| {
                        problems.remove(&key);
                    });
                    draft.set_heir(&key, None);
                }
                Operation::PutExtension { id, record } => draft.edit_extensions(|extensions| {
                    extensions.insert(id, record);
                }),
                Operation::DeleteExtension { id } => draft.edit_extensions(|extensions| {
                    extensions.remove(&id);
                }),
            }
        }
        if !changes.problems.is_empty() {
            draft.edit_problems(|problems| problems.extend(changes.problems));
        }
        let reached = changes.to.revision;
        writer
            .pins
            .retain(|_, pin| pin.revision.is_some() && pin.revision > reached);
        draft.set_position(changes.to);
        draft.set_origin(Origin::Heir);
        self.publish(draft);
        Ok(Activation {
            loaded,
            removed,
            went_back: false,
        })
    }

    /// Whether HEIR had acknowledged, before the fetch began, a write that comes after this position; or one that
    /// cannot be told from such a write.
    pub fn has_writes_beyond(&self, start: FetchStart, position: &Position) -> bool {
        let writer = self.writer();
        writer.in_doubt.is_some()
            || writer.pins.values().any(|pin| {
                let beyond = |(write, ours)| write > ours;
                pin.number <= start.0 && pin.revision.zip(position.revision).is_some_and(beyond)
            })
    }

    /// HEIR has confirmed that the snapshot is what it has.
    pub fn confirm(&self, coverage: Coverage) {
        let current = self.current.load();
        if current.origin != Origin::Heir || current.coverage != coverage {
            drop(current);
            self.edit(|draft| {
                draft.set_origin(Origin::Heir);
                draft.set_coverage(coverage);
            });
        }
        self.freshness.confirm();
    }
}

impl Writer {
    /// A half-empty store must not wipe a fleet: an answer that removes too much must come twice.
    fn allow_removal(
        &mut self,
        removed: usize,
        known: usize,
        guarded: Guarded,
        fingerprint: impl FnOnce() -> Option<u64>,
    ) -> Result<(), Withheld> {
        let percent = usize::from(guarded.max_removed_percent);
        let too_much = known >= SMALLEST_GUARDED && removed * 100 > known * percent;
        if too_much && !guarded.confirmed {
            match fingerprint() {
                None => return Err(Withheld::Shrink { removed, known }),
                Some(again) => match self.held {
                    Some((first, since)) if first == again && since.elapsed() >= guarded.confirm_after => {}
                    Some((first, _)) if first == again => return Err(Withheld::Shrink { removed, known }),
                    _ => {
                        self.held = Some((again, Instant::now()));
                        return Err(Withheld::Shrink { removed, known });
                    }
                },
            }
        }
        self.held = None;
        Ok(())
    }

    /// Whether a write is missing that HEIR had acknowledged before the fetch of all this began.
    fn misses_writes(&self, start: FetchStart, incoming: &Incoming) -> bool {
        self.pins
            .iter()
            .filter(|(_, pin)| pin.number <= start.0 && pin.revision.is_some())
            .any(|((tenant, policy), pin)| {
                let version = incoming
                    .policies
                    .get(tenant)
                    .and_then(|policies| policies.get(policy));
                // One that is not there may have been deleted since.
                let is_older = version.is_some_and(|version| version.revision < pin.revision);
                incoming.scope == Scope::Everything
                    && incoming.position.revision.is_some()
                    && (incoming.position.revision < pin.revision || is_older)
            })
    }

    /// Whether a write that HEIR acknowledged is not in its history where it said it was. Each revision is one
    /// change.
    fn contradicts(&self, changes: &ChangeSet) -> bool {
        // A HEIR that does not say which revision a change made leaves nothing to compare.
        let is_told = |operation: &Operation| match operation {
            Operation::Put { policy, .. } => policy.revision.is_some(),
            Operation::Delete { revision, .. } => revision.is_some(),
            Operation::PutExtension { .. } | Operation::DeleteExtension { .. } => true,
        };
        if !changes.operations.iter().all(is_told) {
            return false;
        }
        self.pins
            .iter()
            .filter(|(_, pin)| pin.revision > changes.from.revision && pin.revision <= changes.to.revision)
            .any(|(key, pin)| {
                let is_it = |operation: &Operation| match operation {
                    Operation::Put { key: put, policy } => put == key && policy.revision == pin.revision,
                    Operation::Delete {
                        key: deleted,
                        revision,
                    } => deleted == key && *revision == pin.revision,
                    Operation::PutExtension { .. } | Operation::DeleteExtension { .. } => false,
                };
                !changes.operations.iter().any(is_it) && !changes.problems.contains_key(key)
            })
    }

    /// Writes that HEIR acknowledged after the fetch began are newer than what it brought.
    fn keep_later_writes(&mut self, start: FetchStart, current: &Snapshot, incoming: &mut Incoming) {
        let reached = incoming.position.revision;
        let scope = incoming.scope.clone();
        self.pins.retain(|key, pin| {
            if matches!(&scope, Scope::Tenant(tenant) if *tenant != key.0) {
                return true;
            }
            if pin.number <= start.0 || reaches(reached, pin.revision) {
                return false;
            }
            match current.heir(key.0.as_str(), key.1.as_str()) {
                Some(policy) => incoming.put(key.clone(), policy.clone()),
                None => {
                    if let Some(policies) = incoming.policies.get_mut(&key.0) {
                        policies.remove(&key.1);
                    }
                }
            }
            true
        });
    }
}

/// Whether a revision is at least another; where either is not known, nothing can be said.
fn reaches(ours: Option<u64>, theirs: Option<u64>) -> bool {
    matches!((ours, theirs), (Some(ours), Some(theirs)) if ours >= theirs)
}

/// A policy whose new version is broken keeps its last good one.
fn keep_last_good(current: &Snapshot, incoming: &mut Incoming) {
    let kept: Vec<(Key, Arc<Policy>)> = incoming
        .problems
        .keys()
        .filter_map(|key| Some((key.clone(), current.heir(key.0.as_str(), key.1.as_str())?.clone())))
        .collect();
    for (key, policy) in kept {
        incoming.put(key, policy);
    }
}

fn heir_count(tenant: &super::Tenant) -> usize {
    tenant
        .policies
        .values()
        .filter(|entry| entry.heir.is_some())
        .count()
}

fn removed_by(current: &Snapshot, incoming: &Incoming) -> usize {
    let speaks_for = |tenant: &_| match &incoming.scope {
        Scope::Everything => true,
        Scope::Tenant(only) => tenant == only,
    };
    current
        .tenants
        .iter()
        .filter(|(tenant, _)| speaks_for(*tenant))
        .flat_map(|(tenant, t)| t.policies.iter().map(move |(id, entry)| (tenant, id, entry)))
        .filter(|(tenant, id, entry)| entry.heir.is_some() && !incoming.mentions(tenant, id))
        .count()
}

/// Drops snapshots once no reader holds them, on a thread that has nothing else to do.
fn drop_retired(retiring: &mpsc::Receiver<Arc<Snapshot>>) {
    let mut waiting: Vec<Arc<Snapshot>> = Vec::new();
    loop {
        let next = if waiting.is_empty() {
            retiring.recv().map_err(|_closed| RecvTimeoutError::Disconnected)
        } else {
            retiring.recv_timeout(Duration::from_millis(5))
        };
        match next {
            Ok(snapshot) => waiting.push(snapshot),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        waiting.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

/// One line for each policy that was taken with notes, as far as they are few.
fn log_notes(noted: &[(Key, Arc<Policy>)], count: usize) {
    for ((tenant, policy_id), policy) in noted {
        let notes: Vec<String> = policy.notes().iter().map(ToString::to_string).collect();
        tracing::warn!(
            tenant = tenant.as_str(),
            policy = policy_id.as_str(),
            problems = notes.join("; "),
            "A policy was taken that a write would be refused or warned for."
        );
    }
    if count > noted.len() {
        let more = count - noted.len();
        tracing::warn!(
            more,
            "Further policies were taken with problems; /admin/snapshot lists them."
        );
    }
}
