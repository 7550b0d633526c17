//! The choice of a provider: breaker check, failed provider's rules, session, weights, rules, last resort, in the order
//! of the contract. Synchronous, and the same for the same arguments.

use serde_json::Value;

use super::{
    Context, DecideContext, DecisionInput, Draw, Effects, FallbackEvaluation, Jitter, Refusal, Rules,
    fallbacks::{Asked, Verdict, matching},
    memory::{Admission, Memory, Session, Transition},
    seed::{Choices, Purpose},
    weights::draw,
};
use crate::policy::{BreakerSettings, ProviderId, RoutingPolicy, Sticky, TenantId};

/// A provider, and the mechanism that chose it.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The chosen provider.
    pub provider: ProviderId,
    /// The mechanism that chose it, with its details.
    pub how: Mechanism,
    /// The use of the sticky session, whichever mechanism chose.
    pub sticky: StickyCheck,
    /// Providers that were excluded, in the order of exclusion.
    pub excluded: Vec<(ProviderId, Exclusion)>,
    /// The draw that chose the provider. `None`: it was not drawn.
    pub draw: Option<Draw>,
    /// The factors of scorers for the drawn weights.
    pub factors: Vec<(ProviderId, f64)>,
}

/// The mechanism that chose.
#[derive(Debug, Clone, PartialEq)]
pub enum Mechanism {
    /// The session's provider, as stored.
    Sticky,
    /// The draw by the policy's weights.
    Weighted,
    /// A fallback rule asks for one more attempt at the provider that failed.
    Retry {
        /// Index in the policy's rules.
        rule_index: usize,
        /// The rule's id.
        rule_id: Box<str>,
        /// The number of the attempt, counted from 1.
        attempt: u64,
        /// Attempts that the rule allows.
        max: u64,
        /// Milliseconds that the caller should wait before the attempt.
        backoff_ms: u64,
    },
    /// A fallback rule names another provider.
    Fallback {
        /// Index in the policy's rules.
        rule_index: usize,
        /// The rule's id.
        rule_id: Box<str>,
        /// Attempts at the failed provider before this.
        attempts_used: u64,
        /// Attempts that the rule allows.
        max: u64,
    },
    /// The legacy `fallback` object, which has no conditions here.
    LastResort,
    /// The breaker of the provider that the caller had chosen is open.
    BreakerFallback {
        /// The provider that the caller had chosen.
        original: ProviderId,
    },
}

impl Mechanism {
    /// `reason` on the wire.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Sticky => "sticky",
            Self::Weighted => "weighted",
            Self::Retry { .. } => "retry",
            Self::Fallback { .. } | Self::LastResort => "fallback",
            Self::BreakerFallback { .. } => "circuit_breaker_fallback",
        }
    }

    /// `priority` on the wire.
    pub const fn priority(&self) -> u8 {
        match self {
            Self::Sticky => 100,
            Self::Weighted | Self::Retry { .. } => 50,
            Self::Fallback { .. } | Self::LastResort => 25,
            Self::BreakerFallback { .. } => 20,
        }
    }
}

/// The result of the sticky table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StickyCheck {
    /// Not used: sticky is off, or the choice was made before.
    NotAsked,
    /// The context names no session.
    NoSession,
    /// The session has no provider yet, or its time is over.
    Miss,
    /// The session's provider was chosen.
    Hit,
    /// The session's provider is unavailable.
    Excluded(ProviderId),
}

/// Why a provider must not be chosen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    /// The provider's breaker admits no call.
    CircuitBreakerOpen,
    /// The provider failed its active checks.
    Unhealthy,
}

