//! The algorithm (2.2 to 2.7), and what it remembers (4).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::RangeInclusive,
};

use serde_json::{Map, Value};

use super::{
    breaker::Breaker,
    conditions::holds,
    policy::{Backoff, Item, Policy},
};

/// What is remembered of one tenant.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// By the session's value: the provider, when it was set, and for how long, in seconds.
    sessions: HashMap<String, (String, i64, i64)>,
    pub(super) breakers: BTreeMap<String, Breaker>,
    pub(super) unhealthy: BTreeSet<String>,
    /// Requests that the policy's bucket let through. Time stands still while it matters.
    taken: u64,
}

/// What must have been decided.
#[derive(Debug, PartialEq)]
pub(super) struct Decided {
    pub(super) provider: Chosen,
    pub(super) how: How,
    pub(super) session: Session,
    /// Type, id, status.
    pub(super) executed: Vec<(&'static str, String, &'static str)>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Chosen {
    This(String),
    /// The one to which the point leads that was drawn of the sum of these.
    Drawn(Vec<(String, f64)>),
}

#[derive(Debug, PartialEq)]
pub(super) enum How {
    Sticky,
    Weighted,
    Retry {
        rule: usize,
        attempt: u64,
        max: i64,
        backoff_ms: RangeInclusive<u64>,
        strategy: String,
    },
    Fallback {
        rule: usize,
        used: u64,
        max: i64,
    },
    LastResort,
    Breaker {
        original: String,
    },
}

/// What came of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    NotAsked,
    Miss,
    Hit,
    /// It was there, and its provider could not be called.
    Excluded,
}

impl Memory {
    /// Value, provider and time of each session, as an operator sees them.
    pub(super) fn sessions(&self) -> BTreeSet<String> {
        let shown = |(value, (provider, set, _)): (&String, &(String, i64, i64))| {
            format!("{} {provider} {set}", value.trim_matches('"'))
        };
        self.sessions.iter().map(shown).collect()
    }
}

struct Engine<'a> {
    policy: &'a Policy,
    context: &'a Map<String, Value>,
    ids: &'a [String],
    memory: &'a mut Memory,
    now: u64,
}

/// Decides; or the name of the refusal. `ids` are those of the rules.
pub(super) fn decide(
    policy: &Policy,
    ids: &[String],
    context: &Map<String, Value>,
    memory: &mut Memory,
    now: u64,
) -> Result<Decided, &'static str> {
    if let Some(burst) = policy.rate_limit {
        if memory.taken == burst {
            return Err("rate_limit_exceeded");
        }
        memory.taken += 1;
    }
    let (pre, validators, post) = (policy.pre.len(), policy.validators.len(), policy.post.len());
    for (too_many, error) in [
        (pre + validators + post > 10, "pipeline_too_deep"),
        (pre > 5, "too_many_pre_processors"),
        (validators > 5, "too_many_validators"),
        (post > 5, "too_many_post_processors"),
    ] {
        if too_many {
            return Err(error);
        }
    }
    if context
        .get("deadline")
        .and_then(Value::as_u64)
        .is_some_and(|deadline| now > deadline)
    {
        return Err("deadline_exceeded");
    }
    let mut executed = Vec::new();
    run("pre", &policy.pre, context, &mut executed);
    run("validator", &policy.validators, context, &mut executed);
    let mut engine = Engine {
        policy,
        context,
        ids,
        memory,
        now,
    };
    let (provider, how, session) = engine.select().ok_or("no_provider_available")?;
    run("post", &policy.post, context, &mut executed);
    Ok(Decided {
        provider,
        how,
        session,
        executed,
    })
}

/// (7.2) Every extension succeeds here.
fn run(
    kind: &'static str,
    items: &[Item],
    context: &Map<String, Value>,
    executed: &mut Vec<(&'static str, String, &'static str)>,
) {
    for item in items {
        let Some(id) = &item.id else { continue };
        let applies = item.when.as_ref().is_some_and(|when| holds(when, context, None));
        match (applies, kind) {
            (true, _) => executed.push((kind, id.clone(), "ok")),
            (false, "validator") => executed.push((kind, id.clone(), "skipped")),
            (false, _) => {}
        }
    }
}

