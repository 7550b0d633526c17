//! A call that goes on whether or not the caller still waits: it owns its input.

use std::{sync::Arc, time::Duration};

use super::{
    attempt::{Attempt, Terms},
    finish::Kept,
    input::work,
};
use crate::{
    decide::{ExtensionError, Input},
    extensions::{
        config::ExtensionsConfig,
        metrics::{ExecutionSeries, ExtensionMetrics},
        recording::Recorder,
        registry::{Extension, Target},
        sandbox::{
            BreakerState, CallRecord, CandidateRecord, DecisionRecord, Kind, MessageRecord, SpentStore, Time,
            Work,
        },
        scheduling::Slot,
    },
};

/// An attempt that owns everything about it.
pub(super) struct Detached {
    config: Arc<ExtensionsConfig>,
    metrics: Arc<ExtensionMetrics>,
    recorder: Option<Arc<Recorder>>,
    extension: Arc<Extension>,
    target: Target,
    series: Arc<ExecutionSeries>,
    texts: [Box<str>; 6],
    input: DetachedInput,
    terms: Terms,
}

enum DetachedInput {
    Message([Box<str>; 4]),
    Candidates([Box<str>; 4], Vec<DetachedCandidate>),
    Decision(Box<str>, Box<str>, u32),
}

struct DetachedCandidate {
    provider_id: Box<str>,
    weight: f64,
    breaker: BreakerState,
    latency_ms: Option<f64>,
    error_rate: Option<f64>,
    cost: Option<f64>,
}

impl Detached {
    /// Copies an attempt and its input.
    pub(super) fn of(attempt: &Attempt<'_>, input: Input<'_>, candidates: &[CandidateRecord<'_>]) -> Self {
        let CallRecord {
            tenant_id,
            policy_id,
            trace_id,
            request_id,
            context,
            config,
            ..
        } = attempt.record;
        let message = |message: MessageRecord<'_>| {
            [
                message.message_id,
                message.message_type,
                message.payload,
                message.metadata,
            ]
            .map(Box::from)
        };
        let input = match work(input, attempt.extension.kind, candidates) {
            Work::Pre(of) | Work::Validator(of) => DetachedInput::Message(message(of)),
            Work::Scorer(of, candidates) => DetachedInput::Candidates(
                message(of),
                candidates
                    .iter()
                    .map(|candidate| DetachedCandidate {
                        provider_id: candidate.provider_id.into(),
                        weight: candidate.weight,
                        breaker: candidate.breaker,
                        latency_ms: candidate.latency_ms,
                        error_rate: candidate.error_rate,
                        cost: candidate.cost,
                    })
                    .collect(),
            ),
            Work::Post(decision) => DetachedInput::Decision(
                decision.provider_id.into(),
                decision.reason.into(),
                decision.priority,
            ),
        };
        Self {
            config: attempt.config.clone(),
            metrics: attempt.metrics.clone(),
            recorder: attempt.recorder.cloned(),
            extension: attempt.extension.clone(),
            target: attempt.target.clone(),
            series: attempt.series.clone(),
            texts: [tenant_id, policy_id, trace_id, request_id, context, config].map(Box::from),
            input,
            terms: attempt.terms,
        }
    }

    /// Takes back the admission, because no call is made.
    pub(super) fn withdraw(&self) {
        let [tenant, ..] = &self.texts;
        self.target.health.withdraw(self.terms.admitted, tenant);
    }

    /// Makes the call, which is waited for so long, and records it.
    pub(super) fn run(&self, left: Duration, turns: Arc<Slot>) -> (Result<Kept, ExtensionError>, SpentStore) {
        let [tenant_id, policy_id, trace_id, request_id, context, config] =
            self.texts.each_ref().map(|text| &**text);
        let attempt = Attempt {
            config: &self.config,
            metrics: &self.metrics,
            recorder: self.recorder.as_ref(),
            extension: &self.extension,
            target: &self.target,
            series: &self.series,
            record: CallRecord {
                tenant_id,
                policy_id,
                trace_id,
                request_id,
                context,
                config,
                remaining_ms: u32::try_from(left.as_millis())
                    .unwrap_or(u32::MAX)
                    .clamp(1, self.terms.timeout_ms.max(1)),
            },
            terms: self.terms,
        };
        let candidates: Vec<CandidateRecord<'_>> = match &self.input {
            DetachedInput::Candidates(_, candidates) => {
                candidates.iter().map(DetachedCandidate::record).collect()
            }
            DetachedInput::Message(_) | DetachedInput::Decision(..) => Vec::new(),
        };
        let work = match &self.input {
            DetachedInput::Message(message) if self.extension.kind == Kind::Pre => {
                Work::Pre(borrowed(message))
            }
            DetachedInput::Message(message) => Work::Validator(borrowed(message)),
            DetachedInput::Candidates(message, _) => Work::Scorer(borrowed(message), &candidates),
            DetachedInput::Decision(provider_id, reason, priority) => Work::Post(DecisionRecord {
                provider_id,
                reason,
                priority: *priority,
            }),
        };
        let ids: Vec<&str> = candidates.iter().map(|candidate| candidate.provider_id).collect();
        let time = Time {
            deadline: Duration::from_millis(self.terms.own_timeout_ms.into()),
            patience: left,
            fast: None,
        };
        let (limits, env) = (self.target.limits, self.terms.env);
        let prepared = &self.target.prepared;
        let call = prepared.call_in_turns(attempt.record, work, limits, time, env, Some(turns));
        attempt.keep_for_author(work, &call);
        attempt.finish(call, &ids)
    }
}

impl DetachedCandidate {
    fn record(&self) -> CandidateRecord<'_> {
        CandidateRecord {
            provider_id: &self.provider_id,
            weight: self.weight,
            breaker: self.breaker,
            latency_ms: self.latency_ms,
            error_rate: self.error_rate,
            cost: self.cost,
        }
    }
}

fn borrowed([message_id, message_type, payload, metadata]: &[Box<str>; 4]) -> MessageRecord<'_> {
    MessageRecord {
        message_id,
        message_type,
        payload,
        metadata,
    }
}
