//! Policies and extensions: read, write, list. Both are documents with a key, a revision and an entity tag.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;

use super::{
    aside::aside,
    chain::digest_of,
    check::check,
    conditions::Conditions,
    error::{CallError, DbError, not_found},
    key::Key,
    pages::{self, Record},
    receive::{check_length, idempotency_key, make_room, receive},
    rows,
    service::Service,
    snapshot::text_of,
    write::{Keyed, Recalled, Write, Written},
};
use crate::{
    failure::{ErrorCode, Failure},
    heir::{listed, wire::REVISION_HEADER},
    intake::Room,
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
    pub(super) async fn show(
        &self,
        key: &Key,
        headers: &HeaderMap,
        mut room: Room,
    ) -> Result<Response, CallError> {
        let wanted = key.clone();
        let read = self
            .db
            .ask(move |connection| Box::pin(async move { Ok(rows::fetch(connection, &wanted).await?) }));
        let stored = read.await?.ok_or_else(|| absent(key))?;
        make_room(&mut room, stored.document.len())?;
        if !self.level.has_validators() {
            let response = respond::with_body(StatusCode::OK, JSON, stored.document);
            return Ok(response.map(|body| body.holding(room)));
        }
        let is_known = Conditions::of(headers).is_not_modified(&stored.etag);
        let response = if is_known {
            respond::empty(StatusCode::NOT_MODIFIED)
        } else {
            respond::with_body(StatusCode::OK, JSON, stored.document).map(|body| body.holding(room))
        };
        Ok(stamped(response, Some(&stored.etag), Some(stored.revision)))
    }

    /// `PUT` of one record.
    pub(super) async fn put(
        &self,
        key: Key,
        headers: &HeaderMap,
        body: Incoming,
        mut room: Room,
    ) -> Result<Response, CallError> {
        check_length(headers, true)?;
        let bytes = receive(headers, body, self.max_body_bytes, self.body_timeout, &mut room).await?;
        let keyed = self.keyed(headers, "PUT", &key, &bytes)?;
        let document =
            check(&key, bytes, self.allow_invalid).map_err(|problems| unacceptable(&key, &problems))?;
        self.write(headers, key, Edit::Put(document), keyed, room).await
    }

    /// `DELETE` of one record.
    pub(super) async fn delete(
        &self,
        key: Key,
        headers: &HeaderMap,
        room: Room,
    ) -> Result<Response, CallError> {
        let keyed = self.keyed(headers, "DELETE", &key, &[])?;
        self.write(headers, key, Edit::Delete, keyed, room).await
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
        let conditions = Conditions::of(headers).text();
        Ok(Some(Keyed {
            key: name,
            request: digest_of(&[method.as_bytes(), tenant_id, policy_id, id, body]),
            conditions: conditions.map(|text| digest_of(&[text.as_bytes()])),
        }))
    }

    async fn write(
        &self,
        headers: &HeaderMap,
        key: Key,
        edit: Edit,
        keyed: Option<Keyed>,
        room: Room,
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
        let key = order.key.clone();
        let written = self
            .db
            .write(move |write| {
                Box::pin(async move {
                    let _until_it_is_written = room;
                    decide(write, &order).await
                })
            })
            .await?;
        let written = outcome(&key, written)?;
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
        room: Room,
    ) -> Result<Response, CallError> {
        let tenant = tenant.clone();
        let read = self.db.read(move |connection| {
            Box::pin(async move {
                let mut list = List::new("policies", "policy_id", room);
                let head = rows::head(connection).await?;
                let mut after = None;
                loop {
                    let page = pages::tenant_policies_after(connection, &tenant, after.as_ref()).await?;
                    (list, after) = list.and_all(page).await?;
                    if after.is_none() {
                        return Ok((list, head.revision));
                    }
                }
            })
        });
        let (list, revision) = read.await?;
        self.list_answer(list, revision, headers).await
    }

    /// `GET` of all extensions.
    pub(super) async fn list_extensions(
        &self,
        headers: &HeaderMap,
        room: Room,
    ) -> Result<Response, CallError> {
        let read = self.db.read(move |connection| {
            Box::pin(async move {
                let mut list = List::new("extensions", "id", room);
                let head = rows::head(connection).await?;
                let mut after = None;
                loop {
                    let page = pages::extensions_after(connection, after.as_ref()).await?;
                    (list, after) = list.and_all(page).await?;
                    if after.is_none() {
                        return Ok((list, head.revision));
                    }
                }
            })
        });
        let (list, revision) = read.await?;
        self.list_answer(list, revision, headers).await
    }

    async fn list_answer(
        &self,
        list: List,
        revision: u64,
        headers: &HeaderMap,
    ) -> Result<Response, CallError> {
        let has_validators = self.level.has_validators();
        let list_bytes = list.documents.len();
        let end = move || {
            let (body, room) = list.end(has_validators);
            let etag = has_validators.then(|| ETag::of_bytes(&body));
            (body, room, etag)
        };
        let (body, room, etag) = aside(list_bytes, end).await?;
        let Some(etag) = etag else {
            return Ok(respond::with_body(StatusCode::OK, JSON, body).map(|body| body.holding(room)));
        };
        let response = if Conditions::of(headers).is_not_modified(&etag) {
            respond::empty(StatusCode::NOT_MODIFIED)
        } else {
            respond::with_body(StatusCode::OK, JSON, body).map(|body| body.holding(room))
        };
        Ok(stamped(response, Some(&etag), Some(revision)))
    }
}

