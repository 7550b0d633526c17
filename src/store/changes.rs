//! What changed since a revision: `GET /api/v1/changes`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sqlx::{AnyConnection, Row, any::AnyRow};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    aside::aside,
    db::Db,
    error::{CallError, DbError, invalid},
    receive::make_room,
    rows::{self, Head, bigint, number},
    snapshot::{raw, text_of},
};
use crate::{
    failure::{ErrorCode, Failure},
    heir::wire::{Change, Changes, inline},
    intake::Room,
};

/// Longest wait for a change.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The most changes in one answer, and the most bytes of documents in it (exceeded by at most one document).
const MOST_CHANGES: u64 = 1000;
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// The parameters of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Since {
    revision: u64,
    chain: Option<String>,
    wait: Duration,
}

impl Since {
    /// Reads `since`, `chain` and `wait_ms`; other parameters are ignored.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, CallError> {
        let (mut revision, mut chain, mut wait) = (None, None, None);
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let is_repeated = match name {
                "since" => revision.replace(whole_number(name, value)?).is_some(),
                "wait_ms" => wait.replace(whole_number(name, value)?).is_some(),
                "chain" => chain.replace(digest(name, value)?).is_some(),
                _ => false,
            };
            if is_repeated {
                return Err(invalid(format!("the query parameter `{name}` is given twice")));
            }
        }
        Ok(Self {
            revision: revision.ok_or_else(|| invalid("the query parameter `since` is missing"))?,
            chain,
            wait: Duration::from_millis(wait.unwrap_or(0)).min(LONGEST_WAIT),
        })
    }
}

fn whole_number(name: &str, value: &str) -> Result<u64, CallError> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than any revision or time has: the same as the largest.
        return Ok(value.parse().unwrap_or(u64::MAX));
    }
    Err(invalid(format!(
        "the query parameter `{name}` must be a whole number"
    )))
}

fn digest(name: &str, value: &str) -> Result<String, CallError> {
    if value.len() == 64 && value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(value.to_owned());
    }
    Err(invalid(format!(
        "the query parameter `{name}` must be 64 lower-case hex digits"
    )))
}

