//! The one HTTP client for HEIR: pooled, conditional, bounded in time and size, behind one breaker.
//!
//! Redirects are never followed, so every request goes to the authority that was configured.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpInfo;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time,
};

use super::{
    backoff::Backoff,
    base_url::BaseUrl,
    body::{HeirBody, Permits},
    breaker::{Breaker, BreakerState, Refused},
    config::HeirConfig,
    connections::Connections,
    error::HeirError,
    metrics::{HeirCall, HeirMetrics},
    resolver::Resolver,
    tls::{self, TlsError},
};
use crate::{plain_file, policy::ETag, telemetry::chain};

/// The longest pause that HEIR can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What may keep a call from being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The breaker, and a pause that HEIR asked for: the call is a client's, who shall not wait in vain.
    Breaker,
    /// Only a pause that HEIR asked for: the refresher finds out by this call whether HEIR is back.
    Always,
    /// Nothing: HEIR is asked for its health.
    Probe,
}

/// The answer to a conditional read.
#[derive(Debug)]
pub enum Fetched {
    /// HEIR's version is the one that was named.
    NotModified,
    /// HEIR's version is another one.
    Changed {
        /// The document, list or whatever else was asked for.
        body: Bytes,
        /// All headers of the answer.
        headers: HeaderMap,
    },
}

impl Fetched {
    /// The answer's strong entity tag.
    pub fn etag(headers: &HeaderMap) -> Option<ETag> {
        ETag::parse(headers.get(header::ETAG)?.to_str().ok()?)
    }
}

/// The answer to a write, whatever its status.
#[derive(Debug)]
pub struct Replied {
    /// Neither a redirect nor one that says HEIR cannot.
    pub status: StatusCode,
    /// As HEIR sent them, those that concern the connection included.
    pub headers: HeaderMap,
    /// Empty where it broke off.
    pub body: Bytes,
}

