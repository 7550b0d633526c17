//! A store that runs in this process, and what the tests ask its client for.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use beamline_sidecar::{
    heir::wire::{self, Line},
    listener::Address,
    policy::ETag,
    store::{Store, StoreConfig},
};
use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SNAPSHOT;
use crate::support::{Answer, Client};

pub(super) fn config() -> StoreConfig {
    StoreConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        database: ":memory:".to_owned(),
        // Most tests are about bytes, whatever they mean.
        allow_invalid: true,
        ..StoreConfig::default()
    }
}

pub(super) struct Running {
    pub(super) client: Client,
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) async fn start(config: StoreConfig) -> Self {
        let store = Store::build(config).await.unwrap();
        let Address::Tcp(address) = *store.address() else {
            panic!("not TCP")
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(store.run(stop.clone()));
        Self {
            client: Client::new(address),
            address,
            stop,
            task,
        }
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.task)
            .await
            .unwrap()
            .unwrap();
    }
}

impl std::ops::Deref for Running {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A snapshot's documents by tenant and policy or by id, checked to be whole.
pub(super) fn read_snapshot(body: &[u8]) -> (u64, BTreeMap<String, (u64, Bytes)>) {
    let text = std::str::from_utf8(body).unwrap();
    let mut lines = text.strip_suffix('\n').unwrap().split('\n').map(|line| {
        let line: Line<'_> = serde_json::from_str(line).unwrap();
        line
    });
    let first = lines.next().unwrap();
    assert_eq!((&*first.kind, first.format), ("snapshot", Some(1)));
    let mut found = BTreeMap::new();
    for line in lines.by_ref() {
        let (name, document) = match &*line.kind {
            "policy" => {
                let bytes = wire::exact_bytes(line.policy.unwrap(), line.policy_text.as_deref());
                assert_eq!(line.etag.unwrap(), ETag::of_bytes(&bytes).as_str());
                let name = format!("{}/{}", line.tenant_id.unwrap(), line.policy_id.unwrap());
                (name, bytes)
            }
            "extension" => {
                let record = line.extension.unwrap().get();
                (
                    line.id.unwrap().into_owned(),
                    Bytes::copy_from_slice(record.as_bytes()),
                )
            }
            _ => {
                assert_eq!(line.count, Some(found.len() as u64));
                break;
            }
        };
        found.insert(name, (line.revision.unwrap(), document));
    }
    assert!(lines.next().is_none());
    (first.revision.unwrap(), found)
}

impl Client {
    /// Where the store's history is now.
    pub(super) async fn position(&self) -> (u64, String) {
        let snapshot = self.get(SNAPSHOT).await;
        let first: Line<'_> =
            serde_json::from_slice(snapshot.body.split(|b| *b == b'\n').next().unwrap()).unwrap();
        (first.revision.unwrap(), first.chain.unwrap().into_owned())
    }
}

impl Answer {
    pub(super) fn etag(&self) -> &str {
        self.find_header("etag").unwrap()
    }

    pub(super) fn revision(&self) -> u64 {
        self.find_header(wire::REVISION_HEADER).unwrap().parse().unwrap()
    }

    /// The status and the error's code.
    pub(super) fn error(&self) -> (u16, String) {
        let code = self.json()["error"]["code"].as_str().unwrap().to_owned();
        (self.status.as_u16(), code)
    }

    pub(super) fn reason(&self) -> String {
        assert_eq!(self.error(), (410, "snapshot_required".to_owned()));
        self.json()["error"]["details"]["reason"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}
