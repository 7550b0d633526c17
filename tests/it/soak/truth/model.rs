//! What was written, and what was acknowledged.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use beamline_sidecar::policy::ETag;
use serde::Deserialize;

/// What a write leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The body with this serial.
    Put(u64),
    Deleted,
}

/// One policy and all that its writers know of it.
pub(super) struct Policy {
    pub(super) tenant: String,
    pub(super) id: String,
    /// The highest serial that was ever sent under this name.
    sent: AtomicU64,
    /// Whether a DELETE was ever sent, or an answer to one was lost: absence is possible from then on.
    pub(super) deleted: AtomicBool,
    /// Held by the writer: the order of acknowledgements is known only if there is one writer at a time.
    pub(super) turn: tokio::sync::Mutex<History>,
}

/// The writes of one policy.
pub(super) struct History {
    pub(super) acknowledged: Effect,
    /// Writes without an answer since the last acknowledged one: they were made or not. A later one cannot be
    /// overtaken by them, because the sidecar is killed only while the store runs and takes what was sent to it.
    pub(super) unanswered: Vec<Effect>,
    /// For the one who has to find out what went wrong.
    pub(super) log: Vec<String>,
}

#[derive(Deserialize)]
struct Body {
    tenant_id: String,
    policy_id: String,
    serial: u64,
}

impl Policy {
    /// A policy that the store has from the start, with serial 0.
    pub(super) fn new(tenant: String, id: String) -> Self {
        let history = History {
            acknowledged: Effect::Put(0),
            unanswered: Vec::new(),
            log: Vec::new(),
        };
        Self {
            tenant,
            id,
            sent: AtomicU64::new(0),
            deleted: AtomicBool::new(false),
            turn: tokio::sync::Mutex::new(history),
        }
    }

    pub(super) fn path(&self) -> String {
        format!("/api/v1/policies/{}/{}", self.tenant, self.id)
    }

    /// The next serial; call before anything is sent.
    pub(super) fn next_serial(&self) -> u64 {
        self.sent.fetch_add(1, SeqCst) + 1
    }

    /// The body with this serial: names its owner, and is not how a serializer would write it.
    pub(super) fn body(&self, serial: u64) -> String {
        let (tenant, id) = (&self.tenant, &self.id);
        format!(
            "{{ \"tenant_id\":\"{tenant}\", \"policy_id\":\"{id}\",\n  \"serial\": {serial}, \"weight\": 1.50 }}"
        )
    }

    /// The tag of what a write leaves.
    pub(super) fn etag(&self, effect: Effect) -> Option<String> {
        match effect {
            Effect::Put(serial) => Some(ETag::of_bytes(self.body(serial).as_bytes()).as_str().to_owned()),
            Effect::Deleted => None,
        }
    }

    /// The serial of a body that was sent under exactly this name; otherwise what is wrong with it.
    pub(super) fn recognise(&self, bytes: &[u8]) -> Result<u64, String> {
        let text = String::from_utf8_lossy(bytes);
        let body: Body = serde_json::from_slice(bytes).map_err(|error| format!("{error}: {text}"))?;
        if (&body.tenant_id, &body.policy_id) != (&self.tenant, &self.id) {
            return Err(format!("{}/{} was answered with {text}", self.tenant, self.id));
        }
        if body.serial > self.sent.load(SeqCst) || bytes != self.body(body.serial).as_bytes() {
            return Err(format!("{}/{} never had {text}", self.tenant, self.id));
        }
        Ok(body.serial)
    }
}
