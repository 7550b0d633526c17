//! Random policies and requests, decided by both.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

use std::collections::{BTreeMap, BTreeSet};

use beamline_sidecar::{
    decide::{
        DecideContext, DecisionId, DecisionInput, DrawEvidence, Effects, Explaining, Explanation, Message,
        Provenance, Rules, Scripted, Seed, Timestamp, decide_now,
        memory::{self, CallResult, MemoryLimits},
    },
    policy::{DetailLevel, PolicyId, ProviderId, RoutingPolicy, TenantId, read},
};
use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::{
    breaker::{Breaker, State},
    engine::{self, Chosen, Decided, How, Memory, Session},
    explanation::{self, LEVELS},
    policy::Policy,
};

const START: u64 = 1_800_000_000_000;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "openai:gpt-4"];

/// Decides this many random cases, and panics at the first decision that differs, with the case's seed.
pub(crate) fn compare(cases: u64, first_seed: u64) {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let outcomes = std::thread::scope(|scope| {
        let deciding = |thread: u64| {
            let mut outcomes = Outcomes::new();
            for case in (thread..cases).step_by(threads as usize) {
                let seed = first_seed.wrapping_add(case);
                Case::new(seed).run(&mut outcomes);
            }
            outcomes
        };
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || deciding(thread)))
            .collect();
        let mut all = Outcomes::new();
        for thread in threads {
            for (outcome, count) in thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            {
                *all.entry(outcome).or_default() += count;
            }
        }
        all
    });
    // Agreement about what never happens would prove nothing.
    for outcome in OUTCOMES {
        let count = outcomes.get(outcome).copied().unwrap_or(0);
        assert!(count * 1_000 >= cases, "{outcome}: {outcomes:?}");
    }
}

/// How often each reason and each refusal came up.
type Outcomes = BTreeMap<&'static str, u64>;

const OUTCOMES: [&str; 10] = [
    "sticky",
    "weighted",
    "retry",
    "fallback",
    "circuit_breaker_fallback",
    "no_provider_available",
    "rate_limit_exceeded",
    "deadline_exceeded",
    "pipeline_too_deep",
    "too_many_validators",
];

fn one<T: Clone>(random: &mut Rng, of: &[T]) -> T {
    of[random.usize(..of.len())].clone()
}

fn often(random: &mut Rng, percent: u32) -> bool {
    random.u32(..100) < percent
}

fn name(random: &mut Rng) -> &'static str {
    one(random, &NAMES)
}

