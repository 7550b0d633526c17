//! Makes the journal's writes in HEIR, oldest first, once HEIR is back.

use std::{
    sync::Arc,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    absence,
    entry::{Base, Entry, Operation, Reason, State, Trouble, Unreadable},
    heir_policy::{self, Answer},
    request::{Precondition, Versions},
    writer::Writer,
};
use crate::{
    heir::{Backoff, Fetched, HeirClient, HeirError, Replied, RetryConfig, wire},
    policy::{ETag, PolicyDocument},
    refresh::{Restored, Retry, fetch_policy},
    snapshot::{Key, Policy},
};

/// The pause after a write's first failed attempt; it doubles with every further one, up to the longest.
const SHORTEST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// After so many writes in a row that HEIR refuses, it is not the writes: the others are tried at leisure.
const FEW_REFUSALS: u32 = 4;

/// How often the disk is asked again that refused a change.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// What one attempt came to.
#[derive(Debug)]
enum Attempt {
    /// HEIR has answered that it has it now.
    Made(Option<PolicyDocument>, Replied),
    /// HEIR had it already, as an answer to an earlier attempt was lost; none after a DELETE.
    Found(Option<Arc<Policy>>),
    Conflict(Reason, String),
    Later(HeirError),
    /// The disk does not give the document now.
    Unread(Unreadable),
}

/// What HEIR has, seen from a write that is to be made.
#[derive(Debug)]
enum Sight {
    /// What the write would leave.
    Done(Option<Arc<Policy>>),
    /// What the write was made on, which the precondition says to a HEIR that understands it.
    Base(Option<Precondition>),
    /// Something else.
    Other,
}

/// What comes after one attempt.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// The write is done with: the next one.
    Settled,
    /// HEIR is there and does not take this one now; it rests.
    Refused,
    /// HEIR is away.
    Wait,
}

