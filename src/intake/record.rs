//! What decisions leave behind: counters, and lines in the log.

use std::{borrow::Cow, time::Instant};

use serde_json::Value;

use super::{broken_version::BrokenVersion, metrics::IntakeMetrics};
use crate::{
    decide::{
        DecideContext, DecisionInput, Explaining, Mechanism, REDACTED, Refusal, StickyCheck, audit_form,
        brief, is_sensitive,
        memory::{State, Transition},
        redact_briefly,
    },
    policy::{DetailLevel, TenantId, exact},
    snapshot::{SnapshotMetrics, SnapshotStore, TenantMetrics},
};

/// The most bytes of a context in a line of the log, or a little more.
const CONTEXT: usize = 4096;

/// Records what came of requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recorder<'a> {
    store: &'a SnapshotStore,
    metrics: &'a IntakeMetrics,
}

impl<'a> Recorder<'a> {
    pub(super) const fn new(store: &'a SnapshotStore, metrics: &'a IntakeMetrics) -> Self {
        Self { store, metrics }
    }

    fn snapshot_metrics(self) -> &'a SnapshotMetrics {
        self.store.metrics()
    }

    fn with_tenant(self, tenant: &TenantId, count: impl FnOnce(&TenantMetrics)) {
        let snapshot = self.store.load();
        let known = snapshot.tenant(tenant.as_str());
        count(known.map_or_else(|| self.snapshot_metrics().other_tenant(), |known| known.metrics()));
    }

    /// Counts a decision.
    pub(super) fn decided(self, explaining: &Explaining<'_>, started: Instant) {
        let Explaining {
            decision,
            policy,
            input,
            ..
        } = explaining;
        self.with_tenant(input.tenant, |metrics| {
            metrics.decided(decision.selection.how.reason(), milliseconds_since(started));
            if policy.sticky.as_ref().is_some_and(|sticky| sticky.enabled) {
                match decision.selection.sticky {
                    StickyCheck::NotAsked => {}
                    StickyCheck::Hit => metrics.session(true),
                    StickyCheck::NoSession | StickyCheck::Miss | StickyCheck::Excluded(_) => {
                        metrics.session(false);
                    }
                }
            }
            if let Some(allowance) = decision.allowance {
                metrics.limited(allowance.scope.as_str(), true);
            }
            if let Mechanism::BreakerFallback { original } = &decision.selection.how {
                self.metrics.fail_fast(metrics.label(), original.as_str());
            }
        });
    }

    /// Counts a request whose policy was not found or cannot be used.
    pub(super) fn not_found(self, tenant: &TenantId, started: Instant) {
        self.with_tenant(tenant, |metrics| {
            metrics.decided("error", milliseconds_since(started));
        });
    }

    /// Counts a refusal, and logs it.
    pub(super) fn refused(
        self,
        input: DecisionInput<'_>,
        at: DecideContext<'_>,
        refusal: &Refusal,
        started: Instant,
    ) {
        self.with_tenant(input.tenant, |metrics| {
            metrics.decided("error", milliseconds_since(started));
            if let Refusal::RateLimited(limited) = refusal {
                metrics.limited(limited.scope.as_str(), false);
            }
        });
        tracing::debug!(
            decision_id = %at.id,
            seed = %at.seed,
            tenant = input.tenant.as_str(),
            policy = input.policy_id.as_str(),
            error_type = refusal.error_type(),
            "A request for a decision was refused."
        );
    }

    /// The platform's line about a decision, personal data left out. However long the policy's and the context's texts
    /// are, it is short: lines wait in memory until the log is read.
    pub(super) fn log(self, explaining: &Explaining<'_>, broken: Option<&BrokenVersion>) {
        let Explaining {
            decision,
            policy,
            input,
            at,
            ..
        } = explaining;
        let (mechanism, priority) = audit_form(&decision.selection.how);
        let (mut context, is_cut) = redact_briefly(input.context, CONTEXT);
        // A session's value names a person more often than not.
        if let Some(sticky) = &policy.sticky
            && (is_sensitive(&sticky.session_key) || input.context.contains_key(&*sticky.session_key))
        {
            context.insert(brief(&sticky.session_key).into_owned(), REDACTED.into());
        }
        let mut cut = Vec::new();
        if is_cut {
            cut.push("context");
        }
        let provider_id = short(decision.selection.provider.as_str(), "provider_id", &mut cut);
        let policy_version = short(&policy.version, "policy_version", &mut cut);
        let steps = explaining.steps(DetailLevel::Minimal).join("; ");
        let steps = short(&steps, "steps", &mut cut);
        let problem = broken.map(ToString::to_string);
        let policy_problem = problem
            .as_deref()
            .map(|problem| short(problem, "policy_problem", &mut cut));
        let context = exact::written(Value::Object(context).to_string());
        tracing::info!(
            decision_id = %at.id,
            seed = %at.seed,
            provider_id = &*provider_id,
            mechanism,
            policy_id = input.policy_id.as_str(),
            policy_version = &*policy_version,
            tenant_id = input.tenant.as_str(),
            priority,
            steps = &*steps,
            context,
            policy_problem = policy_problem.as_deref(),
            cut = (!cut.is_empty()).then(|| cut.join(", ")),
            "Routing decision"
        );
    }

    /// Counts and logs breakers that changed.
    pub(super) fn transitions(self, transitions: &[Transition]) {
        for transition in transitions {
            self.metrics.transition(
                self.snapshot_metrics().tenant_label(&transition.tenant),
                transition,
            );
            let Transition {
                tenant,
                provider,
                from,
                to,
                trigger,
                failure_count,
                success_count,
                error_rate,
                window_failures,
                window_total,
                settings,
                elapsed_ms,
            } = transition;
            let (from, reason) = (from.as_str(), trigger.as_str());
            let (tenant_id, provider_id) = (tenant.as_str(), provider.as_str());
            const EVENT: &str = "circuit_breaker_state_changed";
            match to {
                State::Open => tracing::warn!(
                    event = EVENT,
                    tenant_id,
                    provider_id,
                    from,
                    to = "open",
                    reason,
                    failure_count,
                    error_rate,
                    window_seconds = settings.error_rate_window_seconds,
                    failures_in_window = window_failures,
                    total_in_window = window_total,
                    failure_threshold = settings.failure_threshold,
                    error_rate_threshold = settings.error_rate_threshold,
                    "Circuit breaker opened for provider"
                ),
                State::HalfOpen => tracing::info!(
                    event = EVENT,
                    tenant_id,
                    provider_id,
                    from,
                    to = "half_open",
                    reason,
                    timeout_elapsed_ms = elapsed_ms,
                    timeout_ms = settings.timeout_ms,
                    "Circuit breaker half-opened for provider"
                ),
                State::Closed => tracing::info!(
                    event = EVENT,
                    tenant_id,
                    provider_id,
                    from,
                    to = "closed",
                    reason,
                    success_count,
                    success_threshold = settings.success_threshold,
                    error_rate,
                    window_seconds = settings.error_rate_window_seconds,
                    successes_in_window = window_total - window_failures,
                    total_in_window = window_total,
                    "Circuit breaker closed for provider"
                ),
            }
        }
    }
}

/// A text of the line, with the field's name among those that are cut if it is.
fn short<'t>(text: &'t str, field: &'static str, cut: &mut Vec<&'static str>) -> Cow<'t, str> {
    let shown = brief(text);
    if shown.len() != text.len() {
        cut.push(field);
    }
    shown
}

fn milliseconds_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