/// One policy, with what is remembered, and requests one after the other.
struct Case {
    seed: u64,
    random: Rng,
    document: Value,
    policy: RoutingPolicy,
    model: Policy,
    ids: Vec<String>,
    memory: memory::Memory,
    modelled: Memory,
    tenant: TenantId,
    now: u64,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let document = document(&mut random);
        let (policy, _) = read(document.to_string().as_bytes());
        let ids: Vec<String> = policy.fallbacks.iter().map(|rule| rule.id.to_string()).collect();
        for (index, id) in ids.iter().enumerate() {
            let digest = id.strip_prefix(&format!("{index}-")).unwrap();
            assert!(
                digest.len() == 8 && digest.bytes().all(|b| b.is_ascii_hexdigit()),
                "{id}"
            );
        }
        let mut case = Self {
            seed,
            model: Policy::read(&document),
            random,
            document,
            policy,
            ids,
            memory: memory::Memory::new(MemoryLimits {
                sessions: 100,
                buckets: 10,
                providers: 100,
            }),
            modelled: Memory::default(),
            tenant: TenantId::parse("acme").unwrap(),
            now: START,
        };
        case.fill();
        case
    }

    /// What is remembered before the first request.
    fn fill(&mut self) {
        if let Some(settings) = self.model.breaker {
            for name in NAMES {
                if often(&mut self.random, 50) {
                    let provider = ProviderId::new(name);
                    let own = *self.policy.circuit_breaker.as_deref().unwrap();
                    let at = Timestamp::from_unix_ms(self.now);
                    self.memory.breakers.configure(&self.tenant, &provider, own, at);
                    let breaker = Breaker::closed(settings, self.now);
                    self.modelled.breakers.insert(name.to_owned(), breaker);
                    for _ in 0..self.random.u32(..7) {
                        let failed = often(&mut self.random, 80);
                        self.record(name, failed);
                    }
                }
            }
        }
        let percent = one(&mut self.random, &[0, 0, 20, 60, 100]);
        for name in NAMES {
            if often(&mut self.random, percent) {
                self.memory
                    .health
                    .set(&self.tenant, &ProviderId::new(name), false);
                self.modelled.unhealthy.insert(name.to_owned());
            }
        }
    }

    fn record(&mut self, name: &str, failed: bool) {
        let at = Timestamp::from_unix_ms(self.now);
        let result = if failed {
            CallResult::Failure
        } else {
            CallResult::Success
        };
        let provider = ProviderId::new(name);
        let _transition = self
            .memory
            .breakers
            .record(&self.tenant, &provider, result, None, at);
        self.modelled
            .breakers
            .get_mut(name)
            .unwrap()
            .record(failed, self.now);
    }

    fn run(mut self, outcomes: &mut Outcomes) {
        for _ in 0..self.random.u32(1..6) {
            if self.model.rate_limit.is_none() {
                self.now += one(&mut self.random, &[0, 0, 300, 999, 1_000, 1_500, 2_500]);
            }
            let known: Vec<String> = self.modelled.breakers.keys().cloned().collect();
            if !known.is_empty() && often(&mut self.random, 40) {
                let failed = often(&mut self.random, 50);
                let provider = one(&mut self.random, &known);
                self.record(&provider, failed);
            }
            let context = context(&mut self.random, &self.ids);
            *outcomes.entry(self.decide(&context)).or_default() += 1;
        }
        self.check_memory();
    }

    fn differs(&self, context: &Map<String, Value>, what: &str, got: &Value, wanted: &Value) -> ! {
        panic!(
            "{what}\n     got {got}\n  wanted {wanted}\n policy {}\ncontext {}\nBEAMLINE_SOAK_SEED={} makes this the first case",
            self.document,
            Value::Object(context.clone()),
            self.seed
        );
    }

    /// Decides in both ways, compares, and says what came of it.
    fn decide(&mut self, context: &Map<String, Value>) -> &'static str {
        let wanted = engine::decide(&self.model, &self.ids, context, &mut self.modelled, self.now);
        let policy_id = PolicyId::parse("chat").unwrap();
        let input = DecisionInput {
            tenant: &self.tenant,
            policy_id: &policy_id,
            context,
            message: Message::default(),
        };
        let now = Timestamp::from_unix_ms(self.now);
        let at = DecideContext {
            id: DecisionId(1),
            seed: Seed(self.random.u64(..)),
            now,
            later: &|| now,
            wall_ahead_ms: 0,
            effects: Effects::Remembered,
        };
        let extensions = Scripted {
            others_succeed: true,
            ..Scripted::default()
        };
        let outcome = decide_now(
            &self.policy,
            input,
            &Rules::default(),
            &self.memory,
            &extensions,
            at,
        );
        let (decision, wanted) = match (&outcome.result, &wanted) {
            (Ok(decision), Ok(wanted)) => (decision, wanted),
            (Err(refusal), Err(wanted)) if refusal.error_type() == *wanted => return wanted,
            (got, _) => {
                let got = got.as_ref().map(|decision| format!("{:?}", decision.selection));
                let got = got.map_err(|refusal| refusal.error_type());
                self.differs(
                    context,
                    "outcome",
                    &json!(format!("{got:?}")),
                    &json!(format!("{wanted:?}")),
                );
            }
        };
        let explaining = Explaining {
            decision,
            policy: &self.policy,
            input,
            at,
            memory: &self.memory,
            provenance: Provenance::default(),
        };
        let explained = [DetailLevel::Minimal, DetailLevel::Detailed, DetailLevel::Verbose]
            .map(|level| explaining.explain(level, None));
        let mut metadata = context.clone();
        metadata.extend(decision.extras(&self.policy));
        let provider = self.check_provider(context, wanted, &explained[2]);
        let backoff_ms = self.check_backoff(context, wanted, &explained[2]);
        let (reason, priority) = explanation::reason(&wanted.how);
        let details = explanation::details(&wanted.how, &self.ids, backoff_ms);
        let mut wanted_metadata = context.clone();
        wanted_metadata.extend(details.clone());
        let executed: Value = wanted
            .executed
            .iter()
            .map(|(kind, id, status)| json!({"type": kind, "id": id, "status": status}))
            .collect();
        if metadata.contains_key("executed_extensions") {
            wanted_metadata.insert("executed_extensions".to_owned(), executed);
        } else if executed != json!([]) {
            self.differs(context, "extensions", &Value::Null, &executed);
        }
        let latency = context.get("expected_latency_ms").and_then(Value::as_u64);
        let cost = context.get("expected_cost").and_then(Value::as_f64);
        let got = (
            decision.selection.provider.as_str(),
            decision.selection.how.reason(),
            u64::from(decision.selection.how.priority()),
            decision.expected_latency_ms(input, &self.memory),
            decision.expected_cost(input, &self.memory),
        );
        let head = (
            provider.as_str(),
            reason,
            priority,
            latency.unwrap_or(500),
            cost.unwrap_or(0.01),
        );
        if got != head {
            self.differs(context, "decision", &json!(got), &json!(head));
        }
        if metadata != wanted_metadata {
            self.differs(context, "metadata", &json!(metadata), &json!(wanted_metadata));
        }
        for (level, explained) in LEVELS.iter().zip(&explained) {
            let shown = explanation::context(&self.model, context, wanted, &provider, details.clone(), level);
            let mut steps = explanation::steps(&self.model, context, wanted, &self.ids, backoff_ms, level);
            // Where the contract has no words, the program's are taken, if they are about the same step.
            for (step, got) in steps.iter_mut().zip(&explained.steps) {
                let same_step = got.starts_with("1. Checked sticky session: ");
                *step = step.take().or_else(|| same_step.then(|| got.clone()));
            }
            let got = (
                explained.reason,
                explained.provider_id.as_str(),
                explained.policy_id.as_str(),
                explained.policy_version.as_str(),
                u64::from(explained.priority),
            );
            let head = (
                reason,
                provider.as_str(),
                "chat",
                self.model.version.as_str(),
                priority,
            );
            if got != head {
                self.differs(context, level, &json!(got), &json!(head));
            }
            if !explained
                .steps
                .iter()
                .map(Some)
                .eq(steps.iter().map(Option::as_ref))
            {
                let what = format!("{level} steps");
                self.differs(context, &what, &json!(explained.steps), &json!(steps));
            }
            if explained.context != shown {
                let what = format!("{level} context");
                self.differs(context, &what, &json!(explained.context), &json!(shown));
            }
        }
        self.check_evidence(context, wanted, &explained[2]);
        if wanted.how == How::Weighted {
            engine::drawn(&self.model, context, &mut self.modelled, self.now, &provider);
        }
        reason
    }

    /// The provider that must have been chosen: where it was drawn, the one to which the point leads (2.4).
    fn check_provider(
        &self,
        context: &Map<String, Value>,
        wanted: &Decided,
        explained: &Explanation,
    ) -> String {
        let candidates = match &wanted.provider {
            Chosen::This(provider) => return provider.clone(),
            Chosen::Drawn(candidates) => candidates,
        };
        let draw = explained.evidence.as_ref().and_then(|evidence| evidence.draw);
        let Some(DrawEvidence { point, total }) = draw else {
            self.differs(context, "draw", &json!(draw), &json!("a point and a total"));
        };
        let sum: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        if (total - sum).abs() > 1e-9 || !(0.0..=total).contains(&point) {
            self.differs(context, "draw", &json!(draw), &json!(sum));
        }
        let got = explained.provider_id.as_str();
        let mut reached = 0.0;
        let mut last = None;
        for (name, weight) in candidates {
            let before = reached;
            reached += weight;
            if *weight <= 0.0 {
                continue;
            }
            last = Some(name.clone());
            // At the very border rounding may decide.
            let at_border = (point - reached).abs() < 1e-9 || (point - before).abs() < 1e-9;
            let leads_here = if at_border { got == name } else { point <= reached };
            if leads_here {
                return name.clone();
            }
        }
        last.unwrap()
    }

    fn check_backoff(&self, context: &Map<String, Value>, wanted: &Decided, explained: &Explanation) -> u64 {
        let How::Retry { backoff_ms, .. } = &wanted.how else {
            return 0;
        };
        let got = explained.context.get("backoff_ms").and_then(Value::as_u64);
        match got.filter(|got| backoff_ms.contains(got)) {
            Some(got) => got,
            None => self.differs(context, "backoff", &json!(got), &json!(format!("{backoff_ms:?}"))),
        }
    }

    fn check_evidence(&self, context: &Map<String, Value>, wanted: &Decided, explained: &Explanation) {
        let evidence = explained.evidence.as_ref().unwrap();
        let rule = match wanted.how {
            How::Retry { rule, .. } | How::Fallback { rule, .. } => Some(rule),
            _ => None,
        };
        let sessions: &[&str] = match (&self.model.sticky, wanted.session) {
            (None, _) => &[],
            (_, Session::NotAsked) => &["not_asked"],
            (_, Session::Miss) => &["miss", "no_session"],
            (_, Session::Hit) => &["hit"],
            (_, Session::Excluded) => &["excluded"],
        };
        let session = evidence.sticky.as_ref().map(|sticky| sticky.outcome);
        let same_session = session.map_or(sessions.is_empty(), |session| sessions.contains(&session));
        let total = self.model.total();
        if !same_session || evidence.rule_index != rule || (evidence.total_weight - total).abs() > 1e-9 {
            self.differs(
                context,
                "evidence",
                &json!(evidence),
                &json!([sessions, rule, total]),
            );
        }
    }

    fn check_memory(&self) {
        let none = Map::new();
        let now = Timestamp::from_unix_ms(self.now);
        let states: BTreeMap<String, &str> = self
            .memory
            .breakers
            .list(&self.tenant, now)
            .into_iter()
            .map(|(id, status)| (id.to_string(), status.state.as_str()))
            .collect();
        let wanted: BTreeMap<String, &str> = self
            .modelled
            .breakers
            .iter()
            .map(|(id, breaker)| {
                let state = match breaker.state {
                    State::Closed => "closed",
                    State::Open => "open",
                    State::HalfOpen => "half_open",
                };
                (id.clone(), state)
            })
            .collect();
        if states != wanted {
            self.differs(&none, "breakers", &json!(states), &json!(wanted));
        }
        let sessions: BTreeSet<String> = self
            .memory
            .sticky
            .list(&self.tenant, 100)
            .into_iter()
            .map(|one| format!("{} {} {}", one.value, one.provider, one.last_set))
            .collect();
        let wanted = self.modelled.sessions();
        if sessions != wanted {
            self.differs(&none, "sessions", &json!(sessions), &json!(wanted));
        }
    }
}

