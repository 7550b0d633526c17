//! From a request to its call, and the authorisation of the caller.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::{
    changes::{self, Since},
    conditions::Conditions,
    error::{CallError, invalid, method_not_allowed, not_found},
    key::{ExtensionId, Key, ModuleDigest},
    receive::check_length,
    records::stamped,
    rows,
    service::Service,
    snapshot,
};
use crate::{
    failure::{ErrorCode, Failure},
    heir::Level,
    intake::{Client, Room},
    listener::{Handler, Peer, Reply},
    policy::TenantId,
    respond::{self, JSON, Response},
    route::Target,
};

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// A call of the API.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Health,
    Record(Key),
    Policies(TenantId),
    Extensions,
    Snapshot,
    Changes,
    Module(ModuleDigest),
}

impl Call {
    /// The call that the request's target names.
    fn parse(uri: &Uri) -> Result<Self, CallError> {
        let target = Target::parse(uri).map_err(|why| invalid(why.to_string()))?;
        // The parser has checked the ids already, so this never fails.
        let bad_id = |why: crate::policy::InvalidId| invalid(format!("the id {why}"));
        Ok(match target {
            Target::Health => Self::Health,
            Target::Tenant(tenant) => Self::Policies(tenant.tenant().map_err(bad_id)?),
            Target::Policy { tenant, policy } => Self::Record(Key::Policy {
                tenant: tenant.tenant().map_err(bad_id)?,
                policy: policy.policy().map_err(bad_id)?,
            }),
            // Only a sidecar answers these; a store does not have them.
            Target::Decide | Target::Results | Target::DryRun | Target::Complexity { .. } => {
                return Err(unknown());
            }
            Target::Other => {
                let rest = uri.path().strip_prefix("/api/v1/").unwrap_or_default();
                match rest.split_once('/') {
                    None if rest == "snapshot" => Self::Snapshot,
                    None if rest == "changes" => Self::Changes,
                    None if rest == "extensions" => Self::Extensions,
                    Some(("extensions", id)) if !id.contains('/') => {
                        // The parser has found nothing in the escapes that means anything in a path.
                        let id = ExtensionId::parse(&percent_decode_str(id).decode_utf8_lossy())
                            .map_err(|why| invalid(format!("the extension id {why}")))?;
                        Self::Record(Key::Extension(id))
                    }
                    Some(("modules", digest)) if !digest.contains('/') => {
                        let digest = ModuleDigest::parse(digest).ok_or_else(|| {
                            invalid("a module is named by its SHA-256 in 64 lower-case hex digits")
                        })?;
                        Self::Module(digest)
                    }
                    _ => return Err(unknown()),
                }
            }
        })
    }

    /// The lowest level that has this call.
    fn level(&self) -> Level {
        match self {
            Self::Health | Self::Record(Key::Policy { .. }) => Level::Single,
            Self::Policies(_) => Level::List,
            Self::Record(Key::Extension(_)) | Self::Extensions | Self::Snapshot | Self::Module(_) => {
                Level::Snapshot
            }
            Self::Changes => Level::Changes,
        }
    }

    /// The methods of the call.
    fn allow(&self) -> &'static str {
        match self {
            Self::Record(_) => "GET, HEAD, PUT, DELETE",
            Self::Module(_) => "GET, HEAD, PUT, DELETE",
            Self::Changes => "GET",
            Self::Health | Self::Policies(_) | Self::Extensions | Self::Snapshot => "GET, HEAD",
        }
    }
}

fn unknown() -> CallError {
    not_found("there is no such call")
}

impl Handler for Service {
    fn handle(self: &Arc<Self>, request: Request<Incoming>, peer: Peer) -> Reply {
        let service = self.clone();
        // A length beside the chunks would be hidden, so nothing that follows on the connection is trusted.
        let closes = request.headers().contains_key(header::TRANSFER_ENCODING);
        Reply::Later(Box::pin(async move {
            let room = service.buffered.room(Client::at(peer.ip()));
            let answer = service.answer(request, room).await;
            let mut response = answer.unwrap_or_else(|error| respond::failure(error.into_failure()));
            if closes {
                let headers = response.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }))
    }
}

impl Service {
    async fn answer(&self, request: Request<Incoming>, room: Room) -> Result<Response, CallError> {
        let (head, body) = request.into_parts();
        let headers = &head.headers;
        check_length(headers, false)?;
        let call = Call::parse(&head.uri);
        // Health is open to the supervisor of the process; all other paths, known or not, need the token.
        if !matches!(call, Ok(Call::Health)) {
            self.authorize(headers)?;
        }
        let call = call?;
        if call.level() > self.level {
            return Err(unknown());
        }
        let is_read = head.method == Method::GET || head.method == Method::HEAD;
        match (call, &head.method) {
            (Call::Changes, method) if method == Method::GET => self.changes(&head.uri, room).await,
            (Call::Health, _) if is_read => self.health().await,
            (Call::Policies(tenant), _) if is_read => self.list_policies(&tenant, headers, room).await,
            (Call::Extensions, _) if is_read => self.list_extensions(headers, room).await,
            (Call::Snapshot, _) if is_read => self.snapshot(headers).await,
            (Call::Record(key), _) if is_read => self.show(&key, headers, room).await,
            (Call::Record(key), &Method::PUT) => self.put(key, headers, body, room).await,
            (Call::Record(key), &Method::DELETE) => self.delete(key, headers, room).await,
            (Call::Module(digest), method) if is_read => {
                self.show_module(&digest, method, headers, room).await
            }
            (Call::Module(digest), &Method::DELETE) => self.delete_module(digest).await,
            (Call::Module(digest), &Method::PUT) => self.put_module(digest, headers, body, room).await,
            (call, _) => Err(method_not_allowed(call.allow())),
        }
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), CallError> {
        if self.token.admits(headers) {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::Unauthorized,
            "send the store's token: `Authorization: Bearer …`",
        )
        .into())
    }

    /// Healthy if the database answers, and took the last write.
    async fn health(&self) -> Result<Response, CallError> {
        self.db
            .watch(|connection| Box::pin(async { Ok(rows::head(connection).await?) }))
            .await?;
        self.db.storage.check_file()?;
        if let Some(trouble) = self.db.storage.trouble() {
            return Err(trouble.failure().into());
        }
        Ok(respond::json(StatusCode::OK, &serde_json::json!({"ok": true})))
    }

    async fn snapshot(&self, headers: &HeaderMap) -> Result<Response, CallError> {
        let conditions = Conditions::of(headers);
        let read = self
            .db
            .ask(|connection| Box::pin(async { Ok(rows::head(connection).await?) }));
        let head = read.await?;
        let etag = snapshot::tag(&head);
        if conditions.is_not_modified(&etag) {
            let response = respond::empty(StatusCode::NOT_MODIFIED);
            return Ok(stamped(response, Some(&etag), Some(head.revision)));
        }
        // Completed even if this client gives up: other clients wait for the same snapshot.
        let snapshots = self.snapshots.clone();
        let snapshot = self.to_the_end(async move { snapshots.current().await }).await?;
        let response = respond::with_body(StatusCode::OK, NDJSON, snapshot.lines.clone());
        let etag = snapshot::tag(&snapshot.head);
        Ok(stamped(response, Some(&etag), Some(snapshot.head.revision)))
    }

    async fn changes(&self, uri: &Uri, room: Room) -> Result<Response, CallError> {
        let since = Since::parse(uri.query())?;
        let (body, room) = changes::wait(&self.db, &since, &self.stopping, room).await?;
        Ok(respond::with_body(StatusCode::OK, JSON, body).map(|body| body.holding(room)))
    }
}
