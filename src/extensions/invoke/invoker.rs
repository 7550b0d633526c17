//! Calls the extensions of a snapshot: which version, with how much time, and whether again after a time-out.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    attempt::{Attempt, Terms},
    change::report,
    cleaner::Cleaner,
    finish::Kept,
    input::check_sizes,
};
use crate::{
    clock::Timestamp,
    decide::{Answer, Call, ExtensionError, Extensions, MAX_RETRIES, TIMEOUT_MS},
    extensions::{
        config::ExtensionsConfig,
        health::{Admitted, Blocked},
        metrics::{ExecutionSeries, ExtensionMetrics},
        recording::Recorder,
        registry::{Extension, Registry, Target, merged},
        sandbox::{CallEnv, CallRecord, Kind, PATIENCE, Share},
        scheduling::{Place, WorkerPools},
        signing::Trust,
    },
};

/// The first pause before a call is made again after a time-out; each further one is twice as long.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Calls extensions.
#[derive(Debug)]
pub(in crate::extensions) struct Invoker {
    config: Arc<ExtensionsConfig>,
    /// `None`: no tenant demands other signatures than those that a module has to have to be loaded.
    trust: Option<Arc<Trust>>,
    metrics: Arc<ExtensionMetrics>,
    recorder: Option<Arc<Recorder>>,
    pools: WorkerPools,
    cleaner: Cleaner,
}

/// What is known of the request that extensions are called for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asking<'a> {
    /// Its id; may be empty.
    pub request_id: &'a str,
    /// Its trace, as it was checked when the request was read.
    pub trace_id: Option<&'a str>,
}

/// The extensions of a snapshot, for one request.
#[derive(Debug)]
pub struct Calls<'a> {
    invoker: &'a Invoker,
    registry: &'a Registry,
    asking: Asking<'a>,
    /// What the answers take that the request keeps.
    kept: Mutex<Vec<Share>>,
}

impl Extensions for Calls<'_> {
    async fn call(&self, call: &Call<'_>) -> Result<Answer, ExtensionError> {
        let began = Instant::now();
        let Some(extension) = self.registry.get(call.id) else {
            // One whose module is still being compiled is there, and cannot be called yet.
            return Err(if self.registry.is_pending(call.id) {
                ExtensionError::Unavailable
            } else {
                ExtensionError::NotFound
            });
        };
        let metrics = &self.invoker.metrics;
        let series = extension.series(metrics, call.tenant, call.policy_id);
        // In a box, so that a decision without extensions has no room for it.
        let calling = Box::pin(self.invoker.call(extension, call, self.asking, &series));
        let result = calling.await.map(|Kept { answer, share }| {
            if let Some(share) = share {
                self.kept
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(share);
            }
            answer
        });
        series.latency_ms.observe(began.elapsed().as_secs_f64() * 1e3);
        match &result {
            Ok(_) => series.success.inc(),
            Err(error) => {
                series.error.inc();
                metrics.failed(&extension.id, error.name());
                tracing::debug!(
                    extension_id = &*extension.id,
                    extension_type = extension.kind.as_str(),
                    tenant_id = call.tenant.as_str(),
                    policy_id = call.policy_id.as_str(),
                    error = error.name(),
                    "Extension invocation failed."
                );
            }
        }
        result
    }
}

/// The longest trace that is taken over from a request's context, in bytes.
const MAX_TRACE_BYTES: usize = 256;

impl<'a> Asking<'a> {
    /// The trace of a call: the request's own; what its context says is not checked, and counts only without one.
    fn trace_id(&self, call: &Call<'a>) -> &'a str {
        let from_context = || {
            let text = call.around.context().get("trace_id")?.as_str()?;
            (text.len() <= MAX_TRACE_BYTES).then_some(text)
        };
        self.trace_id.or_else(from_context).unwrap_or_default()
    }
}

impl Invoker {
    /// An invoker with worker threads as configured.
    pub(in crate::extensions) fn new(
        config: Arc<ExtensionsConfig>,
        trust: Arc<Trust>,
        recorder: Option<Arc<Recorder>>,
        metrics: Arc<ExtensionMetrics>,
    ) -> Self {
        Self {
            pools: WorkerPools::new(&config),
            config,
            trust: Some(trust).filter(|trust| trust.knows_tenants()),
            metrics,
            recorder,
            cleaner: Cleaner::default(),
        }
    }

