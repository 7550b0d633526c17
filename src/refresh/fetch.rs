//! One policy that only HEIR knows: one question however many callers wait for the answer, and a memory for "no".

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, sync::watch};
use tokio_util::task::TaskTracker;

use super::{
    config::RefreshConfig,
    problem::{log_problem, too_large, unreadable},
};
use crate::{
    clock::now,
    decide::memory::table::Table,
    failure::{ErrorCode, Failure},
    heir::{Admission, Fetched, HeirCall, HeirClient, HeirError, wire},
    policy::Problem,
    snapshot::{Gone, Key, Lookup, Snapshot, SnapshotStore, check},
};

/// Most "no"s that are remembered; beyond them the oldest is forgotten, and HEIR asked again.
const MOST_ABSENT: usize = 10_000;

/// What HEIR says about one policy.
#[derive(Debug, Clone)]
pub enum FetchOutcome {
    /// It is in the snapshot now.
    Stored,
    /// HEIR does not have it.
    Absent,
    /// HEIR is away, or what it sent cannot be used.
    Failed(Failure),
}

type Waiting = watch::Receiver<Option<FetchOutcome>>;

/// Fetches single policies into the snapshot.
#[derive(Debug)]
pub struct Fetcher {
    client: Arc<HeirClient>,
    store: Arc<SnapshotStore>,
    config: Arc<ArcSwap<RefreshConfig>>,
    policy_bytes: usize,
    tasks: TaskTracker,
    /// Where they run: reading what HEIR sends takes longer than a lookup may wait.
    threads: Handle,
    running: Mutex<HashMap<Key, Waiting>>,
    /// Policies that HEIR does not have, and until when that is believed.
    absent: Table<Key, Instant>,
}

