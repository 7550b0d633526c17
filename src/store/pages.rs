//! Reading many records: page by page, in one transaction that sees one state.

use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    error::DbError,
    key::{ExtensionId, Key},
    rows::{Stored, stored_of},
};
use crate::policy::{PolicyId, TenantId};

/// Rows in a page: few enough that a page of the largest documents fits into memory easily.
const PAGE: i64 = 64;

/// A document with its key.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) key: Key,
    pub(super) stored: Stored,
}

/// The key after which the next page begins, if there may be one.
pub(super) fn next_after(page: &[Record]) -> Option<Key> {
    let is_full = usize::try_from(PAGE).is_ok_and(|most| page.len() >= most);
    page.last().filter(|_| is_full).map(|record| record.key.clone())
}

/// The bytes of the documents in a page.
pub(super) fn bytes_of(page: &[Record]) -> usize {
    page.iter().map(|record| record.stored.document.len()).sum()
}

/// Policies of all tenants after this key, in the byte order of their ids.
pub(super) async fn policies_after(
    connection: &mut AnyConnection,
    after: Option<&Key>,
) -> Result<Vec<Record>, DbError> {
    let ids = after.map(Key::ids);
    let rows = sqlx::query(
        "SELECT tenant_id, policy_id, revision, etag, document FROM policies
         WHERE (tenant_id, policy_id) > ($1, $2) ORDER BY tenant_id, policy_id LIMIT $3",
    )
    .bind(ids.and_then(|ids| ids.tenant_id).unwrap_or_default())
    .bind(ids.and_then(|ids| ids.policy_id).unwrap_or_default())
    .bind(PAGE)
    .fetch_all(connection)
    .await?;
    rows.iter().map(policy_of).collect()
}

/// A tenant's policies after this key.
pub(super) async fn tenant_policies_after(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    after: Option<&Key>,
) -> Result<Vec<Record>, DbError> {
    let rows = sqlx::query(
        "SELECT tenant_id, policy_id, revision, etag, document FROM policies
         WHERE tenant_id = $1 AND policy_id > $2 ORDER BY policy_id LIMIT $3",
    )
    .bind(tenant.as_str())
    .bind(after.and_then(|key| key.ids().policy_id).unwrap_or_default())
    .bind(PAGE)
    .fetch_all(connection)
    .await?;
    rows.iter().map(policy_of).collect()
}

/// Extensions after this key.
pub(super) async fn extensions_after(
    connection: &mut AnyConnection,
    after: Option<&Key>,
) -> Result<Vec<Record>, DbError> {
    let rows =
        sqlx::query("SELECT id, revision, etag, document FROM extensions WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.and_then(|key| key.ids().id).unwrap_or_default())
            .bind(PAGE)
            .fetch_all(connection)
            .await?;
    rows.iter()
        .map(|row| {
            let id =
                ExtensionId::parse(row.try_get(0)?).map_err(|_bad| DbError::Damaged("an extension's id"))?;
            Ok(Record {
                key: Key::Extension(id),
                stored: stored_of(row, 1)?,
            })
        })
        .collect()
}

fn policy_of(row: &AnyRow) -> Result<Record, DbError> {
    let tenant = TenantId::parse(row.try_get(0)?).map_err(|_bad| DbError::Damaged("a tenant's id"))?;
    let policy = PolicyId::parse(row.try_get(1)?).map_err(|_bad| DbError::Damaged("a policy's id"))?;
    Ok(Record {
        key: Key::Policy { tenant, policy },
        stored: stored_of(row, 2)?,
    })
}