    /// Calls the extensions of a registry for a request.
    pub(in crate::extensions) fn calls<'a>(
        &'a self,
        registry: &'a Registry,
        asking: Asking<'a>,
    ) -> Calls<'a> {
        Calls {
            invoker: self,
            registry,
            asking,
            kept: Mutex::default(),
        }
    }

    /// Calls that wait for a worker thread.
    pub(in crate::extensions) fn waiting_calls(&self) -> usize {
        self.pools.waiting()
    }

    async fn call(
        &self,
        extension: &Arc<Extension>,
        call: &Call<'_>,
        asking: Asking<'_>,
        series: &Arc<ExecutionSeries>,
    ) -> Result<Kept, ExtensionError> {
        if extension.kind != Kind::of(call.stage) {
            return Err(ExtensionError::WrongKind {
                kind: extension.kind.as_str(),
            });
        }
        let now = (call.at.later)();
        let seed = mixed(call.at.seed.0, &extension.id);
        let Some(routed) = extension.route(call.around.context(), seed) else {
            return Err(ExtensionError::NotFound);
        };
        let tenant = call.tenant.as_str();
        if let Some(trust) = &self.trust
            && !trust.admits(tenant, routed.target.signed_by)
        {
            return Err(ExtensionError::NotFound);
        }
        let admitted = self.admit(routed.target, now, tenant)?;
        let release = &routed.variant.release;
        let config = if call.config.is_empty() {
            None
        } else {
            Some(serde_json::Value::Object(merged(&release.config, call.config)).to_string())
        };
        let size = match check_sizes(call, release.max_payload_bytes, release.max_metadata_bytes) {
            Ok(size) => size,
            Err(error) => {
                let health = &routed.target.health;
                if let Some(change) = health.refused(&self.config, now, admitted, tenant) {
                    report(&self.metrics, extension, change, now, tenant);
                }
                return Err(error);
            }
        };
        let timeout_ms = call
            .timeout_ms
            .or(release.timeout_ms)
            .unwrap_or(self.config.timeout_ms);
        let own_timeout_ms = timeout_ms.clamp(*TIMEOUT_MS.start(), *TIMEOUT_MS.end());
        let left = left_ms(call, now);
        let mut attempt = Attempt {
            config: &self.config,
            metrics: &self.metrics,
            recorder: self.recorder.as_ref(),
            extension,
            target: routed.target,
            series,
            record: CallRecord {
                tenant_id: tenant,
                policy_id: call.policy_id.as_str(),
                trace_id: asking.trace_id(call),
                request_id: asking.request_id,
                context: call.around.text(),
                config: config.as_deref().unwrap_or(&routed.variant.config_text),
                remaining_ms: within_deadline(own_timeout_ms, left),
            },
            terms: Terms {
                env: CallEnv {
                    now_ms: call.at.on_the_wall(now).unix_ms,
                    seed,
                },
                now,
                admitted,
                size,
                own_timeout_ms,
                timeout_ms: within_deadline(own_timeout_ms, left),
                patience: patience(left, admitted.place, own_timeout_ms),
                attempts: 1,
                overran: false,
            },
        };
        let retries = call.retry.unwrap_or(release.retry).min(MAX_RETRIES);
        self.attempt(&mut attempt, call, retries).await
    }

    /// Makes the attempt, and makes it again as long as it times out, retries are left and the request has time.
    async fn attempt(
        &self,
        attempt: &mut Attempt<'_>,
        call: &Call<'_>,
        retries: u32,
    ) -> Result<Kept, ExtensionError> {
        loop {
            let result = attempt.run(call.input, &self.pools, &self.cleaner).await;
            let again =
                matches!(result, Err(ExtensionError::Timeout { .. })) && attempt.terms.attempts <= retries;
            if !again {
                return result;
            }
            let pause = RETRY_PAUSE * 2_u32.pow(attempt.terms.attempts - 1);
            let left = left_ms(call, (call.at.later)());
            if left.is_some_and(|left| u128::from(left) <= pause.as_millis()) {
                return result;
            }
            tokio::time::sleep(pause).await;
            attempt.terms.attempts += 1;
            attempt.terms.now = (call.at.later)();
            // It may have been blocked meanwhile.
            attempt.terms.admitted =
                self.admit(attempt.target, attempt.terms.now, attempt.record.tenant_id)?;
            let left = left_ms(call, attempt.terms.now);
            let terms = &mut attempt.terms;
            terms.timeout_ms = within_deadline(terms.own_timeout_ms, left);
            terms.patience = patience(left, terms.admitted.place, terms.own_timeout_ms);
            attempt.record.remaining_ms = attempt.terms.timeout_ms;
        }
    }

    fn admit(&self, target: &Target, now: Timestamp, tenant: &str) -> Result<Admitted, ExtensionError> {
        target
            .health
            .admit(&self.config, now, tenant)
            .map_err(|blocked| match blocked {
                Blocked::BreakerOpen => ExtensionError::CircuitOpen,
                Blocked::Quarantined => ExtensionError::Quarantined,
            })
    }
}

/// The time-out of a call, which never goes on past the request's own deadline.
fn within_deadline(timeout_ms: u32, left: Option<u64>) -> u32 {
    left.and_then(|left| u32::try_from(left).ok())
        .map_or(timeout_ms, |left| timeout_ms.min(left.max(1)))
}

/// How long a call is waited for: to its request's deadline, and where that has none as long as for any call. For one that
/// seldom ends in time its own time-out has to be enough.
fn patience(left: Option<u64>, place: Place, timeout_ms: u32) -> Duration {
    let most = match place {
        Place::Fast | Place::Slow => PATIENCE,
        Place::Idle => Duration::from_millis(timeout_ms.into()),
    };
    left.map_or(most, |left| most.min(Duration::from_millis(left.max(1))))
}

/// The time until the request's deadline, where it has one.
fn left_ms(call: &Call<'_>, now: Timestamp) -> Option<u64> {
    let deadline = call.around.context().get("deadline")?.as_u64()?;
    Some(deadline.saturating_sub(call.at.on_the_wall(now).unix_ms))
}

/// A seed for one extension, made of the decision's.
fn mixed(seed: u64, id: &str) -> u64 {
    // FNV-1a: it must never change, so that a decision can be replayed.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (seed ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