impl Fetcher {
    /// Fetches run among `tasks`, on `threads`.
    pub fn new(
        client: Arc<HeirClient>,
        store: Arc<SnapshotStore>,
        config: Arc<ArcSwap<RefreshConfig>>,
        policy_bytes: usize,
        tasks: TaskTracker,
        threads: Handle,
    ) -> Self {
        Self {
            client,
            store,
            config,
            policy_bytes,
            tasks,
            threads,
            running: Mutex::default(),
            absent: Table::new(MOST_ABSENT),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Key, Waiting>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether HEIR has said, within the configured time, that this policy does not exist.
    pub fn is_known_absent(&self, key: &Key) -> bool {
        self.absent
            .read(key, |until| Instant::now() < *until)
            .unwrap_or_default()
    }

    /// Forgets that a policy does not exist, because it was just written.
    pub fn forget_absence(&self, key: &Key) {
        self.absent.remove(key);
    }

    /// Asks HEIR, or joins the callers that already wait for the same answer. The question goes on when a caller leaves.
    pub async fn fetch(self: &Arc<Self>, key: &Key) -> FetchOutcome {
        let mut waiting = self.join(key);
        match waiting.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(FetchOutcome::Absent),
            // The task ended without an answer, which only a bug in it can cause.
            Err(_closed) => {
                FetchOutcome::Failed(HeirError::Invalid("the fetch was given up".into()).failure())
            }
        }
    }

    fn join(self: &Arc<Self>, key: &Key) -> Waiting {
        let mut running = self.running();
        if let Some(waiting) = running.get(key) {
            return waiting.clone();
        }
        // The answer to others may have come since the caller looked.
        let lookup = self.store.load();
        if let (Lookup::Found(_), _) = lookup.lookup(key.0.as_str(), key.1.as_str()) {
            return watch::channel(Some(FetchOutcome::Stored)).1;
        }
        let (answer, waiting) = watch::channel(None);
        running.insert(key.clone(), waiting.clone());
        let (this, key) = (self.clone(), key.clone());
        let asking = async move {
            let outcome = this.ask(&key).await;
            let mut running = this.running();
            if matches!(outcome, FetchOutcome::Absent) {
                let until = Instant::now() + Duration::from_millis(this.config.load().negative_ttl_ms);
                this.absent
                    .change_or_make(&key, now(), || (key.clone(), until), |kept| *kept = until);
            }
            running.remove(&key);
            answer.send_replace(Some(outcome));
        };
        self.tasks.spawn_on(asking, &self.threads);
        waiting
    }

    async fn ask(&self, key: &Key) -> FetchOutcome {
        let asked = async {
            let _turn = self.client.turn(&key.0).await?;
            fetch_policy(&self.client, &self.store, key, self.policy_bytes, Retry::Yes).await
        };
        match asked.await {
            Ok(true) => FetchOutcome::Stored,
            Ok(false) => FetchOutcome::Absent,
            Err(error) => {
                let (tenant, policy) = (key.0.as_str(), key.1.as_str());
                tracing::warn!(
                    tenant,
                    policy,
                    error = error.chain(),
                    "HEIR could not be asked for a policy."
                );
                FetchOutcome::Failed(failure(&error))
            }
        }
    }
}

/// The failure of a lookup that only HEIR could answer: whether HEIR is away or hangs is the same to its caller.
fn failure(error: &HeirError) -> Failure {
    let mut failure = error.failure();
    if failure.code == ErrorCode::HeirTimeout {
        failure.code = ErrorCode::HeirUnavailable;
    }
    failure
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    Yes,
    No,
}

/// What HEIR says about one policy.
pub(super) enum Asked {
    /// HEIR has it; it is in the snapshot, in its last good version if HEIR's is broken.
    Has,
    /// HEIR does not have it; memory may.
    HasNot(Option<Gone>),
}

/// Fetches one policy into the snapshot, conditionally. Whether HEIR has it.
pub(crate) async fn fetch_policy(
    client: &HeirClient,
    store: &SnapshotStore,
    key: &Key,
    policy_bytes: usize,
    retry: Retry,
) -> Result<bool, HeirError> {
    let base = store.load_full();
    match ask_for_policy(client, store, key, policy_bytes, retry, Admission::Breaker).await? {
        Asked::Has => Ok(true),
        Asked::HasNot(None) => Ok(false),
        Asked::HasNot(Some(gone)) => {
            store.apply_fetch(gone.start, &base, key, None);
            Ok(false)
        }
    }
}

/// As [`fetch_policy`], but for one thing: what HEIR does not have any more is left in the snapshot.
pub(super) async fn ask_for_policy(
    client: &HeirClient,
    store: &SnapshotStore,
    key: &Key,
    policy_bytes: usize,
    retry: Retry,
    admission: Admission,
) -> Result<Asked, HeirError> {
    let path = wire::policy_path(&key.0, &key.1);
    let start = store.fetch_start();
    let base = store.load_full();
    let ours = base.heir(key.0.as_str(), key.1.as_str());
    let known = ours.map(|policy| policy.document.etag().header());
    let limit = policy_bytes as u64;
    let fetched = if retry == Retry::Yes {
        client.fetch(HeirCall::Get, &path, known.as_ref(), limit).await
    } else {
        let timeout = client.timeout();
        client
            .fetch_once(HeirCall::Get, admission, &path, known.as_ref(), limit, timeout)
            .await
    };
    let (bytes, headers) = match fetched {
        Ok(Fetched::NotModified) => {
            // HEIR went back from a broken version to the good one.
            if let Some(good) = ours
                && base.problems().contains_key(key)
            {
                store.apply_fetch(start, &base, key, Some(good.clone()));
            }
            return Ok(Asked::Has);
        }
        Ok(Fetched::Changed { body, headers }) => (body, headers),
        Err(error) if error.is_not_found() => {
            return Ok(Asked::HasNot(ours.map(|policy| Gone {
                key: key.clone(),
                start,
                policy: policy.clone(),
            })));
        }
        Err(error @ HeirError::TooLarge { .. }) => {
            return keep(store, &base, key, vec![unreadable(&error, policy_bytes)]);
        }
        Err(error) => return Err(error),
    };
    let checked = match too_large(bytes.len() as u64, policy_bytes) {
        Some(problem) => Err(vec![problem]),
        None => check(
            &base,
            key,
            bytes,
            Fetched::etag(&headers),
            wire::revision(&headers),
        ),
    };
    match checked {
        Ok(policy) => {
            store.apply_fetch(start, &base, key, Some(policy));
            Ok(Asked::Has)
        }
        Err(problems) => keep(store, &base, key, problems),
    }
}

/// Reports what is wrong with HEIR's version of a policy. The last good one goes on being served, if there is one.
fn keep(
    store: &SnapshotStore,
    base: &Snapshot,
    key: &Key,
    problems: Vec<Problem>,
) -> Result<Asked, HeirError> {
    let first = problems.first().map(ToString::to_string).unwrap_or_default();
    // Asked for again and again, it is news only once.
    if base.problems().get(key) != Some(&problems) {
        log_problem(key, &problems);
        store.report_problem(key.clone(), problems);
    }
    if base.heir(key.0.as_str(), key.1.as_str()).is_some() {
        Ok(Asked::Has)
    } else {
        Err(HeirError::Invalid(format!("the policy is broken: {first}")))
    }
}
