//! A decision, before it is written out.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value, json};

use super::{Allowance, Context, DecisionInput, Executed, Mechanism, Selection, memory::Memory};
use crate::policy::{RoutingPolicy, exact};

/// The estimated milliseconds if neither the request nor the provider's results have a better estimate.
pub const EXPECTED_LATENCY_MS: u64 = 500;
/// The estimated cost, in the unit of the results, under the same condition.
pub const EXPECTED_COST: f64 = 0.01;

/// What the metadata says of the decision itself, and of whose it is.
const OWN: [&str; 12] = [
    "tenant_id",
    "timeout_ms",
    "executed_extensions",
    "fallback_rule_id",
    "rule_index",
    "retry_attempt",
    "retry_attempts_used",
    "retry_max",
    "backoff_ms",
    "backoff_applied",
    "fallback_applied",
    "original_provider",
];

/// Where a request goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The provider, and how it was chosen.
    pub selection: Selection,
    /// Extensions in the order in which they ran.
    pub executed: Vec<Executed>,
    /// The additions of the policy's post-processors to the metadata.
    pub added: Context,
    /// The remaining tokens of the narrowest bucket, if there is one.
    pub allowance: Option<Allowance>,
    /// Of a dry run: the message after the pre-processors. Null otherwise, and if the policy has no extensions.
    pub message: Value,
}

impl Decision {
    /// The entries that the decision adds to the request's context for its metadata.
    pub fn extras(&self, policy: &RoutingPolicy) -> Context {
        let mut extras = self.added.clone();
        // An extension cannot change the tenant for which it was called, nor what the decision itself says.
        extras.retain(|key, _| !OWN.contains(&key.as_str()));
        extras.extend(self.how_context());
        if let Some(timeout_ms) = policy.timeout_ms(self.selection.provider.as_str()) {
            extras.insert("timeout_ms".into(), timeout_ms.into());
        }
        if policy.pipeline.is_some() {
            extras.insert("executed_extensions".into(), json!(self.executed));
        }
        extras
    }

    /// Retry and fallback details, as the metadata and the explanation have them.
    pub(super) fn how_context(&self) -> Context {
        let details = match &self.selection.how {
            Mechanism::Sticky | Mechanism::Weighted => return Map::new(),
            Mechanism::Retry {
                rule_index,
                rule_id,
                attempt,
                max,
                backoff_ms,
            } => json!({
                "fallback_rule_id": rule_id,
                "rule_index": rule_index,
                "retry_attempt": attempt,
                "retry_max": max,
                "backoff_ms": backoff_ms,
                "backoff_applied": true,
            }),
            Mechanism::Fallback {
                rule_index,
                rule_id,
                attempts_used,
                max,
            } => json!({
                "fallback_rule_id": rule_id,
                "rule_index": rule_index,
                "retry_attempts_used": attempts_used,
                "retry_max": max,
                "fallback_applied": true,
            }),
            Mechanism::LastResort => json!({"fallback_applied": true}),
            Mechanism::BreakerFallback { original } => {
                json!({"fallback_applied": true, "original_provider": original})
            }
        };
        match details {
            Value::Object(details) => details,
            _ => Map::new(),
        }
    }

    /// The request's own expectation of latency in milliseconds, else the estimate from results, else the default.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an average of milliseconds"
    )]
    pub fn expected_latency_ms(&self, input: DecisionInput<'_>, memory: &Memory) -> u64 {
        let asked = input.context.get("expected_latency_ms").and_then(Value::as_u64);
        asked.unwrap_or_else(|| {
            let estimate = memory
                .estimates
                .of(input.tenant, self.selection.provider.as_str());
            estimate.map_or(EXPECTED_LATENCY_MS, |estimate| estimate.latency_ms.round() as u64)
        })
    }

    /// The request's own expectation of cost, else the estimate from results, else the default.
    pub fn expected_cost(&self, input: DecisionInput<'_>, memory: &Memory) -> f64 {
        let asked = input.context.get("expected_cost").and_then(exact::as_f64);
        asked.unwrap_or_else(|| {
            let estimate = memory
                .estimates
                .of(input.tenant, self.selection.provider.as_str());
            estimate
                .and_then(|estimate| estimate.cost)
                .unwrap_or(EXPECTED_COST)
        })
    }
}

/// `decision.metadata`: the request's context with the decision's extras over it, written without a copy.
#[derive(Debug)]
pub struct Metadata<'a> {
    /// The request's context.
    pub context: &'a Context,
    /// Entries that override those of the context.
    pub extras: &'a Context,
}

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.context {
            if !self.extras.contains_key(key) {
                map.serialize_entry(key, value)?;
            }
        }
        for (key, value) in self.extras {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decide::StickyCheck, policy::read_object};

    #[test]
    fn an_extension_adds_to_the_metadata_and_changes_nothing_that_the_decision_says() {
        let document =
            json!({"version": "1.0", "providers": [{"name": "a", "weight": 100}], "timeout_ms": 700});
        let with = read_object(document.as_object().unwrap()).0;
        let document = json!({"version": "1.0", "providers": [{"name": "a", "weight": 100}]});
        let without = read_object(document.as_object().unwrap()).0;
        let mut added = Context::new();
        for key in OWN {
            added.insert(key.to_owned(), json!("made up"));
        }
        added.insert("note".to_owned(), json!(1));
        let decision = Decision {
            selection: Selection {
                provider: with.providers[0].id.clone(),
                how: Mechanism::LastResort,
                sticky: StickyCheck::NotAsked,
                excluded: Vec::new(),
                draw: None,
                factors: Vec::new(),
            },
            executed: Vec::new(),
            added,
            allowance: None,
            message: Value::Null,
        };
        let said = |policy: &RoutingPolicy| Value::Object(decision.extras(policy));
        assert_eq!(
            said(&with),
            json!({"note": 1, "timeout_ms": 700, "fallback_applied": true})
        );
        assert_eq!(said(&without), json!({"note": 1, "fallback_applied": true}));
    }
}
