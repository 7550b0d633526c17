//! What holds for every policy and every request.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail the test that called them"
)]

use std::collections::HashSet;

use beamline_sidecar::{
    decide::{
        DecideContext, DecisionId, DecisionInput, Effects, Explaining, Message, NoExtensions, Provenance,
        Refusal, Rules, Scripted, Seed, Timestamp, decide, decide_now,
        memory::{CallResult, Memory, MemoryLimits},
    },
    policy::{DetailLevel, PolicyId, ProviderId, RoutingPolicy, Severity, TenantId, read, read_object},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const START: u64 = 1_800_000_000_000;

fn memory() -> Memory {
    Memory::new(MemoryLimits {
        sessions: 100_000,
        buckets: 10_000,
        providers: 100_000,
    })
}

fn policy(document: &Value) -> RoutingPolicy {
    read_object(document.as_object().unwrap()).0
}

/// One request, with everything it depends on.
#[derive(Debug, Clone)]
struct Asked {
    tenant: &'static str,
    context: Map<String, Value>,
    seed: u64,
    at_ms: u64,
}

impl Asked {
    fn now(context: &Value, seed: u64) -> Self {
        Self {
            tenant: "acme",
            context: context.as_object().unwrap().clone(),
            seed,
            at_ms: START,
        }
    }
}

/// Decides, and shows all of what came of it: the decision or the refusal, its explanation, what breakers did.
fn answer(
    policy: &RoutingPolicy,
    policy_id: &str,
    asked: &Asked,
    memory: &Memory,
    effects: Effects,
) -> Value {
    let (tenant, policy_id) = (
        TenantId::parse(asked.tenant).unwrap(),
        PolicyId::parse(policy_id).unwrap(),
    );
    let mut context = asked.context.clone();
    context.insert("tenant_id".into(), asked.tenant.into());
    let input = DecisionInput {
        tenant: &tenant,
        policy_id: &policy_id,
        context: &context,
        message: Message::default(),
    };
    let now = Timestamp::from_unix_ms(asked.at_ms);
    let at = DecideContext {
        id: DecisionId(asked.seed.into()),
        seed: Seed(asked.seed),
        now,
        later: &|| now,
        wall_ahead_ms: 0,
        effects,
    };
    let extensions = Scripted {
        others_succeed: true,
        ..Scripted::default()
    };
    let rules = Rules::default();
    let deciding = decide(policy, input, &rules, memory, &extensions, at);
    let outcome = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(deciding);
    let transitions = format!("{:?}", outcome.transitions);
    match &outcome.result {
        Ok(decision) => {
            assert!(!decision.selection.provider.as_str().is_empty());
            let explaining = Explaining {
                decision,
                policy,
                input,
                at,
                memory,
                provenance: Provenance::default(),
            };
            json!({
                "decision": format!("{decision:?}"),
                "provider": decision.selection.provider,
                "reason": decision.selection.how.reason(),
                "extras": decision.extras(policy),
                "latency": decision.expected_latency_ms(input, memory),
                "cost": decision.expected_cost(input, memory),
                "explanation": explaining.explain(DetailLevel::Verbose, None),
                "transitions": transitions,
            })
        }
        Err(refusal) => {
            let internal = refusal.code().as_str() == "internal";
            assert!(
                !internal || matches!(refusal, Refusal::DeadlineExceeded { .. }),
                "{refusal:?}"
            );
            json!({
                "refusal": refusal.error_type(), "message": refusal.message(), "details": refusal.details(),
                "transitions": transitions,
            })
        }
    }
}

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(texts).prop_map(ToOwned::to_owned)
}

const STATUSES: &[&str] = &["timeout", "503", "5xx", "429", "down", "circuit_breaker_open"];
const PROVIDERS: &[&str] = &["a", "b", "c", "d"];

fn condition() -> impl Strategy<Value = Value> {
    let statuses = proptest::collection::vec(one_of(STATUSES), 0..3);
    (statuses, proptest::option::of(one_of(&["chat", "text"]))).prop_map(|(statuses, kind)| {
        let mut when = json!({"status": statuses});
        if let Some(kind) = kind {
            when["message_type"] = kind.into();
        }
        when
    })
}

