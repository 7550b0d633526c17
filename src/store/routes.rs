//! From a request to its call, and the authorisation of the caller.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::body::Incoming;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    changes::{self, Since},
    conditions::Conditions,
    error::{CallError, invalid, method_not_allowed, not_found},
    key::{ExtensionId, Key, ModuleDigest},
    receive::check_length,
    records::stamped,
    service::Service,
    snapshot,
};
use crate::{
    failure::{ErrorCode, Failure},
    heir::Level,
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
                        let id = ExtensionId::parse(id)
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
            Self::Module(_) => "GET, HEAD, PUT",
            Self::Changes => "GET",
            Self::Health | Self::Policies(_) | Self::Extensions | Self::Snapshot => "GET, HEAD",
        }
    }
}

fn unknown() -> CallError {
    not_found("there is no such call")
}

impl Handler for Service {
    fn handle(self: &Arc<Self>, request: Request<Incoming>, _peer: Peer) -> Reply {
        let service = self.clone();
        // A length beside the chunks would be hidden, so nothing that follows on the connection is trusted.
        let closes = request.headers().contains_key(header::TRANSFER_ENCODING);
        Reply::Later(Box::pin(async move {
            let answer = service.answer(request).await;
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
    async fn answer(&self, request: Request<Incoming>) -> Result<Response, CallError> {
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
            (Call::Changes, method) if method == Method::GET => self.changes(&head.uri).await,
            (Call::Health, _) if is_read => self.health().await,
            (Call::Policies(tenant), _) if is_read => self.list_policies(&tenant, headers).await,
            (Call::Extensions, _) if is_read => self.list_extensions(headers).await,
            (Call::Snapshot, _) if is_read => self.snapshot(headers).await,
            (Call::Record(key), _) if is_read => self.show(&key, headers).await,
            (Call::Record(key), &Method::PUT) => self.put(key, headers, body).await,
            (Call::Record(key), &Method::DELETE) => self.delete(key, headers).await,
            (Call::Module(digest), method) if is_read => self.show_module(&digest, method, headers).await,
            (Call::Module(digest), &Method::PUT) => self.put_module(digest, headers, body).await,
            (call, _) => Err(method_not_allowed(call.allow())),
        }
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), CallError> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map_or("", |(_, given)| given.trim());
        // Digests have one length, so the time taken reveals nothing about the length of the token either.
        let is_same = Sha256::digest(given).ct_eq(&Sha256::digest(token.expose_secret()));
        if bool::from(is_same) {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::Unauthorized,
            "send the store's token: `Authorization: Bearer …`",
        )
        .into())
    }

    /// Healthy if the database answers.
    async fn health(&self) -> Result<Response, CallError> {
        self.db.head().await?;
        Ok(respond::json(StatusCode::OK, &serde_json::json!({"ok": true})))
    }

    async fn snapshot(&self, headers: &HeaderMap) -> Result<Response, CallError> {
        let conditions = Conditions::of(headers);
        let head = self.db.head().await?;
        let etag = snapshot::tag(&head);
        if conditions.is_not_modified(&etag) {
            let response = respond::empty(StatusCode::NOT_MODIFIED);
            return Ok(stamped(response, Some(&etag), Some(head.revision)));
        }
        // Completed even if this client gives up: other clients wait for the same snapshot.
        let snapshots = self.snapshots.clone();
        let snapshot = self
            .to_the_end(async move { Ok(snapshots.current().await?) })
            .await?;
        let response = respond::with_body(StatusCode::OK, NDJSON, snapshot.lines.clone());
        let etag = snapshot::tag(&snapshot.head);
        Ok(stamped(response, Some(&etag), Some(snapshot.head.revision)))
    }

    async fn changes(&self, uri: &Uri) -> Result<Response, CallError> {
        let since = Since::parse(uri.query())?;
        let body = changes::wait(&self.db, &since, &self.stopping).await?;
        Ok(respond::with_body(StatusCode::OK, JSON, body))
    }
}
