//! Writing: each change is one revision and one link of the chain.
//!
//! A write transaction first takes the lock on the one row of `head`, so that writers take turns even if several
//! processes share the database, and revisions have neither gaps nor duplicates. A write that is abandoned leaves no
//! trace.

use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::{Any, Row, Transaction};
use tokio::sync::OwnedMutexGuard;

use super::{
    chain,
    db::{Db, Head, bigint, bind_key, head_of, number, tag},
    error::DbError,
    key::Key,
};
use crate::policy::{ETag, PolicyDocument};

/// How long an idempotency key is remembered, in seconds.
const REMEMBERED_SECONDS: i64 = 24 * 60 * 60;
/// The most idempotency keys that are remembered.
const REMEMBERED_KEYS: i64 = 100_000;

/// The most old changes that one write deletes.
const MOST_FORGOTTEN: u64 = 5000;

/// A transaction that writes. Dropped without [`commit`](Self::commit), it has no effect.
pub(super) struct Write<'db> {
    // Declared before the turn: the transaction must be over when the next writer begins.
    tx: Transaction<'static, Any>,
    db: &'db Db,
    head: Head,
    begun_at: u64,
    is_changed: bool,
    _turn: OwnedMutexGuard<()>,
}

/// The version of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) revision: u64,
    pub(super) etag: ETag,
}

/// The result of a write, as it is answered and, with an idempotency key, remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) status: u16,
    pub(super) revision: u64,
    /// `None` for a deletion.
    pub(super) etag: Option<ETag>,
}

/// A request with an idempotency key.
#[derive(Debug, Clone)]
pub(super) struct Keyed {
    pub(super) key: String,
    /// Digest of the request, by which a key that is reused for another request is noticed.
    pub(super) request: String,
}

/// The record of an idempotency key.
#[derive(Debug)]
pub(super) enum Recalled {
    Never,
    Done(Written),
    /// The key was used for a different request.
    Other,
}

impl<'db> Write<'db> {
    /// Waits for the writers before it, and begins.
    pub(super) async fn begin(db: &'db Db) -> Result<Self, DbError> {
        let turn = db.writer.clone().lock_owned().await;
        let mut tx = db.begin_write().await?;
        let rows = sqlx::query(
            "UPDATE head SET revision = revision WHERE id = 1
             RETURNING revision, chain, floor_revision, floor_chain",
        )
        .fetch_all(&mut *tx)
        .await?;
        let head = head_of(rows.first().ok_or(DbError::Damaged("no head"))?)?;
        Ok(Self {
            tx,
            db,
            begun_at: head.revision,
            is_changed: false,
            head,
            _turn: turn,
        })
    }

    /// The current version.
    pub(super) async fn version(&mut self, key: &Key) -> Result<Option<Version>, DbError> {
        let sql = match key {
            Key::Policy { .. } => {
                "SELECT revision, etag FROM policies WHERE tenant_id = $1 AND policy_id = $2"
            }
            Key::Extension(_) => "SELECT revision, etag FROM extensions WHERE id = $1",
        };
        let row = bind_key(sqlx::query(sql), key)
            .fetch_optional(&mut *self.tx)
            .await?;
        row.map(|row| {
            Ok(Version {
                revision: number(&row, 0)?,
                etag: tag(row.try_get(1)?)?,
            })
        })
        .transpose()
    }

    /// Replaces `before` by the document, which [`version`](Self::version) returned. The same document again is
    /// no change.
    pub(super) async fn put(
        &mut self,
        key: &Key,
        document: &PolicyDocument,
        before: Option<&Version>,
    ) -> Result<Written, DbError> {
        let etag = document.etag().clone();
        if let Some(before) = before
            && before.etag == etag
        {
            return Ok(Written {
                status: 200,
                revision: before.revision,
                etag: Some(etag),
            });
        }
        let revision = self.append("put", key, Some(document)).await?;
        let sql = match key {
            Key::Policy { .. } => {
                "INSERT INTO policies (tenant_id, policy_id, revision, etag, document) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (tenant_id, policy_id) DO UPDATE
                 SET revision = excluded.revision, etag = excluded.etag, document = excluded.document"
            }
            Key::Extension(_) => {
                "INSERT INTO extensions (id, revision, etag, document) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (id) DO UPDATE
                 SET revision = excluded.revision, etag = excluded.etag, document = excluded.document"
            }
        };
        bind_key(sqlx::query(sql), key)
            .bind(bigint(revision))
            .bind(etag.as_str().to_owned())
            .bind(document.bytes().to_vec())
            .execute(&mut *self.tx)
            .await?;
        Ok(Written {
            status: if before.is_some() { 200 } else { 201 },
            revision,
            etag: Some(etag),
        })
    }

    /// Removes a record that [`version`](Self::version) found.
    pub(super) async fn delete(&mut self, key: &Key) -> Result<Written, DbError> {
        let revision = self.append("delete", key, None).await?;
        let sql = match key {
            Key::Policy { .. } => "DELETE FROM policies WHERE tenant_id = $1 AND policy_id = $2",
            Key::Extension(_) => "DELETE FROM extensions WHERE id = $1",
        };
        bind_key(sqlx::query(sql), key).execute(&mut *self.tx).await?;
        Ok(Written {
            status: 204,
            revision,
            etag: None,
        })
    }

