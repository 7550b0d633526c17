//! The one place where the current snapshot is kept, and the only ways to replace it.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::Instant,
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{
    broken::BrokenPolicies,
    draft::Draft,
    freshness::{Freshness, Unconfirmed},
    guard::ShrinkGuard,
    incoming::Incoming,
    key::Key,
    metrics::SnapshotMetrics,
    pins::{FetchStart, Pins, reaches},
    policy::Policy,
    provenance::{Coverage, Origin, Position},
    retire,
    state::Snapshot,
};
use crate::{
    extensions::ExtensionHost,
    policy::{Problem, TenantId},
};

/// What only the thread that replaces the snapshot needs.
#[derive(Debug, Default)]
pub(super) struct WriterState {
    pub(super) pins: Pins,
    pub(super) guard: ShrinkGuard,
}

/// Holds the current snapshot. Loading it never waits, whatever is being published.
#[derive(Debug)]
pub struct SnapshotStore {
    pub(super) current: ArcSwap<Snapshot>,
    writer: Mutex<WriterState>,
    retired: mpsc::Sender<Arc<Snapshot>>,
    published: watch::Sender<u64>,
    freshness: Freshness,
    extensions: Option<Arc<ExtensionHost>>,
    takes_broken: AtomicBool,
    pub(super) metrics: Arc<SnapshotMetrics>,
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
        Ok(Self {
            current: ArcSwap::from_pointee(Snapshot::empty()),
            writer: Mutex::default(),
            retired: retire::start()?,
            published: watch::Sender::new(0),
            freshness: Freshness::new(Instant::now()),
            extensions,
            takes_broken: AtomicBool::new(false),
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

    /// The host that runs the extensions of the snapshots; `None` where they are switched off.
    pub fn extensions(&self) -> Option<&Arc<ExtensionHost>> {
        self.extensions.as_ref()
    }

    /// Sets what decisions are made by where a policy is broken, also while requests are served.
    pub fn set_broken_policies(&self, broken: BrokenPolicies) {
        self.takes_broken.store(broken == BrokenPolicies::Take, Relaxed);
    }

    /// What decisions are made by where a policy is broken.
    pub fn broken_policies(&self) -> BrokenPolicies {
        if self.takes_broken.load(Relaxed) {
            BrokenPolicies::Take
        } else {
            BrokenPolicies::LastGood
        }
    }

    /// The metrics of the snapshots and their tenants.
    pub fn metrics(&self) -> &SnapshotMetrics {
        &self.metrics
    }

    /// How old the snapshot is.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Wakes whenever another snapshot is published.
    pub fn published(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    pub(super) fn writer_state(&self) -> MutexGuard<'_, WriterState> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call before a fetch is sent.
    pub fn fetch_start(&self) -> FetchStart {
        self.writer_state().pins.now()
    }

    /// Replaces the snapshot by an edited copy. Edits are applied one after the other.
    pub fn edit<R>(&self, edit: impl FnOnce(&mut Draft<'_>) -> R) -> R {
        let _one_at_a_time = self.writer_state();
        let mut draft = Draft::of(&self.current.load(), &self.metrics);
        let result = edit(&mut draft);
        self.publish(draft);
        result
    }

    /// Publishes a draft of the current snapshot; the caller holds the writer state from before the draft was made.
    pub(super) fn publish(&self, mut draft: Draft<'_>) {
        draft.judge(&self.current.load(), self.extensions.as_deref());
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
            .set(i64::try_from(next.problems.len() + next.broken_count()).unwrap_or(i64::MAX));
        self.metrics.revision.set(
            next.position
                .revision
                .map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX)),
        );
        let generation = next.generation;
        let old = self.current.swap(Arc::new(next));
        // A reader that still has the old one must not be the one to drop it. The thread is gone only when the process
        // ends, and then dropping here is as good.
        let _thread_gone = self.retired.send(old);
        self.published.send_replace(generation);
        log_notes(&newly_noted, newly_noted_count);
    }

    /// A write that HEIR has acknowledged: visible to the next lookup, and to no refresh that began before it.
    /// `false`: nothing was done, because memory has a later version already, or no version although it has come
    /// to the write's revision; what HEIR has is to be looked up.
    #[must_use]
    pub fn apply_write(&self, key: &Key, policy: Option<Arc<Policy>>, revision: Option<u64>) -> bool {
        let mut state = self.writer_state();
        let current = self.current.load();
        let is_overtaken = match (current.heir(key.0.as_str(), key.1.as_str()), &policy) {
            (Some(known), _) => revision.is_some() && known.revision > revision,
            (None, Some(_)) => reaches(current.position.revision, revision),
            (None, None) => false,
        };
        if is_overtaken {
            return false;
        }
        self.put_write(&mut state.pins, key, policy, revision);
        true
    }

    /// As [`apply_write`](Self::apply_write), although memory seems to be past it and HEIR cannot be asked now. The
    /// next refresh takes everything anew, to settle what is true.
    pub fn apply_unverified_write(&self, key: &Key, policy: Option<Arc<Policy>>, revision: Option<u64>) {
        let mut state = self.writer_state();
        self.put_write(&mut state.pins, key, policy, revision);
        state.pins.mark_unverified();
    }

    fn put_write(&self, pins: &mut Pins, key: &Key, policy: Option<Arc<Policy>>, revision: Option<u64>) {
        pins.pin(key, revision);
        let mut draft = Draft::of(&self.current.load(), &self.metrics);
        if policy.is_some() {
            self.metrics.tenant(&key.0);
            self.metrics.policies_loaded(&key.0, "write", 1);
        }
        draft.set_heir(key, policy);
        self.publish(draft);
    }

    /// A write that HEIR had acknowledged to an earlier run, after the snapshot that this one began with: a HEIR without it
    /// was restored from a backup.
    pub fn expect_write(&self, key: &Key, revision: u64) {
        self.writer_state().pins.expect(key, revision);
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
    pub fn restore(&self, incoming: Incoming, listed: &[TenantId], confirmed: std::time::SystemTime) {
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
            draft.set_last_good(incoming.last_good);
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
        let mut state = self.writer_state();
        if !state.pins.release(key, start) {
            return;
        }
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
    pub fn report_problem(&self, key: Key, found: Vec<Problem>) {
        self.edit(|draft| {
            draft.edit_problems(|problems| {
                problems.insert(key, found);
            });
        });
    }

    /// Whether HEIR had acknowledged, before the fetch began, a write that comes after this position; or one that
    /// cannot be told from such a write.
    pub fn has_writes_beyond(&self, start: FetchStart, position: &Position) -> bool {
        let state = self.writer_state();
        state.pins.has_unverified() || state.pins.has_beyond(start, position)
    }

    /// HEIR has confirmed that the snapshot is what it has.
    pub fn confirm(&self, coverage: Coverage, at: Instant, unconfirmed: &[Unconfirmed]) {
        let current = self.current.load();
        if current.origin != Origin::Heir || current.coverage != coverage {
            drop(current);
            self.edit(|draft| {
                draft.set_origin(Origin::Heir);
                draft.set_coverage(coverage);
            });
        }
        self.freshness.confirm(at, unconfirmed);
    }
}

/// One line for each policy that was taken with notes, as far as they are few.
fn log_notes(noted: &[(Key, Arc<Policy>)], count: usize) {
    for ((tenant, policy_id), policy) in noted {
        let notes: Vec<String> = policy.notes().iter().map(ToString::to_string).collect();
        tracing::warn!(
            tenant = tenant.as_str(),
            policy = policy_id.as_str(),
            problems = notes.join("; "),
            "A policy was taken that a write would be warned for."
        );
    }
    if count > noted.len() {
        let more = count - noted.len();
        tracing::warn!(
            more,
            "Further policies were taken with warnings; /admin/snapshot lists them."
        );
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