fn rule() -> impl Strategy<Value = Value> {
    (
        condition(),
        0..4,
        proptest::option::weighted(0.8, one_of(PROVIDERS)),
    )
        .prop_map(|(when, retry, to)| {
            let mut rule = json!({"when": when, "retry": retry});
            if let Some(to) = to {
                rule["to"] = to.into();
            }
            rule
        })
}

/// Any policy that a write takes: the document is tried until it is one.
fn accepted() -> impl Strategy<Value = RoutingPolicy> {
    let provider =
        (one_of(PROVIDERS), 0..=100_u32).prop_map(|(name, weight)| json!({"name": name, "weight": weight}));
    let processor = (
        one_of(&["x", "y"]),
        one_of(&["required", "optional"]),
        proptest::option::of(condition()),
    );
    let processor = processor.prop_map(|(id, mode, when)| match when {
        Some(when) => json!({"id": id, "mode": mode, "when": when}),
        None => json!({"id": id, "mode": mode}),
    });
    (
        proptest::collection::vec(provider, 1..5),
        proptest::collection::vec(rule(), 0..5),
        proptest::option::of(one_of(PROVIDERS)),
        any::<[bool; 4]>(),
        proptest::collection::vec(processor, 0..3),
        1..5_u32,
    )
        .prop_map(
            |(providers, fallbacks, last, [sticky, breaker, limit, health], pre, small)| {
                let mut document = json!({
                    "providers": providers, "fallbacks": fallbacks, "pre": pre,
                    "sticky": {"enabled": sticky, "session_key": "user", "ttl_seconds": small},
                    "circuit_breaker": {"enabled": breaker, "failure_threshold": small, "timeout_ms": 1000},
                    "rate_limit": {"enabled": limit, "requests_per_second": small, "burst": small},
                    "health_check": {"enabled": health},
                });
                if let Some(last) = last {
                    document["fallback"] = last.into();
                }
                document
            },
        )
        .prop_filter_map("a policy that a write takes", |document| {
            let (policy, problems) = read_object(document.as_object()?);
            problems
                .iter()
                .all(|problem| problem.severity != Severity::Error)
                .then_some(policy)
        })
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..4_u32).prop_map(Value::from),
        one_of(PROVIDERS).prop_map(Value::from),
        one_of(STATUSES).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key(), inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

/// Every word that means something to a decision, and some that do not.
fn key() -> impl Strategy<Value = String> {
    one_of(&[
        "status",
        "current_provider",
        "retry_attempts",
        "retry_attempts_0",
        "selected_provider",
        "fallback_provider",
        "fallback_rules",
        "to",
        "expected_latency_ms",
        "expected_cost",
        "metadata",
        "deadline",
        "dry_run",
        "detail_level",
        "backoff_strategy",
        "policy_id",
        "environment",
        "trace_id",
        "user",
        "message_type",
        "tenant_id",
        "0",
        "token",
        "x",
    ])
}

fn any_context() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map(key(), any_json(), 0..8)
        .prop_map(|map| map.into_iter().collect::<Value>())
}

fn any_document() -> impl Strategy<Value = Value> {
    let key = one_of(&[
        "providers",
        "weights",
        "fallbacks",
        "fallback",
        "sticky",
        "pre",
        "validators",
        "post",
        "circuit_breaker",
        "rate_limit",
        "timeout_ms",
        "health_check",
        "explanation",
        "metadata",
        "name",
        "weight",
        "when",
        "retry",
        "to",
        "backoff",
        "id",
        "mode",
        "on_fail",
        "enabled",
        "ttl",
        "session_key",
        "status",
        "burst",
        "limit",
    ]);
    let leaf = any_json();
    let inner = leaf.prop_recursive(4, 48, 6, move |inner| {
        let key = one_of(&[
            "name", "weight", "when", "retry", "to", "id", "enabled", "ttl", "status", "==", "var", "a",
        ]);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    });
    proptest::collection::btree_map(key, inner, 0..8).prop_map(|map| map.into_iter().collect::<Value>())
}