    /// Writes the next change and makes it the head.
    async fn append(
        &mut self,
        op: &'static str,
        key: &Key,
        document: Option<&PolicyDocument>,
    ) -> Result<u64, DbError> {
        let revision = self.head.revision + 1;
        let etag = document.map(|document| document.etag().as_str());
        let chain = chain::link(&self.head.chain, revision, op, key, etag.unwrap_or_default());
        let ids = key.ids();
        sqlx::query(
            "INSERT INTO changes (revision, op, kind, tenant_id, policy_id, id, etag, document, chain)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(bigint(revision))
        .bind(op)
        .bind(key.kind())
        .bind(ids.tenant_id)
        .bind(ids.policy_id)
        .bind(ids.id)
        .bind(etag)
        .bind(document.map(|document| document.bytes().to_vec()))
        .bind(chain.as_str())
        .execute(&mut *self.tx)
        .await?;
        self.is_changed = true;
        self.head.revision = revision;
        self.head.chain = chain;
        Ok(revision)
    }

    /// The result of this request if it was sent before.
    pub(super) async fn recall(&mut self, keyed: &Keyed) -> Result<Recalled, DbError> {
        let row = sqlx::query(
            "SELECT request, status, revision, etag FROM idempotency WHERE key = $1 AND created >= $2",
        )
        .bind(keyed.key.as_str())
        .bind(now() - REMEMBERED_SECONDS)
        .fetch_optional(&mut *self.tx)
        .await?;
        let Some(row) = row else {
            return Ok(Recalled::Never);
        };
        if row.try_get::<&str, _>(0)? != keyed.request {
            return Ok(Recalled::Other);
        }
        let status = u16::try_from(number(&row, 1)?).map_err(|_bad| DbError::Damaged("a status"))?;
        Ok(Recalled::Done(Written {
            status,
            revision: number(&row, 2)?,
            etag: row.try_get::<Option<&str>, _>(3)?.map(tag).transpose()?,
        }))
    }

    /// Remembers the result of this request, and deletes old results.
    pub(super) async fn remember(&mut self, keyed: &Keyed, written: &Written) -> Result<(), DbError> {
        self.is_changed = true;
        let newest = sqlx::query("SELECT COALESCE(MAX(seq), 0) FROM idempotency")
            .fetch_one(&mut *self.tx)
            .await?
            .try_get::<i64, _>(0)?;
        let now = now();
        sqlx::query("DELETE FROM idempotency WHERE created < $1 OR seq <= $2 OR key = $3")
            .bind(now - REMEMBERED_SECONDS)
            .bind(newest - REMEMBERED_KEYS)
            .bind(keyed.key.as_str())
            .execute(&mut *self.tx)
            .await?;
        sqlx::query(
            "INSERT INTO idempotency (seq, key, request, status, etag, revision, created)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(newest + 1)
        .bind(keyed.key.as_str())
        .bind(keyed.request.as_str())
        .bind(i64::from(written.status))
        .bind(written.etag.as_ref().map(ETag::as_str))
        .bind(bigint(written.revision))
        .bind(now)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Commits durably, and wakes the requests that wait for changes.
    pub(super) async fn commit(mut self) -> Result<(), DbError> {
        if !self.is_changed {
            return self.abandon().await;
        }
        let revision = self.head.revision;
        if revision != self.begun_at {
            self.compact().await?;
            sqlx::query(
                "UPDATE head SET revision = $1, chain = $2, floor_revision = $3, floor_chain = $4 WHERE id = 1",
            )
            .bind(bigint(revision))
            .bind(self.head.chain.as_str())
            .bind(bigint(self.head.floor_revision))
            .bind(self.head.floor_chain.as_str())
            .execute(&mut *self.tx)
            .await?;
        }
        self.tx.commit().await?;
        self.db
            .news
            .send_if_modified(|known| std::mem::replace(known, revision) != revision);
        Ok(())
    }

    /// Rolls back.
    pub(super) async fn abandon(self) -> Result<(), DbError> {
        Ok(self.tx.rollback().await?)
    }

    /// Deletes the oldest changes, many at a time, so that most writes need not.
    async fn compact(&mut self) -> Result<(), DbError> {
        let kept = self.db.changes_kept;
        let slack = (kept / 10).clamp(1, 1000);
        if self.head.revision - self.head.floor_revision < kept + slack {
            return Ok(());
        }
        // A lowered limit is reached over several writes, so that none of them takes long.
        let floor = (self.head.revision - kept).min(self.head.floor_revision + MOST_FORGOTTEN);
        self.head.floor_chain = sqlx::query("SELECT chain FROM changes WHERE revision = $1")
            .bind(bigint(floor))
            .fetch_one(&mut *self.tx)
            .await?
            .try_get(0)?;
        self.head.floor_revision = floor;
        sqlx::query("DELETE FROM changes WHERE revision <= $1")
            .bind(bigint(floor))
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }
}

/// Seconds since 1970, clamped to the numbers of the column.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| bigint(since.as_secs()))
}
