//! Extensions and policies are exchanged again and again while decisions are made: none fails, each change arrives, and
//! the process stays as large as it was, to 5 %. `BEAMLINE_RELOADS` is how often.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a long run says how it went, and helpers of tests fail the test that called them"
)]

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    decide::{decide, outcome, request},
    extensions::{compatibility::kept, place::Place},
    support::{Client, Process, eventually},
};

/// Reloads after which the process is as large as it is to stay.
const WARM: u64 = 100;
/// Every so many reloads there is a module that was never seen before; the others are known.
const UNSEEN: u64 = 10;

fn reloads() -> Option<u64> {
    let environment = beamline_sidecar::config::environment();
    environment.get("BEAMLINE_RELOADS")?.parse().ok()
}

/// Resident memory, in KiB.
fn resident(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid().as_raw_nonzero())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Resident memory once nothing is done any more: the least of some seconds.
async fn settled(process: &Process) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        least = least.min(resident(process));
    }
    least
}

/// Another module that does the same: a section behind the others that means nothing.
fn variant(module: &[u8], number: u64) -> Vec<u8> {
    let mut variant = module.to_vec();
    variant.extend([0, 14, 5]);
    variant.extend(b"round");
    variant.extend(number.to_le_bytes());
    variant
}

/// What is exchanged: the record, now and then with another module, and the policy.
fn exchange(place: &Place, round: u64) {
    let (name, number) = match round % UNSEEN {
        0 => ("unseen.wasm".to_owned(), 1_000 + round),
        rest => (format!("note-{}.wasm", rest % 3), rest % 3),
    };
    place.bytes(&variant(&kept("post-processor"), number), &name);
    place.record(
        "note",
        json!({
            "id": "note", "type": "post", "module": format!("file:{name}"), "config": {"record": round},
            "capabilities": ["clock", "random", "metrics"],
        }),
    );
    let policy = json!({
        "version": "2.1",
        "providers": [{"name": "alpha", "weight": 60}, {"name": "beta", "weight": 40}],
        "pre": [{"id": "pre", "mode": "required"}],
        "validators": [{"id": "guard", "on_fail": "ignore"}],
        "scorers": [{"id": "score", "mode": "required"}],
        "post": [{"id": "note", "mode": "required", "config": {"policy": round}}],
    });
    let new = place.path("policies/acme/.chat.json");
    fs::write(&new, policy.to_string()).unwrap();
    fs::rename(new, place.path("policies/acme/chat.json")).unwrap();
}

/// The rounds of the record and of the policy that a decision was made with.
async fn seen(client: &Client) -> Result<(u64, u64), String> {
    let answer = decide(client, &request("acme", "chat", json!({})), &[]).await;
    if !outcome(&answer).starts_with("weighted ") {
        return Err(answer.text().to_owned());
    }
    let metadata = &answer.json()["decision"]["metadata"];
    let round = |of: &str| metadata[of].as_u64().ok_or_else(|| answer.text().to_owned());
    Ok((round("record")?, round("policy")?))
}

/// Decisions all the time; what went wrong, if anything did.
async fn decisions(data: String, stop: Arc<AtomicBool>, made: Arc<AtomicU64>) -> Result<(), String> {
    let client = Client::new(data);
    let mut last = (0, 0);
    while !stop.load(SeqCst) {
        let now = seen(&client).await?;
        if now.0 < last.0 || now.1 < last.1 {
            return Err(format!("{now:?} after {last:?}"));
        }
        last = now;
        made.fetch_add(1, SeqCst);
    }
    Ok(())
}

fn start(place: &Place) -> Process {
    for (name, id, kind) in [
        ("pre-processor", "pre", "pre"),
        ("validator", "guard", "validator"),
        ("scorer", "score", "scorer"),
    ] {
        place.bytes(&kept(name), &format!("{id}.wasm"));
        place.record(
            id,
            json!({
                "id": id, "type": kind, "module": format!("file:{id}.wasm"),
                "capabilities": ["clock", "random", "metrics"],
            }),
        );
    }
    exchange(place, 1);
    let config = place.path("sidecar.yaml");
    fs::write(
        &config,
        place.yaml("log: {format: json}\nextensions: {timeout_ms: 5000}"),
    )
    .unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    // What is held is measured, and not what the allocator keeps for later.
    Process::start(
        &["run", "--config", &text(&config)],
        &[("MIMALLOC_PURGE_DELAY", "0")],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_30_reloads_lose_no_decision_and_take_no_memory() {
    let rounds = reloads().unwrap_or(2 * WARM).max(2 * WARM);
    let place = Place::new();
    let process = start(&place);
    let client = Client::new(&process.listen[0]);
    eventually("all can be called", || async { seen(&client).await.is_ok() }).await;
    let began = Instant::now();
    let made = Arc::new(AtomicU64::new(0));
    let mut sizes = Vec::new();
    let mut round = 1;
    // The first part warms up; the size is taken while nothing is asked.
    for until in [WARM, rounds] {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load: Vec<_> = (0..3)
            .map(|_| tokio::spawn(decisions(process.listen[0].clone(), stop.clone(), made.clone())))
            .collect();
        while round < until {
            round += 1;
            exchange(&place, round);
            process.signal(Signal::HUP);
            let timeout = Instant::now() + Duration::from_secs(30);
            while seen(&client).await != Ok((round, round)) {
                assert!(Instant::now() < timeout, "reload {round} does not arrive");
                if let Some(ended) = load.iter_mut().find(|load| load.is_finished()) {
                    panic!("decisions ended at reload {round}: {:?}", ended.await);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if round % 1_000 == 0 {
                println!(
                    "{round} reloads: {} KiB, {:?}",
                    resident(&process),
                    began.elapsed()
                );
            }
        }
        stop.store(true, SeqCst);
        for load in load {
            assert_eq!(load.await.unwrap(), Ok(()));
        }
        sizes.push(settled(&process).await);
    }
    let (warm, end, made) = (sizes[0], sizes[1], made.load(SeqCst));
    println!(
        "{rounds} reloads in {:?}, {made} decisions; {warm} KiB after {WARM}, {end} KiB at the end",
        began.elapsed()
    );
    assert!(made > rounds, "there was load");
    let most = warm + warm / 20;
    assert!(
        end <= most,
        "{warm} KiB after {WARM} reloads, {end} KiB after {rounds}"
    );
    let log = process.log();
    let complaints: Vec<_> = log
        .iter()
        .filter(|line| !line.contains(r#""level":"INFO""#))
        .collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}
