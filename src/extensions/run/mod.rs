//! Calls for a decision: which version, on which lane, with how much patience, and what is said of it afterwards.

mod finish;
mod owned;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use self::owned::Owned;
use super::{
    ExtensionHost,
    call::CallError,
    component::{Ambience, Kind, Remains, Work},
    host::{Fast, Time},
    lane::{FAST, Place},
    registry::{Extension, Registry, Target, merged},
    vitals::{Admitted, Barred, Permit},
    wire::{BreakerState, CallRecord, CandidateRecord, DecisionRecord, MessageRecord},
};
use crate::{
    decide::{
        Answer, Call, ExtensionError, Extensions, Input, MAX_RETRIES, Stage, TIMEOUT_MS, Timestamp,
        memory::State,
    },
    telemetry::extensions::ExecutionSeries,
};

/// After a deadline, the time in which a call must be over: the clock's tick, and what the answer takes.
const GRACE: Duration = Duration::from_millis(5);
/// The first pause before a call is made again after a timeout; each further one is twice as long.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Of how many calls the places are cleaned after the answer at a time: those of two decisions or so.
const CLEANED_LATER: usize = 8;

/// The extensions of a snapshot, for one decision.
#[derive(Debug, Clone, Copy)]
pub struct Calls<'a> {
    host: &'a Arc<ExtensionHost>,
    registry: &'a Registry,
    request_id: &'a str,
}

impl ExtensionHost {
    /// Runs the extensions of a snapshot for one request; its id is empty where it has none.
    pub fn calls<'a>(self: &'a Arc<Self>, registry: &'a Registry, request_id: &'a str) -> Calls<'a> {
        Calls {
            host: self,
            registry,
            request_id,
        }
    }
}

impl Kind {
    pub const fn of(stage: Stage) -> Self {
        match stage {
            Stage::Pre => Self::Pre,
            Stage::Validator => Self::Validator,
            Stage::Scorer => Self::Scorer,
            Stage::Post => Self::Post,
        }
    }
}

