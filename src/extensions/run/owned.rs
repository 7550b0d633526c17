//! A call that goes on whether or not somebody waits for it: it owns what it is given.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        ExtensionHost,
        component::{Kind, Remains, Work},
        host::Time,
        registry::{Extension, Target},
        wire::{BreakerState, CallRecord, CandidateRecord, DecisionRecord, MessageRecord},
    },
    Attempt, Terms, work,
};
use crate::{
    decide::{Answer, ExtensionError, Input},
    telemetry::extensions::ExecutionSeries,
};

/// A call that outlives whoever asked for it.
pub(super) struct Owned {
    host: Arc<ExtensionHost>,
    pub(super) extension: Arc<Extension>,
    target: Target,
    series: Arc<ExecutionSeries>,
    texts: [Box<str>; 6],
    input: OwnedInput,
    pub(super) terms: Terms,
}

enum OwnedInput {
    Message([Box<str>; 4]),
    Candidates([Box<str>; 4], Vec<OwnedCandidate>),
    Decision(Box<str>, Box<str>, u32),
}

struct OwnedCandidate {
    provider_id: Box<str>,
    weight: f64,
    breaker: BreakerState,
    latency_ms: Option<f64>,
    error_rate: Option<f64>,
    cost: Option<f64>,
}

impl Owned {
    pub(super) fn of(
        attempt: &Attempt<'_>,
        input: Input<'_>,
        candidates: &[CandidateRecord<'_>],
        host: &Arc<ExtensionHost>,
    ) -> Self {
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
            Work::Pre(of) | Work::Validator(of) => OwnedInput::Message(message(of)),
            Work::Scorer(of, candidates) => OwnedInput::Candidates(
                message(of),
                candidates
                    .iter()
                    .map(|candidate| OwnedCandidate {
                        provider_id: candidate.provider_id.into(),
                        weight: candidate.weight,
                        breaker: candidate.breaker,
                        latency_ms: candidate.latency_ms,
                        error_rate: candidate.error_rate,
                        cost: candidate.cost,
                    })
                    .collect(),
            ),
            Work::Post(decision) => OwnedInput::Decision(
                decision.provider_id.into(),
                decision.reason.into(),
                decision.priority,
            ),
        };
        Self {
            host: host.clone(),
            extension: attempt.extension.clone(),
            target: attempt.target.clone(),
            series: attempt.series.clone(),
            texts: [tenant_id, policy_id, trace_id, request_id, context, config].map(Box::from),
            input,
            terms: attempt.terms,
        }
    }

    pub(super) fn run(&self, left: Duration) -> (Result<Answer, ExtensionError>, Remains) {
        let [tenant_id, policy_id, trace_id, request_id, context, config] =
            self.texts.each_ref().map(|text| &**text);
        let attempt = Attempt {
            host: &self.host,
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
                remaining_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1),
            },
            terms: self.terms,
        };
        let candidates: Vec<CandidateRecord<'_>> = match &self.input {
            OwnedInput::Candidates(_, candidates) => candidates.iter().map(OwnedCandidate::record).collect(),
            OwnedInput::Message(_) | OwnedInput::Decision(..) => Vec::new(),
        };
        let work = match &self.input {
            OwnedInput::Message(message) if self.extension.kind == Kind::Pre => Work::Pre(borrowed(message)),
            OwnedInput::Message(message) => Work::Validator(borrowed(message)),
            OwnedInput::Candidates(message, _) => Work::Scorer(borrowed(message), &candidates),
            OwnedInput::Decision(provider_id, reason, priority) => Work::Post(DecisionRecord {
                provider_id,
                reason,
                priority: *priority,
            }),
        };
        let ids: Vec<&str> = candidates.iter().map(|candidate| candidate.provider_id).collect();
        let time = Time {
            deadline: left,
            fast: None,
        };
        let ran = self.target.prepared.call(
            attempt.record,
            work,
            self.target.limits,
            time,
            self.terms.ambience,
        );
        attempt.finish(ran, &ids)
    }
}

impl OwnedCandidate {
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
