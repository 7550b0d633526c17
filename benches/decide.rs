//! What a decision costs, without HTTP around it: `cargo bench --bench decide`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot set up what it measures has nothing to say"
)]

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use beamline_sidecar::{
    decide::{
        DecideContext, Decision, DecisionId, DecisionInput, Effects, Explaining, Message, NoExtensions,
        Provenance, Rules, Seed, Timestamp, decide_now,
        memory::{Memory, MemoryLimits},
    },
    policy::{DetailLevel, PolicyId, RoutingPolicy, TenantId, read, read_object},
};
use divan::Bencher;
use serde_json::{Value, json};

/// Everything that one request for a decision needs.
struct Asking {
    policy: RoutingPolicy,
    tenant: TenantId,
    policy_id: PolicyId,
    context: serde_json::Map<String, Value>,
    rules: Rules,
}

impl Asking {
    fn new(tenant: &str, policy: &Value, context: &Value) -> Self {
        let mut context = context.as_object().unwrap().clone();
        context.insert("tenant_id".into(), tenant.into());
        Self {
            policy: read_object(policy.as_object().unwrap()).0,
            tenant: TenantId::parse(tenant).unwrap(),
            policy_id: PolicyId::parse("chat").unwrap(),
            context,
            rules: Rules::default(),
        }
    }

    fn input(&self) -> DecisionInput<'_> {
        DecisionInput {
            tenant: &self.tenant,
            policy_id: &self.policy_id,
            context: &self.context,
            message: Message::default(),
        }
    }

    /// A policy without extensions waits for nothing: its future is ready when it is first asked.
    fn decide(&self, memory: &Memory, seed: u64) -> Decision {
        let outcome = decide_now(
            &self.policy,
            self.input(),
            &self.rules,
            memory,
            &NoExtensions,
            at(seed),
        );
        outcome.result.unwrap()
    }
}

fn at(seed: u64) -> DecideContext<'static> {
    const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);
    DecideContext {
        id: DecisionId(seed.into()),
        seed: Seed(seed),
        now: NOW,
        later: &|| NOW,
        wall_ahead_ms: 0,
        effects: Effects::Remembered,
    }
}

fn memory() -> Memory {
    Memory::new(MemoryLimits {
        sessions: 100_000,
        buckets: 100_000,
        providers: 10_000,
    })
}

fn two_providers() -> Value {
    json!({"providers": [{"name": "openai", "weight": 70}, {"name": "anthropic", "weight": 30}]})
}

/// Two providers with something more.
fn with(more: &Value) -> Value {
    let mut policy = two_providers();
    for (key, value) in more.as_object().unwrap() {
        policy[key] = value.clone();
    }
    policy
}

fn measure(bencher: Bencher<'_, '_>, policy: &Value, context: &Value) {
    let (asking, memory) = (Asking::new("acme", policy, context), memory());
    let mut seed = 0_u64;
    bencher.bench_local(|| {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        asking.decide(&memory, black_box(seed))
    });
}

#[divan::bench]
fn weighted(bencher: Bencher<'_, '_>) {
    measure(bencher, &two_providers(), &json!({}));
}

#[divan::bench]
fn sticky_hit(bencher: Bencher<'_, '_>) {
    let policy = with(&json!({"sticky": {"enabled": true, "session_key": "user", "ttl": "10m"}}));
    measure(bencher, &policy, &json!({"user": "user-4711"}));
}

/// Each request is of another session, in a table that is full soon.
#[divan::bench]
fn sticky_new_session(bencher: Bencher<'_, '_>) {
    let policy = with(&json!({"sticky": {"enabled": true, "session_key": "user", "ttl": "10m"}}));
    let (mut asking, memory) = (Asking::new("acme", &policy, &json!({})), memory());
    let mut number = 0_u64;
    bencher.bench_local(|| {
        number += 1;
        asking.context.insert("user".into(), number.into());
        asking.decide(&memory, number)
    });
}

#[divan::bench]
fn breaker(bencher: Bencher<'_, '_>) {
    measure(
        bencher,
        &with(&json!({"circuit_breaker": {"enabled": true}})),
        &json!({}),
    );
}

#[divan::bench]
fn rate_limit(bencher: Bencher<'_, '_>) {
    // Its clock stands still, so nothing comes back: divan's iterations are fewer than the bucket holds.
    let limit =
        json!({"rate_limit": {"enabled": true, "requests_per_second": 1_000_000, "burst": 1_000_000}});
    let (asking, fresh) = (Asking::new("acme", &with(&limit), &json!({})), || memory());
    bencher
        .with_inputs(fresh)
        .bench_local_refs(|memory| asking.decide(memory, 7));
}