impl Exclusion {
    /// As a `status` and as a filter's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CircuitBreakerOpen => "circuit_breaker_open",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Chooses. `context` is the input's, as the pre-processors left it.
pub(super) fn select(
    policy: &RoutingPolicy,
    input: DecisionInput<'_>,
    context: &Context,
    rules: &Rules,
    memory: &Memory,
    at: DecideContext<'_>,
    transitions: &mut Vec<Transition>,
) -> Result<Selection, Refusal> {
    let mut selecting = begin(policy, input, context, rules, memory, at, transitions);
    match selecting.before_the_draw() {
        Some((provider, how)) => Ok(selecting.selected(provider, how)),
        None => {
            let left_out = selecting.left_out();
            selecting.draw_and_on(left_out, None)
        }
    }
}

/// A selection before its first step, for scorers that weigh the candidates before the draw.
pub(super) fn begin<'a>(
    policy: &'a RoutingPolicy,
    input: DecisionInput<'a>,
    context: &'a Context,
    rules: &'a Rules,
    memory: &'a Memory,
    at: DecideContext<'a>,
    transitions: &'a mut Vec<Transition>,
) -> Selecting<'a> {
    let breaker = policy
        .circuit_breaker
        .as_deref()
        .copied()
        .filter(|settings| settings.enabled);
    Selecting {
        policy,
        input,
        context,
        rules,
        at,
        gate: Gate {
            tenant: input.tenant,
            memory,
            breaker,
            checks_health: policy.excludes_unhealthy(),
            at,
            transitions,
        },
        excluded: Vec::new(),
        sticky: StickyCheck::NotAsked,
        draw: None,
        factors: Vec::new(),
        failed: false,
        jitter: Jitter::new(at.seed),
    }
}

/// Whether providers may be called.
struct Gate<'a> {
    tenant: &'a TenantId,
    memory: &'a Memory,
    breaker: Option<BreakerSettings>,
    checks_health: bool,
    at: DecideContext<'a>,
    transitions: &'a mut Vec<Transition>,
}

impl Gate<'_> {
    fn is_unhealthy(&self, provider: &str) -> bool {
        self.checks_health && self.memory.health.is_unhealthy(self.tenant, provider)
    }

    /// Why a provider is excluded, if it is. Changes nothing.
    fn peek(&self, provider: &str) -> Option<Exclusion> {
        let denied = |_| self.memory.breakers.peek(self.tenant, provider, self.at.now) == Admission::Denied;
        if self.breaker.is_some_and(denied) {
            Some(Exclusion::CircuitBreakerOpen)
        } else if self.is_unhealthy(provider) {
            Some(Exclusion::Unhealthy)
        } else {
            None
        }
    }

    /// Asks for a call, which uses one of a half-open breaker.
    fn admit(&mut self, provider: &str) -> Option<Exclusion> {
        if self.is_unhealthy(provider) {
            return Some(Exclusion::Unhealthy);
        }
        if self.breaker.is_some() {
            let (admission, transition) = match self.at.effects {
                Effects::Remembered => self.memory.breakers.admit(self.tenant, provider, self.at.now),
                Effects::Tried | Effects::None => (
                    self.memory.breakers.peek(self.tenant, provider, self.at.now),
                    None,
                ),
            };
            self.transitions.extend(transition);
            if admission == Admission::Denied {
                return Some(Exclusion::CircuitBreakerOpen);
            }
        }
        None
    }

    /// Takes back the call that was asked for.
    fn release(&self, provider: &str) {
        if self.breaker.is_some() && self.at.effects == Effects::Remembered {
            self.memory.breakers.release(self.tenant, provider);
        }
    }

    /// Gives the provider's breaker this policy's settings.
    fn configure(&self, provider: &ProviderId) {
        if let Some(settings) = self.breaker {
            let breakers = &self.memory.breakers;
            breakers.configure(self.tenant, provider, settings, self.at.now);
        }
    }
}

/// A selection in progress.
pub(super) struct Selecting<'a> {
    policy: &'a RoutingPolicy,
    input: DecisionInput<'a>,
    context: &'a Context,
    rules: &'a Rules,
    at: DecideContext<'a>,
    gate: Gate<'a>,
    excluded: Vec<(ProviderId, Exclusion)>,
    sticky: StickyCheck,
    draw: Option<Draw>,
    factors: Vec<(ProviderId, f64)>,
    /// Rules were applied first, because a provider had failed.
    failed: bool,
    jitter: Jitter,
}

