//! Makes the journal's writes in HEIR, oldest first, once HEIR is back.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    heir_policy,
    journal::{Base, Entry, EntryId, JournalError, Operation, Reason, State},
    request::{Precondition, Versions},
    writer::Writer,
};
use crate::{
    heir::{Backoff, Fetched, HeirClient, HeirError, Replied, RetryConfig},
    policy::ETag,
    refresh::{Restored, Retry, fetch_policy},
    snapshot::{Coverage, Key},
};

/// Attempts after which a write that HEIR fails on, while it answers otherwise, is left to the operator: it must
/// not hold up the ones behind it for ever.
const MOST_ATTEMPTS: u32 = 12;

/// Doubles with every attempt up to sixty-four times that, so that a write is given up after half a minute.
const SHORTEST_REST: Duration = Duration::from_millis(50);

/// A write that HEIR failed on while it answers otherwise: how often, and when it is tried again. Those behind it
/// for other policies go on meanwhile.
#[derive(Debug, Clone, Copy)]
struct Resting {
    attempts: u32,
    until: Instant,
}

type Rests = HashMap<EntryId, Resting>;

/// What one attempt came to.
#[derive(Debug)]
enum Attempt {
    /// HEIR has it; its tag there, none after a DELETE.
    Made(Option<ETag>, Option<Replied>),
    Conflict(Reason, String),
    Later(HeirError),
}

impl Writer {
    /// Replays until told to stop.
    pub async fn run(&self, mut restored: mpsc::Receiver<Restored>, stop: CancellationToken) {
        let Some(client) = self.client.clone() else { return };
        let mut up = client.up();
        let retry = RetryConfig {
            max_attempts: u32::MAX,
            initial_ms: 100,
            factor: 2.0,
            max_ms: 5_000,
        };
        let mut backoff = Backoff::new(retry, fastrand::u64(..));
        let mut rests = Rests::new();
        loop {
            // However many writes are to be made, these do not wait for the last of them.
            if stop.is_cancelled() {
                return;
            }
            while let Ok(restored) = restored.try_recv() {
                self.keep_lost(&restored).await;
            }
            let now = Instant::now();
            let next = self
                .journal
                .next_queued(|id| rests.get(&id).is_some_and(|rest| now < rest.until));
            let waits = match next {
                None => rests
                    .values()
                    .filter_map(|rest| rest.until.checked_duration_since(now))
                    .min(),
                Some(entry) if *up.borrow_and_update() => {
                    match self.replay(&client, entry, &mut rests).await {
                        Ok(true) => {
                            backoff.reset();
                            continue;
                        }
                        Ok(false) => Some(backoff.next_pause()),
                        Err(error) => {
                            tracing::error!(
                                error = error.chain(),
                                "The journal cannot be written; replaying waits."
                            );
                            Some(Duration::from_secs(1))
                        }
                    }
                }
                // Looked at again from time to time, should no other call notice that HEIR is back.
                Some(_) => Some(Duration::from_secs(1) + backoff.next_pause()),
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(restored) = restored.recv() => self.keep_lost(&restored).await,
                () = self.replay_wanted.notified() => {}
                _ = up.changed() => {}
                () = tokio::time::sleep(waits.unwrap_or_default()), if waits.is_some() => {}
            }
        }
    }

    /// Tries one write. Whether the next one can be tried.
    async fn replay(
        &self,
        client: &HeirClient,
        entry: Entry,
        rests: &mut Rests,
    ) -> Result<bool, JournalError> {
        let _one_at_a_time = self.lock(&entry.key).lock().await;
        // It may have been discarded, or left to an operator, in the meantime.
        let entry = match self.journal.find(entry.id) {
            Ok(entry) if entry.state == State::Queued => entry,
            _ => return Ok(true),
        };
        match self.attempt(client, &entry).await {
            Attempt::Made(etag, replied) => {
                self.take_over_made(client, &entry, etag.clone(), replied).await;
                self.journal
                    .rebase(entry.id, etag.map_or(Base::Absent, Base::Document))
                    .await?;
                self.journal.remove(entry.id).await?;
                rests.remove(&entry.id);
                self.metrics.write("replayed");
            }
            Attempt::Conflict(reason, detail) => {
                self.leave_to_operator(client, &entry, reason, detail).await?
            }
            Attempt::Later(error) => {
                let refused = matches!(error, HeirError::Status { status, .. } if status != StatusCode::TOO_MANY_REQUESTS);
                // The failure itself counts against HEIR: whether that is there is asked apart from it.
                if !refused || client.check_health().await.is_err() {
                    tracing::debug!(
                        error = error.chain(),
                        id = entry.id.0,
                        "A write could not be replayed yet."
                    );
                    return Ok(false);
                }
                let attempts = rests.get(&entry.id).map_or(1, |rest| rest.attempts + 1);
                if attempts < MOST_ATTEMPTS {
                    let pause = SHORTEST_REST * 2u32.pow(attempts.min(6));
                    let until = Instant::now() + pause;
                    rests.insert(entry.id, Resting { attempts, until });
                    return Ok(true);
                }
                rests.remove(&entry.id);
                let detail = format!("given up after {MOST_ATTEMPTS} attempts: {error}");
                self.leave_to_operator(client, &entry, Reason::RefusedByHeir, detail)
                    .await?;
            }
        }
        self.show_newest(&entry.key);
        self.count();
        Ok(true)
    }