/// The body of the answer, as soon as there is a change or the wait is over.
pub(super) async fn wait(
    db: &Arc<Db>,
    since: &Since,
    stopping: &CancellationToken,
    room: Room,
) -> Result<(Bytes, Room), CallError> {
    let deadline = Instant::now() + since.wait;
    let mut news = db.news.subscribe();
    let mut room = room;
    loop {
        // Before the read, so that a write in between is noticed.
        news.mark_unchanged();
        let found = read(db, since, room).await?;
        if found.changes > 0 || stopping.is_cancelled() || Instant::now() >= deadline {
            return Ok((found.body, found.room));
        }
        room = found.room;
        tokio::select! {
            // The sender lives as long as the database.
            _ = news.changed() => {}
            () = sleep_until(deadline) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// What one read found.
struct Found {
    changes: usize,
    body: Bytes,
    room: Room,
}

async fn read(db: &Arc<Db>, since: &Since, mut room: Room) -> Result<Found, CallError> {
    let wanted = since.clone();
    let read = db.read(move |connection| {
        Box::pin(async move {
            let head = rows::head(connection).await?;
            let from_chain = check(connection, &head, &wanted).await?;
            let mut rows = Vec::new();
            if wanted.revision < head.revision {
                let (last, bytes) = extent(connection, wanted.revision).await?;
                make_room(&mut room, bytes)?;
                rows = rows_between(connection, wanted.revision, last).await?;
            }
            Ok((from_chain, rows, room))
        })
    });
    let (from_chain, rows, room) = read.await?;
    let bytes = rows.iter().flat_map(|row| &row.document).map(Vec::len).sum();
    let (changes, since) = (rows.len(), since.revision);
    let body = aside(bytes, move || answer(since, &from_chain, &rows)).await??;
    Ok(Found { changes, body, room })
}

/// The answer's text.
fn answer(since: u64, from_chain: &str, rows: &[ChangeRow]) -> Result<Bytes, DbError> {
    let to = rows.last().map_or(since, |row| row.revision);
    let to_chain = rows.last().map_or(from_chain, |row| &row.chain);
    let mut inlined = Vec::with_capacity(rows.len());
    for row in rows {
        inlined.push(match &row.document {
            Some(document) => Some(inline(text_of(document)?)),
            None => None,
        });
    }
    let mut changes = Vec::with_capacity(rows.len());
    for (row, document) in rows.iter().zip(&inlined) {
        let text = document.as_ref().map(|(text, _)| raw(text)).transpose()?;
        let exact = document.as_ref().and_then(|(_, exact)| *exact);
        let is_extension = row.id.is_some();
        changes.push(Change {
            op: (&row.op).into(),
            kind: (&row.kind).into(),
            revision: Some(row.revision),
            tenant_id: row.tenant_id.as_deref().map(Into::into),
            policy_id: row.policy_id.as_deref().map(Into::into),
            id: row.id.as_deref().map(Into::into),
            etag: row.etag.as_deref().map(Into::into),
            policy: text.filter(|_| !is_extension),
            policy_text: exact.filter(|_| !is_extension).map(Into::into),
            extension: text.filter(|_| is_extension),
        });
    }
    let answer = Changes {
        from: since,
        to,
        from_chain: Some(from_chain.into()),
        to_chain: Some(to_chain.into()),
        changes,
    };
    let body = serde_json::to_vec(&answer).map_err(|_bad| DbError::Damaged("a document"))?;
    Ok(body.into())
}

/// Checks that this store's history contains the client's position; the chain there.
async fn check(connection: &mut AnyConnection, head: &Head, since: &Since) -> Result<String, CallError> {
    if since.revision > head.revision {
        return Err(snapshot_required(
            "restored",
            "the store is older than the client: it was restored",
        ));
    }
    if since.revision < head.floor_revision {
        return Err(snapshot_required(
            "compacted",
            "the changes since then are no longer kept",
        ));
    }
    let chain = if since.revision == head.revision {
        head.chain.clone()
    } else if since.revision == head.floor_revision {
        head.floor_chain.clone()
    } else {
        sqlx::query("SELECT chain FROM changes WHERE revision = $1")
            .bind(bigint(since.revision))
            .fetch_one(connection)
            .await?
            .try_get(0)?
    };
    if since.chain.as_ref().is_some_and(|claimed| *claimed != chain) {
        return Err(snapshot_required(
            "restored",
            "the store has another history: it was restored or replaced",
        ));
    }
    Ok(chain)
}

fn snapshot_required(reason: &str, why: &str) -> CallError {
    Failure::new(ErrorCode::SnapshotRequired, format!("{why}; take a snapshot"))
        .detail("reason", reason)
        .into()
}

/// A row of the `changes` table.
struct ChangeRow {
    revision: u64,
    op: String,
    kind: String,
    tenant_id: Option<String>,
    policy_id: Option<String>,
    id: Option<String>,
    etag: Option<String>,
    document: Option<Vec<u8>>,
    chain: String,
}

impl ChangeRow {
    fn of(row: &AnyRow) -> Result<Self, DbError> {
        Ok(Self {
            revision: number(row, 0)?,
            op: row.try_get(1)?,
            kind: row.try_get(2)?,
            tenant_id: row.try_get(3)?,
            policy_id: row.try_get(4)?,
            id: row.try_get(5)?,
            etag: row.try_get(6)?,
            document: row.try_get(7)?,
            chain: row.try_get(8)?,
        })
    }
}

/// The last of the changes after this one that go into one answer, and how many bytes their documents have.
async fn extent(connection: &mut AnyConnection, since: u64) -> Result<(u64, usize), DbError> {
    let rows = sqlx::query(
        "SELECT revision, CAST(length(document) AS BIGINT) FROM changes
         WHERE revision > $1 ORDER BY revision LIMIT $2",
    )
    .bind(bigint(since))
    .bind(bigint(MOST_CHANGES))
    .fetch_all(&mut *connection)
    .await?;
    let (mut last, mut bytes) = (since, 0);
    for row in &rows {
        if bytes >= MOST_BYTES {
            break;
        }
        let length = row.try_get::<Option<i64>, _>(1)?.unwrap_or(0);
        bytes += usize::try_from(length).unwrap_or(0);
        last = number(row, 0)?;
    }
    Ok((last, bytes))
}

async fn rows_between(
    connection: &mut AnyConnection,
    since: u64,
    last: u64,
) -> Result<Vec<ChangeRow>, DbError> {
    let rows = sqlx::query(
        "SELECT revision, op, kind, tenant_id, policy_id, id, etag, document, chain FROM changes
         WHERE revision > $1 AND revision <= $2 ORDER BY revision",
    )
    .bind(bigint(since))
    .bind(bigint(last))
    .fetch_all(connection)
    .await?;
    rows.iter().map(ChangeRow::of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_read_exactly() {
        let chain = "0".repeat(64);
        let query = format!("since=7&wait_ms=99999999&chain={chain}&other=1");
        let since = Since::parse(Some(&query)).unwrap();
        assert_eq!(
            since,
            Since {
                revision: 7,
                chain: Some(chain),
                wait: LONGEST_WAIT
            }
        );
        for (query, named) in [
            (None, "since"),
            (Some(""), "since"),
            (Some("wait_ms=1"), "since"),
            (Some("since="), "since"),
            (Some("since=-1"), "since"),
            (Some("since=%31"), "since"),
            (Some("since=1&since=1"), "since"),
            (Some("since=1&wait_ms=1.5"), "wait_ms"),
            (Some("since=1&chain=abc"), "chain"),
        ] {
            let Err(CallError::Refused(failure)) = Since::parse(query) else {
                panic!("{query:?} was taken")
            };
            assert_eq!(failure.code, ErrorCode::InvalidRequest);
            assert!(
                failure.message.contains(&format!("`{named}`")),
                "{}",
                failure.message
            );
        }
    }
}
