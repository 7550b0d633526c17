//! The whole store at one revision, as `GET /api/v1/snapshot` sends it.
//!
//! A fleet that starts together asks for the same bytes, so they are assembled once and shared: one read of
//! the database, however many requests wait for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::{sync::Mutex, time::Instant};

use super::{
    db::{self, Db, Head},
    error::DbError,
    key::Key,
    pages::{self, Record},
};
use crate::{
    heir::wire::{Line, SNAPSHOT_FORMAT, inline},
    policy::ETag,
};

/// A snapshot that is not requested for this long is dropped.
const KEPT: Duration = Duration::from_secs(30);

/// One consistent state of the store, ready to send.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) head: Head,
    pub(super) lines: Bytes,
}

/// The snapshot that was requested last.
#[derive(Debug)]
pub(super) struct Snapshots {
    db: Arc<Db>,
    latest: Mutex<Option<Latest>>,
}

#[derive(Debug)]
struct Latest {
    snapshot: Arc<Snapshot>,
    /// When the read of the database began: a request that arrived before it gets a state that is new enough.
    begun: Instant,
    used: Instant,
}

/// The tag of the snapshot at this point of this history.
pub(super) fn tag(head: &Head) -> ETag {
    ETag::of_bytes(format!("snapshot {SNAPSHOT_FORMAT} {} {}", head.revision, head.chain).as_bytes())
}

impl Snapshots {
    pub(super) fn new(db: Arc<Db>) -> Self {
        Self {
            db,
            latest: Mutex::default(),
        }
    }

    /// The current snapshot, assembled now unless the last one is still current.
    pub(super) async fn current(&self) -> Result<Arc<Snapshot>, DbError> {
        let asked = Instant::now();
        // Locked while one is assembled: requests that arrive meanwhile wait for the next one and share it.
        let mut latest = self.latest.lock().await;
        if let Some(latest) = latest.as_mut().filter(|latest| latest.begun >= asked) {
            latest.used = Instant::now();
            return Ok(latest.snapshot.clone());
        }
        let begun = Instant::now();
        let mut tx = self.db.read().await?;
        let head = db::head(&mut tx).await?;
        if let Some(latest) = latest.as_mut().filter(|latest| latest.snapshot.head == head) {
            (latest.begun, latest.used) = (begun, Instant::now());
            return Ok(latest.snapshot.clone());
        }
        // The old one is dropped first, so that there are never two in memory.
        *latest = None;
        let mut lines = Lines::begin(&head)?;
        let mut after = None;
        loop {
            let page = pages::policies_after(&mut tx, after.as_ref()).await?;
            after = lines.add_all(&page)?;
            if after.is_none() {
                break;
            }
        }
        loop {
            let page = pages::extensions_after(&mut tx, after.as_ref()).await?;
            after = lines.add_all(&page)?;
            if after.is_none() {
                break;
            }
        }
        tx.rollback().await?;
        let lines = lines.end()?;
        let snapshot = Arc::new(Snapshot { head, lines });
        *latest = Some(Latest {
            snapshot: snapshot.clone(),
            begun,
            used: Instant::now(),
        });
        Ok(snapshot)
    }

    /// Frees the memory of a snapshot that is no longer requested.
    pub(super) fn drop_unused(&self) {
        // Locked means that a request uses it now.
        if let Ok(mut latest) = self.latest.try_lock()
            && latest.as_ref().is_some_and(|latest| latest.used.elapsed() > KEPT)
        {
            *latest = None;
        }
    }
}

/// The lines under construction.
struct Lines {
    text: Vec<u8>,
    count: u64,
}

impl Lines {
    fn begin(head: &Head) -> Result<Self, DbError> {
        let mut lines = Self {
            text: Vec::new(),
            count: 0,
        };
        lines.write(&Line {
            kind: "snapshot".into(),
            format: Some(SNAPSHOT_FORMAT),
            revision: Some(head.revision),
            chain: Some((&head.chain).into()),
            ..Line::default()
        })?;
        Ok(lines)
    }

    /// Adds a page of records; the key after which the next page begins, if there may be one.
    fn add_all(&mut self, page: &[Record]) -> Result<Option<Key>, DbError> {
        for record in page {
            self.add(record)?;
        }
        Ok(pages::next_after(page))
    }

    fn add(&mut self, record: &Record) -> Result<(), DbError> {
        let (text, exact) = inline(text_of(&record.stored.document)?);
        let document = Some(raw(&text)?);
        let ids = record.key.ids();
        self.count += 1;
        self.write(&Line {
            kind: record.key.kind().into(),
            revision: Some(record.stored.revision),
            tenant_id: ids.tenant_id.map(Into::into),
            policy_id: ids.policy_id.map(Into::into),
            id: ids.id.map(Into::into),
            etag: Some(record.stored.etag.as_str().into()),
            policy: document.filter(|_| ids.id.is_none()),
            policy_text: exact.filter(|_| ids.id.is_none()).map(Into::into),
            extension: document.filter(|_| ids.id.is_some()),
            ..Line::default()
        })
    }

    fn end(mut self) -> Result<Bytes, DbError> {
        self.write(&Line {
            kind: "end".into(),
            count: Some(self.count),
            ..Line::default()
        })?;
        Ok(self.text.into())
    }

    fn write(&mut self, line: &Line<'_>) -> Result<(), DbError> {
        serde_json::to_writer(&mut self.text, line).map_err(|_bad| DbError::Damaged("a document"))?;
        self.text.push(b'\n');
        Ok(())
    }
}

/// A stored document as text; it was checked to be JSON when it was stored.
pub(super) fn text_of(document: &[u8]) -> Result<&str, DbError> {
    std::str::from_utf8(document).map_err(|_bad| DbError::Damaged("a document"))
}

/// A document's text for embedding.
pub(super) fn raw(text: &str) -> Result<&RawValue, DbError> {
    serde_json::from_str(text).map_err(|_bad| DbError::Damaged("a document"))
}
