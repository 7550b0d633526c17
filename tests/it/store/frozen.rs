//! A replica that stops in the middle of a write.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use http::Method;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    P,
    killed::serve_in_a_child,
    line::Line,
    policy,
    scratch::{Scratch, ask, postgres},
};
use crate::{heir::coming_back::Lateness, support::eventually};

#[tokio::test]
async fn a_replica_that_is_frozen_within_a_write_holds_the_others_up_for_seconds_only() {
    let Some(server) = postgres() else { return };
    let scratch = Scratch::postgres(server.clone(), "template0").await;
    // Its writes take long enough to be met in the middle of one.
    let line = Line::to(&scratch).await;
    let folder = tempfile::tempdir().unwrap();
    let (mut child, frozen) = serve_in_a_child(&line.database, folder.path()).await;
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    let other = scratch.start().await;
    assert_eq!(other.put(P, "{\"n\":0}").await.status, 201);

    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, client) = (stop.clone(), frozen.clone());
        tokio::spawn(async move {
            while !stop.load(SeqCst) {
                let _outcome = client
                    .send(
                        Method::PUT,
                        &policy("frozen"),
                        &[],
                        format!("{{\"n\":{}}}", fastrand::u32(..)),
                    )
                    .await;
            }
        })
    };
    let within_a_write = format!(
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{}' AND state = 'idle in transaction'
         AND backend_xid IS NOT NULL",
        scratch.name()
    );
    eventually("it is met within a write", || async {
        kill_process(pid, Signal::STOP).unwrap();
        // What is on the line arrives.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let met = ask(&server, within_a_write.clone()).await > 0;
        if !met {
            kill_process(pid, Signal::CONT).unwrap();
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..60))).await;
        }
        met
    })
    .await;

    let (begun, lateness) = (Instant::now(), Lateness::measured());
    loop {
        let put = other.put(P, "{\"n\":1}").await;
        if put.status.is_success() {
            break;
        }
        assert_eq!(put.error(), (503, "overloaded".into()));
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it holds the lock still"
        );
    }
    let (after, allowed) = (begun.elapsed(), Duration::from_secs(10) + lateness.allows());
    assert!(after < allowed, "{after:?}, allowed are {allowed:?}");
    assert_eq!(other.get(P).await.body, "{\"n\":1}");

    kill_process(pid, Signal::CONT).unwrap();
    eventually("it writes again", || async {
        frozen.put(P, "{\"n\":2}").await.status == 200
    })
    .await;
    assert_eq!(other.get(P).await.body, "{\"n\":2}");
    stop.store(true, SeqCst);
    writer.await.unwrap();
    child.kill().await.unwrap();
    other.stop().await;
    scratch.remove().await;
}
