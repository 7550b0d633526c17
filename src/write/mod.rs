//! PUT and DELETE: forwarded to HEIR, or kept in a durable journal until HEIR is back.
//!
//! Either way the caller's next lookup through this sidecar sees the write before the reply is sent. Writes to one
//! policy go one after the other, whoever makes them.

mod journal;
mod ledger;
mod metrics;
mod replay;

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub use journal::{Base, Entry, EntryId, Journal, JournalError, Operation, Reason, State};
pub use ledger::Ledger;
pub use metrics::WriteMetrics;

use crate::{
    failure::{ErrorCode, Failure},
    heir::{Fetched, HeirCall, HeirClient, HeirError, Replied, wire},
    policy::{ETag, PolicyDocument, Problem, Severity, read},
    refresh::Fetcher,
    snapshot::{Key, Policy, Queued, SnapshotStore},
};

/// What becomes of a write while HEIR is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenHeirDown {
    /// It is kept in the journal, applied here, and made in HEIR when that is back.
    Queue,
    /// It is refused with 503 `heir_unavailable`.
    Reject,
}

/// Writes while HEIR is away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WritesConfig {
    /// Unset: `queue` where there is a `state_dir`, else `reject`.
    pub when_heir_down: Option<WhenHeirDown>,
    /// Most writes that wait for HEIR or for an operator; further ones are refused with 503 `journal_unavailable`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_queued: usize,
    /// What a policy is held to when it is written.
    pub validate: Validate,
}

/// What is demanded of a new policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Validate {
    /// No mistake in the policy language; each is named in the refusal.
    Strict,
    /// One JSON object without ambiguity, and nothing more.
    Lenient,
}

impl Default for WritesConfig {
    fn default() -> Self {
        Self {
            when_heir_down: None,
            max_queued: 10_000,
            validate: Validate::Strict,
        }
    }
}

/// What to do with a policy.
#[derive(Debug, Clone)]
pub enum Change {
    Put(Bytes),
    Delete,
}

/// What became of a write that was not refused.
#[derive(Debug)]
pub enum Written {
    /// HEIR has answered.
    Forwarded(Replied),
    /// HEIR is away; the journal has it.
    Queued { status: StatusCode, etag: Option<ETag> },
}

/// Makes writes.
#[derive(Debug)]
pub struct Writer {
    /// `None`: there is no HEIR to write to.
    client: Option<Arc<HeirClient>>,
    store: Arc<SnapshotStore>,
    fetcher: Option<Arc<Fetcher>>,
    journal: Journal,
    ledger: Ledger,
    queues: AtomicBool,
    /// Whether new policies are held to the language.
    strict: AtomicBool,
    locks: Vec<tokio::sync::Mutex<()>>,
    replay_wanted: Notify,
    metrics: Arc<WriteMetrics>,
}

impl Writer {
    pub fn new(
        client: Option<Arc<HeirClient>>,
        store: Arc<SnapshotStore>,
        fetcher: Option<Arc<Fetcher>>,
        journal: Journal,
        metrics: Arc<WriteMetrics>,
    ) -> Self {
        let writer = Self {
            client,
            store,
            fetcher,
            journal,
            ledger: Ledger::default(),
            queues: AtomicBool::new(false),
            strict: AtomicBool::new(true),
            locks: (0..64).map(|_| tokio::sync::Mutex::default()).collect(),
            replay_wanted: Notify::new(),
            metrics,
        };
        for entry in writer.journal.queued() {
            writer.show(&entry.key, Some(&entry));
        }
        writer.count();
        writer
    }