/// As many threads as ask at one time for the first provider of a session all get the same one.
#[test]
fn first_requests_of_a_session_at_one_time_agree_on_its_provider() {
    const THREADS: u64 = 4;
    const SESSIONS: usize = 5_000;
    let document = json!({
        "weights": {"a": 0.5, "b": 0.5}, "sticky": {"enabled": true, "session_key": "s"},
        "circuit_breaker": {"enabled": true},
    });
    let (policy, memory) = (policy(&document), memory());
    let (tenant, policy_id) = (TenantId::parse("acme").unwrap(), PolicyId::parse("p").unwrap());
    let start = std::sync::Barrier::new(THREADS as usize);
    let chosen: Vec<Vec<String>> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (policy, memory, tenant, policy_id, start) =
                    (&policy, &memory, &tenant, &policy_id, &start);
                scope.spawn(move || {
                    let mut chosen = Vec::with_capacity(SESSIONS);
                    for session in 0..SESSIONS {
                        let context = json!({"s": session}).as_object().unwrap().clone();
                        let input = DecisionInput {
                            tenant,
                            policy_id,
                            context: &context,
                            message: Message::default(),
                        };
                        let now = Timestamp::from_unix_ms(START);
                        let at = DecideContext {
                            id: DecisionId(0),
                            seed: Seed(session as u64 * THREADS + thread),
                            now,
                            later: &|| now,
                            wall_ahead_ms: 0,
                            effects: Effects::Remembered,
                        };
                        start.wait();
                        let decided = decide_now(policy, input, &Rules::default(), memory, &NoExtensions, at);
                        let selection = decided.result.unwrap().selection;
                        chosen.push(format!("{}", selection.provider));
                    }
                    chosen
                })
            })
            .collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let apart = (0..SESSIONS)
        .filter(|&session| {
            chosen
                .iter()
                .any(|of_thread| of_thread[session] != chosen[0][session])
        })
        .count();
    assert_eq!(apart, 0, "of {SESSIONS} sessions");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Of the rules that are true, the first with a target decides, and nothing after it is looked at.
    #[test]
    fn the_first_rule_that_is_true_wins(
        rules in proptest::collection::vec(rule(), 1..6), status in one_of(STATUSES), kind in one_of(&["chat", "text"]),
    ) {
        let document = json!({"providers": [{"name": "zero", "weight": 0}], "fallbacks": rules});
        let holds = |rule: &&Value| {
            let when = &rule["when"];
            let statuses = when["status"].as_array().unwrap();
            let class = statuses.contains(&json!("5xx")) && status == "503";
            (class || statuses.contains(&json!(status))) && when.get("message_type").is_none_or(|wanted| *wanted == kind)
        };
        let first = rules.iter().filter(holds).find_map(|rule| rule.get("to")).cloned();
        let context = json!({"status": status, "message_type": kind});
        let got = answer(&policy(&document), "p", &Asked::now(&context, 1), &memory(), Effects::Remembered);
        prop_assert_eq!(got.get("provider").cloned(), first);
    }

    /// A Router whose every attempt fails, and which follows every decision, counters included, comes to an end: a
    /// decision it had before, a new draw, or a refusal.
    #[test]
    fn chains_of_decisions_after_failures_end(
        rules in proptest::collection::vec(rule(), 0..6), statuses in proptest::collection::vec(one_of(STATUSES), 64),
        last in proptest::option::of(one_of(PROVIDERS)), counted in 0..3_u8,
    ) {
        let mut document = json!({"providers": [{"name": "a", "weight": 0}], "fallbacks": rules});
        if let Some(last) = last {
            document["fallback"] = last.into();
        }
        let (policy, memory) = (policy(&document), memory());
        let budget: i64 = policy.fallbacks.iter().map(|rule| rule.retry).sum();
        let bound = usize::try_from(budget).unwrap() + policy.fallbacks.len() + 2;
        let mut context = json!({"current_provider": "a"});
        let mut seen = HashSet::new();
        let mut ended = false;
        for (step, status) in statuses.iter().enumerate().take(bound) {
            context["status"] = status.as_str().into();
            let got = answer(&policy, "p", &Asked::now(&context, step as u64), &memory, Effects::Remembered);
            let extras = &got["extras"];
            match got["reason"].as_str() {
                Some("retry") => {
                    let id = extras["fallback_rule_id"].as_str().unwrap();
                    match counted {
                        0 => context[format!("retry_attempts_{id}")] = extras["retry_attempt"].clone(),
                        1 => context["retry_attempts"][extras["rule_index"].to_string()] = extras["retry_attempt"].clone(),
                        _ => context[format!("retry_attempts_{id}")] = extras["retry_attempt"].to_string().into(),
                    }
                }
                Some("fallback") if seen.insert(extras["rule_index"].to_string()) => {
                    context["current_provider"] = got["provider"].clone();
                }
                _ => {
                    ended = true;
                    break;
                }
            }
        }
        prop_assert!(ended, "{bound} decisions, and no end");
    }

    /// A policy that a write takes gives every request a decision or a refusal of its own: never an internal error.
    #[test]
    fn an_accepted_policy_always_has_an_answer(
        policy in accepted(), contexts in proptest::collection::vec(any_context(), 1..12), failures in 0..8_usize,
    ) {
        let memory = memory();
        let tenant = TenantId::parse("acme").unwrap();
        for (index, context) in contexts.iter().enumerate() {
            let mut asked = Asked::now(context, index as u64);
            asked.at_ms += 400 * index as u64;
            let got = answer(&policy, "p", &asked, &memory, Effects::Remembered);
            prop_assert!(got.get("provider").is_some() || got.get("refusal").is_some());
            if index < failures && let Some(provider) = got["provider"].as_str() {
                let now = Timestamp::from_unix_ms(asked.at_ms);
                memory.breakers.record(&tenant, &ProviderId::new(provider), CallResult::Failure, None, now);
            }
        }
    }

    /// Whatever is stored is read, and whatever was read is decided on.
    #[test]
    fn any_json_is_read_and_decided_on(document in any_document(), context in any_context(), seed in any::<u64>()) {
        let (policy, _) = read(document.to_string().as_bytes());
        let asked = Asked::now(&context, seed);
        let got = answer(&policy, "p", &asked, &memory(), Effects::Remembered);
        prop_assert_eq!(got, answer(&policy, "p", &asked, &memory(), Effects::Remembered));
    }

    /// A dry run leaves nothing behind: after it, everything is as after none.
    #[test]
    fn a_dry_run_is_not_remembered(policy in accepted(), contexts in proptest::collection::vec(any_context(), 1..6)) {
        let (with, without) = (memory(), memory());
        for (index, context) in contexts.iter().enumerate() {
            let asked = Asked::now(context, index as u64);
            answer(&policy, "p", &asked, &with, Effects::None);
            let got = answer(&policy, "p", &asked, &with, Effects::Remembered);
            prop_assert_eq!(got, answer(&policy, "p", &asked, &without, Effects::Remembered));
        }
    }

    /// Tenants that call their sessions alike each keep their own provider.
    #[test]
    fn tenants_never_see_each_others_sessions(
        asks in proptest::collection::vec((0..3_usize, 0..4_u8, any::<u64>(), 0..90_u64), 1..80),
    ) {
        const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
        let policies = TENANTS.map(|tenant| {
            let names = ["a", "b"].map(|name| json!({"name": format!("{tenant}_{name}"), "weight": 50}));
            policy(&json!({"providers": names, "sticky": {"enabled": true, "session_key": "user", "ttl": "1m"}}))
        });
        let memory = memory();
        let mut at_ms = START;
        for (tenant, user, seed, seconds) in asks {
            at_ms += seconds * 1_000;
            let context = json!({"user": format!("u{user}")}).as_object().unwrap().clone();
            let asked = Asked { tenant: TENANTS[tenant], context, seed, at_ms };
            let got = answer(&policies[tenant], "p", &asked, &memory, Effects::Remembered);
            prop_assert!(got["provider"].as_str().unwrap().starts_with(TENANTS[tenant]), "{got}");
        }
    }
}