fn document(random: &mut Rng) -> Value {
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| {
        document.insert(key.to_owned(), value);
    };
    let breaker = often(random, 40);
    let health = often(random, 20);
    let negative = !breaker && !health && often(random, 15);
    if often(random, 30) {
        put("version", json!(one(random, &["2.0", "1.3"])));
    }
    match random.u32(..10) {
        0..5 => put(
            "providers",
            (0..random.u32(1..5))
                .map(|_| provider(random, negative))
                .collect(),
        ),
        5 => put("providers", json!([])),
        6 => put("providers", json!("a")),
        _ => {}
    }
    if often(random, 60) {
        let most = one(random, &[0, 1, 2, 3]);
        let weight = |random: &mut Rng| match most {
            0 => json!(random.u32(..=100)),
            1 => json!(f64::from(random.u32(..=10)) / 10.0),
            2 => json!(0),
            _ => json!(f64::from(random.u32(..=19)) / 10.0),
        };
        let names: Vec<&str> = (0..random.u32(1..5)).map(|_| name(random)).collect();
        put(
            "weights",
            names
                .into_iter()
                .map(|name| (name.to_owned(), weight(random)))
                .collect(),
        );
    }
    match random.u32(..10) {
        0..6 => put("fallbacks", (0..random.u32(..5)).map(|_| rule(random)).collect()),
        6 => put("fallbacks", json!("none")),
        _ => {}
    }
    match random.u32(..10) {
        0..2 => put("fallback", json!({"provider": name(random)})),
        2 => put(
            "fallback",
            json!({"provider": name(random), "conditions": [status(random), "503"]}),
        ),
        3 => put("fallback", json!({"conditions": [status(random)]})),
        4 => put("fallback", json!(name(random))),
        5 => put("fallback", json!(7)),
        _ => {}
    }
    if often(random, 50) {
        let mut sticky = json!({"enabled": one(random, &[true, true, true, false])});
        if often(random, 50) {
            sticky["session_key"] = json!("user_id");
        }
        match random.u32(..4) {
            0 => sticky["ttl"] = json!(one(random, &["1s", "2s", "1m", "2h", "0s"])),
            1 => sticky["ttl_seconds"] = json!(one(random, &[-5, 0, 1, 2, 60])),
            _ => {}
        }
        put("sticky", sticky);
    }
    if breaker {
        put(
            "circuit_breaker",
            json!({
                "enabled": true, "failure_threshold": random.u32(..5), "success_threshold": random.u32(1..3),
                "timeout_ms": one(random, &[10, 1_000, 2_000, 60_000]), "half_open_max_calls": random.u32(1..4),
            }),
        );
    }
    if health {
        put("health_check", json!({"enabled": true}));
    }
    if often(random, 15) {
        put(
            "rate_limit",
            json!({"enabled": one(random, &[true, true, false]), "requests_per_second": 1, "burst": random.u32(..4)}),
        );
    }
    for (key, percent) in [("pre", 20), ("validators", 20), ("post", 20)] {
        if often(random, percent) {
            let count = one(random, &[1, 1, 2, 3, 5, 6]);
            put(key, (0..count).map(|_| item(random)).collect());
        }
    }
    Value::Object(document)
}

