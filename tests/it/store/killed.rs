//! What was acknowledged outlives `kill -9`.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use beamline_sidecar::store::{Store, StoreConfig};
use http::Method;
use tokio_util::sync::CancellationToken;

use super::{policy, running::config, scratch::everywhere};
use crate::support::{Client, eventually};

/// In the directory of a child process: the database that it is to serve.
const SERVE_HERE: &str = "serve-here";

/// Not a test: the process that the next one kills. Without its file it does nothing.
#[tokio::test]
#[ignore = "started by the test below, in a process of its own"]
async fn serve_until_killed() {
    let Ok(database) = std::fs::read_to_string(SERVE_HERE) else {
        return;
    };
    let store = Store::build(StoreConfig { database, ..config() }).await.unwrap();
    std::fs::write("address.new", store.address().to_string()).unwrap();
    std::fs::rename("address.new", "address").unwrap();
    store.run(CancellationToken::new()).await;
}

pub(super) async fn serve_in_a_child(database: &str, folder: &Path) -> (tokio::process::Child, Client) {
    std::fs::write(folder.join(SERVE_HERE), database).unwrap();
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "store::killed::serve_until_killed"])
        .current_dir(folder)
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let place = folder.join("address");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !place.exists() {
        assert!(Instant::now() < deadline, "the child did not come up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let address = std::fs::read_to_string(&place).unwrap();
    std::fs::remove_file(&place).unwrap();
    (child, Client::new(address))
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    everywhere(async |scratch| {
        let folder = scratch.folder.path();
        let mut acknowledged: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for round in 0..3 {
            let (mut child, client) = serve_in_a_child(&scratch.database, folder).await;
            let written = Arc::new(AtomicUsize::new(0));
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let (client, written) = (client.clone(), written.clone());
                    tokio::spawn(async move {
                        let mut mine = BTreeMap::new();
                        for n in 0.. {
                            let path = policy(format!("w{writer}-{}", n % 5));
                            let body = format!("{{\"round\":{round},\"n\":{n}}}");
                            let sent = client.send(Method::PUT, &path, &[], body.clone()).await;
                            // The one that was under way when the process died may have been written or not.
                            let Ok(put) = sent else {
                                return (mine, Some((path, body)));
                            };
                            mine.insert(path, (put.revision(), body));
                            written.fetch_add(1, SeqCst);
                        }
                        unreachable!("the writer writes until the store is gone")
                    })
                })
                .collect();
            eventually("some writes are acknowledged", || async {
                written.load(SeqCst) > 100
            })
            .await;
            child.kill().await.unwrap();
            let mut doubtful = Vec::new();
            for writer in writers {
                let (mine, last) = writer.await.unwrap();
                acknowledged.extend(mine);
                doubtful.extend(last);
            }
            assert!(!acknowledged.is_empty());

            let store = scratch.start().await;
            for (path, (revision, body)) in &mut acknowledged {
                let got = store.get(path).await;
                let found = String::from_utf8(got.body.to_vec()).unwrap();
                if doubtful.contains(&(path.clone(), found.clone())) {
                    (*revision, *body) = (got.revision(), found);
                } else {
                    assert_eq!((got.revision(), &found), (*revision, &*body), "{path}");
                }
            }
            let mut since = 0;
            loop {
                let changes = store.get(&format!("/api/v1/changes?since={since}")).await.json();
                for change in changes["changes"].as_array().unwrap() {
                    since += 1;
                    assert_eq!(change["revision"].as_u64(), Some(since));
                }
                if changes["changes"].as_array().unwrap().is_empty() {
                    break;
                }
            }
            assert_eq!(store.position().await.0, since);
            store.stop().await;
        }
    })
    .await;
}