/// Documents and requests as large as a body may be, of every kind of much.
#[test]
fn much_of_everything_is_read_and_decided_on() {
    let size = 1_000_000;
    let many = |one: &dyn Fn(usize) -> Value| {
        let mut list = Vec::new();
        let mut bytes = 0;
        while bytes < size {
            let item = one(list.len());
            bytes += item.to_string().len() + 1;
            list.push(item);
        }
        Value::Array(list)
    };
    let always = json!({"status": ["timeout"]});
    let provider = |index: usize| json!({"name": format!("p{index}"), "weight": index % 3});
    let documents = [
        json!({"providers": many(&provider), "circuit_breaker": {"enabled": true}, "health_check": {"enabled": true}}),
        json!({"providers": [{"name": "a", "weight": 0}], "fallbacks": many(&|_| json!({"when": always.clone()}))}),
        json!({"providers": [{"name": "a", "weight": 0}], "fallbacks": many(&|index| json!({"to": format!("p{index}")}))}),
        json!({"weights": {"a": 1.0}, "pre": many(&|_| json!({"id": "x"}))}),
        json!({"weights": {"a": 1.0}, "metadata": {"list": many(&|index| json!(index))}}),
        json!({"providers": many(&|_| json!({"name": "a", "weight": 5, "weigth": 6}))}),
        json!({"weights": {"a": 0}, "fallbacks": [{"when": {"status": many(&|index| json!(format!("s{index}")))}, "to": "b"}]}),
    ];
    let contexts = [
        json!({"status": "timeout"}),
        json!({"status": "timeout", "current_provider": "a", "x": many(&|index| json!({"token": index}))}),
        json!({"status": "x".repeat(size), "user": "u".repeat(size), "detail_level": "y".repeat(size)}),
    ];
    for document in documents {
        let (policy, problems) = read(document.to_string().as_bytes());
        assert!(problems.len() <= 200);
        let memory = memory();
        for context in &contexts {
            let got = answer(
                &policy,
                "p",
                &Asked::now(context, 3),
                &memory,
                Effects::Remembered,
            );
            assert!(got.get("provider").is_some() || got.get("refusal").is_some());
        }
    }
}

