//! Extension components by the digest of their bytes. They never change, so they have no revisions.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use sha2::{Digest, Sha256};

use super::{
    conditions::Conditions,
    error::{CallError, DbError, not_found},
    key::ModuleDigest,
    receive::{check_length, make_room, receive},
    records::stamped,
    rows,
    service::Service,
    unnamed,
};
use crate::{
    failure::{ErrorCode, Failure},
    intake::Room,
    policy::ETag,
    respond::{self, Response},
};

const WASM: HeaderValue = HeaderValue::from_static("application/wasm");
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

impl Service {
    /// `GET` and `HEAD` of a module.
    pub(super) async fn show_module(
        &self,
        digest: &ModuleDigest,
        method: &Method,
        headers: &HeaderMap,
        mut room: Room,
    ) -> Result<Response, CallError> {
        let absent = || not_found("there is no such module");
        let wanted = digest.clone();
        let read = self.db.ask(move |connection| {
            Box::pin(async move { Ok(rows::module_size(connection, &wanted).await?) })
        });
        let size = read.await?.ok_or_else(absent)?;
        let etag = tag(digest);
        let is_known = etag
            .as_ref()
            .is_some_and(|etag| Conditions::of(headers).is_not_modified(etag));
        let mut response = if is_known {
            respond::empty(StatusCode::NOT_MODIFIED)
        } else if method == Method::HEAD {
            let mut response = respond::with_body(StatusCode::OK, WASM, Bytes::new());
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from(size));
            response
        } else {
            make_room(&mut room, usize::try_from(size).unwrap_or(usize::MAX))?;
            let wanted = digest.clone();
            let read = self
                .db
                .ask(move |connection| Box::pin(async move { Ok(rows::module(connection, &wanted).await?) }));
            let bytes = read.await?.ok_or_else(absent)?;
            respond::with_body(StatusCode::OK, WASM, bytes).map(|body| body.holding(room))
        };
        response.headers_mut().insert(header::CACHE_CONTROL, FOR_EVER);
        Ok(stamped(response, etag.as_ref(), None))
    }

    /// `PUT` of a module, whose digest must be its name.
    pub(super) async fn put_module(
        &self,
        digest: ModuleDigest,
        headers: &HeaderMap,
        body: Incoming,
        mut room: Room,
    ) -> Result<Response, CallError> {
        check_length(headers, true)?;
        let bytes = receive(headers, body, self.max_module_bytes, self.body_timeout, &mut room).await?;
        let hashed = bytes.clone();
        // Hashing tens of megabytes takes too long for a thread that serves other requests.
        let found = tokio::task::spawn_blocking(move || hex::encode(Sha256::digest(&hashed)))
            .await
            .map_err(DbError::from)?;
        if found != digest.as_str() {
            let message = "the SHA-256 of the bytes is not the one in the path";
            return Err(Failure::new(ErrorCode::InvalidPolicy, message)
                .detail("sha256", found)
                .into());
        }
        let etag = tag(&digest);
        let answer = serde_json::json!({"ok": true, "sha256": found});
        let is_new = self
            .db
            .upload(move |connection| {
                Box::pin(async move {
                    let _until_it_is_written = room;
                    Ok(unnamed::put(connection, &digest, bytes).await?)
                })
            })
            .await?;
        let status = if is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        Ok(stamped(respond::json(status, &answer), etag.as_ref(), None))
    }
}

impl Service {
    /// `DELETE` of a module that no record names.
    pub(super) async fn delete_module(&self, digest: ModuleDigest) -> Result<Response, CallError> {
        self.db
            .write(move |write| {
                Box::pin(async move {
                    if unnamed::names(write.aside()).await?.contains(digest.as_str()) {
                        let message = "an extension's record names this module: remove or change that first";
                        return Err(Failure::new(ErrorCode::Conflict, message).into());
                    }
                    if !unnamed::delete(write.aside(), digest.as_str()).await? {
                        return Err(not_found("there is no such module"));
                    }
                    Ok(())
                })
            })
            .await?;
        Ok(respond::empty(StatusCode::NO_CONTENT))
    }
}

fn tag(digest: &ModuleDigest) -> Option<ETag> {
    ETag::parse(&format!("\"{}\"", digest.as_str()))
}
