//! The explanation of a decision: in the platform's sentences, and as data.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    Context, DecideContext, Decision, DecisionInput, Mechanism, Rules, Stage, Status, StickyCheck,
    backoff::strategy,
    memory::{Memory, State},
    redact::shown,
};
use crate::policy::{DetailLevel, ProviderId, RoutingPolicy};

/// The longest session value, in characters, that a step shows.
const SHOWN_CHARACTERS: usize = 128;

/// The explanation of one decision, as it is answered and logged.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Explanation {
    /// 32 hex digits.
    pub decision_id: String,
    /// How the provider was chosen: `sticky`, `weighted`, `retry`, `fallback`, `circuit_breaker_fallback`.
    pub reason: &'static str,
    /// The chosen provider.
    pub provider_id: ProviderId,
    /// The policy that decided.
    pub policy_id: String,
    /// The `version` of the policy's document.
    pub policy_version: String,
    /// 100 for sticky, 50 for weighted and retry, 25 for fallback, 20 for a circuit-breaker fallback.
    pub priority: u8,
    /// The steps in their order, one sentence each.
    pub steps: Vec<String>,
    /// The tenant; at detailed also `trace_id` and the retry or fallback; at verbose the whole context and the weights.
    pub context: Context,
    /// The same as data; left out at the minimal level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Mistakes in the request that changed the explanation, such as an unknown level, and that the policy is broken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

/// The inputs of the decision.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Evidence {
    /// 16 hex digits; a decision with this seed can be repeated.
    pub seed: String,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// HEIR's revision of the policy. `None`: HEIR has no revisions, or a dry run brought its own policy.
    pub policy_revision: Option<u64>,
    /// HEIR's revision of the snapshot. `None`: HEIR has no revisions, or a dry run brought its own policy.
    pub snapshot_revision: Option<u64>,
    /// The policy's weighted providers, then excluded ones that have no weight.
    pub candidates: Vec<Candidate>,
    /// Sum of all weights in the policy, as they are.
    pub total_weight: f64,
    /// The point drawn and the sum of the weights, if weights were drawn.
    pub draw: Option<DrawEvidence>,
    /// The use of the sticky session. `None`: the policy has sticky sessions off.
    pub sticky: Option<StickyEvidence>,
    /// Index of the fallback rule that decided.
    pub rule_index: Option<usize>,
    /// The factors of the scorers for the weights of the candidates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub factors: BTreeMap<String, f64>,
    /// The extensions that took part, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub extensions: Vec<ExtensionEvidence>,
}

/// An extension that took part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ExtensionEvidence {
    /// The list that names it.
    #[serde(rename = "type")]
    pub stage: Stage,
    /// Its id in the registry.
    pub id: Box<str>,
    /// Its result.
    pub status: Status,
    /// The name of its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
}

/// One provider that could have been chosen.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Candidate {
    /// Its name in the policy.
    pub provider_id: ProviderId,
    /// `None`: it is not in the policy's weights.
    pub weight: Option<f64>,
    /// The filter that excluded it: `zero_weight`, `circuit_breaker_open`, `unhealthy`.
    pub removed_by: Option<&'static str>,
    /// The state of its breaker. `None`: the policy's breakers are off, or this one does not exist yet.
    pub breaker: Option<State>,
}

/// The weighted draw.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, schemars::JsonSchema)]
pub struct DrawEvidence {
    /// The point drawn, in `[0, total)`.
    pub point: f64,
    /// Sum of the weights that took part, with the scorers' factors.
    pub total: f64,
}

/// The use of the sticky session.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct StickyEvidence {
    /// The name of the context key whose value names the session.
    pub session_key: String,
    /// `hit`, `miss`, `no_session`, `excluded`, `not_asked`.
    pub outcome: &'static str,
}