/// Speaks to HEIR for the whole process.
#[derive(Debug)]
pub struct HeirClient {
    base: BaseUrl,
    config: HeirConfig,
    pub(super) timeout: Duration,
    resolver: Resolver,
    http: ArcSwap<Connections>,
    /// Where the last answer came from.
    remote: Mutex<Option<SocketAddr>>,
    /// Counts what makes a call that waits for its answer worth another attempt: HEIR is back, or has moved.
    news: watch::Sender<u64>,
    /// HEIR has failed since it last answered.
    pub(super) has_failed: AtomicBool,
    /// Names the content of the TLS files that are in use, or that were last found unusable.
    tls_digest: Mutex<[u8; 32]>,
    authorization: ArcSwap<Option<HeaderValue>>,
    permits: Arc<Semaphore>,
    /// A part of those: the rest is for what this process asks itself, however many clients ask or read slowly.
    forward_permits: Arc<Semaphore>,
    breaker: Breaker,
    up: watch::Sender<bool>,
    /// HEIR refused the last call that needed a permission.
    unauthorized: AtomicBool,
    /// When the refresher asks again, whatever the breaker says.
    next_attempt: Mutex<Option<Instant>>,
    pub(super) metrics: Arc<HeirMetrics>,
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The TLS files cannot be used.
    #[error("heir.tls")]
    Tls(#[from] TlsError),
    /// The token file cannot be used.
    #[error("heir.token_file {path}: {reason}")]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl HeirClient {
    /// Reads the TLS and token files and prepares the pool. No connection is made yet.
    pub fn connect(
        config: HeirConfig,
        base: BaseUrl,
        timeout: Duration,
        metrics: Arc<HeirMetrics>,
    ) -> Result<Self, ConnectError> {
        let tls_digest = tls::content_digest(&config.tls);
        let resolver = Resolver::of_the_system();
        let http = Connections::build(&config, &base, timeout, resolver.clone())?;
        let authorization = read_authorization(&config)?;
        Ok(Self {
            resolver,
            http: ArcSwap::from_pointee(http),
            remote: Mutex::default(),
            news: watch::Sender::new(0),
            has_failed: AtomicBool::new(false),
            tls_digest: Mutex::new(tls_digest),
            authorization: ArcSwap::from_pointee(authorization),
            permits: Arc::new(Semaphore::new(config.pool.max_requests)),
            forward_permits: Arc::new(Semaphore::new(config.pool.max_requests / 2)),
            breaker: Breaker::new(config.breaker.clone()),
            up: watch::Sender::new(false),
            unauthorized: AtomicBool::new(false),
            next_attempt: Mutex::default(),
            base,
            config,
            timeout,
            metrics,
        })
    }

    /// HEIR's URL.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// The time that one request may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The time that a request may take for which a caller waits. The Router's own limit is the same as
    /// `heir.timeout_ms`; it must hear the outcome before it gives up.
    pub fn caller_timeout(&self) -> Duration {
        self.timeout * 4 / 5
    }

    /// Bytes that one answer with a whole snapshot or list may have.
    pub fn max_answer_bytes(&self) -> u64 {
        self.config.max_answer_bytes
    }

    /// The state of the breaker.
    pub fn breaker_state(&self) -> BreakerState {
        self.breaker.state(Instant::now())
    }

    /// Whether HEIR refused the last call that needed a permission: the token or the certificate is not valid there.
    pub fn is_unauthorized(&self) -> bool {
        self.unauthorized.load(Relaxed)
    }

    /// The refresher asks again at this time, whatever the breaker says: others need not wait for longer than that.
    pub fn announce_attempt(&self, at: Instant) {
        *self.next_attempt.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// Whether HEIR answered the last call, and a way to wait for that to change.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Whether HEIR answered the last call.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Changes when a call that waits for its answer is worth another attempt: HEIR is back, or has moved.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Looks HEIR's name up, and goes to its new address where it has left the one that answered last. What is under way
    /// there ends there.
    pub async fn follow_name(&self) {
        let remote = *self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let host = self.base.authority().host();
        let is_address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        let Some(remote) = remote.filter(|_| !is_address) else {
            return;
        };
        if self.resolver.has_left(host, remote.ip(), self.timeout).await {
            tracing::info!(heir = %self.base, left = %remote.ip(), "HEIR's name has another address; HEIR is asked there.");
            *self.remote.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.connect_anew();
            self.news.send_modify(|count| *count += 1);
        }
    }

    /// From now on requests make connections of their own, and do not use those that were made before.
    pub(super) fn connect_anew(&self) {
        self.http.rcu(|http| Arc::new(http.anew()));
    }

    /// Applies token and TLS files whose content has changed. A file that cannot be used changes nothing.
    pub fn reread_files(&self) {
        let mut known = self.tls_digest.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = tls::content_digest(&self.config.tls);
        if digest != *known {
            match Connections::build(&self.config, &self.base, self.timeout, self.resolver.clone()) {
                Ok(http) => {
                    self.http.store(Arc::new(http));
                    tracing::info!("Applied the changed TLS files for HEIR.");
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(
                        error,
                        "The changed TLS files for HEIR cannot be used; the old ones stay."
                    );
                }
            }
            // Remembered either way, so that a bad file is reported once.
            *known = digest;
        }
        match read_authorization(&self.config) {
            Ok(authorization) if authorization == **self.authorization.load() => {}
            Ok(authorization) => {
                self.authorization.store(Arc::new(authorization));
                tracing::info!("Applied the changed token for HEIR.");
            }
            Err(error) => tracing::warn!(%error, "The token for HEIR cannot be used; the old one stays."),
        }
    }

    /// Asks `/health`. Passes an open breaker, so that a HEIR that is back is noticed.
    pub async fn check_health(&self) -> Result<(), HeirError> {
        let response = self
            .send_admitted(
                HeirCall::Health,
                Admission::Probe,
                Method::GET,
                "/health",
                HeaderMap::new(),
                Bytes::new(),
                self.timeout,
            )
            .await?;
        if response.status() == StatusCode::OK {
            return Ok(());
        }
        // Whatever else it says, a HEIR that is not healthy by its own account is not one to rely on.
        self.breaker.failure(Instant::now());
        self.note_state(false);
        Err(HeirError::Status {
            status: response.status(),
            retry_after: None,
        })
    }

    /// A read for which a caller waits, repeated as `heir.retry` allows. Any status but 200 and 304 is an error.
    pub async fn fetch(
        &self,
        call: HeirCall,
        path: &str,
        known: Option<&HeaderValue>,
        limit: u64,
    ) -> Result<Fetched, HeirError> {
        let mut backoff = Backoff::new(self.config.retry.clone(), fastrand::u64(..));
        let deadline = Instant::now() + self.caller_timeout();
        let mut attempt = 1;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self
                .fetch_once(call, Admission::Breaker, path, known, limit, left)
                .await
            {
                Err(error)
                    if error.is_retryable()
                        && attempt < self.config.retry.max_attempts
                        && Instant::now() < deadline =>
                {
                    tracing::debug!(error = %error.chain(), attempt, path, "A read from HEIR failed and is repeated.");
                    attempt += 1;
                    tokio::time::sleep(backoff.next_pause()).await;
                }
                result => return result,
            }
        }
    }

    /// A read, once, with a time limit of its own over head and body.
    pub async fn fetch_once(
        &self,
        call: HeirCall,
        admission: Admission,
        path: &str,
        known: Option<&HeaderValue>,
        limit: u64,
        timeout: Duration,
    ) -> Result<Fetched, HeirError> {
        let started = Instant::now();
        let response = self.open(call, admission, path, known, timeout).await?;
        let Some(response) = response else {
            return Ok(Fetched::NotModified);
        };
        let (parts, body) = response.into_parts();
        let left = timeout.saturating_sub(started.elapsed());
        let body = match time::timeout(left, collect(body, limit)).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return Err(self.note_failure_of(call, error)),
            Err(_elapsed) => return Err(self.note_failure_of(call, HeirError::Timeout { after: timeout })),
        };
        Ok(Fetched::Changed {
            body,
            headers: parts.headers,
        })
    }

