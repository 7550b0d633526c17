//! Two policies, decided side by side.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{
    cli::{explain::whole_request, tried_extensions::TriedExtensions},
    decide::{
        Context, DecideContext, DecisionId, DecisionInput, Effects, Explaining, Provenance, Rules, Scripted,
        Seed, Timestamp,
        memory::{Memory, MemoryLimits},
    },
    intake::DecideRequest,
    policy::{DetailLevel, PolicyId, RoutingPolicy, TenantId},
};

/// When everything is decided: the first second of 2025.
const NOW: Timestamp = Timestamp::from_unix_ms(1_735_689_600_000);

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) tenant: TenantId,
    pub(super) policy_id: PolicyId,
    pub(super) context: Context,
    /// The request itself, which has the message where it is a whole one.
    pub(super) body: Vec<u8>,
    /// Whether the request names its policy itself.
    pub(super) addressed: bool,
}

/// What decisions are tried with.
pub(super) struct Tried {
    pub(super) extensions: TriedExtensions,
    /// What extensions answer that are not real.
    pub(super) script: Scripted,
    /// How many seeds each request is decided with.
    pub(super) seeds: u64,
}

/// The outcomes of one request under one policy, with their counts, and an example of an explanation.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// `reason provider`, or the name of a refusal.
    pub(super) counts: BTreeMap<String, u64>,
    pub(super) steps: Vec<String>,
}

/// A place in which the policies differ.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    pub(super) path: String,
    pub(super) old: Option<Value>,
    pub(super) new: Option<Value>,
}

#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) seeds: u64,
    pub(super) requests: usize,
    /// How often each provider is chosen and each refusal occurs.
    pub(super) old: BTreeMap<String, u64>,
    pub(super) new: BTreeMap<String, u64>,
    /// The decisions that are others under the new policy, with the same seed.
    pub(super) moved: u64,
    /// The fewest decisions that must move to turn the old counts into the new ones, whatever the seeds.
    pub(super) least_moved: u64,
    pub(super) changed: Vec<(Context, Decided, Decided)>,
    pub(super) fields: Vec<Change>,
}

impl Compared {
    /// Whether any decision changes.
    pub(super) fn changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether the policies are the same, in decisions and in fields.
    pub(super) fn is_same(&self) -> bool {
        self.changed.is_empty() && self.fields.is_empty()
    }

    pub(super) fn decisions(&self) -> u64 {
        self.seeds.saturating_mul(self.requests as u64)
    }
}

pub(super) fn compare(
    old: &RoutingPolicy,
    new: &RoutingPolicy,
    requests: &[Request],
    tried: &Tried,
) -> Compared {
    let mut compared = Compared {
        seeds: tried.seeds,
        requests: requests.len(),
        ..Compared::default()
    };
    fields(
        "",
        &Value::Object(old.to_json()),
        &Value::Object(new.to_json()),
        &mut compared.fields,
    );
    for request in requests {
        let (before, after, moved) = side_by_side(old, new, request, tried);
        for (total, one) in [(&mut compared.old, &before), (&mut compared.new, &after)] {
            for (outcome, count) in &one.counts {
                let provider = outcome
                    .split_once(' ')
                    .map_or(outcome.as_str(), |(_, provider)| provider);
                *total.entry(provider.to_owned()).or_insert(0) += count;
            }
        }
        compared.moved += moved;
        compared.least_moved += moved_between(&before.counts, &after.counts);
        if moved > 0 {
            compared.changed.push((request.context.clone(), before, after));
        }
    }
    compared
}

/// Every place where two documents differ. Items of a list are matched by name if they have one, by position otherwise.
fn fields(path: &str, old: &Value, new: &Value, changes: &mut Vec<Change>) {
    let (old, new) = (keyed(old), keyed(new));
    let (Some((_, old)), Some((bracket, new))) = (&old, &new) else {
        return;
    };
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let path = match (bracket, path) {
            (true, _) => format!("{path}[{key}]"),
            (false, "") => key.clone(),
            (false, _) => format!("{path}.{key}"),
        };
        let (old, new) = (old.get(key), new.get(key));
        if old == new {
            continue;
        }
        match (old, new) {
            (Some(old), Some(new)) if alike(old, new) => fields(&path, old, new, changes),
            _ => changes.push(Change {
                path,
                old: old.cloned(),
                new: new.cloned(),
            }),
        }
    }
}

