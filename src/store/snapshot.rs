//! The whole store at one revision, as `GET /api/v1/snapshot` sends it.
//!
//! A fleet that starts together asks for the same bytes, so they are assembled once and shared: one read of
//! the database, however many requests wait for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::value::RawValue;
use sqlx::AnyConnection;
use tokio::{sync::Mutex, time::Instant};

use super::{
    aside::aside,
    db::Db,
    error::{CallError, DbError},
    key::Key,
    pages::{self, Record},
    rows::{self, Head},
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
    latest: Mutex<Latest>,
}

#[derive(Debug, Default)]
enum Latest {
    #[default]
    None,
    Ready {
        snapshot: Arc<Snapshot>,
        /// When the read of the database began: a request that arrived before it gets a state that is new enough.
        begun: Instant,
        used: Instant,
    },
    Failed {
        at: Instant,
    },
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
    pub(super) async fn current(&self) -> Result<Arc<Snapshot>, CallError> {
        let asked = Instant::now();
        // Locked while one is assembled: requests that arrive meanwhile wait for the next one and share it.
        let mut latest = self.latest.lock().await;
        match &mut *latest {
            Latest::Ready {
                snapshot,
                begun,
                used,
            } if *begun >= asked => {
                *used = Instant::now();
                return Ok(snapshot.clone());
            }
            // It would be no other for those that waited while it failed, one after the other.
            Latest::Failed { at } if *at >= asked => return Err(DbError::Busy.into()),
            _ => {}
        }
        let begun = Instant::now();
        let old = match std::mem::replace(&mut *latest, Latest::None) {
            Latest::Ready { snapshot, .. } => Some(snapshot),
            _ => None,
        };
        let read = self
            .db
            .read(move |connection| Box::pin(async move { assemble(connection, old).await }));
        match read.await {
            Ok(snapshot) => {
                *latest = Latest::Ready {
                    snapshot: snapshot.clone(),
                    begun,
                    used: Instant::now(),
                };
                Ok(snapshot)
            }
            Err(error) => {
                *latest = Latest::Failed { at: Instant::now() };
                Err(error)
            }
        }
    }

    /// Frees the memory of a snapshot that is no longer requested.
    pub(super) fn drop_unused(&self) {
        // Locked means that a request uses it now.
        if let Ok(mut latest) = self.latest.try_lock()
            && matches!(&*latest, Latest::Ready { used, .. } if used.elapsed() > KEPT)
        {
            *latest = Latest::None;
        }
    }
}

/// The state that this transaction sees: the old snapshot, if nothing has changed since.
async fn assemble(
    connection: &mut AnyConnection,
    old: Option<Arc<Snapshot>>,
) -> Result<Arc<Snapshot>, CallError> {
    let head = rows::head(connection).await?;
    if let Some(old) = old {
        if old.head == head {
            return Ok(old);
        }
        // Dropped before another is assembled, so that there are never two in memory.
        drop(old);
    }
    let mut lines = Lines::begin(&head)?;
    let mut after = None;
    loop {
        let page = pages::policies_after(connection, after.as_ref()).await?;
        (lines, after) = lines.and_all(page).await?;
        if after.is_none() {
            break;
        }
    }
    loop {
        let page = pages::extensions_after(connection, after.as_ref()).await?;
        (lines, after) = lines.and_all(page).await?;
        if after.is_none() {
            break;
        }
    }
    let lines = lines.end()?;
    Ok(Arc::new(Snapshot { head, lines }))
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

    /// The lines with those of a page; the key after which the next page begins, if there may be one.
    async fn and_all(mut self, page: Vec<Record>) -> Result<(Self, Option<Key>), DbError> {
        aside(pages::bytes_of(&page), move || {
            let after = self.add_all(&page)?;
            Ok((self, after))
        })
        .await?
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
