//! The write journal, for the operator who settles what is stuck in it.

use http::StatusCode;
use serde_json::{Value, json};

use super::Admin;
use crate::{
    failure::{ErrorCode, Failure},
    respond::{self, Response},
    write::{Entry, EntryId, JournalError, Operation},
};

impl Admin {
    pub(super) fn writes(&self) -> Response {
        let entries = self.writer.journal().entries();
        let (queued, conflicts) = self.writer.journal().counts();
        let page = json!({
            "durable": self.writer.journal().is_durable(),
            "queued": queued,
            "conflicts": conflicts,
            "writes": entries.iter().map(entry).collect::<Value>(),
        });
        respond::json(StatusCode::OK, &page)
    }

    /// `discard` gives a write up; `retry` makes it over whatever HEIR has.
    pub(super) async fn settle(&self, id: &str, action: &str) -> Result<Response, Failure> {
        let id = id.parse().map(EntryId).map_err(|_no_number| {
            Failure::new(
                ErrorCode::InvalidRequest,
                "the id of a write is a number; see GET /admin/writes",
            )
        })?;
        let settled = match action {
            "discard" => self.writer.discard(id).await,
            "retry" => self.writer.retry(id).await,
            _ => {
                return Err(Failure::new(
                    ErrorCode::NotFound,
                    "a write can be discarded or retried",
                ));
            }
        };
        match settled {
            Ok(settled) => Ok(respond::json(
                StatusCode::OK,
                &json!({"ok": true, "write": entry(&settled)}),
            )),
            Err(error @ JournalError::NotFound(_)) => {
                Err(Failure::new(ErrorCode::NotFound, error.to_string()))
            }
            Err(error @ JournalError::StillQueued(_)) => {
                Err(Failure::new(ErrorCode::Conflict, error.to_string()))
            }
            Err(error) => {
                tracing::error!(error = error.chain(), "The journal cannot be written.");
                Err(Failure::new(ErrorCode::JournalUnavailable, error.to_string()))
            }
        }
    }
}

fn entry(entry: &Entry) -> Value {
    let (op, etag, bytes) = match &entry.operation {
        Operation::Put(document) => ("put", Some(document.etag()), Some(document.bytes().len())),
        Operation::Delete => ("delete", None, None),
    };
    json!({
        "id": entry.id,
        "tenant_id": entry.key.0,
        "policy_id": entry.key.1,
        "op": op,
        "etag": etag,
        "bytes": bytes,
        "base": entry.base,
        "queued_unix_ms": entry.queued_unix_ms,
        "status": entry.state,
    })
}
