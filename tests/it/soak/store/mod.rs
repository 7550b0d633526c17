//! The store's promises, whatever befalls it: what was acknowledged is there and in order, no read shows less than what was
//! acknowledged before it, and followers hear of every change once, in order.
//!
//! Writers, readers, clients that give up and followers work on a few policies while stores are killed and frozen, the
//! disk is full and connections are cut. Everything is recorded, and judged afterwards against the order that the store
//! itself gave to the writes. `BEAMLINE_SOAK_SECONDS` makes a long run.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

mod clients;
mod faults;
mod judge;
mod record;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use self::{
    faults::{Met, Replica, Stage},
    record::Record,
};
use crate::{
    store::{Line, Scratch, postgres},
    support::{SmallDisk, eventually},
};

async fn pause(ms: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(ms))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_on_a_file_keeps_its_promises() {
    let Some(disk) = SmallDisk::mount("512m") else {
        return;
    };
    let database = disk.path().join("heir.db");
    let replicas = vec![Replica::start(database.to_str().unwrap()).await];
    run(Stage {
        replicas,
        disk: Some(disk),
        lines: Vec::new(),
        scratch: None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_one_server_keep_their_promises() {
    let Some(server) = postgres() else { return };
    let scratch = Scratch::postgres(server, "template0").await;
    let (mut replicas, mut lines) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let line = Line::to(&scratch).await;
        replicas.push(Replica::start(&line.database).await);
        lines.push(line);
    }
    let scratch = run(Stage {
        replicas,
        disk: None,
        lines,
        scratch: Some(scratch),
    })
    .await;
    scratch.unwrap().remove().await;
}

/// The database is there as it was left.
async fn run(mut stage: Stage) -> Option<Scratch> {
    let environment = beamline_sidecar::config::environment();
    let seconds = environment
        .get("BEAMLINE_SOAK_SECONDS")
        .and_then(|text| text.parse::<u64>().ok());
    let record = Arc::new(Record::default());
    let stop = Arc::new(AtomicBool::new(false));
    let addresses: Vec<_> = stage
        .replicas
        .iter()
        .map(|replica| replica.proxy.address)
        .collect();
    let working = clients::begin(&addresses, &record, &stop);
    let followers = clients::follow(&addresses, &stop);

    // One of each kind in any case.
    let (mut faults, mut met) = (stage.faults(), Met::new());
    fastrand::shuffle(&mut faults);
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    while Instant::now() < end || !faults.is_empty() {
        // Over the line to a server a write takes seven times 20 ms, and there is to be work between the faults.
        let rest = if stage.lines.is_empty() {
            200..1_200
        } else {
            500..3_000
        };
        pause(rest).await;
        let fault = faults
            .pop()
            .unwrap_or_else(|| fastrand::choice(stage.faults()).unwrap());
        stage.befall(fault, &record, &mut met).await;
    }
    for address in &addresses {
        eventually("it serves again", || clients::writes(*address, &record)).await;
    }
    stop.store(true, SeqCst);
    for client in working {
        client.await.unwrap();
    }
    let state = clients::state(addresses[0]).await;
    let mut heard = Vec::new();
    for follower in followers {
        heard.push(follower.await.unwrap());
    }
    let record = Arc::into_inner(record).unwrap();
    println!("{}; {met:?}", record.summary());
    for fault in stage.faults() {
        assert!(
            met.get(&fault).is_some_and(|(_, much)| *much > 0),
            "{fault:?} met nothing: {met:?}"
        );
    }
    let complaints = judge::judge(&record, &state, &heard);
    assert!(
        complaints.is_empty(),
        "{} complaints:\n{}",
        complaints.len(),
        complaints[..complaints.len().min(20)].join("\n")
    );
    for (what, count) in record.counts() {
        assert!(count > 0, "no {what}");
    }
    stage.scratch
}