/// Carries out an order, or finds why it is not to be.
async fn decide(write: &mut Write, order: &Order) -> Result<Written, CallError> {
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
    let is_allowed = order
        .conditions
        .allow_write(current.as_ref().map(|version| &version.etag));
    let written = match &order.edit {
        _ if !is_allowed => Written::refused(StatusCode::PRECONDITION_FAILED, current),
        Edit::Put(document) => write.put(&order.key, document, current.as_ref()).await?,
        Edit::Delete if current.is_none() => Written::refused(StatusCode::NOT_FOUND, None),
        Edit::Delete => write.delete(&order.key).await?,
    };
    if let Some(keyed) = &order.keyed {
        write.remember(keyed, &written).await?;
    }
    Ok(written)
}

/// What was written, or the refusal that was decided on, now or when the request came for the first time.
fn outcome(key: &Key, written: Written) -> Result<Written, CallError> {
    match StatusCode::from_u16(written.status) {
        Ok(StatusCode::NOT_FOUND) => Err(absent(key)),
        Ok(StatusCode::PRECONDITION_FAILED) => {
            let message = "the current document is not the version that the request is meant for";
            let mut failure = Failure::new(ErrorCode::PreconditionFailed, message);
            if let Some(etag) = written.etag {
                failure = failure.current(etag.to_string(), Some(written.revision));
            }
            Err(failure.into())
        }
        _ => Ok(written),
    }
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
    room: Room,
}

impl List {
    fn new(name: &str, member: &'static str, room: Room) -> Self {
        Self {
            member,
            documents: format!("{{\"{name}\":[").into(),
            etags: b"{".to_vec(),
            room,
        }
    }

    /// The list with this page; the key after which the next page begins, if there may be one.
    async fn and_all(mut self, page: Vec<Record>) -> Result<(Self, Option<Key>), CallError> {
        aside(pages::bytes_of(&page), move || {
            let after = self.add_all(&page)?;
            Ok((self, after))
        })
        .await?
    }

    /// Adds a page; the key after which the next page begins, if there may be one.
    fn add_all(&mut self, page: &[Record]) -> Result<Option<Key>, CallError> {
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
        make_room(&mut self.room, self.documents.len() + self.etags.len())?;
        Ok(pages::next_after(page))
    }

    fn end(self, with_etags: bool) -> (Bytes, Room) {
        let mut body = self.documents;
        body.push(b']');
        if with_etags {
            body.extend_from_slice(b",\"etags\":");
            body.extend_from_slice(&self.etags);
            body.push(b'}');
        }
        body.push(b'}');
        (body.into(), self.room)
    }
}