/// Providers that must not be drawn, by their index in the policy. Empty: none is excluded.
pub(super) struct LeftOut(Vec<bool>);

impl LeftOut {
    pub(super) fn is_eligible(&self, index: usize) -> bool {
        !self.0.get(index).copied().unwrap_or(false)
    }
}

impl<'a> Selecting<'a> {
    /// The steps before the weights: a provider, if they choose one.
    pub(super) fn before_the_draw(&mut self) -> Option<(ProviderId, Mechanism)> {
        if let Some(chosen) = self.check_chosen() {
            return Some(chosen);
        }
        self.failed =
            self.rules.fallback_evaluation == FallbackEvaluation::OnFailure && self.is_after_failure();
        if self.failed
            && let Some(chosen) = self.ask_rules(None)
        {
            return Some(chosen);
        }
        let provider = self.recall_session()?;
        if self.remember(&provider).is_some() {
            // Another request gave the session a new provider meanwhile; this one came first.
            self.gate.configure(&provider);
        }
        Some((provider, Mechanism::Sticky))
    }

    /// The draw, and the steps after it if it yields no provider. Factors are those of the providers by their index in
    /// the policy.
    pub(super) fn draw_and_on(
        mut self,
        left_out: LeftOut,
        factors: Option<&[f64]>,
    ) -> Result<Selection, Refusal> {
        if let Some(factors) = factors {
            let scored = self.policy.providers.iter().zip(factors).enumerate();
            let drawn = scored.filter(|(index, (p, _))| p.weight > 0.0 && left_out.is_eligible(*index));
            self.factors = drawn.map(|(_, (p, factor))| (p.id.clone(), *factor)).collect();
        }
        let failed = self.failed;
        if let Some(provider) = self.draw_provider(left_out, factors) {
            let (provider, how) = self.agree(provider);
            return Ok(self.selected(provider, how));
        }
        // After a failure the rules have spoken; only a status that was found meanwhile gives them more to say.
        let found = self.status_of_exclusions();
        if (!failed || found.is_some())
            && let Some((provider, how)) = self.ask_rules(found.as_ref())
        {
            return Ok(self.selected(provider, how));
        }
        if let Some(last_resort) = &self.policy.last_resort
            && self.gate.admit(last_resort.as_str()).is_none()
        {
            return Ok(self.selected(last_resort.clone(), Mechanism::LastResort));
        }
        Err(Refusal::NoProvider {
            tenant: self.input.tenant.clone(),
            policy_id: self.input.policy_id.clone(),
        })
    }

