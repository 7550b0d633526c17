//! The truth: whatever happens to HEIR and to the sidecar, at the end both have the same, and every write that was
//! acknowledged is there or is reported as a conflict.
//!
//! A client makes 200 operations per second while the store is killed, paused, restored from an older copy and
//! answers 500, and the sidecar is killed. `BEAMLINE_SOAK_SECONDS` makes a long run, `BEAMLINE_SOAK_SEED` repeats
//! one; the order of what is done is the seed's, the moment is the machine's.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

mod faults;
mod judge;
mod model;
mod plan;
mod world;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use beamline_sidecar::store::Level;
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use self::{faults::Stage, plan::Scale, world::World};
use crate::support::{Client, Proxy, SidecarProcess, StoreProcess, within};

/// The sidecar's keys besides those that every process here has.
const YAML: &str =
    "refresh: {interval_ms: 300, long_poll_timeout_ms: 2000, stale_after_ms: 5000, negative_ttl_ms: 50}
writes: {max_queued: 1000000}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_is_in_heir_or_reported_whatever_happens() {
    at(Level::Changes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_is_in_a_heir_without_changes_or_reported() {
    at(Level::Snapshot).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_is_in_a_heir_that_only_lists_or_reported() {
    at(Level::List).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_is_in_a_heir_of_single_policies_or_reported() {
    at(Level::Single).await;
}

async fn at(level: Level) {
    let scale = Scale::from_environment(level);
    println!("{scale:?}; BEAMLINE_SOAK_SEED={} repeats it", scale.seed);
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(scale.seed);
    let (mut stage, world) = set_up(folder.path(), scale).await;
    let stop = Arc::new(AtomicBool::new(false));
    let client = begin_operations(world.clone(), random.fork(), stop.clone());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let faults = random.fork();
    match scale.seconds {
        None => short(&mut stage, &world, faults).await,
        Some(seconds) => long(&mut stage, &world, faults, seconds).await,
    }
    stop.store(true, SeqCst);
    client.await.unwrap();
    judge::judge(&world, &stage).await;
    let complaints = world.complaints();
    if !complaints.is_empty() {
        let log = folder.keep().join("sidecar.log");
        let lines = [stage.earlier_log, stage.sidecar.process.log()].concat();
        fs::write(&log, lines.join("\n")).unwrap();
        panic!(
            "{} complaints; the sidecar's log is {}:\n{}",
            complaints.len(),
            log.display(),
            complaints[..complaints.len().min(20)].join("\n")
        );
    }
    for kind in ["get", "list", "forwarded", "queued", "interferences"] {
        assert!(world.counted(kind) > 0, "no {kind}");
    }
}

async fn set_up(folder: &Path, scale: Scale) -> (Stage, Arc<World>) {
    // Where the sidecar is comes to be known only below.
    let mut world = World::new(scale, Client::new("127.0.0.1:0"));
    let import = folder.join("import");
    for policy in &world.policies {
        let tenant = import.join(&policy.tenant);
        fs::create_dir_all(&tenant).unwrap();
        fs::write(tenant.join(format!("{}.json", policy.id)), policy.body(0)).unwrap();
    }
    let began = Instant::now();
    let mut store = StoreProcess::start_at(scale.level, &folder.join("heir.db"), Some(&import)).await;
    println!("loaded in {:.1} s", began.elapsed().as_secs_f64());
    store.kill();
    let copy = store.copy();
    store.up().await;
    let proxy = Proxy::start(store.address()).await;
    let sidecar = SidecarProcess::start(folder, proxy.address, YAML).await;
    sidecar.wait_for("live").await;
    if !scale.level.has_validators() {
        // It knows what it was asked for.
        let client = sidecar.client();
        for policy in &world.policies {
            assert_eq!(client.get(&policy.path()).await.status, 200);
        }
    }
    // From here on a sidecar that starts while HEIR is away can answer.
    within(30, "the sidecar has a snapshot on disk", || async {
        folder.join("state/snapshot").exists()
    })
    .await;
    world.sidecar_is_at(sidecar.client());
    world.began = Instant::now();
    let stage = Stage {
        store,
        proxy,
        sidecar,
        copy,
        copy_is_too_old: false,
        earlier_log: Vec::new(),
    };
    (stage, Arc::new(world))
}

/// 200 operations per second, whether those before have been answered or not.
fn begin_operations(world: Arc<World>, mut random: fastrand::Rng, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    const AT_ONCE: u32 = 200;
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(AT_ONCE as usize));
        let mut ticks = interval(Duration::from_millis(5));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        while !stop.load(SeqCst) {
            ticks.tick().await;
            let place = room.clone().acquire_owned().await.unwrap();
            let operation = plan::operation(&mut random, world.policies.len());
            let world = world.clone();
            tokio::spawn(async move {
                world.carry_out(operation).await;
                drop(place);
            });
        }
        // The last are answered when all places are free again.
        let _all = room.acquire_many(AT_ONCE).await.unwrap();
    })
}

async fn short(stage: &mut Stage, world: &World, mut random: fastrand::Rng) {
    for fault in plan::SHORT
        .into_iter()
        .filter(|fault| fault.can_be_at(world.level))
    {
        stage.befall(world, fault, &mut random).await;
        tokio::time::sleep(Duration::from_millis(random.u64(500..1_200))).await;
    }
}

async fn long(stage: &mut Stage, world: &World, mut random: fastrand::Rng, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let fault = plan::fault(&mut random, world.level);
        stage.befall(world, fault, &mut random).await;
        tokio::time::sleep(Duration::from_millis(random.u64(0..2_500))).await;
    }
}
