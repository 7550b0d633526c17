//! What extensions cost, without HTTP around them: `cargo bench --bench extensions`, with names of components to measure
//! these alone. The components are those that `wasm-extensions/build.sh` makes; without one of them its rows are left out.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot set up what it measures has nothing to say"
)]

use std::{
    fs,
    hint::black_box,
    path::Path,
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use beamline_sidecar::extensions::{
    Built, CallEnv, CallLimits, CallOutput, CallRecord, Compiler, ComponentCache, Engines, Kind,
    MessageRecord, Prepared, Raw, Time, Work,
};

const LIMITS: CallLimits = CallLimits {
    memory_bytes: 64 << 20,
    table_elements: 20_000,
    output_bytes: 1 << 20,
    fuel: None,
};
const TIME: Time = Time::of(Duration::from_secs(1));
const ENV: CallEnv = CallEnv { now_ms: 0, seed: 0 };

static COMPONENT_CACHE: LazyLock<ComponentCache> = LazyLock::new(|| {
    let compiler = Compiler {
        program: env!("CARGO_BIN_EXE_beamline-sidecar").into(),
        timeout: Duration::from_secs(120),
        memory_bytes: 4 << 30,
        in_background: false,
    };
    ComponentCache::new(Arc::new(Engines::new(256, 64 << 20).unwrap()), compiler, None)
});

struct Guest {
    prepared: Prepared,
    built: Arc<Built>,
    config: &'static str,
}

impl Guest {
    fn load(name: &str, kind: Kind, config: &'static str) -> Option<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("wasm-extensions/target/components")
            .join(format!("{name}.wasm"));
        let built = COMPONENT_CACHE.build(&fs::read(path).ok()?).unwrap();
        let prepared = COMPONENT_CACHE
            .link(&built, kind, &built.interface.needs())
            .unwrap();
        Some(Self {
            prepared,
            built,
            config,
        })
    }

    fn call(&self, payload: &str) {
        let result = black_box(self.run(payload, self.config, TIME).result);
        assert!(result.is_ok(), "{result:?}");
    }

    fn run(&self, payload: &str, config: &str, time: Time) -> CallOutput<Raw> {
        let record = CallRecord {
            tenant_id: "acme",
            policy_id: "chat",
            trace_id: "",
            request_id: "req-0000001",
            context: r#"{"tenant_id":"acme","message_type":"chat"}"#,
            config,
            remaining_ms: 100,
        };
        let message = MessageRecord {
            message_id: "",
            message_type: "chat",
            payload,
            metadata: "{}",
        };
        let work = match self.prepared.kind() {
            Kind::Pre => Work::Pre(message),
            _ => Work::Validator(message),
        };
        self.prepared.call(record, work, LIMITS, time, ENV)
    }
}

/// A message of 505 bytes with some personal data in it.
fn payload() -> String {
    let text =
        "Dear support, my card 4111 1111 1111 1111 was charged twice; write to ada@example.com please. ";
    let mut payload = format!("{{\"text\":\"{text}\"}}");
    let missing = 505 - payload.len();
    payload.insert_str(payload.len() - 2, &"x y z ".repeat(100)[..missing]);
    assert_eq!(payload.len(), 505);
    payload
}

/// Microseconds of one call: the median of rounds, each of calls on so many threads for a while. With it, calls per
/// second of all threads together, in the best round.
fn measure(guest: &Guest, threads: usize, length: Duration) -> (f64, f64) {
    let payload = payload();
    let round = || {
        thread::scope(|scope| {
            let run = || {
                let (started, mut calls) = (Instant::now(), 0_u32);
                while started.elapsed() < length {
                    guest.call(&payload);
                    calls += 1;
                }
                f64::from(calls) / started.elapsed().as_secs_f64()
            };
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum::<f64>()
        })
    };
    let mut rounds: Vec<f64> = (0..9).map(|_| round()).collect();
    rounds.sort_by(f64::total_cmp);
    (1e6 * threads as f64 / rounds[4], rounds[8])
}

/// Resident memory of this process, in bytes.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

fn main() {
    // Where tests are only listed or tried.
    let (flags, asked): (Vec<_>, Vec<_>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with('-'));
    if !flags.iter().any(|flag| flag == "--bench") {
        return;
    }
    let before = resident();
    LazyLock::force(&COMPONENT_CACHE);
    println!(
        "pools of 256 instances: {:.1} MiB at creation",
        (resident() - before) / f64::from(1 << 20)
    );
    println!(
        "\n| component | bytes | compiled in, ms | fresh call, µs | calls/s on one thread | on two | × |\n|---|---|---|---|---|---|---|"
    );
    let length = Duration::from_millis(200);
    for (name, kind, config) in [
        ("misbehaving-validator", Kind::Validator, "{}"),
        ("pii-guard", Kind::Validator, "{}"),
        ("normalize-text", Kind::Pre, "{}"),
        ("mask-pii-pre", Kind::Pre, "{}"),
        ("pii-guard-js", Kind::Validator, "{}"),
        ("pii-guard-python", Kind::Validator, "{}"),
    ] {
        if !asked.is_empty() && !asked.iter().any(|asked| asked == name) {
            continue;
        }
        let Some(guest) = Guest::load(name, kind, config) else {
            println!("| {name} | is not built | | | | | |");
            continue;
        };
        let (one_us, one) = measure(&guest, 1, length);
        let (_, two) = measure(&guest, 2, length);
        let compiled = guest.built.compiled_in.unwrap_or_default().as_secs_f64() * 1e3;
        println!(
            "| {name} | {} | {compiled:.0} | {one_us:.2} | {one:.0} | {two:.0} | {:.2} |",
            guest.built.bytes,
            two / one
        );
    }
    if asked.is_empty() {
        misbehave();
    }
}

/// What guests that want to do harm take, against a deadline of 10 ms, and the good call after each.
fn misbehave() {
    let guest = Guest::load("misbehaving-validator", Kind::Validator, "{}").unwrap();
    let time = Time::of(Duration::from_millis(10));
    println!(
        "\n| what it does | how it ends | over after, ms: middle of 50, worst | the next good call, µs | resident memory before and after, MiB |\n|---|---|---|---|---|"
    );
    for deed in [
        "loop",
        "loop-in-host",
        "allocate",
        "recurse",
        "trap",
        "panic",
        "huge-output",
        "flood-log",
    ] {
        let config = format!("{{\"do\":\"{deed}\",\"bytes\":32000000}}");
        let before = resident();
        let (mut bad, mut good, mut ended) = (Vec::new(), Vec::new(), String::new());
        for _ in 0..50 {
            let began = Instant::now();
            let ran = guest.run("{}", &config, time);
            bad.push(began.elapsed().as_secs_f64() * 1e3);
            let began = Instant::now();
            guest.call("{}");
            good.push(began.elapsed().as_secs_f64() * 1e6);
            ended = match ran.result {
                Ok(_) => "an answer".to_owned(),
                Err(error) => error.to_string().chars().take(60).collect(),
            };
        }
        bad.sort_by(f64::total_cmp);
        good.sort_by(f64::total_cmp);
        println!(
            "| {deed} | {ended} | {:.2}, {:.2} | {:.1} | {:.1}, {:.1} |",
            bad[25],
            bad[49],
            good[25],
            before / f64::from(1 << 20),
            resident() / f64::from(1 << 20)
        );
    }
}