/// Ten rules, of which the last is true.
#[divan::bench]
fn ten_fallback_rules(bencher: Bencher<'_, '_>) {
    let rule = |index: u32| json!({"when": {"status": [format!("s{index}"), "5xx"], "kind": [format!("k{index}")]}, "to": "x"});
    let rules: Vec<Value> = (0..10).map(rule).collect();
    let policy = with(&json!({"fallbacks": rules}));
    let context = json!({"status": "503", "kind": "k9", "current_provider": "openai", "retry_attempts": 1});
    measure(bencher, &policy, &context);
}

#[divan::bench(args = ["minimal", "detailed", "verbose"])]
fn explanation(bencher: Bencher<'_, '_>, level: &str) {
    let level = DetailLevel::parse(level).unwrap();
    let rules = json!([{"when": {"status": ["timeout"]}, "to": "anthropic"}]);
    let policy = with(&json!({"sticky": {"enabled": true, "session_key": "user"}, "fallbacks": rules}));
    let (asking, memory) = (
        Asking::new("acme", &policy, &json!({"user": "user-4711", "region": "eu"})),
        memory(),
    );
    let decision = asking.decide(&memory, 1);
    let explaining = Explaining {
        decision: &decision,
        policy: &asking.policy,
        input: asking.input(),
        at: at(1),
        memory: &memory,
        provenance: Provenance::default(),
    };
    bencher.bench_local(|| black_box(&explaining).explain(level, None));
}

#[divan::bench]
fn read_a_policy_of_600_bytes(bencher: Bencher<'_, '_>) {
    let mut document = json!({
        "policy_id": "policy-0001", "version": "1.0",
        "weights": {"openai:gpt-4o": 0.6, "anthropic:claude-3-5-sonnet": 0.3, "local:llama-3-8b": 0.1},
        "fallbacks": [
            {"when": {"status": ["timeout", "5xx"]}, "retry": 2, "to": "anthropic:claude-3-5-sonnet"},
            {"when": {"status": ["rate_limited"]}, "retry": 1, "to": "local:llama-3-8b"},
        ],
        "sticky": {"enabled": true, "session_key": "user_id", "ttl": "10m"},
        "metadata": {"description": ""},
    });
    let missing = 600 - document.to_string().len();
    document["metadata"]["description"] = "x".repeat(missing).into();
    let text = document.to_string();
    bencher.bench_local(|| read(black_box(text.as_bytes())));
}

/// Decisions per second of eight tenants, by so many threads, on one memory; best of the rounds, since any other load
/// on the machine only reduces the rate. Each thread has its own tenants, or all of them.
fn throughput(threads: u64, mixed: bool, length: Duration) -> f64 {
    let policy = with(&json!({
        "sticky": {"enabled": true, "session_key": "user", "ttl": "10m"}, "circuit_breaker": {"enabled": true},
    }));
    let asking: Vec<Asking> = (0..8)
        .map(|tenant| {
            Asking::new(
                &format!("tenant-{tenant}"),
                &policy,
                &json!({"user": "user-4711"}),
            )
        })
        .collect();
    let round = || -> f64 {
        // Which tenants share a lock is chance: each round draws anew.
        let memory = memory();
        let run = |thread: u64| {
            let mine = |turn: u64| {
                if mixed {
                    (thread * 4 + turn) % 8
                } else {
                    (thread + turn * threads) % 8
                }
            };
            let (started, mut decided) = (Instant::now(), 0_u64);
            while started.elapsed() < length {
                for turn in 0..256 {
                    let one = &asking[usize::try_from(mine(turn)).unwrap()];
                    black_box(one.decide(&memory, decided));
                    decided += 1;
                }
            }
            decided as f64 / started.elapsed().as_secs_f64()
        };
        thread::scope(|scope| {
            let run = &run;
            let running: Vec<_> = (0..threads)
                .map(|thread| scope.spawn(move || run(thread)))
                .collect();
            running.into_iter().map(|thread| thread.join().unwrap()).sum()
        })
    };
    (0..12).map(|_| round()).fold(0.0, f64::max)
}

fn main() {
    divan::main();
    // Not where divan only lists or tests what there is.
    if std::env::args().any(|argument| argument == "--bench") && std::env::args().count() == 2 {
        let length = Duration::from_millis(250);
        let one = throughput(1, true, length);
        let [own, mixed] = [false, true].map(|mixed| throughput(2, mixed, length));
        println!("8 tenants, decisions/s: {one:.0} on one thread");
        println!(
            "  two threads, each with its own tenants: {own:.0}, {:.2} times",
            own / one
        );
        println!(
            "  two threads, each with all tenants: {mixed:.0}, {:.2} times",
            mixed / one
        );
    }
}
