//! Makes writes: in HEIR, or in the journal while HEIR is away.

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use http::{HeaderMap, StatusCode, header};
use tokio::{sync::Notify, task::JoinError};

use super::{
    absence,
    check::{check, check_extensions},
    config::{Validate, WhenHeirDown, WritesConfig},
    entry::{Base, Entry, Operation, Unreadable},
    heir_policy,
    journal::{Journal, NewWrite, new_idempotency_key},
    ledger::Ledger,
    metrics::WriteMetrics,
    pending::Amounts,
    request::{Change, Effect, Made, Precondition, WriteOutcome, WriteRequest},
};
use crate::{
    failure::{ErrorCode, Failure},
    heir::{Fetched, HeirClient, HeirError, Replied, wire},
    policy::{ETag, PolicyDocument},
    refresh::Fetcher,
    snapshot::{Key, Policy, Queued, SnapshotStore},
};

/// Makes writes.
#[derive(Debug)]
pub struct Writer {
    /// `None`: there is no HEIR to write to.
    pub(super) client: Option<Arc<HeirClient>>,
    pub(super) store: Arc<SnapshotStore>,
    fetcher: Option<Arc<Fetcher>>,
    pub(super) journal: Journal,
    pub(super) ledger: Arc<Ledger>,
    queues: AtomicBool,
    /// Whether new policies must be valid in the policy language.
    strict: AtomicBool,
    /// Attempts after which a write is left to an operator.
    pub(super) max_attempts: AtomicU32,
    locks: Vec<tokio::sync::Mutex<()>>,
    pub(super) replay_wanted: Notify,
    pub(super) metrics: Arc<WriteMetrics>,
}

impl Writer {
    /// Shows lookups what the journal has. Without a client there is no HEIR, and every write is refused.
    pub fn new(
        client: Option<Arc<HeirClient>>,
        store: Arc<SnapshotStore>,
        fetcher: Option<Arc<Fetcher>>,
        journal: Journal,
        ledger: Arc<Ledger>,
        metrics: Arc<WriteMetrics>,
    ) -> Self {
        let writer = Self {
            client,
            store,
            fetcher,
            journal,
            ledger,
            queues: AtomicBool::new(false),
            strict: AtomicBool::new(true),
            max_attempts: AtomicU32::new(WritesConfig::default().max_attempts),
            locks: (0..64).map(|_| tokio::sync::Mutex::default()).collect(),
            replay_wanted: Notify::new(),
            metrics,
        };
        for entry in writer.journal.newest_of_each() {
            let queued = match &entry.operation {
                Operation::Delete => Some(Queued::Delete),
                Operation::Put(_) => put_of(&entry, writer.journal.read_document(entry.id)),
            };
            writer.show(&entry.key, queued);
        }
        // A HEIR that does not have these was restored while no sidecar was there.
        for (key, revision) in writer.ledger.beyond(&writer.store.load()) {
            writer.store.expect_write(&key, revision);
        }
        writer.count();
        writer
    }

    /// Applies the configuration, also while requests are served.
    pub fn configure(&self, config: &WritesConfig) {
        let default = if self.journal.is_durable() {
            WhenHeirDown::Queue
        } else {
            WhenHeirDown::Reject
        };
        let queue =
            config.when_heir_down.unwrap_or(default) == WhenHeirDown::Queue && self.journal.is_durable();
        self.queues.store(queue, Relaxed);
        self.journal
            .set_limits(config.max_queued, config.max_queued_bytes);
        self.max_attempts.store(config.max_attempts, Relaxed);
        self.strict.store(config.validate == Validate::Strict, Relaxed);
    }

    /// The writes that HEIR has not seen.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The lock of a policy, which writes of it take one after the other.
    pub(super) fn lock(&self, key: &Key) -> &tokio::sync::Mutex<()> {
        let hash = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().hash_one(key);
        &self.locks[usize::try_from(hash % self.locks.len() as u64).unwrap_or_default()]
    }

    /// Makes a write. It is made to the end even if the caller leaves: what is in the journal's file must be in memory
    /// as well.
    ///
    /// # Errors
    /// When the document is not acceptable, HEIR cannot be asked and the journal cannot take the write, or what HEIR
    /// did is not known.
    pub async fn write(self: &Arc<Self>, request: WriteRequest) -> Result<WriteOutcome, Failure> {
        let this = self.clone();
        let written = tokio::spawn(async move { this.write_to_the_end(request).await });
        let lost = |error: JoinError| Failure::new(ErrorCode::InternalError, error.to_string());
        written.await.map_err(lost)?
    }

