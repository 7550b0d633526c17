//! The admin listener's requests, handed to its routes.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tower::ServiceExt;

use super::{
    access::Access,
    layers::{self, Stack},
    openapi, routes,
};
use crate::{
    failure::{ErrorCode, Failure},
    listener::{Handler, Peer, Reply},
    operate::Operator,
    respond::{self, Response},
};

/// Answers the admin listener.
#[derive(Debug)]
pub struct Admin {
    access: Arc<Access>,
    stack: Stack,
}

impl Admin {
    /// Answers with what `operator` can do, for those whom `access` admits.
    pub fn new(access: Access, operator: Operator) -> Self {
        let access = Arc::new(access);
        let routes = routes::serving(Arc::new(operator), openapi::document);
        Self {
            stack: layers::around(routes, access.clone()),
            access,
        }
    }

    /// The check of everything that is not open.
    pub fn access(&self) -> &Access {
        &self.access
    }
}

impl Handler for Admin {
    fn handle(self: &Arc<Self>, request: Request<Incoming>, peer: Peer) -> Reply {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let answering = self.stack.clone().oneshot(request);
        Reply::Later(Box::pin(async move {
            match answering.await {
                Ok(response) => collected(response).await,
                Err(never) => match never {},
            }
        }))
    }
}

/// The listener sends whole bodies; every page is one already.
async fn collected(response: axum::response::Response) -> Response {
    let (parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => Response::from_parts(parts, body.to_bytes().into()),
        Err(error) => respond::failure(Failure::new(ErrorCode::InternalError, error.to_string())),
    }
}