    async fn attempt(&self, client: &HeirClient, entry: &Entry) -> Attempt {
        if let Base::Entry(before) = entry.base {
            let detail = format!(
                "it was made on top of the write {}, which did not get into HEIR",
                before.0
            );
            return Attempt::Conflict(Reason::ChangedInHeir, detail);
        }
        // A HEIR that gives snapshots has conditional writes; another's state must be looked at first.
        let conditional = self.store.load().coverage() == Coverage::Whole;
        if entry.base != Base::Any && (!conditional || entry.base == Base::Unknown) {
            match self.compare(client, entry).await {
                Ok(None) => {}
                Ok(Some(settled)) => return settled,
                Err(error) => return Attempt::Later(error),
            }
        }
        let document = match &entry.operation {
            Operation::Put(document) => Some(document),
            Operation::Delete => None,
        };
        match heir_policy::send(client, &entry.key, document, headers(entry)).await {
            Ok(replied) => self.judge(client, entry, replied).await,
            Err(error) if error.is_away() => Attempt::Later(error),
            Err(error) => Attempt::Conflict(Reason::RefusedByHeir, error.to_string()),
        }
    }

    async fn judge(&self, client: &HeirClient, entry: &Entry, replied: Replied) -> Attempt {
        match (&entry.operation, replied.status) {
            (Operation::Put(document), status) if status.is_success() => {
                let etag = Fetched::etag(&replied.headers).unwrap_or_else(|| document.etag().clone());
                Attempt::Made(Some(etag), Some(replied))
            }
            (Operation::Delete, status) if status.is_success() || status == StatusCode::NOT_FOUND => {
                Attempt::Made(None, Some(replied))
            }
            (_, StatusCode::PRECONDITION_FAILED) => match self.compare(client, entry).await {
                Ok(Some(settled)) => settled,
                // It is the base again by now; the next attempt shows.
                Ok(None) => Attempt::Later(HeirError::Status {
                    status: replied.status,
                    retry_after: None,
                }),
                Err(error) => Attempt::Later(error),
            },
            (_, status) => {
                let detail = format!("HEIR answered {status}: {}", excerpt(&replied.body));
                Attempt::Conflict(Reason::RefusedByHeir, detail)
            }
        }
    }

    /// Looks at what HEIR has. `None`: the base, so the write can be made.
    async fn compare(&self, client: &HeirClient, entry: &Entry) -> Result<Option<Attempt>, HeirError> {
        let current = heir_policy::read(client, &entry.key)
            .await?
            .map(|(body, headers)| {
                let etag = Fetched::etag(&headers).unwrap_or_else(|| ETag::of_bytes(&body));
                (etag, body)
            });
        let changed = || {
            Some(Attempt::Conflict(
                Reason::ChangedInHeir,
                "another client changed the policy in HEIR".into(),
            ))
        };
        Ok(match (&entry.operation, &entry.base, current) {
            // HEIR has it already: the answer to an earlier attempt was lost.
            (Operation::Put(ours), _, Some((etag, body))) if ours.bytes() == &body => {
                Some(Attempt::Made(Some(etag), None))
            }
            (Operation::Delete, _, None) => Some(Attempt::Made(None, None)),
            (_, Base::Any, _) | (_, Base::Absent | Base::Unknown, None) => None,
            (_, Base::Document(base), Some((etag, body)))
                if *base == etag || *base == ETag::of_bytes(&body) =>
            {
                None
            }
            _ => changed(),
        })
    }

    async fn take_over_made(
        &self,
        client: &HeirClient,
        entry: &Entry,
        etag: Option<ETag>,
        replied: Option<Replied>,
    ) {
        match (&entry.operation, replied) {
            (Operation::Put(document), Some(replied)) => {
                self.take_over(client, &entry.key, Some(document), &replied).await;
            }
            (Operation::Put(document), None) => {
                self.ledger
                    .stored(&entry.key, &etag.unwrap_or_else(|| document.etag().clone()));
                self.fetch_into_memory(client, &entry.key).await;
            }
            (Operation::Delete, Some(replied)) => {
                self.take_over(client, &entry.key, None, &replied).await;
            }
            (Operation::Delete, None) => {
                self.ledger.deleted(&entry.key);
                self.show_made(client, &entry.key, None, None).await;
            }
        }
    }

    /// HEIR's version is kept; the write stays visible to the operator.
    async fn leave_to_operator(
        &self,
        client: &HeirClient,
        entry: &Entry,
        reason: Reason,
        detail: String,
    ) -> Result<(), JournalError> {
        tracing::error!(
            id = entry.id.0,
            tenant = entry.key.0.as_str(),
            policy = entry.key.1.as_str(),
            ?reason,
            detail,
            "A write that was acknowledged could not be made in HEIR; see /admin/writes."
        );
        self.journal.set_conflict(entry.id, reason, detail).await?;
        self.metrics.write("conflict");
        self.fetch_into_memory(client, &entry.key).await;
        Ok(())
    }

    /// Takes HEIR's version of one policy.
    async fn fetch_into_memory(&self, client: &HeirClient, key: &Key) {
        let bytes = usize::try_from(client.max_answer_bytes()).unwrap_or(usize::MAX);
        if let Err(error) = fetch_policy(client, &self.store, key, bytes, Retry::No).await {
            tracing::debug!(
                error = error.chain(),
                "HEIR's version will come with the next refresh."
            );
        }
    }
}

fn headers(entry: &Entry) -> HeaderMap {
    let precondition = match &entry.base {
        Base::Document(etag) => Some(Precondition::Is(Versions::Tagged(vec![etag.clone()]))),
        Base::Absent if matches!(entry.operation, Operation::Put(_)) => {
            Some(Precondition::IsNot(Versions::Any))
        }
        Base::Absent | Base::Unknown | Base::Any | Base::Entry(_) => None,
    };
    let mut headers = HeaderMap::new();
    heir_policy::add_preconditions(&mut headers, precondition.as_slice());
    heir_policy::add_idempotency_key(&mut headers, &entry.idempotency_key);
    headers
}

/// The beginning of an error body, for a person.
fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned()
}