impl Engine<'_> {
    fn text(&self, key: &str) -> Option<String> {
        self.context.get(key)?.as_str().map(str::to_owned)
    }

    fn is_open(&self, provider: &str) -> bool {
        let breaker = self
            .memory
            .breakers
            .get(provider)
            .filter(|_| self.policy.breaker.is_some());
        breaker.is_some_and(|breaker| !breaker.allows(self.now))
    }

    fn is_unhealthy(&self, provider: &str) -> bool {
        let counts = self.policy.breaker.is_some() || self.policy.health_check;
        counts && self.memory.unhealthy.contains(provider)
    }

    fn is_available(&self, provider: &str) -> bool {
        !self.is_open(provider) && !self.is_unhealthy(provider)
    }

    /// Uses the half-open budget of the provider that is chosen at last (5.5).
    fn admit(&mut self, provider: &str) {
        if self.policy.breaker.is_some()
            && let Some(breaker) = self.memory.breakers.get_mut(provider)
        {
            breaker.admit(self.now);
        }
    }

    fn select(&mut self) -> Option<(Chosen, How, Session)> {
        if let Some((provider, how)) = self.check_selected() {
            return Some((Chosen::This(provider), how, Session::NotAsked));
        }
        let failed = self.text("current_provider").is_some()
            && self
                .context
                .get("status")
                .is_some_and(|status| status != "success");
        if failed && let Some((provider, how)) = self.rules(None, true) {
            return Some((Chosen::This(provider), how, Session::NotAsked));
        }
        let (held, session) = self.session();
        if session == Session::Hit
            && let Some(provider) = held
        {
            self.admit(&provider);
            self.remember(&provider);
            return Some((Chosen::This(provider), How::Sticky, session));
        }
        let weighted = || self.policy.weights.iter().filter(|(_, weight)| **weight > 0.0);
        let excluded: Vec<&String> = weighted()
            .map(|(name, _)| name)
            .filter(|name| !self.is_available(name))
            .collect();
        let candidates: Vec<(String, f64)> = self
            .policy
            .weights
            .iter()
            .filter(|(name, _)| !excluded.contains(name))
            .map(|(name, weight)| (name.clone(), *weight))
            .collect();
        let left = candidates.iter().map(|(_, weight)| weight).sum::<f64>();
        if left > 0.0 {
            return Some((Chosen::Drawn(candidates), How::Weighted, session));
        }
        let emptied = !excluded.is_empty();
        let found = emptied.then(|| {
            let only_health = excluded.iter().all(|name| !self.is_open(name));
            if only_health {
                "unhealthy"
            } else {
                "circuit_breaker_open"
            }
        });
        let found = found.filter(|_| !self.context.contains_key("status"));
        if (!failed || emptied)
            && let Some((provider, how)) = self.rules(found, !emptied)
        {
            return Some((Chosen::This(provider), how, session));
        }
        let last_resort = self.policy.last_resort.clone()?;
        if !self.is_available(&last_resort) {
            return None;
        }
        self.admit(&last_resort);
        Some((Chosen::This(last_resort), How::LastResort, session))
    }

    /// S0 (2.3)
    fn check_selected(&self) -> Option<(String, How)> {
        self.policy.breaker?;
        let original = self.text("selected_provider")?;
        if !self.is_open(&original) {
            return None;
        }
        let first_rule = || {
            let rules = self.context.get("fallback_rules")?.as_array()?;
            rules.first()?["to"].as_str().map(str::to_owned)
        };
        let target = self.text("fallback_provider").or_else(first_rule)?;
        Some((target, How::Breaker { original }))
    }

    /// S1 (4)
    fn session(&mut self) -> (Option<String>, Session) {
        let Some(sticky) = &self.policy.sticky else {
            return (None, Session::NotAsked);
        };
        let Some(value) = self.context.get(&sticky.session_key).map(Value::to_string) else {
            return (None, Session::Miss);
        };
        let Some((provider, set, ttl)) = self.memory.sessions.get(&value).cloned() else {
            return (None, Session::Miss);
        };
        if set + ttl.min(sticky.ttl_seconds) <= (self.now / 1_000) as i64 {
            self.memory.sessions.remove(&value);
            return (None, Session::Miss);
        }
        if self.is_available(&provider) {
            (Some(provider), Session::Hit)
        } else {
            (None, Session::Excluded)
        }
    }

    /// (1.7) A session whose time is none is never found again, so it need not be kept.
    fn remember(&mut self, provider: &str) {
        if let Some(sticky) = self
            .policy
            .sticky
            .as_ref()
            .filter(|sticky| sticky.ttl_seconds > 0)
            && let Some(value) = self.context.get(&sticky.session_key)
        {
            let kept = (provider.to_owned(), (self.now / 1_000) as i64, sticky.ttl_seconds);
            self.memory.sessions.insert(value.to_string(), kept);
        }
        if let Some(settings) = self.policy.breaker {
            let made = || Breaker::closed(settings, self.now);
            self.memory
                .breakers
                .entry(provider.to_owned())
                .or_insert_with(made)
                .settings = settings;
        }
    }

    /// S3 (2.5)
    fn rules(&mut self, status: Option<&str>, may_retry: bool) -> Option<(String, How)> {
        for (index, rule) in self.policy.rules.iter().enumerate() {
            if !rule
                .when
                .as_ref()
                .is_some_and(|when| holds(when, self.context, status))
            {
                continue;
            }
            let used = self.attempts(index);
            let budget = u64::try_from(rule.retry).unwrap_or(0);
            if let Some(current) = self.text("current_provider")
                && may_retry
                && used < budget
                && self.is_available(&current)
            {
                self.admit(&current);
                let (backoff_ms, strategy) = backoff(rule.backoff.as_ref(), used + 1);
                let how = How::Retry {
                    rule: index,
                    attempt: used + 1,
                    max: rule.retry,
                    backoff_ms,
                    strategy,
                };
                return Some((current, how));
            }
            if let Some(to) = rule.to.clone().filter(|to| self.is_available(to)) {
                self.admit(&to);
                let how = How::Fallback {
                    rule: index,
                    used,
                    max: rule.retry.max(0),
                };
                return Some((to, how));
            }
        }
        None
    }

    /// (2.1)
    fn attempts(&self, rule: usize) -> u64 {
        let (id, index) = (&self.ids[rule], rule.to_string());
        let flat = |name: &str| self.context.get(&format!("retry_attempts_{name}"));
        let all = self.context.get("retry_attempts");
        let found = flat(id)
            .or_else(|| flat(&index))
            .or_else(|| all?.get(id))
            .or_else(|| all?.get(&index))
            .or(all);
        match found {
            Some(Value::String(text)) => text.parse().unwrap_or(0),
            Some(value) => value.as_u64().unwrap_or(0),
            None => 0,
        }
    }
}

