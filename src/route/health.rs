//! The Router's `GET /health`.

use http::StatusCode;
use serde_json::json;

use super::Router;
use crate::{
    failure::{ErrorCode, Failure},
    readiness::Health,
    respond::{self, Response},
};

impl Router {
    /// 200 whenever lookups can be answered.
    pub(super) fn health(&self) -> Response {
        match self.readiness.health() {
            Health::Ok(state) => respond::json(StatusCode::OK, &json!({"status": "ok", "state": state})),
            Health::Unavailable(reason) => {
                let failure = Failure::new(ErrorCode::HeirUnavailable, reason);
                respond::failure(failure.retry_after_seconds(1))
            }
        }
    }
}
