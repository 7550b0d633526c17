//! What befalls a store, each time with a look at whether it did.

use std::{collections::BTreeMap, path::Path};

use tokio::net::TcpStream;

use super::{clients, pause, record::Record};
use crate::{
    store::{Line, Scratch},
    support::{Proxy, SmallDisk, StoreProcess, eventually},
};

/// A store, and the proxy behind which its clients find it wherever it is.
pub(super) struct Replica {
    store: StoreProcess,
    pub(super) proxy: Proxy,
}

impl Replica {
    pub(super) async fn start(database: &str) -> Self {
        let store = StoreProcess::start(Path::new(database), None).await;
        let proxy = Proxy::start(store.address()).await;
        Self { store, proxy }
    }

    async fn kill(&mut self) {
        let address = self.store.address();
        self.store.kill();
        assert!(TcpStream::connect(address).await.is_err(), "it is still there");
        pause(0..200).await;
        self.store.up().await;
        self.proxy.lead_to(self.store.address());
    }

    async fn freeze(&self, ms: std::ops::Range<u64>) {
        self.store.pause();
        eventually("it stands still", || async { self.store.is_paused() }).await;
        pause(ms).await;
        assert!(self.store.is_paused());
        self.store.resume();
    }
}

/// What a run has, and what can befall it.
pub(super) struct Stage {
    pub(super) replicas: Vec<Replica>,
    pub(super) disk: Option<SmallDisk>,
    pub(super) lines: Vec<Line>,
    /// The database, where it is on a server.
    pub(super) scratch: Option<Scratch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    Killed,
    Frozen,
    /// For longer than the server lets a store hold its lock.
    FrozenForLong,
    ClientsCut,
    DatabaseCut,
    /// The server has become the standby of another one, and is the primary again.
    FailedOver,
    DiskFull,
}

/// How often each fault was met, and what it met: connections that were cut, writes that were refused.
pub(super) type Met = BTreeMap<Fault, (usize, usize)>;

impl Stage {
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = vec![Fault::Killed, Fault::Frozen, Fault::ClientsCut];
        if self.disk.is_some() {
            faults.push(Fault::DiskFull);
        }
        if self.scratch.is_some() {
            faults.extend([Fault::DatabaseCut, Fault::FailedOver, Fault::FrozenForLong]);
        }
        faults
    }

    pub(super) async fn befall(&mut self, fault: Fault, record: &Record, met: &mut Met) {
        let index = fastrand::usize(..self.replicas.len());
        let replica = &mut self.replicas[index];
        let much = match fault {
            Fault::Killed => {
                replica.kill().await;
                1
            }
            Fault::Frozen => {
                replica.freeze(100..1_500).await;
                1
            }
            Fault::FrozenForLong => {
                replica.freeze(6_000..9_000).await;
                1
            }
            Fault::ClientsCut => some(|| replica.proxy.pass()).await,
            Fault::DatabaseCut => some(|| self.lines[index].cut()).await,
            Fault::FailedOver => {
                let scratch = self.scratch.as_ref().unwrap();
                scratch.become_read_only(true).await;
                let refused = clients::until_refused(replica.proxy.address, record, 503).await;
                pause(0..1_000).await;
                scratch.become_read_only(false).await;
                refused
            }
            Fault::DiskFull => {
                let disk = self.disk.as_ref().unwrap();
                disk.fill();
                let refused = clients::until_refused(replica.proxy.address, record, 507).await;
                pause(0..1_000).await;
                disk.free();
                refused
            }
        };
        let (times, sum) = met.entry(fault).or_default();
        (*times, *sum) = (*times + 1, *sum + much);
    }
}

/// Cuts until there was something to cut: after another fault all connections may be gone for a moment.
async fn some(cut: impl Fn() -> usize) -> usize {
    loop {
        match cut() {
            0 => pause(0..20).await,
            connections => return connections,
        }
    }
}