    /// Takes up the configuration, also while requests are served.
    pub fn configure(&self, config: &WritesConfig) {
        let default = if self.journal.is_durable() {
            WhenHeirDown::Queue
        } else {
            WhenHeirDown::Reject
        };
        let queue =
            config.when_heir_down.unwrap_or(default) == WhenHeirDown::Queue && self.journal.is_durable();
        self.queues.store(queue, Relaxed);
        self.journal.set_limit(config.max_queued);
        self.strict.store(config.validate == Validate::Strict, Relaxed);
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    fn lock(&self, key: &Key) -> &tokio::sync::Mutex<()> {
        let hash = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().hash_one(key);
        &self.locks[usize::try_from(hash % self.locks.len() as u64).unwrap_or_default()]
    }

    /// Asks the extensions that a policy names about their configurations there.
    async fn check_extensions(&self, body: &Bytes) -> Result<(), Failure> {
        let Some(host) = self.store.extensions() else {
            return Ok(());
        };
        let (policy, _) = read(body);
        let Some(pipeline) = policy.pipeline else {
            return Ok(());
        };
        let (host, registry) = (host.clone(), self.store.load().registry().clone());
        // An extension may take its time, which is bounded, but not by what a worker has.
        let checked = tokio::task::spawn_blocking(move || host.check_pipeline(&registry, &pipeline));
        let problems = checked.await.unwrap_or_default();
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(invalid_policy(&problems));
        }
        Ok(())
    }