/// The origin of the policy, and the measurements of the request.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Provenance {
    /// HEIR's revision of the policy. `None`: HEIR has no revisions, or a dry run brought its own policy.
    pub policy_revision: Option<u64>,
    /// HEIR's revision of the snapshot. `None`: HEIR has no revisions, or a dry run brought its own policy.
    pub snapshot_revision: Option<u64>,
    /// Whether the policy was in memory.
    pub policy_cache_hit: Option<bool>,
    /// Milliseconds of the decision, without the time to load its policy from HEIR. `None`: not measured.
    pub decision_latency_ms: Option<f64>,
}

/// The level to explain at: the request's, the policy's, the process's. The text is an unknown level in the request.
pub fn detail_level<'a>(
    context: &'a Context,
    policy: &RoutingPolicy,
    rules: &Rules,
) -> (DetailLevel, Option<&'a str>) {
    match context.get("detail_level") {
        None | Some(Value::Null) => (policy.detail_level.unwrap_or(rules.detail_level), None),
        Some(Value::String(asked)) => match DetailLevel::parse(asked) {
            Some(level) => (level, None),
            None => (DetailLevel::Detailed, Some(asked)),
        },
        Some(_) => (DetailLevel::Detailed, Some("(not a text)")),
    }
}

/// The inputs of an explanation.
#[derive(Debug, Clone, Copy)]
pub struct Explaining<'a> {
    /// The decision to explain.
    pub decision: &'a Decision,
    /// The policy that decided.
    pub policy: &'a RoutingPolicy,
    /// The request that was decided.
    pub input: DecisionInput<'a>,
    /// The id, seed and time of the decision.
    pub at: DecideContext<'a>,
    /// The memory, for the states of breakers.
    pub memory: &'a Memory,
    /// The origin of the policy, and the measurements.
    pub provenance: Provenance,
}

