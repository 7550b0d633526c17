//! The embedded HEIR in this process: a real server on a real socket, which can go away and come back.

use std::{net::SocketAddr, path::PathBuf};

use beamline_sidecar::{
    listener::Address,
    store::{Level, Store, StoreConfig},
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Client;

pub(crate) struct Heir {
    folder: TempDir,
    config: StoreConfig,
    running: Option<(CancellationToken, JoinHandle<()>)>,
    address: SocketAddr,
}

impl Heir {
    /// Starts one with an empty database.
    pub(crate) async fn start(level: Level) -> Self {
        Self::start_at(level, ([127, 0, 0, 1], 0).into()).await
    }

    /// As [`start`](Self::start), at this address.
    pub(crate) async fn start_at(level: Level, address: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = StoreConfig {
            listen: Address::Tcp(address),
            database: folder.path().join("heir.db").to_str().unwrap().to_owned(),
            level,
            // Most tests are about bytes, whatever they mean.
            allow_invalid: true,
            ..StoreConfig::default()
        };
        // Here what is not over by then goes on, and answers for a HEIR that is said to be gone.
        config.drain = std::time::Duration::from_secs(3);
        let mut heir = Self {
            folder,
            config,
            running: None,
            address,
        };
        heir.back().await;
        heir
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// The database file; its backup is a copy made while the store is gone.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("heir.db")
    }

    /// Takes the store away.
    pub(crate) async fn gone(&mut self) {
        if let Some((stop, running)) = self.running.take() {
            stop.cancel();
            running.await.unwrap();
        }
    }

    /// Brings it back at the same address, with what it had.
    pub(crate) async fn back(&mut self) {
        assert!(self.running.is_none());
        let store = Store::build(self.config.clone()).await.unwrap();
        self.config.listen = store.address().clone();
        let Address::Tcp(address) = store.address() else {
            panic!("it was told to use TCP")
        };
        self.address = *address;
        let stop = CancellationToken::new();
        let running = tokio::spawn(store.run(stop.clone()));
        self.running = Some((stop, running));
    }

    /// From the next [`back`](Self::back) on.
    pub(crate) fn set_level(&mut self, level: Level) {
        self.config.level = level;
    }

    /// Copies the database while the store is gone.
    pub(crate) fn backup(&self) -> Vec<u8> {
        assert!(self.running.is_none(), "a backup is made of a store at rest");
        std::fs::read(self.database()).unwrap()
    }

    /// Puts a backup in the database's place.
    pub(crate) fn restore(&self, backup: &[u8]) {
        assert!(self.running.is_none());
        for file in ["heir.db-wal", "heir.db-shm"] {
            match std::fs::remove_file(self.folder.path().join(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
        std::fs::write(self.database(), backup).unwrap();
    }
}
