//! One policy in HEIR: reading what it has, and sending a write.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::request::{Precondition, Versions};
use crate::{
    heir::{Admission, Fetched, HeirCall, HeirClient, HeirError, Replied, wire},
    policy::{ETag, PolicyDocument},
    snapshot::{Key, Policy},
};

/// The header that names a write, so that HEIR makes it once however often it is sent.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What HEIR answers a read of a policy with.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is the version that was named.
    AsNamed,
    /// It is this document.
    Document(Bytes, HeaderMap),
    /// 404.
    NotFound,
}

/// Reads a policy; the document is left out if it is the version that is named.
pub(super) async fn read(client: &HeirClient, key: &Key, named: Option<&ETag>) -> Result<Answer, HeirError> {
    let (path, limit) = (wire::policy_path(&key.0, &key.1), client.max_answer_bytes());
    let named = named.map(ETag::header);
    match client
        .fetch_once(
            HeirCall::Get,
            Admission::Breaker,
            &path,
            named.as_ref(),
            limit,
            client.timeout(),
        )
        .await
    {
        Ok(Fetched::Changed { body, headers }) => Ok(Answer::Document(body, headers)),
        Ok(Fetched::NotModified) => Ok(Answer::AsNamed),
        Err(HeirError::Status {
            status: StatusCode::NOT_FOUND,
            ..
        }) => Ok(Answer::NotFound),
        Err(error) => Err(error),
    }
}

/// The version of a policy that HEIR has at this moment.
pub(super) async fn version(client: &HeirClient, key: &Key) -> Result<Option<Arc<Policy>>, HeirError> {
    let Answer::Document(body, headers) = read(client, key, None).await? else {
        return Ok(None);
    };
    let document = PolicyDocument::parse_tagged(body, Fetched::etag(&headers))
        .map_err(|_problems| HeirError::Invalid("the policy is broken".into()))?;
    Ok(Some(Arc::new(Policy::new(document, wire::revision(&headers)))))
}

/// Sends a write: this document, or the policy's deletion.
pub(super) async fn send(
    client: &HeirClient,
    key: &Key,
    document: Option<&PolicyDocument>,
    mut headers: HeaderMap,
) -> Result<Replied, HeirError> {
    let path = wire::policy_path(&key.0, &key.1);
    let (call, method, body) = match document {
        Some(document) => {
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
            (HeirCall::Put, Method::PUT, document.bytes().clone())
        }
        None => (HeirCall::Delete, Method::DELETE, Bytes::new()),
    };
    client.write(call, method, &path, headers, body).await
}

/// Adds the key of a write, in place of any other.
pub(super) fn add_idempotency_key(headers: &mut HeaderMap, key: &str) {
    if let Ok(key) = HeaderValue::from_str(key) {
        headers.insert(IDEMPOTENCY_KEY, key);
    }
}

/// Adds preconditions.
pub(super) fn add_preconditions(headers: &mut HeaderMap, preconditions: &[Precondition]) {
    for precondition in preconditions {
        let (name, versions) = match precondition {
            Precondition::Is(versions) => (header::IF_MATCH, versions),
            Precondition::IsNot(versions) => (header::IF_NONE_MATCH, versions),
        };
        let list = match versions {
            Versions::Any => "*".to_owned(),
            Versions::Tagged(tags) => tags.iter().map(ETag::as_str).collect::<Vec<_>>().join(", "),
        };
        if let Ok(list) = HeaderValue::from_str(&list) {
            headers.append(name, list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preconditions_become_the_headers_that_http_has_for_them() {
        let tags = ["\"a\"", "\"b\""].map(|tag| ETag::parse(tag).unwrap()).to_vec();
        let mut headers = HeaderMap::new();
        add_preconditions(
            &mut headers,
            &[
                Precondition::Is(Versions::Tagged(tags)),
                Precondition::IsNot(Versions::Any),
            ],
        );
        assert_eq!(headers[header::IF_MATCH], "\"a\", \"b\"");
        assert_eq!(headers[header::IF_NONE_MATCH], "*");
    }
}