impl Explaining<'_> {
    /// The explanation at a level; `unknown_level` is a level asked for that does not exist.
    pub fn explain(&self, level: DetailLevel, unknown_level: Option<&str>) -> Explanation {
        let selection = &self.decision.selection;
        Explanation {
            decision_id: self.at.id.to_string(),
            reason: selection.how.reason(),
            provider_id: selection.provider.clone(),
            policy_id: self.input.policy_id.to_string(),
            policy_version: self.policy.version.to_string(),
            priority: selection.how.priority(),
            steps: self.steps(level),
            context: self.context(level),
            evidence: (level != DetailLevel::Minimal).then(|| self.evidence()),
            warnings: unknown_level
                .map(|asked| format!("there is no detail_level {asked:?}; explained at detailed"))
                .into_iter()
                .collect(),
        }
    }

    /// The steps of this decision at a level.
    pub fn steps(&self, level: DetailLevel) -> Vec<String> {
        [
            self.sticky_step(level),
            self.weighted_step(level),
            self.fallback_step(level),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn sticky_step(&self, level: DetailLevel) -> Option<String> {
        let sticky = self.policy.sticky.as_deref().filter(|sticky| sticky.enabled)?;
        let key = &*sticky.session_key;
        match (&self.decision.selection.sticky, level) {
            (StickyCheck::NotAsked, _) => None,
            (StickyCheck::Hit, DetailLevel::Minimal) => Some("1. Sticky session: found".into()),
            (_, DetailLevel::Minimal) => None,
            (StickyCheck::Hit, _) => {
                let value = self
                    .input
                    .context
                    .get(key)
                    .map(|value| shown(key, value))
                    .unwrap_or_default();
                let mut value: String = value.chars().take(SHOWN_CHARACTERS + 1).collect();
                if value.chars().count() > SHOWN_CHARACTERS {
                    value.pop();
                    value.push('…');
                }
                let found =
                    format!("1. Checked sticky session: found existing provider for key {key} = {value}");
                if level != DetailLevel::Verbose {
                    return Some(found);
                }
                let ttl = sticky
                    .ttl
                    .as_deref()
                    .map_or_else(|| format!("{}s", sticky.ttl_seconds), Into::into);
                Some(format!("{found} (TTL: {ttl})"))
            }
            (StickyCheck::Miss | StickyCheck::NoSession, _) => {
                Some("1. Checked sticky session: no existing session found".into())
            }
            (StickyCheck::Excluded(provider), _) => Some(format!(
                "1. Checked sticky session: its provider {provider} is not available"
            )),
        }
    }

    fn weighted_step(&self, level: DetailLevel) -> Option<String> {
        let providers = &self.policy.providers;
        let how = &self.decision.selection.how;
        if providers.is_empty() {
            return None;
        }
        let count = providers.len();
        match (how, level) {
            (Mechanism::Weighted, DetailLevel::Minimal) => Some(format!("2. Weighted: {count} providers")),
            (_, DetailLevel::Minimal) => None,
            (Mechanism::Weighted, _) => {
                let total = self.policy.total_weight();
                let applied =
                    format!("2. Applied weighted distribution: {count} providers, total weight: {total:.2}");
                if level != DetailLevel::Verbose {
                    return Some(applied);
                }
                let weights: Vec<String> = providers
                    .iter()
                    .map(|p| format!("{}: {:.2}", p.id, p.weight))
                    .collect();
                Some(format!("{applied} ({})", weights.join(", ")))
            }
            _ => Some(format!(
                "2. Skipped weighted distribution (provider selected via {})",
                how.reason()
            )),
        }
    }

    fn fallback_step(&self, level: DetailLevel) -> Option<String> {
        let how = &self.decision.selection.how;
        let minimal = level == DetailLevel::Minimal;
        let verbose = level == DetailLevel::Verbose;
        let step = match how {
            Mechanism::Fallback { .. } if minimal => "3. Fallback after retry".into(),
            Mechanism::Fallback {
                rule_id,
                attempts_used,
                max,
                ..
            } => {
                let rule = if verbose {
                    format!(" (rule: {rule_id})")
                } else {
                    String::new()
                };
                format!("3. Applied fallback rule after {attempts_used}/{max} retry attempts exhausted{rule}")
            }
            Mechanism::LastResort if minimal => "3. Fallback applied".into(),
            Mechanism::LastResort => {
                format!(
                    "3. Applied fallback rule: {} fallback rules evaluated",
                    self.policy.fallbacks.len()
                )
            }
            Mechanism::Retry { attempt, max, .. } if minimal => format!("3. Retry {attempt}/{max}"),
            Mechanism::Retry {
                attempt,
                max,
                backoff_ms,
                ..
            } => {
                let strategy = self.strategy().filter(|_| verbose);
                let strategy = strategy
                    .map(|name| format!(" (strategy: {name})"))
                    .unwrap_or_default();
                format!("3. Retry attempt {attempt}/{max} with backoff {backoff_ms}ms{strategy}")
            }
            Mechanism::BreakerFallback { .. } if minimal => "3. Circuit breaker fallback".into(),
            Mechanism::BreakerFallback { original } => {
                format!("3. Circuit breaker open for {original}: fallback applied")
            }
            Mechanism::Sticky | Mechanism::Weighted if minimal || self.policy.fallbacks.is_empty() => {
                return None;
            }
            Mechanism::Sticky | Mechanism::Weighted => {
                format!("3. Skipped fallbacks (provider selected via {})", how.reason())
            }
        };
        Some(step)
    }

    /// Name of the backoff strategy of the rule that decided.
    fn strategy(&self) -> Option<&'static str> {
        use crate::policy::Strategy;
        let Mechanism::Retry { rule_index, .. } = &self.decision.selection.how else {
            return None;
        };
        let rule = self.policy.fallbacks.get(*rule_index)?;
        Some(match strategy(rule.backoff.as_ref()) {
            Strategy::Exponential => "exponential",
            Strategy::Linear => "linear",
            Strategy::Fixed => "fixed",
        })
    }

    fn context(&self, level: DetailLevel) -> Context {
        let asked = self.input.context;
        let mut context = match level {
            DetailLevel::Verbose => asked.clone(),
            DetailLevel::Detailed => asked
                .get("trace_id")
                .map(|id| ("trace_id".to_owned(), id.clone()))
                .into_iter()
                .collect(),
            DetailLevel::Minimal => Map::new(),
        };
        context.insert("tenant_id".into(), self.input.tenant.as_str().into());
        if level == DetailLevel::Minimal {
            return context;
        }
        context.extend(self.decision.how_context());
        if level == DetailLevel::Verbose {
            self.add_verbose(&mut context);
        }
        context
    }

    fn add_verbose(&self, context: &mut Context) {
        let provider = self.decision.selection.provider.as_str();
        let weights = self
            .policy
            .providers
            .iter()
            .map(|p| (p.id.to_string(), json!(p.weight)));
        context.insert("weights".into(), Value::Object(weights.collect()));
        let known = [
            (
                "provider_weight",
                self.policy.provider(provider).map(|p| json!(p.weight)),
            ),
            (
                "provider_timeout_ms",
                self.policy.timeout_ms(provider).map(Into::into),
            ),
            ("backoff_strategy", self.strategy().map(Into::into)),
            (
                "decision_latency_ms",
                self.provenance.decision_latency_ms.map(Into::into),
            ),
            (
                "policy_cache_hit",
                self.provenance.policy_cache_hit.map(Into::into),
            ),
        ];
        for (key, value) in known {
            if let Some(value) = value {
                context.insert(key.into(), value);
            }
        }
    }

    fn evidence(&self) -> Evidence {
        let selection = &self.decision.selection;
        let breaker = |id: &ProviderId| {
            self.policy
                .has_breakers()
                .then(|| self.memory.breakers.state(self.input.tenant, id.as_str()))
                .flatten()
        };
        let causes: BTreeMap<_, _> = selection.excluded.iter().map(|(id, cause)| (id, cause)).collect();
        let weighted = self.policy.providers.iter().map(|provider| Candidate {
            provider_id: provider.id.clone(),
            weight: Some(provider.weight),
            removed_by: match causes.get(&provider.id) {
                Some(cause) => Some(cause.as_str()),
                None => (provider.weight <= 0.0).then_some("zero_weight"),
            },
            breaker: breaker(&provider.id),
        });
        let others = selection
            .excluded
            .iter()
            .filter(|(id, _)| self.policy.provider(id.as_str()).is_none());
        let others = others.map(|(id, cause)| Candidate {
            provider_id: id.clone(),
            weight: None,
            removed_by: Some(cause.as_str()),
            breaker: breaker(id),
        });
        let sticky = self.policy.sticky.as_deref().filter(|sticky| sticky.enabled);
        Evidence {
            seed: self.at.seed.to_string(),
            at_ms: self.at.on_the_wall(self.at.now).unix_ms,
            policy_revision: self.provenance.policy_revision,
            snapshot_revision: self.provenance.snapshot_revision,
            candidates: weighted.chain(others).collect(),
            total_weight: self.policy.total_weight(),
            factors: selection
                .factors
                .iter()
                .map(|(id, factor)| (id.to_string(), *factor))
                .collect(),
            extensions: self
                .decision
                .executed
                .iter()
                .map(|executed| ExtensionEvidence {
                    stage: executed.stage,
                    id: executed.id.clone(),
                    status: executed.status,
                    error: executed.error,
                })
                .collect(),
            draw: selection.draw.map(|draw| DrawEvidence {
                point: draw.point,
                total: draw.total,
            }),
            sticky: sticky.map(|sticky| StickyEvidence {
                session_key: sticky.session_key.to_string(),
                outcome: match selection.sticky {
                    StickyCheck::NotAsked => "not_asked",
                    StickyCheck::NoSession => "no_session",
                    StickyCheck::Miss => "miss",
                    StickyCheck::Hit => "hit",
                    StickyCheck::Excluded(_) => "excluded",
                },
            }),
            rule_index: match selection.how {
                Mechanism::Retry { rule_index, .. } | Mechanism::Fallback { rule_index, .. } => {
                    Some(rule_index)
                }
                _ => None,
            },
        }
    }
}

/// Reason and priority as in the audit log, which has only the documented ones.
pub fn audit_form(how: &Mechanism) -> (&'static str, u8) {
    match how {
        Mechanism::BreakerFallback { .. } => ("unknown", 50),
        how => (how.reason(), how.priority()),
    }
}