    pub(super) fn selected(self, provider: ProviderId, how: Mechanism) -> Selection {
        let Self {
            sticky,
            excluded,
            draw,
            factors,
            ..
        } = self;
        Selection {
            provider,
            how,
            sticky,
            excluded,
            draw,
            factors,
        }
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        let found = self.context.get(key).or_else(|| self.input.context.get(key));
        found.and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// The provider that the caller has chosen already is checked first; if its breaker is open, the caller's own
    /// fallback is used. The check changes nothing: a call of a half-open breaker is taken once, when a provider is
    /// chosen.
    fn check_chosen(&mut self) -> Option<(ProviderId, Mechanism)> {
        self.gate.breaker?;
        let chosen = ProviderId::new(self.text("selected_provider")?);
        if self.gate.peek(chosen.as_str()) != Some(Exclusion::CircuitBreakerOpen) {
            return None;
        }
        let named = |name: &&str| !name.is_empty();
        let target = self.text("fallback_provider").or_else(|| {
            let first_rule = self.context.get("fallback_rules")?.get(0)?;
            first_rule.get("to")?.as_str().filter(named)
        })?;
        Some((
            ProviderId::new(target),
            Mechanism::BreakerFallback { original: chosen },
        ))
    }

    fn is_after_failure(&self) -> bool {
        let status = self.context.get("status");
        self.text("current_provider").is_some()
            && status.is_some_and(|status| !status.is_null() && status != "success")
    }

    /// The first true rule decides; if its target is unavailable, the next one does.
    fn ask_rules(&mut self, found_status: Option<&Value>) -> Option<(ProviderId, Mechanism)> {
        let current = self.text("current_provider");
        let may_retry = found_status.is_none() && current.is_none_or(|name| self.gate.peek(name).is_none());
        // The caller's status takes precedence; the sidecar's is used only if there is none.
        let given = self.context.get("status").filter(|status| !status.is_null());
        let status = found_status.filter(|_| given.is_none());
        let asked = Asked {
            context: self.context,
            status,
            may_retry,
            conditions: self.rules.conditions,
        };
        let policy = self.policy;
        let Self {
            gate,
            excluded,
            jitter,
            ..
        } = self;
        for (rule_index, rule, verdict) in matching(policy, asked, jitter) {
            let rule_id = rule.id.clone();
            let max = u64::try_from(rule.retry).unwrap_or(0);
            match verdict {
                Verdict::Retry {
                    provider,
                    attempt,
                    backoff_ms,
                } if gate.admit(provider.as_str()).is_none() => {
                    return Some((
                        provider,
                        Mechanism::Retry {
                            rule_index,
                            rule_id,
                            attempt,
                            max,
                            backoff_ms,
                        },
                    ));
                }
                Verdict::Target {
                    provider,
                    attempts_used,
                } => match gate.admit(provider.as_str()) {
                    None => {
                        let how = Mechanism::Fallback {
                            rule_index,
                            rule_id,
                            attempts_used,
                            max,
                        };
                        return Some((provider.clone(), how));
                    }
                    Some(exclusion) => exclude(excluded, provider, exclusion),
                },
                // Between the check and the call, another request took the last half-open call.
                Verdict::Retry { attempt, .. } => {
                    if let Some(to) = &rule.to
                        && gate.admit(to.as_str()).is_none()
                    {
                        let how = Mechanism::Fallback {
                            rule_index,
                            rule_id,
                            attempts_used: attempt - 1,
                            max,
                        };
                        return Some((to.clone(), how));
                    }
                }
                Verdict::Nothing => {}
            }
        }
        None
    }

    fn session(&self) -> Option<(&'a Sticky, Session<'a>)> {
        let sticky = self.policy.sticky.as_deref().filter(|sticky| sticky.enabled)?;
        let value = self
            .context
            .get(&*sticky.session_key)
            .filter(|value| !value.is_null() && *value != "")?;
        Some((
            sticky,
            Session {
                tenant: self.input.tenant,
                value,
            },
        ))
    }

    fn recall_session(&mut self) -> Option<ProviderId> {
        if !self.policy.sticky.as_deref().is_some_and(|sticky| sticky.enabled) {
            return None;
        }
        let Some((sticky, session)) = self.session() else {
            self.sticky = StickyCheck::NoSession;
            return None;
        };
        let table = &self.gate.memory.sticky;
        let found = match self.at.effects {
            Effects::Remembered => table.lookup(session, sticky.ttl_seconds, self.at.now),
            Effects::Tried | Effects::None => table.peek(session, sticky.ttl_seconds, self.at.now),
        };
        let Some(provider) = found else {
            self.sticky = StickyCheck::Miss;
            return None;
        };
        if let Some(exclusion) = self.gate.admit(provider.as_str()) {
            exclude(&mut self.excluded, &provider, exclusion);
            self.sticky = StickyCheck::Excluded(provider);
            return None;
        }
        self.sticky = StickyCheck::Hit;
        Some(provider)
    }

    /// Determines the exclusion of each provider that could be drawn.
    pub(super) fn left_out(&mut self) -> LeftOut {
        let policy = self.policy;
        let providers = &policy.providers;
        let guarded = self.gate.breaker.is_some() || self.gate.checks_health;
        // By index, since a policy may list thousands of providers. Empty: nothing is left out.
        let mut left_out = vec![false; if guarded { providers.len() } else { 0 }];
        if guarded {
            let known = self.excluded.len();
            for (provider, left_out) in providers.iter().zip(&mut left_out) {
                if provider.weight > 0.0
                    && let Some(exclusion) = self.gate.peek(provider.id.as_str())
                {
                    *left_out = true;
                    if self.excluded.iter().take(known).all(|(id, _)| *id != provider.id) {
                        self.excluded.push((provider.id.clone(), exclusion));
                    }
                }
            }
            // A provider that was excluded before stays so, whatever its breaker's state is by now.
            for (id, _) in self.excluded.iter().take(known) {
                if let Ok(index) = providers.binary_search_by(|provider| provider.id.cmp(id)) {
                    left_out[index] = true;
                }
            }
        }
        LeftOut(left_out)
    }

    fn draw_provider(&mut self, mut left_out: LeftOut, factors: Option<&[f64]>) -> Option<ProviderId> {
        let policy = self.policy;
        let providers = &policy.providers;
        let mut choices = Choices::new(self.at.seed, Purpose::Weights);
        loop {
            let drawn = draw(
                providers,
                |index| left_out.is_eligible(index),
                factors,
                &mut choices,
            )?;
            let provider = providers.get(drawn.index)?.id.clone();
            let Some(exclusion) = self.gate.admit(provider.as_str()) else {
                self.draw = Some(drawn);
                return Some(provider);
            };
            // Each turn excludes one more provider, so this ends.
            *left_out.0.get_mut(drawn.index)? = true;
            exclude(&mut self.excluded, &provider, exclusion);
        }
    }

    /// The status for the rules if exclusions left no provider to draw.
    fn status_of_exclusions(&self) -> Option<Value> {
        let weighted = |id: &ProviderId| self.policy.provider(id.as_str()).is_some_and(|p| p.weight > 0.0);
        let mut causes = self
            .excluded
            .iter()
            .filter(|(id, _)| weighted(id))
            .map(|(_, cause)| *cause)
            .peekable();
        causes.peek()?;
        let unhealthy = causes.all(|cause| cause == Exclusion::Unhealthy);
        let cause = if unhealthy {
            Exclusion::Unhealthy
        } else {
            Exclusion::CircuitBreakerOpen
        };
        Some(cause.as_str().into())
    }

    /// Keeps the session with the drawn provider, unless another request gave it one since it was looked up: what
    /// came first is everybody's.
    fn agree(&mut self, drawn: ProviderId) -> (ProviderId, Mechanism) {
        while let Some(first) = self.remember(&drawn) {
            if let Some(exclusion) = self.gate.admit(first.as_str()) {
                // The session gives up an excluded provider, so each turn excludes one more.
                exclude(&mut self.excluded, &first, exclusion);
                self.sticky = StickyCheck::Excluded(first);
                continue;
            }
            self.gate.release(drawn.as_str());
            self.gate.configure(&first);
            self.sticky = StickyCheck::Hit;
            self.draw = None;
            self.factors.clear();
            return (first, Mechanism::Sticky);
        }
        (drawn, Mechanism::Weighted)
    }

    /// Keeps the session with the provider, and gives the provider's breaker this policy's settings. Where the session
    /// is alive with a provider that is not excluded, that one is the answer, and nothing changes.
    fn remember(&mut self, provider: &ProviderId) -> Option<ProviderId> {
        if self.at.effects != Effects::Remembered {
            return None;
        }
        if let Some((sticky, session)) = self.session() {
            let keeps = |held: &ProviderId| self.excluded.iter().all(|(excluded, _)| excluded != held);
            let table = &self.gate.memory.sticky;
            let held = table.pin(session, provider, keeps, sticky.ttl_seconds, self.at.now);
            if held.is_some() {
                return held;
            }
        }
        self.gate.configure(provider);
        None
    }
}

fn exclude(excluded: &mut Vec<(ProviderId, Exclusion)>, provider: &ProviderId, cause: Exclusion) {
    if excluded.iter().all(|(known, _)| known != provider) {
        excluded.push((provider.clone(), cause));
    }
}