    /// Begins a read whose answer is a stream. `None`: not modified.
    pub async fn open(
        &self,
        call: HeirCall,
        admission: Admission,
        path: &str,
        known: Option<&HeaderValue>,
        timeout: Duration,
    ) -> Result<Option<http::Response<HeirBody>>, HeirError> {
        let mut headers = HeaderMap::new();
        if let Some(known) = known {
            headers.insert(header::IF_NONE_MATCH, known.clone());
        }
        let response = self
            .send_admitted(call, admission, Method::GET, path, headers, Bytes::new(), timeout)
            .await?;
        match response.status() {
            StatusCode::NOT_MODIFIED if known.is_some() => Ok(None),
            StatusCode::OK => {
                refuse_encoding(response.headers())?;
                Ok(Some(response))
            }
            StatusCode::GONE => Err(self.why_gone(response, timeout).await),
            status if status.is_redirection() => Err(HeirError::Redirect(status)),
            status => Err(HeirError::Status {
                status,
                retry_after: retry_after(response.headers()),
            }),
        }
    }

    /// Whether history was cut short, which is housekeeping, or is another one, which is a restored store.
    async fn why_gone(&self, response: http::Response<HeirBody>, timeout: Duration) -> HeirError {
        #[derive(serde::Deserialize)]
        struct Answer {
            error: Error,
        }
        #[derive(serde::Deserialize)]
        struct Error {
            details: Details,
        }
        #[derive(serde::Deserialize)]
        struct Details {
            reason: String,
        }
        let body = match time::timeout(timeout, collect(response.into_body(), 64 << 10)).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) | Err(_) => Bytes::new(),
        };
        let reason = serde_json::from_slice::<Answer>(&body).map(|answer| answer.error.details.reason);
        HeirError::Gone {
            restored: reason.is_ok_and(|reason| reason == "restored"),
        }
    }

    /// The next piece of a stream, or its end. Each piece has the time limit of a request.
    pub async fn next_chunk(&self, call: HeirCall, body: &mut HeirBody) -> Result<Option<Bytes>, HeirError> {
        loop {
            match time::timeout(self.timeout, body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Ok(Some(Err(error))) => {
                    return Err(self.note_failure_of(call, HeirError::Interrupted(error.into())));
                }
                Err(_elapsed) => {
                    return Err(self.note_failure_of(call, HeirError::Timeout { after: self.timeout }));
                }
            }
        }
    }

    /// A write, once. Any status is an answer, except redirects and those that say HEIR cannot.
    pub async fn write(
        &self,
        call: HeirCall,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Replied, HeirError> {
        /// Answers to writes are short; more than this is not read.
        const LIMIT: u64 = 1 << 20;
        let started = Instant::now();
        let timeout = self.caller_timeout();
        let response = self.send(call, method, path, headers, body, timeout).await?;
        let (parts, body) = response.into_parts();
        if parts.status.is_redirection() {
            return Err(HeirError::Redirect(parts.status));
        }
        if parts.status.is_server_error() || parts.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(HeirError::Status {
                status: parts.status,
                retry_after: retry_after(&parts.headers),
            });
        }
        let left = timeout.saturating_sub(started.elapsed());
        // The status is the answer; a body that breaks off takes nothing from it.
        let body = match time::timeout(left, collect(body, LIMIT)).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) | Err(_) => Bytes::new(),
        };
        Ok(Replied {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    /// Sends one request and waits for the head of its answer. The breaker may refuse it, and learns what came of it.
    pub async fn send(
        &self,
        call: HeirCall,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<http::Response<HeirBody>, HeirError> {
        self.send_admitted(call, Admission::Breaker, method, path, headers, body, timeout)
            .await
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one request; a struct would only spell the names twice"
    )]
    async fn send_admitted(
        &self,
        call: HeirCall,
        admission: Admission,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<http::Response<HeirBody>, HeirError> {
        if let Err(retry_in) = self.admit(admission, Instant::now()) {
            self.metrics.request(call, "paused", None);
            return Err(HeirError::Paused { retry_in });
        }
        let trial = matches!(admission, Admission::Breaker).then(|| Trial(&self.breaker));
        let started = Instant::now();
        let patience = self.patience(call, admission, timeout);
        let result = match patience {
            None => self.exchange(call, method, path, headers, body, timeout).await,
            Some(patience) => {
                // The refresher's calls are reads, without a body.
                Box::pin(self.exchange_or_again(call, path, headers, timeout, patience)).await
            }
        };
        match &result {
            Ok(response) => {
                if let Some(info) = response.extensions().get::<HttpInfo>() {
                    *self.remote.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.remote_addr());
                }
                let status = response.status();
                // A long poll takes as long as it was asked to.
                let seconds =
                    (!call.is_poll() || is_refusal(status)).then(|| started.elapsed().as_secs_f64());
                self.metrics.request(call, outcome_of(status), seconds);
                self.note_status(call, status, retry_after(response.headers()));
            }
            Err(error) => {
                self.metrics.request(call, error.outcome(), None);
                self.note_failure(call, error);
            }
        }
        if let Some(trial) = trial {
            trial.ended();
        }
        result
    }

    fn admit(&self, admission: Admission, now: Instant) -> Result<(), Duration> {
        let admitted = match admission {
            Admission::Breaker => self.breaker.admit(now),
            Admission::Always => self.breaker.admit_always(now),
            Admission::Probe => Ok(()),
        };
        admitted.map_err(|refused| match refused {
            Refused::AskedFor(left) => left,
            Refused::Open(left) => {
                let next = *self.next_attempt.lock().unwrap_or_else(PoisonError::into_inner);
                next.filter(|next| *next > now)
                    .map_or(left, |next| left.min(next - now))
            }
        })
    }

    fn note_status(&self, call: HeirCall, status: StatusCode, retry_after: Option<Duration>) {
        if is_refusal(status) {
            self.note_failure(call, &HeirError::Status { status, retry_after });
            if let Some(pause) = retry_after
                && !call.is_forwarded()
            {
                self.breaker.pause(Instant::now(), pause);
                self.note_state(false);
            }
            return;
        }
        if call.is_forwarded() {
            // What a client may not do says nothing about what this process may.
        } else if is_unauthorized(status) {
            self.unauthorized.store(true, Relaxed);
        } else if call != HeirCall::Health && (status.is_success() || status == StatusCode::NOT_MODIFIED) {
            // A health check usually needs no permission, so it says nothing about one.
            self.unauthorized.store(false, Relaxed);
        }
        self.breaker.success();
        self.note_state(true);
    }

    /// One request, and the head of its answer.
    pub(super) async fn exchange(
        &self,
        call: HeirCall,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<http::Response<HeirBody>, HeirError> {
        let permits = self.permits(call, timeout).await?;
        if let Some(authorization) = &**self.authorization.load() {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let mut request = http::Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.base.join(path).map_err(HeirError::Request)?;
        *request.headers_mut() = headers;
        let http = self.http.load_full();
        match time::timeout(timeout, http.client().request(request)).await {
            Ok(Ok(response)) => Ok(response.map(|body| HeirBody::new(body, permits))),
            Ok(Err(error)) if error.is_connect() => Err(HeirError::Connect(error)),
            Ok(Err(error)) => Err(HeirError::Interrupted(error.into())),
            Err(_elapsed) => Err(HeirError::Timeout { after: timeout }),
        }
    }

    async fn permits(&self, call: HeirCall, timeout: Duration) -> Result<Permits, HeirError> {
        let both = async {
            let forward = if call.is_forwarded() {
                Some(permit(&self.forward_permits).await?)
            } else {
                None
            };
            Ok(Permits {
                _any: permit(&self.permits).await?,
                _forward: forward,
            })
        };
        time::timeout(timeout, both)
            .await
            .unwrap_or(Err(HeirError::PoolExhausted))
    }

    fn note_failure(&self, call: HeirCall, error: &HeirError) {
        // What a client asks for is its own choice, and so are its time-outs and its errors; that no connection can be
        // made is not.
        if call.is_forwarded() && !matches!(error, HeirError::Connect(_)) {
            self.breaker.abandon();
            return;
        }
        if !error.is_away() || matches!(error, HeirError::Paused { .. } | HeirError::PoolExhausted) {
            self.breaker.abandon();
            return;
        }
        if matches!(error, HeirError::Timeout { .. }) {
            // Other connections may lead to nowhere as well.
            self.connect_anew();
        }
        self.breaker.failure(Instant::now());
        self.note_state(false);
    }

    /// Notes that a call whose answer had begun was given up.
    pub fn gave_up(&self, call: HeirCall, error: HeirError) -> HeirError {
        self.note_failure_of(call, error)
    }

    fn note_failure_of(&self, call: HeirCall, error: HeirError) -> HeirError {
        self.metrics.request(call, error.outcome(), None);
        self.note_failure(call, &error);
        error
    }

    fn note_state(&self, up: bool) {
        self.metrics.breaker_state.set(self.breaker_state().as_number());
        self.metrics.up.set(i64::from(up && !self.is_unauthorized()));
        if self.has_failed.swap(!up, Relaxed) && up {
            self.news.send_modify(|count| *count += 1);
        }
        self.up.send_if_modified(|was| std::mem::replace(was, up) != up);
    }
}

/// HEIR answered, but only to say that it cannot.
fn is_refusal(status: StatusCode) -> bool {
    (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
        || status == StatusCode::TOO_MANY_REQUESTS
}

/// The token, the certificate, or a proxy's permission is not valid there.
fn is_unauthorized(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED
    )
}

/// The class of an answer, for the `outcome` label of the metric.
pub(super) fn outcome_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_MODIFIED => "ok",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::GONE => "gone",
        status if is_unauthorized(status) => "unauthorized",
        status if status.is_server_error() => "server_error",
        status if status.is_client_error() => "client_error",
        status if status.is_redirection() => "redirect",
        _ => "ok",
    }
}

/// A call that the breaker admitted. One that is given up, because its caller left, must not keep others from trying.
struct Trial<'a>(&'a Breaker);