fn provider(random: &mut Rng, negative: bool) -> Value {
    let name = name(random);
    match random.u32(..12) {
        0 => json!("a"),
        1 => json!({"name": name}),
        2 => json!({"name": name, "weight": "many"}),
        3 => json!({"weight": 10}),
        4 if negative => json!({"name": name, "weight": -random.i32(1..60)}),
        5 => json!({"name": name, "weight": f64::from(random.u32(..=10)) / 10.0}),
        6 => json!({"name": name, "weight": f64::from(random.u32(20..=1_000)) / 10.0}),
        7 => json!({"name": name, "weight": 0}),
        _ => json!({"name": name, "weight": random.u32(..=120)}),
    }
}

fn status(random: &mut Rng) -> Value {
    one(
        random,
        &[
            json!("timeout"),
            json!("503"),
            json!(503),
            json!("5xx"),
            json!("429"),
            json!("unhealthy"),
            json!("circuit_breaker_open"),
            json!("all_providers_failed"),
        ],
    )
}

fn when(random: &mut Rng) -> Value {
    let value = json!({"var": one(random, &["n", "context.n", "deep.n", "status", "missing"])});
    let operand = one(
        random,
        &[json!(1), json!(1.0), json!(2), json!("1"), json!([1, "timeout"])],
    );
    match random.u32(..12) {
        0 => json!({}),
        1 => json!([]),
        2 => json!({"status": []}),
        3 => json!({"status": status(random), "n": 1}),
        4 => json!({one(random, &["==", "!=", ">", "<", ">=", "<=", "in"]): [value, operand]}),
        5 => json!({one(random, &["==", "in"]): [1]}),
        6 => json!({"n": [1.0, "1"]}),
        7 => json!({"status": status(random)}),
        _ => json!({"status": [status(random), status(random)]}),
    }
}

