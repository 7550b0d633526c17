//! Policies and extensions: read, write, list. Both are documents with a key, a revision and an entity tag.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;

use super::{
    chain::digest_of,
    conditions::Conditions,
    db::{self, Db},
    error::{CallError, DbError, not_found},
    key::Key,
    pages::{self, Record},
    receive::{check_length, idempotency_key, receive},
    service::Service,
    snapshot::text_of,
    write::{Keyed, Recalled, Write, Written},
};
use crate::{
    failure::{ErrorCode, Failure},
    heir::{listed, wire::REVISION_HEADER},
    policy::{ETag, PolicyDocument, Problem, TenantId},
    respond::{self, JSON, Response},
};

/// The body of the answer to a `PUT`.
#[derive(Serialize)]
struct PutAnswer<'a> {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a ETag>,
}

/// A change of a record.
enum Edit {
    Put(PolicyDocument),
    Delete,
}

/// One write.
struct Order {
    key: Key,
    edit: Edit,
    conditions: Conditions,
    keyed: Option<Keyed>,
}

impl Service {
    /// `GET` and `HEAD` of one record.
    pub(super) async fn show(&self, key: &Key, headers: &HeaderMap) -> Result<Response, CallError> {
        let stored = self.db.fetch(key).await?.ok_or_else(|| absent(key))?;
        if !self.level.has_validators() {
            return Ok(respond::with_body(StatusCode::OK, JSON, stored.document));
        }
        let is_known = Conditions::of(headers).is_not_modified(&stored.etag);
        let response = if is_known {
            respond::empty(StatusCode::NOT_MODIFIED)
        } else {
            respond::with_body(StatusCode::OK, JSON, stored.document)
        };
        Ok(stamped(response, Some(&stored.etag), Some(stored.revision)))
    }