impl Trial<'_> {
    /// The breaker knows what came of the call.
    fn ended(self) {
        std::mem::forget(self);
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

async fn permit(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, HeirError> {
    // The semaphores are never closed.
    let permit = permits.clone().acquire_owned().await;
    permit.map_err(|_closed| HeirError::PoolExhausted)
}

async fn collect(mut body: HeirBody, limit: u64) -> Result<Bytes, HeirError> {
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| HeirError::Interrupted(error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        if (collected.len() + data.len()) as u64 > limit {
            return Err(HeirError::TooLarge { limit });
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}

fn refuse_encoding(headers: &HeaderMap) -> Result<(), HeirError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(HeirError::Encoded(
            String::from_utf8_lossy(encoding.as_bytes()).into_owned(),
        )),
        _ => Ok(()),
    }
}

/// `Retry-After` in seconds, at most [`LONGEST_PAUSE`]; a date, a negative number or nonsense counts as absent.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// The header that the token file makes; printed as `Sensitive` by everything that prints headers.
fn read_authorization(config: &HeirConfig) -> Result<Option<HeaderValue>, ConnectError> {
    let path = &config.token_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let refuse = |reason: String| ConnectError::Token {
        path: path.clone(),
        reason,
    };
    let content = plain_file::read(path).map_err(|error| refuse(error.to_string()))?;
    let token = content.trim_ascii();
    if token.is_empty() {
        return Err(refuse("it is empty".into()));
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
        .map_err(|_characters| refuse("it has characters that no header may have".into()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}