    /// Makes a write. `headers` are the client's, already without those that concern its connection only.
    pub async fn write(&self, key: &Key, change: Change, headers: &HeaderMap) -> Result<Written, Failure> {
        let document = match &change {
            Change::Put(body) => {
                let strict = self.strict.load(Relaxed);
                let document = check(body, strict)?;
                if strict {
                    self.check_extensions(body).await?;
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
        let _one_at_a_time = self.lock(key).lock().await;
        // A write behind one that still waits would overtake it.
        if self.journal.has_queued(key) {
            return self.queue(key, document, headers, idempotency_key(headers)).await;
        }
        let mut forwarded = headers.clone();
        let idempotency_key = idempotency_key(headers);
        if let Ok(value) = HeaderValue::from_str(&idempotency_key) {
            forwarded.insert(IDEMPOTENCY_KEY, value);
        }
        match self.forward(client, key, document.as_ref(), forwarded).await {
            Ok(replied) => {
                self.metrics.write("forwarded");
                Ok(Written::Forwarded(replied))
            }
            Err(error) if error.is_away() && self.queues.load(Relaxed) => {
                tracing::warn!(
                    tenant = key.0.as_str(),
                    policy = key.1.as_str(),
                    error = error.chain(),
                    "HEIR is away: a write is kept in the journal."
                );
                self.queue(key, document, headers, idempotency_key).await
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
    ) -> Result<Replied, HeirError> {
        let replied = send(client, key, document, headers).await?;
        match (document, replied.status) {
            (Some(_), StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT)
            | (None, StatusCode::OK | StatusCode::NO_CONTENT) => {
                self.take_over(client, key, document, &replied).await;
            }
            (None, StatusCode::NOT_FOUND) => {
                // Already gone is what was asked for, and is to stay so.
                self.ledger.deleted(key);
                self.show_made(client, key, None, wire::revision(&replied.headers))
                    .await;
            }
            _ => {}
        }
        Ok(replied)
    }

    /// Puts into memory what a write came to in HEIR. HEIR is asked what it has if its tag says that it did not store
    /// what was sent, because an answer must be what HEIR has, byte for byte.
    async fn take_over(
        &self,
        client: &HeirClient,
        key: &Key,
        sent: Option<&PolicyDocument>,
        replied: &Replied,
    ) {
        let revision = wire::revision(&replied.headers);
        let sent_as = |document: &PolicyDocument| Arc::new(Policy::new(document.clone(), revision));
        let mut made = sent.map(sent_as);
        let stored_as_sent =
            sent.is_none_or(|sent| Fetched::etag(&replied.headers).is_some_and(|etag| etag == *sent.etag()));
        if !stored_as_sent && let Ok(stored) = heir_version(client, key).await {
            made = stored;
        }
        match &made {
            Some(policy) => self.ledger.stored(key, policy.document.etag()),
            None => self.ledger.deleted(key),
        }
        self.show_made(client, key, made, revision).await;
        if let Some(fetcher) = &self.fetcher {
            fetcher.forget_absence(key);
        }
    }

    /// Keeps a write in the journal and applies it here.
    async fn queue(
        &self,
        key: &Key,
        document: Option<PolicyDocument>,
        headers: &HeaderMap,
        idempotency_key: String,
    ) -> Result<Written, Failure> {
        if !self.queues.load(Relaxed) {
            self.metrics.write("rejected");
            let away = "HEIR is away, and writes are not queued here";
            return Err(Failure::new(ErrorCode::HeirUnavailable, away).retry_after_seconds(1));
        }
        let (known, exists) = self.store.load().in_heir(key.0.as_str(), key.1.as_str());
        check_preconditions(headers, known.as_ref().map(|policy| policy.document.etag()))?;
        let etag = document.as_ref().map(|document| document.etag().clone());
        let status = match (&document, exists) {
            (Some(_), Some(false)) => StatusCode::CREATED,
            (Some(_), _) => StatusCode::OK,
            (None, Some(false)) => {
                self.ledger.deleted(key);
                return Err(Failure::new(ErrorCode::NotFound, "there is no such policy"));
            }
            (None, _) => StatusCode::NO_CONTENT,
        };
        let base = match (self.journal.last_queued(key), &known, exists) {
            (Some(before), _, _) => Base::Entry(before),
            (None, Some(policy), _) => Base::Document(policy.document.etag().clone()),
            (None, None, Some(false)) => Base::Absent,
            (None, None, _) => Base::Unknown,
        };
        let operation = document.map_or(Operation::Delete, Operation::Put);
        let entry = self
            .journal
            .append(key.clone(), operation, base, idempotency_key)
            .await
            .map_err(|error| {
                self.metrics.write("rejected");
                tracing::error!(error = error.chain(), "The journal cannot take a write.");
                Failure::new(ErrorCode::JournalUnavailable, error.to_string()).retry_after_seconds(1)
            })?;
        self.show(key, Some(&entry));
        self.metrics.write("queued");
        self.count();
        if let Some(fetcher) = &self.fetcher {
            fetcher.forget_absence(key);
        }
        self.replay_wanted.notify_one();
        Ok(Written::Queued { status, etag })
    }

    /// Makes lookups see a waiting write, or what is below it.
    fn show(&self, key: &Key, entry: Option<&Entry>) {
        let queued = entry.map(|entry| match &entry.operation {
            Operation::Put(document) => Queued::Put(Arc::new(Policy::new(document.clone(), None))),
            Operation::Delete => Queued::Delete,
        });
        self.store.edit(|draft| draft.set_queued(key, queued));
    }

    fn count(&self) {
        let (queued, conflicts) = self.journal.counts();
        self.metrics
            .journal_depth
            .set(i64::try_from(queued).unwrap_or(i64::MAX));
        self.metrics
            .journal_conflicts
            .set(i64::try_from(conflicts).unwrap_or(i64::MAX));
    }
}

/// Names a write, so that it is made once however often it is sent.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The client's own key, or a new one.
fn idempotency_key(headers: &HeaderMap) -> String {
    let given = headers
        .get(&IDEMPOTENCY_KEY)
        .and_then(|value| value.to_str().ok());
    let usable = given.filter(|key| (1..=128).contains(&key.len()));
    usable.map_or_else(
        || format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
        str::to_owned,
    )
}

fn policy_path(key: &Key) -> String {
    format!("/api/v1/policies/{}/{}", key.0, key.1)
}

/// What HEIR has of a policy at this moment.
async fn heir_version(client: &HeirClient, key: &Key) -> Result<Option<Arc<Policy>>, HeirError> {
    let limit = client.max_answer_bytes();
    match client
        .fetch_once(HeirCall::Get, &policy_path(key), None, limit, client.timeout())
        .await
    {
        Ok(Fetched::Changed { body, headers }) => {
            let document = PolicyDocument::parse_tagged(body, Fetched::etag(&headers))
                .map_err(|_problems| HeirError::Invalid("the policy is broken".into()))?;
            Ok(Some(Arc::new(Policy::new(document, wire::revision(&headers)))))
        }
        Ok(Fetched::NotModified)
        | Err(HeirError::Status {
            status: StatusCode::NOT_FOUND,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn send(
    client: &HeirClient,
    key: &Key,
    document: Option<&PolicyDocument>,
    mut headers: HeaderMap,
) -> Result<Replied, HeirError> {
    let path = policy_path(key);
    match document {
        Some(document) => {
            headers.insert(header::CONTENT_TYPE, crate::respond::JSON);
            client
                .write(
                    HeirCall::Put,
                    Method::PUT,
                    &path,
                    headers,
                    document.bytes().clone(),
                )
                .await
        }
        None => {
            client
                .write(HeirCall::Delete, Method::DELETE, &path, headers, Bytes::new())
                .await
        }
    }
}

/// Checks a document that was sent; every problem is named.
fn check(body: &Bytes, strict: bool) -> Result<PolicyDocument, Failure> {
    let document = PolicyDocument::parse(body.clone()).map_err(|problems| invalid_policy(&problems))?;
    if strict {
        let (_, problems) = read(body);
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(invalid_policy(&problems));
        }
    }
    Ok(document)
}

/// 400 for what is no JSON at all, 422 for JSON that is no policy.
pub fn invalid_policy(problems: &[Problem]) -> Failure {
    let code = if problems.iter().any(Problem::is_not_json) {
        ErrorCode::InvalidJson
    } else {
        ErrorCode::InvalidPolicy
    };
    let mut errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    let message = match (errors.next(), errors.count()) {
        (Some(first), 0) => first.to_string(),
        (Some(first), more) => format!("{first} (and {more} more)"),
        (None, _) => "the policy is not acceptable".to_owned(),
    };
    Failure::new(code, message).detail("problems", serde_json::to_value(problems).unwrap_or_default())
}

/// Evaluates `If-Match` and `If-None-Match` of a write against the version that exists, as HEIR would.
fn check_preconditions(headers: &HeaderMap, current: Option<&ETag>) -> Result<(), Failure> {
    let named = |list: &HeaderValue| current.is_some_and(|etag| etag.is_named_by(list, false));
    let refused = headers.get_all(header::IF_NONE_MATCH).iter().any(named)
        || headers.get_all(header::IF_MATCH).iter().any(|list| !named(list));
    if !refused {
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

/// What an operator may do with a write that is stuck.
impl Writer {
    /// Gives a write up. Lookups see HEIR's version again.
    pub async fn discard(&self, id: EntryId) -> Result<Entry, JournalError> {
        let entry = self.journal.find(id)?;
        let _one_at_a_time = self.lock(&entry.key).lock().await;
        let entry = self.journal.remove(id).await?;
        // What was queued on top of it now stands on what it stood on.
        self.journal.rebase(id, entry.base.clone()).await?;
        self.show_newest(&entry.key);
        self.metrics.write("discarded");
        self.count();
        tracing::info!(
            id = id.0,
            tenant = entry.key.0.as_str(),
            policy = entry.key.1.as_str(),
            "A write was discarded."
        );
        Ok(entry)
    }

    /// Puts a conflict back into the queue, to be made over whatever HEIR has.
    pub async fn retry(&self, id: EntryId) -> Result<Entry, JournalError> {
        let entry = self.journal.find(id)?;
        let _one_at_a_time = self.lock(&entry.key).lock().await;
        let entry = self.journal.requeue(id).await?;
        self.show_newest(&entry.key);
        self.count();
        self.replay_wanted.notify_one();
        Ok(entry)
    }

    /// Shows the newest write that still waits for this policy, or what is below.
    fn show_newest(&self, key: &Key) {
        let newest = self
            .journal
            .last_queued(key)
            .and_then(|id| self.journal.find(id).ok());
        self.show(key, newest.as_ref());
    }
}