    /// `PUT` of one record.
    pub(super) async fn put(
        &self,
        key: Key,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Response, CallError> {
        check_length(headers, true)?;
        let bytes = receive(headers, body, self.max_body_bytes).await?;
        let keyed = self.keyed(headers, "PUT", &key, &bytes)?;
        let document = PolicyDocument::parse(bytes).map_err(|problems| unacceptable(&key, &problems))?;
        self.write(headers, key, Edit::Put(document), keyed).await
    }

    /// `DELETE` of one record.
    pub(super) async fn delete(&self, key: Key, headers: &HeaderMap) -> Result<Response, CallError> {
        let keyed = self.keyed(headers, "DELETE", &key, &[])?;
        self.write(headers, key, Edit::Delete, keyed).await
    }

    fn keyed(
        &self,
        headers: &HeaderMap,
        method: &str,
        key: &Key,
        body: &[u8],
    ) -> Result<Option<Keyed>, CallError> {
        if !self.level.has_validators() {
            return Ok(None);
        }
        let Some(name) = idempotency_key(headers)? else {
            return Ok(None);
        };
        let ids = key.ids();
        let [tenant_id, policy_id, id] =
            [ids.tenant_id, ids.policy_id, ids.id].map(|id| id.unwrap_or_default().as_bytes());
        Ok(Some(Keyed {
            key: name,
            request: digest_of(&[method.as_bytes(), tenant_id, policy_id, id, body]),
        }))
    }

    async fn write(
        &self,
        headers: &HeaderMap,
        key: Key,
        edit: Edit,
        keyed: Option<Keyed>,
    ) -> Result<Response, CallError> {
        let has_validators = self.level.has_validators();
        let conditions = if has_validators {
            Conditions::of(headers)
        } else {
            Conditions::default()
        };
        let order = Order {
            key,
            edit,
            conditions,
            keyed,
        };
        let written = self.to_the_end(carry_out(self.db.clone(), order)).await?;
        let status = StatusCode::from_u16(written.status).map_err(|_bad| DbError::Damaged("a status"))?;
        let etag = written.etag.as_ref().filter(|_| has_validators);
        let revision = Some(written.revision).filter(|_| has_validators);
        let response = if status == StatusCode::NO_CONTENT {
            respond::empty(status)
        } else {
            let answer = PutAnswer {
                ok: true,
                revision,
                etag,
            };
            respond::json(status, &answer)
        };
        Ok(stamped(response, etag, revision))
    }

    /// `GET` of a tenant's policies.
    pub(super) async fn list_policies(
        &self,
        tenant: &TenantId,
        headers: &HeaderMap,
    ) -> Result<Response, CallError> {
        let mut list = List::new("policies", "policy_id");
        let mut tx = self.db.read().await?;
        let head = db::head(&mut tx).await?;
        let mut after = None;
        loop {
            let page = pages::tenant_policies_after(&mut tx, tenant, after.as_ref()).await?;
            after = list.add_all(&page)?;
            if after.is_none() {
                break;
            }
        }
        tx.rollback().await.map_err(DbError::from)?;
        self.list_answer(list, head.revision, headers)
    }

    /// `GET` of all extensions.
    pub(super) async fn list_extensions(&self, headers: &HeaderMap) -> Result<Response, CallError> {
        let mut list = List::new("extensions", "id");
        let mut tx = self.db.read().await?;
        let head = db::head(&mut tx).await?;
        let mut after = None;
        loop {
            let page = pages::extensions_after(&mut tx, after.as_ref()).await?;
            after = list.add_all(&page)?;
            if after.is_none() {
                break;
            }
        }
        tx.rollback().await.map_err(DbError::from)?;
        self.list_answer(list, head.revision, headers)
    }

    fn list_answer(&self, list: List, revision: u64, headers: &HeaderMap) -> Result<Response, CallError> {
        let has_validators = self.level.has_validators();
        let body = list.end(has_validators)?;
        if !has_validators {
            return Ok(respond::with_body(StatusCode::OK, JSON, body));
        }
        let etag = ETag::of_bytes(&body);
        let response = if Conditions::of(headers).is_not_modified(&etag) {
            respond::empty(StatusCode::NOT_MODIFIED)
        } else {
            respond::with_body(StatusCode::OK, JSON, body)
        };
        Ok(stamped(response, Some(&etag), Some(revision)))
    }
}

/// Executes a write, wholly or not at all.
async fn carry_out(db: Arc<Db>, order: Order) -> Result<Written, CallError> {
    let mut write = Write::begin(&db).await?;
    match decide(&mut write, &order).await {
        Ok(written) => {
            write.commit().await?;
            Ok(written)
        }
        Err(error) => {
            write.abandon().await?;
            Err(error)
        }
    }
}

async fn decide(write: &mut Write<'_>, order: &Order) -> Result<Written, CallError> {
    if let Some(keyed) = &order.keyed {
        match write.recall(keyed).await? {
            Recalled::Never => {}
            Recalled::Done(written) => return Ok(written),
            Recalled::Other => {
                let message = "this Idempotency-Key was used for another request";
                return Err(Failure::new(ErrorCode::Conflict, message).into());
            }
        }
    }
    let current = write.version(&order.key).await?;
    if !order
        .conditions
        .allow_write(current.as_ref().map(|version| &version.etag))
    {
        let message = "the current document is not the version that the request is meant for";
        let mut failure = Failure::new(ErrorCode::PreconditionFailed, message);
        if let Some(current) = current {
            failure = failure.current(current.etag.to_string(), Some(current.revision));
        }
        return Err(failure.into());
    }
    let written = match &order.edit {
        Edit::Put(document) => write.put(&order.key, document, current.as_ref()).await?,
        Edit::Delete if current.is_none() => return Err(absent(&order.key)),
        Edit::Delete => write.delete(&order.key).await?,
    };
    if let Some(keyed) = &order.keyed {
        write.remember(keyed, &written).await?;
    }
    Ok(written)
}

const REVISION: header::HeaderName = header::HeaderName::from_static(REVISION_HEADER);

/// The response with its validators.
pub(super) fn stamped(mut response: Response, etag: Option<&ETag>, revision: Option<u64>) -> Response {
    let headers = response.headers_mut();
    if let Some(etag) = etag {
        headers.insert(header::ETAG, etag.header());
    }
    if let Some(revision) = revision {
        headers.insert(REVISION, HeaderValue::from(revision));
    }
    response
}

fn absent(key: &Key) -> CallError {
    not_found(match key {
        Key::Policy { .. } => "there is no such policy",
        Key::Extension(_) => "there is no such extension",
    })
}

fn unacceptable(key: &Key, problems: &[Problem]) -> CallError {
    let failure = if problems.iter().any(Problem::is_not_json) {
        Failure::new(ErrorCode::InvalidJson, "the body is not valid JSON")
    } else {
        let message = format!("the {} is not acceptable", key.kind());
        Failure::new(ErrorCode::InvalidPolicy, message)
    };
    let problems: Vec<_> = problems
        .iter()
        .map(|problem| serde_json::json!(problem))
        .collect();
    failure.detail("problems", problems).into()
}

/// A list under construction: `{"policies":[…],"etags":{…}}`.
struct List {
    /// The member that holds the id of each element.
    member: &'static str,
    documents: Vec<u8>,
    etags: Vec<u8>,
}

impl List {
    fn new(name: &str, member: &'static str) -> Self {
        Self {
            member,
            documents: format!("{{\"{name}\":[").into(),
            etags: b"{".to_vec(),
        }
    }

    /// Adds a page; the key after which the next page begins, if there may be one.
    fn add_all(&mut self, page: &[Record]) -> Result<Option<Key>, DbError> {
        for Record { key, stored } in page {
            let ids = key.ids();
            let id = ids.policy_id.or(ids.id).unwrap_or_default();
            let element = listed(text_of(&stored.document)?, self.member, id)
                .map_err(|_bad| DbError::Damaged("a document"))?;
            if self.etags.len() > 1 {
                self.documents.push(b',');
                self.etags.push(b',');
            }
            self.documents.extend_from_slice(element.as_bytes());
            serde_json::to_writer(&mut self.etags, id).map_err(|_bad| DbError::Damaged("an id"))?;
            self.etags.push(b':');
            serde_json::to_writer(&mut self.etags, &stored.etag)
                .map_err(|_bad| DbError::Damaged("an entity tag"))?;
        }
        Ok(pages::next_after(page))
    }

    fn end(self, with_etags: bool) -> Result<Bytes, DbError> {
        let mut body = self.documents;
        body.push(b']');
        if with_etags {
            body.extend_from_slice(b",\"etags\":");
            body.extend_from_slice(&self.etags);
            body.push(b'}');
        }
        body.push(b'}');
        Ok(body.into())
    }
}