/// Thousands of providers that are down leave the one that is not, and the explanation names each.
#[test]
fn thousands_of_providers_may_be_down() {
    let names: Vec<String> = (0..8_000).map(|index| format!("p{index:05}")).collect();
    let providers: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "weight": 1}))
        .collect();
    let policy = policy(&json!({"providers": providers, "health_check": {"enabled": true}}));
    let (memory, tenant) = (memory(), TenantId::parse("acme").unwrap());
    for name in names.iter().filter(|name| *name != "p04711") {
        memory.health.set(&tenant, &ProviderId::new(name), false);
    }
    let got = answer(
        &policy,
        "p",
        &Asked::now(&json!({}), 9),
        &memory,
        Effects::Remembered,
    );
    assert_eq!(got["provider"], "p04711");
    let candidates = got["explanation"]["evidence"]["candidates"].as_array().unwrap();
    let down = |candidate: &&Value| candidate["removed_by"] == "unhealthy";
    assert_eq!(
        (candidates.len(), candidates.iter().filter(down).count()),
        (8_000, 7_999)
    );
}

/// A year's worth of a pseudo-random sequence, for stories that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }
}

/// Something that happened: a request, or the result of a call.
#[derive(Debug, Clone)]
enum Event {
    Asked(usize, Asked),
    Result(&'static str, &'static str, CallResult, u64, u64),
}

fn story(dice: &mut Dice, at_ms: &mut u64, policies: usize) -> Event {
    const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
    *at_ms += dice.roll(120);
    let tenant = dice.pick(&TENANTS);
    if dice.roll(4) == 0 {
        let result = if dice.roll(3) == 0 {
            CallResult::Failure
        } else {
            CallResult::Success
        };
        return Event::Result(tenant, dice.pick(PROVIDERS), result, dice.roll(9_000), *at_ms);
    }
    let mut context =
        json!({"user": format!("u{}", dice.roll(500)), "message_type": dice.pick(&["chat", "text"])});
    if dice.roll(3) == 0 {
        context["status"] = dice.pick(STATUSES).into();
    }
    if dice.roll(3) == 0 {
        context["current_provider"] = dice.pick(PROVIDERS).into();
        context["retry_attempts"] = dice.roll(4).into();
    }
    if dice.roll(10) == 0 {
        context["selected_provider"] = dice.pick(PROVIDERS).into();
        context["fallback_provider"] = "d".into();
    }
    let asked = Asked {
        tenant,
        context: context.as_object().unwrap().clone(),
        seed: dice.roll(u64::from(u32::MAX)) << 32 | dice.roll(u64::from(u32::MAX)),
        at_ms: *at_ms,
    };
    Event::Asked(usize::try_from(dice.roll(policies as u64)).unwrap(), asked)
}