impl Writer {
    /// Replays until told to stop.
    pub async fn run(&self, mut restored: mpsc::Receiver<Restored>, stop: CancellationToken) {
        let Some(client) = self.client.clone() else { return };
        let mut up = client.availability().up();
        let retry = RetryConfig {
            max_attempts: u32::MAX,
            initial_ms: 100,
            factor: 2.0,
            max_ms: 5_000,
        };
        let mut backoff = Backoff::new(retry, fastrand::u64(..));
        let (mut refusals, mut caught_up, mut looked) = (0, Instant::now(), Instant::now());
        loop {
            // However many writes are to be made, these do not wait for the last of them.
            if stop.is_cancelled() {
                return;
            }
            while let Ok(restored) = restored.try_recv() {
                self.keep_lost(&restored).await;
            }
            if looked.elapsed() >= DISK_PAUSE {
                if self.journal.has_vanished().await {
                    self.write_journal_again().await;
                }
                looked = Instant::now();
            }
            let is_behind = self.journal.is_behind();
            if is_behind && caught_up.elapsed() >= DISK_PAUSE {
                self.journal.catch_up().await;
                caught_up = Instant::now();
            }
            let now = Instant::now();
            let mut waits = match self.journal.next_queued(now) {
                (None, first_end) => first_end.map(|end| end.saturating_duration_since(now)),
                (Some(entry), _) if *up.borrow_and_update() => {
                    match self.replay(&client, entry, refusals).await {
                        Turn::Settled => {
                            refusals = 0;
                            backoff.reset();
                            continue;
                        }
                        Turn::Refused => {
                            refusals += 1;
                            if refusals < FEW_REFUSALS {
                                continue;
                            }
                            Some(backoff.next_pause())
                        }
                        Turn::Wait => Some(backoff.next_pause()),
                    }
                }
                // Looked at again from time to time, should no other call notice that HEIR is back.
                (Some(_), _) => Some(Duration::from_secs(1) + backoff.next_pause()),
            };
            if is_behind {
                waits = Some(waits.map_or(DISK_PAUSE, |pause| pause.min(DISK_PAUSE)));
            }
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

    /// Writes what waits to the disk once more, after the files have vanished. What lookups do not see, because a later
    /// write of the policy waits, was only there.
    pub async fn write_journal_again(&self) {
        let entries = self.journal.entries();
        if entries.is_empty() {
            return;
        }
        tracing::error!("The journal had vanished from the disk; what waits is written once more.");
        for entry in entries {
            match entry.operation {
                Operation::Delete => self.journal.write_again(entry.id, None).await,
                Operation::Put(_) => match self.document(&entry).await {
                    Ok(document) => self.journal.write_again(entry.id, Some(document)).await,
                    Err(error) => {
                        tracing::error!(%error, id = entry.id.0, "A waiting write has vanished from the disk.");
                    }
                },
            }
        }
    }

    /// Tries one write, after so many in a row that HEIR refused.
    async fn replay(&self, client: &HeirClient, entry: Entry, refusals: u32) -> Turn {
        let _one_at_a_time = self.lock(&entry.key).lock().await;
        // It may have been discarded, replaced, or left to an operator, in the meantime.
        let entry = match self.journal.find(entry.id) {
            Ok(entry) if entry.state == State::Queued => entry,
            _ => return Turn::Settled,
        };
        let before = self.tag_in_memory(&entry.key);
        match self.attempt(client, &entry).await {
            Attempt::Made(document, replied) => {
                // What HEIR says that it has, and not what a look might find that another client wrote since.
                let base = document.as_ref().map_or(Base::Absent, |document| {
                    let etag = Fetched::etag(&replied.headers);
                    Base::Document(etag.unwrap_or_else(|| document.etag().clone()))
                });
                self.take_over(client, &entry.key, before, document.as_ref(), &replied)
                    .await;
                self.note_done(&entry, base, refusals).await;
            }
            Attempt::Found(policy) => {
                let etag = policy.as_ref().map(|policy| policy.document.etag().clone());
                let revision = policy.as_ref().and_then(|policy| policy.revision);
                self.ledger.note(&entry.key, policy.as_deref(), revision).await;
                self.show_made(client, &entry.key, policy, revision).await;
                let base = etag.map_or(Base::Absent, Base::Document);
                self.note_done(&entry, base, refusals).await;
            }
            Attempt::Conflict(reason, detail) => {
                self.leave_to_operator(client, &entry, reason, detail).await;
            }
            Attempt::Later(error) => {
                let of_heir = match &error {
                    HeirError::Paused { .. } | HeirError::Connect(_) | HeirError::PoolExhausted => true,
                    HeirError::Status { status, .. } => *status == StatusCode::TOO_MANY_REQUESTS,
                    _ => false,
                };
                // The failure itself counts against HEIR: whether that is there is asked apart from it.
                if of_heir || client.check_health().await.is_err() {
                    self.note_trouble(&entry, entry.attempts(), error.chain(), None);
                    return Turn::Wait;
                }
                return self
                    .rest(client, &entry, Reason::RefusedByHeir, error.to_string())
                    .await;
            }
            Attempt::Unread(error) => {
                return self
                    .rest(client, &entry, Reason::Damaged, error.to_string())
                    .await;
            }
        }
        self.show_newest(&entry.key).await;
        self.count();
        Turn::Settled
    }

    async fn note_done(&self, entry: &Entry, base: Base, refusals: u32) {
        self.journal.done(entry.id, base).await;
        self.metrics.write("replayed");
        let was_refused = entry.attempts() > 0;
        if refusals >= FEW_REFUSALS && was_refused {
            // HEIR has changed its mind, and not about this write only.
            self.journal.end_rests();
        }
    }

    /// Lets a write rest, or leaves it to the operator if it has been tried often enough.
    async fn rest(&self, client: &HeirClient, entry: &Entry, reason: Reason, error: String) -> Turn {
        let attempts = entry.attempts() + 1;
        if attempts >= self.max_attempts.load(Relaxed) {
            let detail = format!("given up after {attempts} attempts: {error}");
            self.leave_to_operator(client, entry, reason, detail).await;
            self.show_newest(&entry.key).await;
            self.count();
            return Turn::Settled;
        }
        let pause = (SHORTEST_REST * 2_u32.pow((attempts - 1).min(10))).min(LONGEST_REST);
        self.note_trouble(entry, attempts, error, Some(Instant::now() + pause));
        Turn::Refused
    }

    fn note_trouble(&self, entry: &Entry, attempts: u32, error: String, rests_until: Option<Instant>) {
        let is_news = entry
            .trouble
            .as_ref()
            .is_none_or(|trouble| trouble.error != error);
        if is_news && rests_until.is_some() {
            tracing::warn!(
                id = entry.id.0,
                tenant = entry.key.0.as_str(),
                policy = entry.key.1.as_str(),
                error,
                "HEIR does not take a write now; it is tried again."
            );
        }
        let trouble = Trouble {
            attempts,
            error,
            rests_until,
        };
        self.journal.note_trouble(entry.id, trouble);
    }

    async fn attempt(&self, client: &HeirClient, entry: &Entry) -> Attempt {
        if let Base::Entry(before) = entry.base {
            let detail = format!(
                "it was made on top of the write {}, which did not get into HEIR",
                before.0
            );
            return Attempt::Conflict(Reason::ChangedInHeir, detail);
        }
        let document = match &entry.operation {
            Operation::Delete => None,
            Operation::Put(_) => match self.document(entry).await {
                Ok(document) => Some(document),
                Err(Unreadable::Lost(reason)) => return Attempt::Conflict(Reason::Damaged, reason),
                Err(error) => return Attempt::Unread(error),
            },
        };
        // What this HEIR can do is known only from its answers: the one before the outage may have been another. So its
        // version is looked at before every write, and a precondition goes with the write for a HEIR that honours it.
        let precondition = match self.look(client, entry, document.as_ref()).await {
            Ok(Sight::Done(policy)) => return Attempt::Found(policy),
            Ok(Sight::Base(precondition)) => precondition,
            Ok(Sight::Other) => return changed_in_heir(),
            Err(error) => return Attempt::Later(error),
        };
        self.journal.note_sent(entry.id);
        let mut headers = HeaderMap::new();
        heir_policy::add_preconditions(&mut headers, precondition.as_slice());
        heir_policy::add_idempotency_key(&mut headers, &entry.idempotency_key);
        match heir_policy::send(client, &entry.key, document.as_ref(), headers).await {
            Ok(replied) => self.judge(client, entry, document, replied).await,
            Err(error @ HeirError::Request(_)) => Attempt::Conflict(Reason::RefusedByHeir, error.to_string()),
            Err(error) => Attempt::Later(error),
        }
    }

    async fn judge(
        &self,
        client: &HeirClient,
        entry: &Entry,
        document: Option<PolicyDocument>,
        replied: Replied,
    ) -> Attempt {
        let status = replied.status;
        let later = |error| Attempt::Later(error);
        let refusal = HeirError::Status {
            status,
            retry_after: None,
        };
        match (document, status) {
            (document, status) if status.is_success() => Attempt::Made(document, replied),
            (None, StatusCode::NOT_FOUND) => {
                match absence::is_of_this_policy(client, &self.store, &entry.key).await {
                    Ok(true) => Attempt::Made(None, replied),
                    Ok(false) => later(refusal),
                    Err(error) => later(error),
                }
            }
            (document, StatusCode::PRECONDITION_FAILED) => {
                match self.look(client, entry, document.as_ref()).await {
                    Ok(Sight::Done(policy)) => Attempt::Found(policy),
                    Ok(Sight::Other) => changed_in_heir(),
                    // It is the base again by now; the next attempt shows.
                    Ok(Sight::Base(_)) => later(refusal),
                    Err(error) => later(error),
                }
            }
            (_, status) if is_about_the_document(status) => {
                let detail = format!("HEIR answered {status}: {}", excerpt(&replied.body));
                Attempt::Conflict(Reason::RefusedByHeir, detail)
            }
            // Who asks, where and when is what HEIR minds, and all of that can change.
            _ => later(refusal),
        }
    }

    /// Looks at what HEIR has.
    async fn look(
        &self,
        client: &HeirClient,
        entry: &Entry,
        document: Option<&PolicyDocument>,
    ) -> Result<Sight, HeirError> {
        let named = match &entry.base {
            Base::Document(etag) => Some(etag),
            _ => None,
        };
        let is = |etag: ETag| Precondition::Is(Versions::Tagged(vec![etag]));
        let (body, headers) = match heir_policy::read(client, &entry.key, named).await? {
            Answer::AsNamed => return Ok(Sight::Base(named.cloned().map(is))),
            Answer::Document(body, headers) => (body, headers),
            Answer::NotFound => return self.look_closer(client, entry).await,
        };
        let tag = Fetched::etag(&headers);
        let digest = ETag::of_bytes(&body);
        // HEIR has it already: the answer to an earlier attempt was lost.
        if document.is_some_and(|document| document.bytes() == &body) {
            let revision = wire::revision(&headers);
            let policy = Policy::new(PolicyDocument::trusted(body, tag), revision);
            return Ok(Sight::Done(Some(Arc::new(policy))));
        }
        Ok(match &entry.base {
            Base::Document(base)
                if *base == digest || tag.as_ref().is_some_and(|tag| base.comes_from(tag, &body)) =>
            {
                Sight::Base(tag.map(is))
            }
            Base::Any => {
                let pinned = Base::Document(tag.clone().unwrap_or(digest));
                self.journal.pin(entry.id, pinned).await;
                Sight::Base(tag.map(is))
            }
            // What is no document was not written by another client: something else answers for HEIR.
            _ if PolicyDocument::parse(body).is_err() => {
                return Err(HeirError::Invalid("the policy is no document".into()));
            }
            _ => Sight::Other,
        })
    }

    /// HEIR has answered 404.
    async fn look_closer(&self, client: &HeirClient, entry: &Entry) -> Result<Sight, HeirError> {
        match (&entry.operation, &entry.base) {
            // It is as was believed when the write was made; HEIR says so again if it is not to be believed.
            (Operation::Put(_), Base::Absent | Base::Unknown) => {
                return Ok(Sight::Base(Some(Precondition::IsNot(Versions::Any))));
            }
            (Operation::Put(_), Base::Any) => {
                self.journal.pin(entry.id, Base::Absent).await;
                return Ok(Sight::Base(Some(Precondition::IsNot(Versions::Any))));
            }
            (Operation::Delete, Base::Absent) => return Ok(Sight::Done(None)),
            _ => {}
        }
        if !absence::is_of_this_policy(client, &self.store, &entry.key).await? {
            return Err(HeirError::Status {
                status: StatusCode::NOT_FOUND,
                retry_after: None,
            });
        }
        Ok(match entry.operation {
            Operation::Delete => Sight::Done(None),
            Operation::Put(_) => Sight::Other,
        })
    }

    /// HEIR's version is kept; the write stays visible to the operator.
    async fn leave_to_operator(&self, client: &HeirClient, entry: &Entry, reason: Reason, detail: String) {
        tracing::error!(
            id = entry.id.0,
            tenant = entry.key.0.as_str(),
            policy = entry.key.1.as_str(),
            ?reason,
            detail,
            "A write that was acknowledged could not be made in HEIR; see /admin/writes."
        );
        self.journal.set_conflict(entry.id, reason, detail).await;
        self.metrics.write("conflict");
        self.fetch_into_memory(client, &entry.key).await;
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

fn changed_in_heir() -> Attempt {
    Attempt::Conflict(
        Reason::ChangedInHeir,
        "another client changed the policy in HEIR".into(),
    )
}

/// Whether HEIR refuses what a write says, not who says it, where or when.
fn is_about_the_document(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::CONFLICT
            | StatusCode::LENGTH_REQUIRED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::URI_TOO_LONG
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::PRECONDITION_REQUIRED
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    )
}

/// The beginning of an error body, for a person.
fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned()
}