    async fn write_to_the_end(&self, mut request: WriteRequest) -> Result<WriteOutcome, Failure> {
        let document = match &request.change {
            Change::Put(body) => {
                let strict = self.strict.load(Relaxed);
                let document = check(body, strict)?;
                if strict {
                    check_extensions(&self.store, &request.key.0, body).await?;
                }
                Some(document)
            }
            Change::Delete => None,
        };
        let Some(client) = &self.client else {
            return Err(Failure::new(
                ErrorCode::HeirUnavailable,
                "there is no HEIR to write to: this sidecar serves policies_dir alone",
            ));
        };
        let key = request.key.clone();
        let idempotency_key = valid_idempotency_key(request.idempotency_key.take());
        let _one_at_a_time = self.lock(&key).lock().await;
        // A write behind one that still waits would overtake it.
        if self.journal.has_queued(&key) {
            return self.queue(request, document, idempotency_key, false).await;
        }
        let headers = headers_for_heir(&request, &idempotency_key);
        match self.forward(client, &key, document.as_ref(), headers).await {
            Ok(outcome) => {
                self.metrics.write("forwarded");
                Ok(outcome)
            }
            Err(error) if error.is_away() && self.queues.load(Relaxed) => {
                tracing::warn!(
                    tenant = key.0.as_str(),
                    policy = key.1.as_str(),
                    error = error.chain(),
                    "HEIR is away: a write is kept in the journal."
                );
                let sent = !matches!(
                    error,
                    HeirError::Paused { .. } | HeirError::Connect(_) | HeirError::PoolExhausted
                );
                self.queue(request, document, idempotency_key, sent).await
            }
            Err(error) => {
                self.metrics.write("rejected");
                // Whether HEIR has it is not known: what it has is looked up, not guessed.
                if matches!(error, HeirError::Timeout { .. } | HeirError::Interrupted(_)) {
                    return Err(error
                        .failure()
                        .detail("outcome", "unknown: HEIR may have made the write"));
                }
                Err(error.failure())
            }
        }
    }

    /// Sends a write to HEIR and takes its effect over into memory.
    async fn forward(
        &self,
        client: &HeirClient,
        key: &Key,
        document: Option<&PolicyDocument>,
        headers: HeaderMap,
    ) -> Result<WriteOutcome, HeirError> {
        let _turn = client.turn(&key.0).await?;
        let before = self.tag_in_memory(key);
        let reply = heir_policy::send(client, key, document, headers).await?;
        let outcome: fn(Made) -> WriteOutcome = match (document, reply.status) {
            (Some(_), StatusCode::CREATED) => WriteOutcome::Created,
            (Some(_), StatusCode::OK | StatusCode::NO_CONTENT) => WriteOutcome::Replaced,
            (None, StatusCode::OK | StatusCode::NO_CONTENT) => WriteOutcome::Deleted,
            (None, StatusCode::NOT_FOUND) => {
                // Already gone is what was asked for, and is to stay so; but only if HEIR speaks of this policy.
                if let Ok(true) = absence::is_of_this_policy(client, &self.store, key).await {
                    let revision = wire::revision(&reply.headers);
                    self.ledger.note(key, None, revision).await;
                    self.show_made(client, key, None, revision).await;
                }
                return Ok(WriteOutcome::Declined(reply));
            }
            _ => return Ok(WriteOutcome::Declined(reply)),
        };
        let etag = self.take_over(client, key, before, document, &reply).await;
        let revision = wire::revision(&reply.headers);
        Ok(outcome(Made {
            etag,
            revision,
            reply,
        }))
    }

    /// The version that HEIR has, as far as is known.
    pub(super) fn tag_in_memory(&self, key: &Key) -> Option<ETag> {
        let snapshot = self.store.load();
        let known = snapshot.heir(key.0.as_str(), key.1.as_str())?;
        Some(known.document.etag().clone())
    }