/// Whether two values are compared part by part: two objects, or two lists of objects.
fn alike(old: &Value, new: &Value) -> bool {
    let of_objects = |value: &Value| {
        value
            .as_array()
            .is_some_and(|list| list.iter().all(Value::is_object))
    };
    old.is_object() && new.is_object() || of_objects(old) && of_objects(new)
}

/// A value's parts by their keys, and whether those stand in brackets.
fn keyed(value: &Value) -> Option<(bool, Map<String, Value>)> {
    match value {
        Value::Object(object) => Some((false, object.clone())),
        Value::Array(list) => {
            let name = |(index, item): (usize, &Value)| {
                let name = item.get("name").and_then(Value::as_str);
                (
                    name.map_or_else(|| index.to_string(), ToOwned::to_owned),
                    item.clone(),
                )
            };
            Some((true, list.iter().enumerate().map(name).collect()))
        }
        _ => None,
    }
}

/// Decides a request under both policies with the same seeds, and counts the seeds whose decisions differ.
fn side_by_side(
    old: &RoutingPolicy,
    new: &RoutingPolicy,
    request: &Request,
    tried: &Tried,
) -> (Decided, Decided, u64) {
    let whole = whole_request(&request.body);
    let input = DecisionInput {
        tenant: &request.tenant,
        policy_id: &request.policy_id,
        context: &request.context,
        message: whole.as_ref().map(DecideRequest::message).unwrap_or_default(),
    };
    // Nothing is ever remembered in it.
    let memory = Memory::new(MemoryLimits {
        sessions: 1,
        buckets: 1,
        providers: 1,
    });
    let (mut before, mut after, mut moved) = (Decided::default(), Decided::default(), 0);
    for seed in 0..tried.seeds {
        let [before, after] = [(old, &mut before), (new, &mut after)]
            .map(|(policy, all)| all.decide(policy, input, tried, &memory, seed));
        moved += u64::from(before != after);
    }
    (before, after, moved)
}

impl Decided {
    /// Decides once more, and says what came of it.
    fn decide(
        &mut self,
        policy: &RoutingPolicy,
        input: DecisionInput<'_>,
        tried: &Tried,
        memory: &Memory,
        seed: u64,
    ) -> String {
        let outcome = self.outcome(policy, input, tried, memory, seed);
        match self.counts.get_mut(&outcome) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(outcome.clone(), 1);
            }
        }
        outcome
    }

    fn outcome(
        &mut self,
        policy: &RoutingPolicy,
        input: DecisionInput<'_>,
        tried: &Tried,
        memory: &Memory,
        seed: u64,
    ) -> String {
        let rules = Rules::default();
        let at = DecideContext {
            id: DecisionId(0),
            seed: Seed(seed),
            now: NOW,
            later: &|| NOW,
            wall_ahead_ms: 0,
            effects: Effects::Tried,
        };
        let outcome = tried
            .extensions
            .decide(policy, input, &rules, memory, &tried.script, at);
        match &outcome.result {
            Ok(decision) => {
                if self.steps.is_empty() {
                    let explaining = Explaining {
                        decision,
                        policy,
                        input,
                        at,
                        memory,
                        provenance: Provenance::default(),
                    };
                    self.steps = explaining.steps(DetailLevel::Verbose);
                }
                let selection = &decision.selection;
                format!("{} {}", selection.how.reason(), selection.provider)
            }
            Err(refusal) => refusal.error_type().to_owned(),
        }
    }
}

fn moved_between(old: &BTreeMap<String, u64>, new: &BTreeMap<String, u64>) -> u64 {
    old.iter()
        .map(|(outcome, count)| count.saturating_sub(new.get(outcome).copied().unwrap_or(0)))
        .sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_named_by_name_or_position() {
        let old = json!({"providers": [{"name": "a", "weight": 0.5}, {"name": "b", "weight": 0.5}], "x": [{"to": "a"}], "y": 1});
        let new = json!({"providers": [{"name": "b", "weight": 0.4}], "x": [{"to": "a"}, {"to": "b"}], "y": [1], "z": {}});
        let mut found = Vec::new();
        fields("", &old, &new, &mut found);
        let named: Vec<String> = found
            .iter()
            .map(|change| {
                format!(
                    "{} {:?} {:?}",
                    change.path,
                    change.old.is_some(),
                    change.new.is_some()
                )
            })
            .collect();
        assert_eq!(
            named,
            [
                "providers[a] true false",
                "providers[b].weight true true",
                "x[1] false true",
                "y true true",
                "z false true"
            ]
        );
        let mut found = Vec::new();
        fields("", &old, &old, &mut found);
        assert_eq!(found, []);
    }
}