fn happen(event: &Event, policies: &[RoutingPolicy], memory: &Memory) -> Option<Value> {
    match event {
        Event::Asked(policy, asked) => Some(answer(
            &policies[*policy],
            &format!("p{policy}"),
            asked,
            memory,
            Effects::Remembered,
        )),
        Event::Result(tenant, provider, result, latency_ms, at_ms) => {
            let (tenant, provider) = (TenantId::parse(tenant).unwrap(), ProviderId::new(provider));
            let now = Timestamp::from_unix_ms(*at_ms);
            memory
                .breakers
                .record(&tenant, &provider, *result, Some(*latency_ms), now);
            let failed = *result == CallResult::Failure;
            memory
                .estimates
                .record(&tenant, &provider, Some(*latency_ms), Some(0.5), failed, now);
            None
        }
    }
}

/// Decisions that were recorded, replayed in their order on a memory that begins as empty as theirs did: the same,
/// field by field, with their explanations. `BEAMLINE_REPLAY_DECISIONS` is how many.
#[test]
fn replay_of_100_000_decisions() {
    let wanted =
        std::env::var_os("BEAMLINE_REPLAY_DECISIONS").map(|count| count.to_str().unwrap().parse().unwrap());
    let wanted: usize = wanted.unwrap_or(100_000);
    let weights =
        json!([{"name": "a", "weight": 50}, {"name": "b", "weight": 30}, {"name": "c", "weight": 20}]);
    let rules = json!([
        {"when": {"status": ["timeout"]}, "retry": 2, "to": "b"},
        {"when": {"status": ["5xx", "circuit_breaker_open"]}, "retry": 1, "backoff": {"strategy": "linear"}, "to": "d"},
        {"when": {"status": ["429"], "message_type": ["chat"]}, "to": "c"},
    ]);
    let sticky = json!({"enabled": true, "session_key": "user", "ttl": "30s"});
    let breaker =
        json!({"enabled": true, "failure_threshold": 3, "timeout_ms": 2000, "success_threshold": 1});
    let limit = json!({"enabled": true, "requests_per_second": 2, "burst": 4});
    let policies: Vec<RoutingPolicy> = [
        json!({"providers": weights}),
        json!({"providers": weights, "sticky": sticky, "fallbacks": rules}),
        json!({"providers": weights, "sticky": sticky, "circuit_breaker": breaker, "fallbacks": rules, "fallback": "d"}),
        json!({"providers": weights, "rate_limit": limit, "circuit_breaker": breaker}),
        json!({"providers": [{"name": "a", "weight": 0}], "fallbacks": rules, "rate_limit": limit}),
        json!({"providers": weights, "pre": [{"id": "x"}], "post": [{"id": "y"}], "sticky": sticky}),
    ]
    .iter()
    .map(policy)
    .collect();
    let (then, now) = (memory(), memory());
    let (mut dice, mut at_ms) = (Dice(20), START);
    let (mut decided, mut kinds, mut opened) = (0, HashSet::new(), 0);
    while decided < wanted {
        // In pieces, so that a hundred thousand explanations need no room; each memory only ever sees its own run.
        let events: Vec<Event> = (0..2_000)
            .map(|_| story(&mut dice, &mut at_ms, policies.len()))
            .collect();
        let recorded: Vec<Option<Value>> = events
            .iter()
            .map(|event| happen(event, &policies, &then))
            .collect();
        for (event, recorded) in events.iter().zip(&recorded) {
            let replayed = happen(event, &policies, &now);
            let Some(recorded) = recorded else { continue };
            let replayed = replayed.unwrap();
            for (key, value) in recorded.as_object().unwrap() {
                assert_eq!(
                    Some(value),
                    replayed.get(key),
                    "{key} of decision {decided}: {event:?}"
                );
            }
            assert_eq!(*recorded, replayed);
            decided += 1;
            let kind = recorded
                .get("reason")
                .or_else(|| recorded.get("refusal"))
                .unwrap();
            kinds.insert(kind.as_str().unwrap().to_owned());
            opened += usize::from(recorded["transitions"] != "[]");
        }
    }
    // The story has everything in it, or it proves little.
    for kind in [
        "sticky",
        "weighted",
        "retry",
        "fallback",
        "circuit_breaker_fallback",
        "rate_limit_exceeded",
    ] {
        assert!(kinds.contains(kind), "no {kind} among {kinds:?}");
    }
    assert!(opened > 0 && then.sticky.len() == now.sticky.len());
    eprintln!("{decided} decisions replayed: {kinds:?}; breakers changed in {opened}");
}