    /// Puts into memory what a write came to in HEIR, and returns the tag of that. HEIR is asked what it has if its tag says
    /// that it did not store what was sent, because an answer must be what HEIR has, byte for byte. `before`: what it had
    /// before the write, as far as was known.
    pub(super) async fn take_over(
        &self,
        client: &HeirClient,
        key: &Key,
        before: Option<ETag>,
        sent: Option<&PolicyDocument>,
        replied: &Replied,
    ) -> Option<ETag> {
        let (revision, tag) = (wire::revision(&replied.headers), Fetched::etag(&replied.headers));
        let stored_as_sent = sent.is_none_or(|sent| tag.as_ref().is_some_and(|tag| tag == sent.etag()));
        let mut read_back = None;
        if !stored_as_sent {
            let stored = heir_policy::version(client, key).await.ok().flatten();
            read_back = stored.filter(|stored| is_of_write(stored, sent, replied, before.as_ref()));
        }
        let is_certain = stored_as_sent || read_back.is_some();
        let made = read_back.or_else(|| {
            let document = PolicyDocument::trusted(sent?.bytes().clone(), tag);
            Some(Arc::new(Policy::new(document, revision)))
        });
        let etag = made.as_ref().map(|policy| policy.document.etag().clone());
        self.ledger.note(key, made.as_deref(), revision).await;
        if is_certain {
            self.show_made(client, key, made, revision).await;
        } else {
            self.store.apply_unverified_write(key, made, revision);
        }
        if let Some(fetcher) = &self.fetcher {
            fetcher.forget_absence(key);
        }
        etag
    }

    /// Makes lookups see what HEIR has acknowledged, or what it has made of it since.
    pub(super) async fn show_made(
        &self,
        client: &HeirClient,
        key: &Key,
        policy: Option<Arc<Policy>>,
        revision: Option<u64>,
    ) {
        if self.store.apply_write(key, policy.clone(), revision) {
            return;
        }
        // Memory seems to be past this write. What HEIR has now is the answer, whichever writer made it; if memory is
        // past that as well, HEIR's history cannot be relied on.
        let (policy, revision) = match heir_policy::version(client, key).await {
            Ok(Some(now)) if now.revision >= revision => (Some(now.clone()), now.revision),
            // A later write took it away, as memory has it.
            Ok(None) if policy.is_some() && self.tag_in_memory(key).is_none() => return,
            // Gone, as was asked for; or an answer that is older than the write, and no answer.
            Ok(_) | Err(_) => (policy, revision),
        };
        if !self.store.apply_write(key, policy.clone(), revision) {
            self.store.apply_unverified_write(key, policy, revision);
        }
    }

    /// Keeps a write in the journal and applies it here. `sent`: HEIR may have it, although it did not say so.
    async fn queue(
        &self,
        request: WriteRequest,
        document: Option<PolicyDocument>,
        idempotency_key: String,
        sent: bool,
    ) -> Result<WriteOutcome, Failure> {
        let key = &request.key;
        if !self.queues.load(Relaxed) {
            self.metrics.write("rejected");
            let away = "HEIR is away, and writes are not queued here";
            return Err(Failure::new(ErrorCode::HeirUnavailable, away).retry_after_seconds(1));
        }
        let (known, exists) = self.store.load().in_heir(key.0.as_str(), key.1.as_str());
        check_preconditions(
            &request.preconditions,
            known.as_ref().map(|policy| policy.document.etag()),
        )?;
        let etag = document.as_ref().map(|document| document.etag().clone());
        let effect = match (&document, exists) {
            (Some(_), Some(false)) => Effect::Created,
            (Some(_), _) => Effect::Replaced,
            (None, Some(false)) => {
                self.ledger.note(key, None, None).await;
                return Err(Failure::new(ErrorCode::NotFound, "there is no such policy"));
            }
            (None, _) => Effect::Deleted,
        };
        let base = match (&known, exists) {
            (Some(policy), _) => Base::Document(policy.document.etag().clone()),
            (None, Some(false)) => Base::Absent,
            (None, _) => Base::Unknown,
        };
        let new = NewWrite {
            key: key.clone(),
            document: document.clone(),
            base,
            idempotency_key,
            replaces: request.preconditions.is_empty(),
            may_be_in_heir: sent,
        };
        self.journal.append(new).await.map_err(|error| {
            self.metrics.write("rejected");
            tracing::error!(error = error.chain(), "The journal cannot take a write.");
            Failure::new(ErrorCode::JournalUnavailable, error.to_string()).retry_after_seconds(1)
        })?;
        let queued = document.map_or(Queued::Delete, |document| {
            Queued::Put(Arc::new(Policy::new(document, None)))
        });
        self.show(key, Some(queued));
        self.metrics.write("queued");
        self.count();
        if let Some(fetcher) = &self.fetcher {
            fetcher.forget_absence(key);
        }
        self.replay_wanted.notify_one();
        Ok(WriteOutcome::Queued { effect, etag })
    }

