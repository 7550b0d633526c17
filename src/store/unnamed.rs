//! Modules, and which of them no extension's record names any more.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use sqlx::{AnyConnection, Row};

use super::{
    db::Db,
    error::{CallError, DbError},
    key::ModuleDigest,
    pages,
    rows::bigint,
};

/// Length of a digest in hex digits.
const DIGITS: usize = 64;

/// Stores a module; whether it is new. Its time begins again.
pub(super) async fn put(
    connection: &mut AnyConnection,
    digest: &ModuleDigest,
    bytes: Bytes,
) -> Result<bool, DbError> {
    let known = sqlx::query("UPDATE modules SET unnamed_since = NULL WHERE sha256 = $1")
        .bind(digest.as_str().to_owned())
        .execute(&mut *connection)
        .await?;
    if known.rows_affected() > 0 {
        return Ok(false);
    }
    let done =
        sqlx::query("INSERT INTO modules (sha256, bytes) VALUES ($1, $2) ON CONFLICT (sha256) DO NOTHING")
            .bind(digest.as_str().to_owned())
            .bind(Vec::from(bytes))
            .execute(connection)
            .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes a module; whether there was one.
pub(super) async fn delete(connection: &mut AnyConnection, sha256: &str) -> Result<bool, DbError> {
    let done = sqlx::query("DELETE FROM modules WHERE sha256 = $1")
        .bind(sha256.to_owned())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// The digests that the records of extensions name, wherever in a record that is.
pub(super) async fn names(connection: &mut AnyConnection) -> Result<HashSet<String>, DbError> {
    let mut names = HashSet::new();
    let mut after = None;
    loop {
        let page = pages::extensions_after(connection, after.as_ref()).await?;
        for record in &page {
            let text = String::from_utf8_lossy(&record.stored.document);
            let words = text.split(|c: char| !c.is_ascii_hexdigit());
            names.extend(
                words
                    .filter(|word| word.len() == DIGITS)
                    .map(str::to_ascii_lowercase),
            );
        }
        after = pages::next_after(&page);
        if after.is_none() {
            return Ok(names);
        }
    }
}

/// What is to be done about modules.
#[derive(Debug, Default)]
struct Plan {
    named_again: Vec<String>,
    unnamed_now: Vec<String>,
    unnamed_for_long: Vec<String>,
}

/// Notes which modules are named, and removes those that have not been for so long; returns what was removed.
pub(super) async fn remove(db: &Arc<Db>, kept: Duration) -> Result<Vec<String>, CallError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| bigint(since.as_secs()));
    let kept = bigint(kept.as_secs());
    let plan = db
        .read(move |connection| Box::pin(async move { Ok(plan(connection, now, kept).await?) }))
        .await?;
    // Mostly there is nothing to do, for which no writer is to wait.
    if plan.is_empty() {
        return Ok(Vec::new());
    }
    db.write(move |write| Box::pin(async move { Ok(carry_out(write.aside(), now, kept).await?) }))
        .await
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.named_again.is_empty() && self.unnamed_now.is_empty() && self.unnamed_for_long.is_empty()
    }
}

async fn plan(connection: &mut AnyConnection, now: i64, kept: i64) -> Result<Plan, DbError> {
    let names = names(connection).await?;
    let rows = sqlx::query("SELECT sha256, unnamed_since FROM modules")
        .fetch_all(connection)
        .await?;
    let mut plan = Plan::default();
    for row in &rows {
        let sha256: String = row.try_get(0)?;
        match (names.contains(&sha256), row.try_get::<Option<i64>, _>(1)?) {
            (true, Some(_)) => plan.named_again.push(sha256),
            (false, None) => plan.unnamed_now.push(sha256),
            (false, Some(since)) if now.saturating_sub(since) > kept => plan.unnamed_for_long.push(sha256),
            _ => {}
        }
    }
    Ok(plan)
}

async fn carry_out(connection: &mut AnyConnection, now: i64, kept: i64) -> Result<Vec<String>, DbError> {
    // Again: only now no other can write.
    let plan = plan(connection, now, kept).await?;
    let marks = (plan.named_again.into_iter().map(|sha256| (sha256, None)))
        .chain(plan.unnamed_now.into_iter().map(|sha256| (sha256, Some(now))));
    for (sha256, since) in marks {
        sqlx::query("UPDATE modules SET unnamed_since = $1 WHERE sha256 = $2")
            .bind(since)
            .bind(sha256)
            .execute(&mut *connection)
            .await?;
    }
    let mut removed = Vec::new();
    for sha256 in plan.unnamed_for_long {
        // Unless it is being uploaded again at this moment.
        let done = sqlx::query("DELETE FROM modules WHERE sha256 = $1 AND unnamed_since IS NOT NULL")
            .bind(sha256.clone())
            .execute(&mut *connection)
            .await?;
        if done.rows_affected() > 0 {
            removed.push(sha256);
        }
    }
    Ok(removed)
}
