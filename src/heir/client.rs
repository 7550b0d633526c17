//! The one HTTP client for HEIR: pooled, conditional, bounded in time and size, behind one breaker.
//!
//! Redirects are never followed, so every request goes to the authority that was configured.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpInfo;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

use super::{
    answer::{Fetched, Replied, collect, is_page, is_refusal, outcome_of, refuse_encoding, retry_after},
    authorization::{self, TokenError},
    availability::{Admission, Availability},
    backoff::Backoff,
    base_url::BaseUrl,
    body::{HeirBody, Permits},
    config::HeirConfig,
    connections::Connections,
    error::HeirError,
    metrics::{HeirCall, HeirMetrics},
    resolver::Resolver,
    tls::{self, TlsError},
};
use crate::{
    fair_share::{FairShare, Share},
    policy::TenantId,
    telemetry::chain,
};

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
    /// Names the content of the TLS files that are in use, or that were last found unusable.
    tls_digest: Mutex<[u8; 32]>,
    authorization: ArcSwap<Option<HeaderValue>>,
    permits: Arc<Semaphore>,
    /// A part of those: the rest is for what this process asks itself, however many clients ask or read slowly.
    forward_permits: Arc<Semaphore>,
    /// The calls that requests of tenants cause, shared by tenant.
    turns: FairShare<TenantId>,
    pub(super) availability: Availability,
    pub(super) metrics: Arc<HeirMetrics>,
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The TLS files cannot be used.
    #[error("heir.tls")]
    Tls(#[from] TlsError),
    /// The token file cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
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
        let authorization = authorization::read(&config)?;
        Ok(Self {
            resolver,
            http: ArcSwap::from_pointee(http),
            remote: Mutex::default(),
            tls_digest: Mutex::new(tls_digest),
            authorization: ArcSwap::from_pointee(authorization),
            permits: Arc::new(Semaphore::new(config.pool.max_requests)),
            forward_permits: Arc::new(Semaphore::new(config.pool.max_requests / 2)),
            turns: FairShare::new(config.pool.max_requests),
            availability: Availability::new(config.breaker.clone(), metrics.clone()),
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

    /// Whether HEIR answers, and whether it is left alone.
    pub fn availability(&self) -> &Availability {
        &self.availability
    }

    /// Looks HEIR's name up, for [`follow_name`](Self::follow_name).
    pub async fn look_name_up(&self) {
        if let Some(name) = self.base.host_name() {
            self.resolver.look_again(name, self.timeout).await;
        }
    }

    /// Goes to another address of HEIR's name whenever a lookup, made for whatever reason, says that it has left the one
    /// that answered last. What is under way there ends there. Goes on for ever.
    pub async fn follow_name(&self) {
        let mut answers = self.resolver.answers();
        while let Some(addresses) = answers.next().await {
            let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
            let is_there = |remote: &SocketAddr| {
                let remote = remote.ip().to_canonical();
                addresses.iter().any(|found| found.ip().to_canonical() == remote)
            };
            let Some(left) = remote.take_if(|remote| !is_there(remote)) else {
                continue;
            };
            drop(remote);
            tracing::info!(heir = %self.base, left = %left.ip(), "HEIR's name has another address; HEIR is asked there.");
            self.connect_anew();
            self.availability.moved();
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
        match authorization::read(&self.config) {
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
        self.availability.unhealthy();
        Err(HeirError::Status {
            status: response.status(),
            retry_after: None,
        })
    }

    /// Waits for a tenant's turn to make the calls that one of its requests causes, so that however many one tenant makes,
    /// another's are not kept waiting. It lasts until it is dropped.
    pub async fn turn(&self, tenant: &TenantId) -> Result<Share<TenantId>, HeirError> {
        let turn = time::timeout(self.caller_timeout(), self.turns.take(tenant)).await;
        turn.map_err(|_elapsed| HeirError::PoolExhausted)
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
        // A poll may have been asked for more than once, and its answer, once it comes, comes quickly.
        let left = if call.is_poll() {
            self.timeout
        } else {
            timeout.saturating_sub(started.elapsed())
        };
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
            status if is_page(status, response.headers()) => Err(self.note_failure_of(call, HeirError::Page)),
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
        if is_page(parts.status, &parts.headers) {
            return Err(self.note_failure_of(call, HeirError::Page));
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
        if let Err(retry_in) = self.availability.admit(admission, Instant::now()) {
            self.metrics.request(call, "paused", None);
            return Err(HeirError::Paused { retry_in });
        }
        let trial = matches!(admission, Admission::Breaker).then(|| self.availability.trial());
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
                self.note_status(call, status, response.headers());
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
        match time::timeout(timeout, http.client(call).request(request)).await {
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

    fn note_status(&self, call: HeirCall, status: StatusCode, headers: &HeaderMap) {
        let retry_after = retry_after(headers);
        if is_refusal(status) {
            self.note_failure(call, &HeirError::Status { status, retry_after });
            // Others, such as 507, are said of the request: a HEIR whose disk is full still tells of changes.
            let of_all = matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            );
            if let Some(pause) = retry_after
                && of_all
                && !call.is_forwarded()
            {
                self.availability.pause(pause);
            }
        } else {
            self.availability.answered(call, status);
        }
    }

    fn note_failure(&self, call: HeirCall, error: &HeirError) {
        if self.availability.failed(call, error) && error.is_silence() {
            // Other connections may lead to nowhere as well.
            self.connect_anew();
        }
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
}

async fn permit(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, HeirError> {
    // The semaphores are never closed.
    let permit = permits.clone().acquire_owned().await;
    permit.map_err(|_closed| HeirError::PoolExhausted)
}
