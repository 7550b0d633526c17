//! Calls the extensions of a snapshot: which version, with how much time, and whether again after a time-out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    attempt::{Attempt, Terms},
    cleaner::Cleaner,
    input::check_sizes,
};
use crate::{
    clock::Timestamp,
    decide::{Answer, Call, ExtensionError, Extensions, MAX_RETRIES, TIMEOUT_MS},
    extensions::{
        config::ExtensionsConfig,
        health::{Admitted, Blocked},
        metrics::{ExecutionSeries, ExtensionMetrics},
        registry::{Extension, Registry, merged},
        sandbox::{CallEnv, CallRecord, Kind},
        scheduling::WorkerPools,
    },
};

/// The first pause before a call is made again after a time-out; each further one is twice as long.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Calls extensions.
#[derive(Debug)]
pub(in crate::extensions) struct Invoker {
    config: Arc<ExtensionsConfig>,
    metrics: Arc<ExtensionMetrics>,
    pools: WorkerPools,
    cleaner: Cleaner,
}

/// The extensions of a snapshot, for one request.
#[derive(Debug, Clone, Copy)]
pub struct Calls<'a> {
    invoker: &'a Invoker,
    registry: &'a Registry,
    request_id: &'a str,
}

impl Extensions for Calls<'_> {
    async fn call(&self, call: &Call<'_>) -> Result<Answer, ExtensionError> {
        let began = Instant::now();
        let Some(extension) = self.registry.get(call.id) else {
            return Err(ExtensionError::NotFound);
        };
        let metrics = &self.invoker.metrics;
        let series = extension.series(metrics, call.tenant, call.policy_id);
        // In a box, so that a decision without extensions has no room for it.
        let calling = Box::pin(self.invoker.call(extension, call, self.request_id, &series));
        let result = calling.await;
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

impl Invoker {
    /// An invoker with worker threads as configured.
    pub(in crate::extensions) fn new(config: Arc<ExtensionsConfig>, metrics: Arc<ExtensionMetrics>) -> Self {
        Self {
            pools: WorkerPools::new(&config),
            config,
            metrics,
            cleaner: Cleaner::default(),
        }
    }

    /// Calls the extensions of a registry for a request. Its id is empty where it has none.
    pub(in crate::extensions) fn calls<'a>(
        &'a self,
        registry: &'a Registry,
        request_id: &'a str,
    ) -> Calls<'a> {
        Calls {
            invoker: self,
            registry,
            request_id,
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
        request_id: &str,
        series: &Arc<ExecutionSeries>,
    ) -> Result<Answer, ExtensionError> {
        if extension.kind != Kind::of(call.stage) {
            return Err(ExtensionError::WrongKind {
                kind: extension.kind.as_str(),
            });
        }
        let now = (call.at.later)();
        let admitted = self.admit(extension, now)?;
        let seed = mixed(call.at.seed.0, &extension.id);
        let Some(routed) = extension.route(call.around.context(), seed) else {
            extension.health.withdraw(admitted);
            return Err(ExtensionError::NotFound);
        };
        let release = &routed.variant.release;
        let config = if call.config.is_empty() {
            None
        } else {
            Some(serde_json::Value::Object(merged(&release.config, call.config)).to_string())
        };
        let sizes = check_sizes(call, release.max_payload_bytes, release.max_metadata_bytes);
        if let Err(error) = sizes {
            extension.health.refused(&self.config, now, admitted);
            return Err(error);
        }
        let timeout_ms = call
            .timeout_ms
            .or(release.timeout_ms)
            .unwrap_or(self.config.timeout_ms);
        let own_timeout_ms = timeout_ms.clamp(*TIMEOUT_MS.start(), *TIMEOUT_MS.end());
        let timeout_ms = within_deadline(own_timeout_ms, call, now);
        let trace_id = call.around.context().get("trace_id");
        let mut attempt = Attempt {
            config: &self.config,
            metrics: &self.metrics,
            extension,
            target: routed.target,
            series,
            record: CallRecord {
                tenant_id: call.tenant.as_str(),
                policy_id: call.policy_id.as_str(),
                trace_id: trace_id.and_then(serde_json::Value::as_str).unwrap_or_default(),
                request_id,
                context: call.around.text(),
                config: config.as_deref().unwrap_or(&routed.variant.config_text),
                remaining_ms: timeout_ms,
            },
            terms: Terms {
                env: CallEnv {
                    now_ms: call.at.on_the_wall(now).unix_ms,
                    seed,
                },
                now,
                admitted,
                own_timeout_ms,
                timeout_ms,
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
    ) -> Result<Answer, ExtensionError> {
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
            attempt.terms.admitted = self.admit(attempt.extension, attempt.terms.now)?;
            attempt.terms.timeout_ms = within_deadline(attempt.terms.own_timeout_ms, call, attempt.terms.now);
            attempt.record.remaining_ms = attempt.terms.timeout_ms;
        }
    }

    fn admit(&self, extension: &Extension, now: Timestamp) -> Result<Admitted, ExtensionError> {
        extension
            .health
            .admit(&self.config, now)
            .map_err(|blocked| match blocked {
                Blocked::BreakerOpen => ExtensionError::CircuitOpen,
                Blocked::Quarantined => ExtensionError::Quarantined,
            })
    }
}

/// The time-out of a call, which never goes on past the request's own deadline.
fn within_deadline(timeout_ms: u32, call: &Call<'_>, now: Timestamp) -> u32 {
    left_ms(call, now)
        .and_then(|left| u32::try_from(left).ok())
        .map_or(timeout_ms, |left| timeout_ms.min(left.max(1)))
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