    /// Makes lookups see a waiting write, or what is below it.
    fn show(&self, key: &Key, queued: Option<Queued>) {
        self.store.edit(|draft| draft.set_queued(key, queued));
    }

    /// Counts for the metrics.
    pub(super) fn count(&self) {
        let Amounts {
            queued,
            conflicts,
            bytes,
        } = self.journal.amounts();
        self.metrics
            .journal_depth
            .set(i64::try_from(queued).unwrap_or(i64::MAX));
        self.metrics
            .journal_conflicts
            .set(i64::try_from(conflicts).unwrap_or(i64::MAX));
        self.metrics
            .journal_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Shows the newest write that still waits for this policy, or what is below.
    pub(super) async fn show_newest(&self, key: &Key) {
        let Some(newest) = self.journal.newest_queued(key) else {
            self.show(key, None);
            return;
        };
        let queued = match &newest.operation {
            Operation::Delete => Some(Queued::Delete),
            Operation::Put(_) => put_of(&newest, self.document(&newest).await),
        };
        self.show(key, queued);
    }

    /// The document of a waiting write: the one that lookups see, or that of the journal. The error is a sentence.
    pub(super) async fn document(&self, entry: &Entry) -> Result<PolicyDocument, Unreadable> {
        let (key, snapshot) = (&entry.key, self.store.load_full());
        if let (Operation::Put(stored), Some(Queued::Put(policy))) =
            (&entry.operation, snapshot.queued(key.0.as_str(), key.1.as_str()))
            && policy.document.etag() == &stored.etag
        {
            return Ok(policy.document.clone());
        }
        drop(snapshot);
        self.journal.document(entry.id).await
    }
}

/// Whether this is what HEIR has since a write that it answered so. A replica that lags behind answers with the version
/// before, or with 404, and so may what stands before a HEIR.
fn is_of_write(
    stored: &Policy,
    sent: Option<&PolicyDocument>,
    replied: &Replied,
    before: Option<&ETag>,
) -> bool {
    if sent.is_some_and(|sent| sent.bytes() == stored.document.bytes()) {
        return true;
    }
    match (wire::revision(&replied.headers), stored.revision) {
        (Some(ours), Some(theirs)) => theirs >= ours,
        _ => before != Some(stored.document.etag()),
    }
}

fn put_of(entry: &Entry, document: Result<PolicyDocument, Unreadable>) -> Option<Queued> {
    match document {
        Ok(document) => Some(Queued::Put(Arc::new(Policy::new(document, None)))),
        Err(error) => {
            tracing::error!(%error, id = entry.id.0, "The document of a waiting write cannot be read.");
            None
        }
    }
}

/// What HEIR receives: the caller's headers, and what the caller stated otherwise.
fn headers_for_heir(request: &WriteRequest, idempotency_key: &str) -> HeaderMap {
    let mut headers = request.forwarded_headers.clone();
    if !headers.contains_key(header::IF_MATCH) && !headers.contains_key(header::IF_NONE_MATCH) {
        heir_policy::add_preconditions(&mut headers, &request.preconditions);
    }
    heir_policy::add_idempotency_key(&mut headers, idempotency_key);
    headers
}

/// The caller's own key, or a new one.
fn valid_idempotency_key(given: Option<String>) -> String {
    given
        .filter(|key| (1..=128).contains(&key.len()))
        .unwrap_or_else(new_idempotency_key)
}

/// Evaluates the preconditions of a write against the version that exists, as HEIR would.
fn check_preconditions(preconditions: &[Precondition], current: Option<&ETag>) -> Result<(), Failure> {
    if preconditions
        .iter()
        .all(|precondition| precondition.holds(current))
    {
        return Ok(());
    }
    let mut failure = Failure::new(
        ErrorCode::PreconditionFailed,
        "the policy is not in the version that was named",
    );
    if let Some(etag) = current {
        failure = failure.current(etag.to_string(), None);
    }
    Err(failure)
}
