//! Single rows, and the columns of all: what runs unchanged on both databases.

use bytes::Bytes;
use sqlx::{Any, AnyConnection, Row, any::AnyRow};

use super::{
    error::DbError,
    key::{Key, ModuleDigest},
};
use crate::policy::ETag;

/// The newest revision of the store, and the revision from which its changes are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) revision: u64,
    pub(super) chain: String,
    pub(super) floor_revision: u64,
    pub(super) floor_chain: String,
}

/// A stored document.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) revision: u64,
    pub(super) etag: ETag,
    pub(super) document: Bytes,
}

/// A statement with its bound values.
pub(super) type Query = sqlx::query::Query<'static, Any, sqlx::any::AnyArguments>;

/// One record, if it exists.
pub(super) async fn fetch(connection: &mut AnyConnection, key: &Key) -> Result<Option<Stored>, DbError> {
    let sql = match key {
        Key::Policy { .. } => {
            "SELECT revision, etag, document FROM policies WHERE tenant_id = $1 AND policy_id = $2"
        }
        Key::Extension(_) => "SELECT revision, etag, document FROM extensions WHERE id = $1",
    };
    let row = bind_key(sqlx::query(sql), key).fetch_optional(connection).await?;
    row.map(|row| stored_of(&row, 0)).transpose()
}

/// A module's bytes.
pub(super) async fn module(
    connection: &mut AnyConnection,
    digest: &ModuleDigest,
) -> Result<Option<Bytes>, DbError> {
    let row = sqlx::query("SELECT bytes FROM modules WHERE sha256 = $1")
        .bind(digest.as_str().to_owned())
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok(row.try_get::<Vec<u8>, _>(0)?.into()))
        .transpose()
}

/// A module's size in bytes.
pub(super) async fn module_size(
    connection: &mut AnyConnection,
    digest: &ModuleDigest,
) -> Result<Option<u64>, DbError> {
    let row = sqlx::query("SELECT CAST(length(bytes) AS BIGINT) FROM modules WHERE sha256 = $1")
        .bind(digest.as_str().to_owned())
        .fetch_optional(connection)
        .await?;
    row.map(|row| number(&row, 0)).transpose()
}

const HEAD: &str = "SELECT revision, chain, floor_revision, floor_chain FROM head WHERE id = 1";

/// The head as this transaction sees it.
pub(super) async fn head(connection: &mut AnyConnection) -> Result<Head, DbError> {
    head_of(&sqlx::query(HEAD).fetch_one(connection).await?)
}

pub(super) fn head_of(row: &AnyRow) -> Result<Head, DbError> {
    Ok(Head {
        revision: number(row, 0)?,
        chain: row.try_get(1)?,
        floor_revision: number(row, 2)?,
        floor_chain: row.try_get(3)?,
    })
}

pub(super) fn stored_of(row: &AnyRow, first: usize) -> Result<Stored, DbError> {
    Ok(Stored {
        revision: number(row, first)?,
        etag: tag(row.try_get(first + 1)?)?,
        document: row.try_get::<Vec<u8>, _>(first + 2)?.into(),
    })
}

pub(super) fn tag(text: &str) -> Result<ETag, DbError> {
    ETag::parse(text).ok_or(DbError::Damaged("an entity tag"))
}

/// A column that counts something.
pub(super) fn number(row: &AnyRow, column: usize) -> Result<u64, DbError> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_negative| DbError::Damaged("a negative number"))
}

/// A number for a column; one too large for any column counts as the largest.
pub(super) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Binds the ids of the key, with which every statement on its table begins.
pub(super) fn bind_key(query: Query, key: &Key) -> Query {
    match key {
        Key::Policy { tenant, policy } => query
            .bind(tenant.as_str().to_owned())
            .bind(policy.as_str().to_owned()),
        Key::Extension(id) => query.bind(id.as_str().to_owned()),
    }
}