/// After a draw: what is then remembered.
pub(super) fn drawn(
    policy: &Policy,
    context: &Map<String, Value>,
    memory: &mut Memory,
    now: u64,
    provider: &str,
) {
    let mut engine = Engine {
        policy,
        context,
        ids: &[],
        memory,
        now,
    };
    engine.admit(provider);
    engine.remember(provider);
}

/// (2.6)
fn backoff(backoff: Option<&Backoff>, attempt: u64) -> (RangeInclusive<u64>, String) {
    let base = backoff.map_or(100, |backoff| backoff.base_ms);
    let exponential = || base.saturating_mul(2_u64.saturating_pow((attempt - 1).min(40) as u32));
    let (name, delay) = match backoff.map(|backoff| backoff.strategy.as_str()) {
        Some("linear") => ("linear", base.saturating_mul(attempt)),
        Some("fixed") => ("fixed", base),
        _ => ("exponential", exponential()),
    };
    let jitter = if backoff.is_none_or(|backoff| backoff.jitter) {
        delay / 10
    } else {
        0
    };
    let most = backoff.map_or(60_000, |backoff| backoff.max_ms.min(60_000));
    let latest = delay.saturating_add(jitter.saturating_sub(1));
    (delay.min(most)..=latest.min(most), name.to_owned())
}
