//! Writing: each change is one revision and one link of the chain.
//!
//! A write transaction first takes the lock on the one row of `head`, so that writers take turns even if several
//! processes share the database, and revisions have neither gaps nor duplicates. A write that is abandoned leaves no
//! trace.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::StatusCode;
use sqlx::{AnyConnection, Row};

use super::{
    chain,
    db::{Db, Session, Turn},
    error::{CallError, DbError},
    key::Key,
    rows::{Head, bigint, bind_key, head_of, number, tag},
};
use crate::policy::{ETag, PolicyDocument};

/// How long an idempotency key is remembered, in seconds.
const REMEMBERED_SECONDS: i64 = 24 * 60 * 60;
/// The most idempotency keys that are remembered.
const REMEMBERED_KEYS: i64 = 100_000;

/// The most old changes that one write deletes.
const MOST_FORGOTTEN: u64 = 5000;

/// A transaction that writes. Dropped without [`commit`](Self::commit), it has no effect.
pub(super) struct Write {
    session: Session,
    db: Arc<Db>,
    head: Head,
    begun_at: u64,
    is_changed: bool,
}

/// The version of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) revision: u64,
    pub(super) etag: ETag,
}

/// The result of a write, or its refusal: as it is answered and, with an idempotency key, remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) status: u16,
    /// Of the write, or of the version that it was refused for; 0 without any.
    pub(super) revision: u64,
    /// Of the document that there is now; `None` without any.
    pub(super) etag: Option<ETag>,
}

impl Written {
    /// Nothing was written, because of the version that there is.
    pub(super) fn refused(status: StatusCode, current: Option<Version>) -> Self {
        let (revision, etag) = current.map_or((0, None), |version| (version.revision, Some(version.etag)));
        Self {
            status: status.as_u16(),
            revision,
            etag,
        }
    }
}

/// A request with an idempotency key.
#[derive(Debug, Clone)]
pub(super) struct Keyed {
    pub(super) key: String,
    /// Digest of the request, by which a key that is reused for another request is noticed.
    pub(super) request: String,
    /// Digest of its conditions, if it had any.
    pub(super) conditions: Option<String>,
}

impl Keyed {
    /// As it is remembered.
    fn text(&self) -> String {
        match &self.conditions {
            None => self.request.clone(),
            Some(conditions) => format!("{}:{conditions}", self.request),
        }
    }

    /// Whether this request is the one that was remembered. One that had no conditions may have some when it is repeated:
    /// whoever does not know whether a write was carried out does not want to overwrite what came after it.
    fn repeats(&self, remembered: &str) -> bool {
        let (request, conditions) = match remembered.split_once(':') {
            None => (remembered, None),
            Some((request, conditions)) => (request, Some(conditions)),
        };
        request == self.request && (conditions.is_none() || conditions == self.conditions.as_deref())
    }
}

/// The record of an idempotency key.
#[derive(Debug)]
pub(super) enum Recalled {
    Never,
    Done(Written),
    /// The key was used for a different request.
    Other,
}

impl Write {
    /// Begins, and takes the lock that all writers of the database take.
    pub(super) async fn begin(db: &Arc<Db>, turn: &Turn) -> Result<Self, DbError> {
        let mut session = db.begin(turn).await?;
        let head = match lock(&mut session).await {
            Ok(head) => head,
            Err(error) => return Err(session.failed(error).await),
        };
        Ok(Self {
            session,
            db: db.clone(),
            begun_at: head.revision,
            is_changed: false,
            head,
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
            .fetch_optional(self.session.connection())
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
            .execute(self.session.connection())
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
        bind_key(sqlx::query(sql), key)
            .execute(self.session.connection())
            .await?;
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
        .execute(self.session.connection())
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
        .fetch_optional(self.session.connection())
        .await?;
        let Some(row) = row else {
            return Ok(Recalled::Never);
        };
        if !keyed.repeats(row.try_get(0)?) {
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
            .fetch_one(self.session.connection())
            .await?
            .try_get::<i64, _>(0)?;
        let now = now();
        sqlx::query("DELETE FROM idempotency WHERE created < $1 OR seq <= $2 OR key = $3")
            .bind(now - REMEMBERED_SECONDS)
            .bind(newest - REMEMBERED_KEYS)
            .bind(keyed.key.as_str())
            .execute(self.session.connection())
            .await?;
        sqlx::query(
            "INSERT INTO idempotency (seq, key, request, status, etag, revision, created)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(newest + 1)
        .bind(keyed.key.as_str())
        .bind(keyed.text())
        .bind(i64::from(written.status))
        .bind(written.etag.as_ref().map(ETag::as_str))
        .bind(bigint(written.revision))
        .bind(now)
        .execute(self.session.connection())
        .await?;
        Ok(())
    }

    /// Commits durably, and wakes the requests that wait for changes; whether there was anything to commit.
    pub(super) async fn commit(mut self) -> Result<bool, DbError> {
        if !self.is_changed {
            self.abandon().await;
            return Ok(false);
        }
        if let Err(error) = self.write_head().await {
            return Err(self.failed(error).await);
        }
        self.session.commit().await?;
        self.db.announce(self.head.revision);
        Ok(true)
    }

    async fn write_head(&mut self) -> Result<(), DbError> {
        if self.head.revision == self.begun_at {
            return Ok(());
        }
        self.compact().await?;
        sqlx::query(
            "UPDATE head SET revision = $1, chain = $2, floor_revision = $3, floor_chain = $4 WHERE id = 1",
        )
        .bind(bigint(self.head.revision))
        .bind(self.head.chain.clone())
        .bind(bigint(self.head.floor_revision))
        .bind(self.head.floor_chain.clone())
        .execute(self.session.connection())
        .await?;
        Ok(())
    }

    /// Ends without effect.
    pub(super) async fn abandon(self) {
        self.session.rollback().await;
    }

    /// Ends without effect, after an error.
    pub(super) async fn failed(self, error: DbError) -> DbError {
        self.session.failed(error).await
    }

    /// The connection, for what is not a record and has no revision. It has effect with the next [`commit`](Self::commit).
    pub(super) fn aside(&mut self) -> &mut AnyConnection {
        self.is_changed = true;
        self.session.connection()
    }

    /// Writes something of no consequence.
    pub(super) async fn try_disk(&mut self) -> Result<(), CallError> {
        let trial = self.db.trial();
        sqlx::raw_sql(trial).execute(self.aside()).await?;
        Ok(())
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
            .fetch_one(self.session.connection())
            .await?
            .try_get(0)?;
        self.head.floor_revision = floor;
        sqlx::query("DELETE FROM changes WHERE revision <= $1")
            .bind(bigint(floor))
            .execute(self.session.connection())
            .await?;
        Ok(())
    }
}

async fn lock(session: &mut Session) -> Result<Head, DbError> {
    let rows = sqlx::query(
        "UPDATE head SET revision = revision WHERE id = 1
         RETURNING revision, chain, floor_revision, floor_chain",
    )
    .fetch_all(session.connection())
    .await?;
    head_of(rows.first().ok_or(DbError::Damaged("no head"))?)
}

/// Seconds since 1970, clamped to the numbers of the column.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| bigint(since.as_secs()))
}