fn rule(random: &mut Rng) -> Value {
    if often(random, 6) {
        return one(random, &[json!(5), json!("x"), json!(null), json!([])]);
    }
    let mut rule = Map::new();
    let mut put = |key: &str, value: Value| {
        rule.insert(key.to_owned(), value);
    };
    if often(random, 90) {
        put("when", when(random));
    }
    if often(random, 80) {
        put("retry", json!(random.i32(-1..4)));
    }
    if often(random, 85) {
        put("to", json!(name(random)));
    }
    match random.u32(..5) {
        0 => put(
            "backoff",
            json!({"strategy": one(random, &["exponential", "linear", "fixed", "odd"]), "base_ms": random.u32(1..2_000)}),
        ),
        1 => put(
            "backoff",
            json!({"base_ms": random.u32(1..20), "max_ms": random.u32(1..300), "jitter": random.bool()}),
        ),
        2 => put("backoff", json!("fast")),
        _ => {}
    }
    Value::Object(rule)
}

fn item(random: &mut Rng) -> Value {
    match random.u32(..4) {
        0 => json!({"mode": "required"}),
        1 => json!({"id": "x", "when": when(random)}),
        _ => json!({"id": one(random, &["x", "y"])}),
    }
}

fn context(random: &mut Rng, ids: &[String]) -> Map<String, Value> {
    let mut context = Map::new();
    let mut put = |key: &str, value: Value| {
        context.insert(key.to_owned(), value);
    };
    put("tenant_id", json!("acme"));
    if often(random, 55) {
        put(
            "status",
            one(
                random,
                &[
                    json!("success"),
                    json!("timeout"),
                    json!("503"),
                    json!(503),
                    json!(500),
                    json!("5xx"),
                    json!("429"),
                    json!("down"),
                ],
            ),
        );
    }
    if often(random, 55) {
        put("current_provider", json!(name(random)));
    }
    for key in ["user_id", "session_id"] {
        if often(random, 70) {
            put(
                key,
                one(
                    random,
                    &[
                        json!("u1"),
                        json!("u2"),
                        json!(7),
                        json!("7"),
                        json!(1.5),
                        json!(true),
                    ],
                ),
            );
        }
    }
    if often(random, 20) {
        put("selected_provider", json!(name(random)));
        match random.u32(..3) {
            0 => put("fallback_provider", json!(name(random))),
            1 => put("fallback_rules", json!([{"to": name(random)}])),
            _ => {}
        }
    }
    let count = one(random, &[json!(0), json!(1), json!(2), json!("1"), json!("3")]);
    match random.u32(..8) {
        0 => put("retry_attempts", count),
        1 => put("retry_attempts_0", count),
        2 if !ids.is_empty() => put(&format!("retry_attempts_{}", ids[0]), count),
        3 if !ids.is_empty() => put("retry_attempts", json!({one(random, ids): count})),
        4 => put("retry_attempts", json!({"1": count})),
        _ => {}
    }
    if often(random, 40) {
        put("n", one(random, &[json!(1), json!(1.0), json!("1"), json!(3)]));
    }
    if often(random, 30) {
        put("deep", json!({"n": 1}));
    }
    if often(random, 30) {
        put("trace_id", json!("tr-1"));
    }
    if often(random, 10) {
        put(
            "deadline",
            one(
                random,
                &[
                    json!(START - 1),
                    json!(START + 1_000),
                    json!(START + 3_600_000),
                    json!("soon"),
                ],
            ),
        );
    }
    if often(random, 10) {
        put("expected_latency_ms", json!(120));
        put("expected_cost", json!(0.5));
    }
    context
}
