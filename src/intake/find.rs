//! The policy that a request is decided by: from the snapshot, or from HEIR where only HEIR knows it.

use std::{sync::Arc, time::Instant};

use tokio::task::JoinError;

use super::{broken_version::BrokenVersion, entry::Intake};
use crate::{
    decide::Complexity,
    extensions::Registry,
    failure::{ErrorCode, Failure},
    policy::{PolicyId, TenantId},
    refresh::FetchOutcome,
    snapshot::{Age, BrokenPolicies, Key, Lookup, Policy, Snapshot, Source, Tenant},
};

/// Bytes from which a document takes longer to read than another request may wait.
const LONG: usize = 16 << 10;

/// Which snapshot answered, and how old it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotStamp {
    /// HEIR's revision; `None` where HEIR has none.
    pub revision: Option<u64>,
    /// Where the policy came from.
    pub source: Source,
    /// Milliseconds since HEIR last confirmed the snapshot.
    pub age_ms: u64,
    /// `age_ms` against the limits of the configuration.
    pub age: Age,
}

/// A policy as a decision takes it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) policy: Arc<Policy>,
    /// The extensions that belong to it.
    pub(super) registry: Arc<Registry>,
    pub(super) stamp: SnapshotStamp,
    /// Whether HEIR did not have to be asked.
    pub(super) cached: bool,
    /// What is wrong with the policy as HEIR or a file has it; `None` where nothing is.
    pub(super) broken: Option<BrokenVersion>,
}

impl Intake {
    /// The policy, from HEIR if need be.
    ///
    /// # Errors
    /// `policy_not_found`, `policy_expired`, and what HEIR failed with.
    pub(super) async fn find(&self, tenant: &TenantId, policy_id: &PolicyId) -> Result<Found, Failure> {
        if let Some(found) = self.find_in_memory(tenant, policy_id)? {
            return Ok(found);
        }
        let key = (tenant.clone(), policy_id.clone());
        self.fetch(key).await?;
        let found = self.look_up(&self.store.load(), tenant, policy_id)?;
        let found = found.ok_or_else(|| not_found(tenant, policy_id))?;
        Ok(Found {
            cached: false,
            ..found
        })
    }

    /// As [`find`](Self::find), with the document read: a long one on another thread than this one, which may have
    /// other requests to answer.
    pub(super) async fn find_and_read(
        &self,
        tenant: &TenantId,
        policy_id: &PolicyId,
    ) -> Result<Found, Failure> {
        let found = self.find(tenant, policy_id).await?;
        if found.policy.document.bytes().len() > LONG && !found.policy.is_read() {
            let policy = found.policy.clone();
            let read = tokio::task::spawn_blocking(move || {
                policy.routing();
            });
            let lost = |error: JoinError| Failure::new(ErrorCode::InternalError, error.to_string());
            read.await.map_err(lost)?;
        }
        Ok(found)
    }

    /// The policy, or `None` where only HEIR can say.
    fn find_in_memory(&self, tenant: &TenantId, policy_id: &PolicyId) -> Result<Option<Found>, Failure> {
        let snapshot = self.store.load();
        match self.look_up(&snapshot, tenant, policy_id)? {
            None if self.may_have(&snapshot, tenant, policy_id) => Ok(None),
            None => Err(not_found(tenant, policy_id)),
            found => Ok(found),
        }
    }

    fn look_up(
        &self,
        snapshot: &Snapshot,
        tenant: &TenantId,
        policy_id: &PolicyId,
    ) -> Result<Option<Found>, Failure> {
        let (Lookup::Found(found), Some(known)) = snapshot.lookup(tenant.as_str(), policy_id.as_str()) else {
            return Ok(None);
        };
        let (age_ms, age) =
            self.store
                .freshness()
                .of_policy(Instant::now(), tenant.as_str(), policy_id.as_str());
        if self.store.freshness().refuses(age) {
            return Err(expired(age_ms));
        }
        let (policy, broken) = self.version(known, policy_id, found.policy);
        Ok(Some(Found {
            policy,
            broken,
            registry: snapshot.registry().clone(),
            stamp: SnapshotStamp {
                revision: snapshot.position().revision,
                source: found.source(snapshot.origin()),
                age_ms,
                age,
            },
            cached: true,
        }))
    }

    /// The version that decides: the last good one where the newest is broken, if there is one and it is wanted.
    fn version(
        &self,
        tenant: &Tenant,
        policy_id: &PolicyId,
        newest: &Arc<Policy>,
    ) -> (Arc<Policy>, Option<BrokenVersion>) {
        let Some(broken) = tenant.broken(policy_id.as_str(), newest) else {
            return (newest.clone(), None);
        };
        let last_good = match self.store.broken_policies() {
            BrokenPolicies::LastGood => broken.last_good().cloned(),
            BrokenPolicies::Take => None,
        };
        let is_replaced = last_good.is_some();
        let broken = BrokenVersion { broken, is_replaced };
        (last_good.unwrap_or_else(|| newest.clone()), Some(broken))
    }

    /// Whether HEIR may have a policy that memory does not have.
    fn may_have(&self, snapshot: &Snapshot, tenant: &TenantId, policy_id: &PolicyId) -> bool {
        let Some(fetcher) = &self.fetcher else {
            return false;
        };
        let lookup = snapshot.lookup(tenant.as_str(), policy_id.as_str()).0;
        matches!(lookup, Lookup::Unknown) && !fetcher.is_known_absent(&(tenant.clone(), policy_id.clone()))
    }

    async fn fetch(&self, key: Key) -> Result<(), Failure> {
        let Some(fetcher) = self.fetcher.clone() else {
            return Ok(());
        };
        let place = self.waiting.place(&key.0)?;
        // The question goes on when the caller leaves, and keeps its place.
        let asking = tokio::spawn(async move {
            let outcome = fetcher.fetch(&key).await;
            drop(place);
            outcome
        });
        match asking.await {
            Ok(FetchOutcome::Failed(failure)) => Err(failure),
            Ok(FetchOutcome::Stored | FetchOutcome::Absent) => Ok(()),
            Err(lost) => Err(Failure::new(ErrorCode::InternalError, lost.to_string())),
        }
    }

    /// How heavy a policy's pipeline is.
    ///
    /// # Errors
    /// As for a decision by the policy.
    pub async fn complexity(&self, tenant: &TenantId, policy_id: &PolicyId) -> Result<Complexity, Failure> {
        let found = self.find_and_read(tenant, policy_id).await?;
        Ok(Complexity::of(found.policy.routing().pipeline.as_deref()))
    }
}

fn not_found(tenant: &TenantId, policy_id: &PolicyId) -> Failure {
    let message = format!("Policy '{tenant}/{policy_id}' not found");
    Failure::new(ErrorCode::PolicyNotFound, message)
        .detail("tenant_id", tenant.as_str())
        .detail("policy_id", policy_id.as_str())
}

/// The failure of a request for policies that are too old to be given out.
pub fn expired(age_ms: u64) -> Failure {
    let message = "HEIR has not confirmed the policies for longer than refresh.expired_after_ms allows";
    Failure::new(ErrorCode::PolicyExpired, message)
        .detail("age_ms", age_ms)
        .retry_after_seconds(1)
}
