//! Starts that meet one another, or a disk that cannot be written.

use std::error::Error;

use beamline_sidecar::store::{Store, StoreConfig};
use sqlx::{AnyConnection, Connection};

use super::{
    P,
    running::{Running, config},
    scratch::{Scratch, postgres},
};
use crate::support::SmallDisk;

#[tokio::test]
async fn stores_that_start_together_on_a_new_database_share_it() {
    for round in 0..6 {
        let scratch = match postgres() {
            Some(server) if round % 2 == 1 => Scratch::postgres(server, "template0").await,
            _ => Scratch::sqlite(),
        };
        let starts: Vec<_> = (0..5)
            .map(|_| {
                let config = StoreConfig {
                    database: scratch.database.clone(),
                    ..config()
                };
                tokio::spawn(Running::start(config))
            })
            .collect();
        let mut stores = Vec::new();
        for start in starts {
            stores.push(start.await.unwrap());
        }
        for (n, store) in stores.iter().enumerate() {
            let put = store.put(P, format!("{{\"n\":{n}}}")).await;
            assert_eq!(put.revision(), n as u64 + 1);
        }
        for store in stores {
            assert_eq!(store.position().await.0, 5);
            store.stop().await;
        }
        scratch.remove().await;
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_named_as_the_cause() {
    let Some(disk) = SmallDisk::mount("1m") else {
        return;
    };
    let config = StoreConfig {
        database: disk.path().join("store.db").to_str().unwrap().to_owned(),
        ..config()
    };
    Running::start(config.clone()).await.stop().await;
    disk.make_read_only();
    let error = Store::build(config).await.unwrap_err();
    let mut causes = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push_str(&format!(": {error}"));
        cause = error.source();
    }
    assert!(causes.contains("unable to open database file"), "{causes}");
    assert!(!causes.contains("pool"), "{causes}");
}

#[tokio::test]
async fn a_store_starts_while_another_process_holds_what_writers_hold() {
    let Some(server) = postgres() else { return };
    let scratch = Scratch::postgres(server, "template0").await;
    let first = scratch.start().await;
    assert_eq!(first.put(P, "{}").await.status, 201);
    // As a replica does that was stopped in the middle of a write, but without end.
    let mut writer = AnyConnection::connect(&scratch.database).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE head SET revision = revision")
        .execute(&mut writer)
        .await
        .unwrap();
    let second = scratch.start().await;
    assert_eq!(second.get(P).await.body, "{}");
    writer.close().await.unwrap();
    assert_eq!(second.put(P, "{\"n\":1}").await.status, 200);
    first.stop().await;
    second.stop().await;
    scratch.remove().await;
}