impl Extensions for Calls<'_> {
    async fn call(&self, call: &Call<'_>) -> Result<Answer, ExtensionError> {
        let began = Instant::now();
        let Some(extension) = self.registry.get(call.id) else {
            return Err(ExtensionError::NotFound);
        };
        let series = extension.series(&self.host.metrics, call.tenant, call.policy_id);
        let result = self.host.call(extension, call, self.request_id, &series).await;
        series.latency_ms.observe(began.elapsed().as_secs_f64() * 1e3);
        match &result {
            Ok(_) => series.success.inc(),
            Err(error) => {
                series.error.inc();
                self.host.metrics.failed(&extension.id, error.name());
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

/// One call, told to whoever runs it.
struct Attempt<'a> {
    host: &'a ExtensionHost,
    extension: &'a Arc<Extension>,
    target: &'a Target,
    series: &'a Arc<ExecutionSeries>,
    record: CallRecord<'a>,
    terms: Terms,
}

/// What holds for an attempt wherever it runs.
#[derive(Debug, Clone, Copy)]
struct Terms {
    ambience: Ambience,
    now: Timestamp,
    admitted: Admitted,
    /// What it may take where the request leaves it that long.
    own_timeout_ms: u32,
    timeout_ms: u32,
    attempts: u32,
    /// It was begun before, in the fast lane, and took too long for that.
    overran: bool,
}

impl ExtensionHost {
    async fn call(
        self: &Arc<Self>,
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
            extension.vitals.withdraw(admitted);
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
            extension.vitals.refused(&self.config, now, admitted);
            return Err(error);
        }
        let timeout_ms = call
            .timeout_ms
            .or(release.timeout_ms)
            .unwrap_or(self.config.timeout_ms);
        let own_timeout_ms = timeout_ms.clamp(*TIMEOUT_MS.start(), *TIMEOUT_MS.end());
        let timeout_ms = within_deadline(own_timeout_ms, call, now);
        let retries = call.retry.unwrap_or(release.retry).min(MAX_RETRIES);
        let text = |key: &str| {
            call.around
                .context()
                .get(key)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
        };
        let mut attempt = Attempt {
            host: self,
            extension,
            target: routed.target,
            series,
            record: CallRecord {
                tenant_id: call.tenant.as_str(),
                policy_id: call.policy_id.as_str(),
                trace_id: text("trace_id"),
                request_id,
                context: call.around.text(),
                config: config.as_deref().unwrap_or(&routed.variant.config_text),
                remaining_ms: timeout_ms,
            },
            terms: Terms {
                ambience: Ambience {
                    now_ms: now.unix_ms,
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
        loop {
            let result = attempt.run(call.input, self).await;
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
            // It may have been barred meanwhile.
            attempt.terms.admitted = self.admit(extension, attempt.terms.now)?;
            attempt.terms.timeout_ms = within_deadline(own_timeout_ms, call, attempt.terms.now);
            attempt.record.remaining_ms = attempt.terms.timeout_ms;
        }
    }

    /// Cleans up once the answer is out, which then need not wait for it. Of a few calls only: for many at a time it is
    /// quicker to use the same places again, while they are in the processor's caches.
    fn clean_later(self: &Arc<Self>, remains: Remains) {
        if self.to_clean.fetch_add(1, Ordering::Relaxed) >= CLEANED_LATER {
            self.to_clean.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let host = self.clone();
        tokio::spawn(async move {
            drop(remains);
            host.to_clean.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn admit(&self, extension: &Extension, now: Timestamp) -> Result<Admitted, ExtensionError> {
        extension
            .vitals
            .admit(&self.config, now)
            .map_err(|barred| match barred {
                Barred::BreakerOpen => ExtensionError::CircuitOpen,
                Barred::Quarantined => ExtensionError::Quarantined,
            })
    }
}

impl Attempt<'_> {
    async fn run(&mut self, input: Input<'_>, host: &Arc<ExtensionHost>) -> Result<Answer, ExtensionError> {
        let Some(permit) = self.extension.vitals.permit(self.extension.concurrency) else {
            self.extension.vitals.withdraw(self.terms.admitted);
            return Err(ExtensionError::Unavailable);
        };
        let candidates = candidates(input);
        let ids: Vec<&str> = candidates.iter().map(|candidate| candidate.provider_id).collect();
        let began = Instant::now();
        let deadline = Duration::from_millis(self.terms.timeout_ms.into());
        self.terms.overran = false;
        if self.extension.vitals.lane.place() == Place::Fast {
            let time = Time {
                deadline,
                fast: Some(Fast {
                    after: FAST,
                    trusted: self.extension.vitals.lane.is_trusted(),
                }),
            };
            let work = work(input, self.extension.kind, &candidates);
            let ran =
                self.target
                    .prepared
                    .call(self.record, work, self.target.limits, time, self.terms.ambience);
            if ran.result != Err(CallError::Overrun) {
                let (answer, remains) = self.finish(ran, &ids);
                host.clean_later(remains);
                return answer;
            }
            // What overran is begun anew on a thread of its own, with the time that is left.
            self.terms.overran = true;
            self.moved(self.extension.vitals.lane.count(ran.took));
        }
        self.run_slow(input, &candidates, host, permit, began + deadline)
            .await
    }

    /// Runs it on a thread of the slow lane, to its end or its deadline, whether or not somebody waits for it.
    async fn run_slow(
        &self,
        input: Input<'_>,
        candidates: &[CandidateRecord<'_>],
        host: &Arc<ExtensionHost>,
        permit: Permit,
        until: Instant,
    ) -> Result<Answer, ExtensionError> {
        let lane = match host.slow(self.extension.vitals.lane.place() == Place::Idle) {
            Ok(lane) => lane,
            Err(error) => {
                tracing::error!(%error, "The threads of the slow lane cannot be started.");
                self.extension.vitals.withdraw(self.terms.admitted);
                return Err(ExtensionError::Unavailable);
            }
        };
        let owned = Owned::of(self, input, candidates, host);
        let (send, receive) = oneshot::channel();
        let begun = Arc::new(AtomicBool::new(false));
        let has_begun = begun.clone();
        let submitted = lane.submit(Arc::as_ptr(&self.extension.vitals).addr(), move || {
            let _permit = permit;
            let left = until.saturating_duration_since(Instant::now());
            // Nobody waits for what has not begun; what has begun goes on without anybody.
            if left.is_zero() || send.is_closed() {
                owned.extension.vitals.withdraw(owned.terms.admitted);
                return;
            }
            has_begun.store(true, Ordering::Relaxed);
            let (answer, _remains) = owned.run(left);
            let _gone = send.send(answer);
        });
        if submitted.is_err() {
            self.extension.vitals.withdraw(self.terms.admitted);
            return Err(ExtensionError::Unavailable);
        }
        match tokio::time::timeout_at((until + GRACE).into(), receive).await {
            Ok(Ok(result)) => result,
            // It waited for a thread until its time was over, or ends no more: the second would be a fault of ours.
            Ok(Err(_)) | Err(_) if !begun.load(Ordering::Relaxed) => Err(ExtensionError::Unavailable),
            Ok(Err(_)) | Err(_) => Err(ExtensionError::Timeout {
                timeout_ms: self.terms.timeout_ms,
                attempts: self.terms.attempts,
            }),
        }
    }
}

fn candidates<'a>(input: Input<'a>) -> Vec<CandidateRecord<'a>> {
    let Input::Candidates(_, candidates) = input else {
        return Vec::new();
    };
    let candidate = |candidate: &crate::decide::ScoredProvider<'a>| CandidateRecord {
        provider_id: candidate.provider.as_str(),
        weight: candidate.weight,
        breaker: match candidate.breaker {
            State::Closed => BreakerState::Closed,
            State::HalfOpen => BreakerState::HalfOpen,
            State::Open => BreakerState::Open,
        },
        latency_ms: candidate.latency_ms,
        error_rate: candidate.error_rate,
        cost: candidate.cost,
    };
    candidates.iter().map(candidate).collect()
}

fn work<'a>(input: Input<'a>, stage: Kind, candidates: &'a [CandidateRecord<'a>]) -> Work<'a> {
    let message = |message: &'a crate::decide::Envelope<'_>| MessageRecord {
        message_id: message.message_id(),
        message_type: message.message_type(),
        payload: message.payload(),
        metadata: message.metadata(),
    };
    match input {
        Input::Message(of) if stage == Kind::Pre => Work::Pre(message(of)),
        Input::Message(of) => Work::Validator(message(of)),
        Input::Candidates(of, _) => Work::Scorer(message(of), candidates),
        Input::Decision(decision) => {
            let text = |key: &str| {
                decision
                    .get(key)
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or_default()
            };
            let priority = decision.get("priority").and_then(serde_json::Value::as_u64);
            Work::Post(DecisionRecord {
                provider_id: text("provider_id"),
                reason: text("reason"),
                priority: priority
                    .and_then(|priority| u32::try_from(priority).ok())
                    .unwrap_or(0),
            })
        }
    }
}

/// A size that equals its limit passes.
fn check_sizes(call: &Call<'_>, max_payload: usize, max_metadata: usize) -> Result<(), ExtensionError> {
    let payload = match call.input {
        Input::Message(message) | Input::Candidates(message, _) => message.payload().len(),
        Input::Decision(_) => 0,
    };
    if payload > max_payload {
        return Err(ExtensionError::PayloadTooLarge {
            size: payload,
            max: max_payload,
        });
    }
    let metadata = call.around.text().len();
    if metadata > max_metadata {
        return Err(ExtensionError::MetadataTooLarge {
            size: metadata,
            max: max_metadata,
        });
    }
    Ok(())
}

/// No call goes on past the request's own deadline.
fn within_deadline(timeout_ms: u32, call: &Call<'_>, now: Timestamp) -> u32 {
    left_ms(call, now)
        .and_then(|left| u32::try_from(left).ok())
        .map_or(timeout_ms, |left| timeout_ms.min(left.max(1)))
}

/// What is left until then, where the request has one.
fn left_ms(call: &Call<'_>, now: Timestamp) -> Option<u64> {
    let deadline = call.around.context().get("deadline")?.as_u64()?;
    Some(deadline.saturating_sub(now.unix_ms))
}

/// A seed for one extension out of the decision's.
fn mixed(seed: u64, id: &str) -> u64 {
    // FNV-1a: it must be the same for ever, so that a decision replays.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (seed ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
