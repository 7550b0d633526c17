//! What is around every page: access, limits, and the error body in every case.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn, from_fn_with_state, map_response},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{HeaderValue, Method, StatusCode, header};
use tokio::sync::Semaphore;
use tower::{ServiceBuilder, util::BoxCloneSyncService};

use super::{
    access::{Access, is_open},
    reply::Refused,
};
use crate::{
    failure::{ErrorCode, Failure},
    listener::Peer,
};

/// The longest body that a page reads, in bytes.
const MAX_BODY_BYTES: usize = 4_096;

/// Time for an answer from memory.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for what has to wait for HEIR or for a compiler.
const ACTION_TIMEOUT: Duration = Duration::from_secs(600);

/// Pages that are made at one time. Probes and metrics do not count, so that they always find a free connection.
const MAX_PAGES: usize = 64;

/// The routes with all layers around them.
pub(super) type Stack = BoxCloneSyncService<http::Request<Body>, Response, Infallible>;

/// Puts the layers around the routes. They are around the router and not in it, because the router itself answers what
/// has no route.
pub(super) fn around(routes: Router, access: Arc<Access>) -> Stack {
    let stack = ServiceBuilder::new()
        // Outermost, so that it sees every failure.
        .layer(from_fn(log_failures))
        // Around everything that could panic but the line that is logged.
        .layer(from_fn(catch_panics))
        // Before anything reads the request: strangers learn nothing, not even what does not exist.
        .layer(from_fn_with_state(access, authorise))
        .layer(from_fn_with_state(
            Arc::new(Semaphore::new(MAX_PAGES)),
            limit_pages,
        ))
        .layer(from_fn(limit_time))
        // Directly around the router, whose answers to other methods have no body.
        .layer(map_response(name_methods))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .service(routes);
    BoxCloneSyncService::new(stack)
}

async fn log_failures(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    if let Some(code) = response.extensions().get::<ErrorCode>() {
        tracing::debug!(%method, path, code = code.as_str(), "An admin request failed.");
    }
    response
}

async fn catch_panics(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // A page shares nothing with others that a panic could leave half done: tables lock for themselves.
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_panic) => {
            tracing::error!(%method, path, "An admin page panicked.");
            let message = "the page failed; the log of the process has the reason";
            Refused(Failure::new(ErrorCode::InternalError, message)).into_response()
        }
    }
}

async fn authorise(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    if !is_open(request.method(), request.uri().path()) {
        let peer = request.extensions().get::<Peer>().copied();
        if let Err(failure) = access.check(request.headers(), peer) {
            return Refused(failure).into_response();
        }
    }
    next.run(request).await
}

async fn limit_pages(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let _place = if is_open(request.method(), request.uri().path()) {
        None
    } else {
        let Ok(place) = places.try_acquire() else {
            let message = format!("{MAX_PAGES} pages are being made already");
            let failure = Failure::new(ErrorCode::Overloaded, message).retry_after_seconds(1);
            return Refused(failure).into_response();
        };
        Some(place)
    };
    next.run(request).await
}

async fn limit_time(request: Request, next: Next) -> Response {
    let limit = match *request.method() {
        Method::GET | Method::HEAD => READ_TIMEOUT,
        _ => ACTION_TIMEOUT,
    };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let message = format!("the page took longer than {} s", limit.as_secs());
            Refused(Failure::new(ErrorCode::RequestTimeout, message)).into_response()
        }
    }
}

/// Gives the router's answer to a method that a path does not take a body which names those that it takes.
async fn name_methods(response: Response) -> Response {
    if response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    let allowed = response.headers().get(header::ALLOW);
    let allowed = allowed
        .and_then(|allowed| allowed.to_str().ok())
        .unwrap_or_default();
    let allowed = allowed.split(',').collect::<Vec<_>>().join(", ");
    let message = format!("this path takes {allowed}");
    let mut refused = Refused(Failure::new(ErrorCode::MethodNotAllowed, message)).into_response();
    // The router's own list of methods: ASCII.
    if let Ok(allowed) = HeaderValue::try_from(allowed) {
        refused.headers_mut().insert(header::ALLOW, allowed);
    }
    refused
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::admin::AdminConfig;

    fn stack(routes: Router) -> Stack {
        around(routes, Arc::new(Access::load(&AdminConfig::default()).unwrap()))
    }

    async fn ask(routes: Router, method: Method, path: &str) -> (u16, Value) {
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        request.extensions_mut().insert(Peer::Unix);
        let response = stack(routes).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    fn code(answer: &(u16, Value)) -> (u16, &str) {
        assert_eq!(
            (&answer.1["ok"], &answer.1["context"]),
            (&false.into(), &serde_json::json!({}))
        );
        (answer.0, answer.1["error"]["code"].as_str().unwrap())
    }

    #[tokio::test]
    async fn a_page_that_panics_is_an_internal_error_with_the_error_body() {
        async fn panics() -> &'static str {
            panic!("a page with a mistake")
        }
        let answer = ask(
            Router::new().route("/admin/x", get(panics)),
            Method::GET,
            "/admin/x",
        )
        .await;
        assert_eq!(code(&answer), (500, "internal_error"));
        assert!(!answer.1.to_string().contains("mistake"), "{}", answer.1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_takes_too_long_is_ended_with_the_error_body() {
        async fn waits() -> &'static str {
            std::future::pending().await
        }
        let routes = Router::new()
            .route("/admin/x", get(waits))
            .route("/admin/y", post(waits));
        for (method, path, limit) in [
            (Method::GET, "/admin/x", READ_TIMEOUT),
            (Method::POST, "/admin/y", ACTION_TIMEOUT),
        ] {
            let started = tokio::time::Instant::now();
            let answer = ask(routes.clone(), method, path).await;
            assert_eq!(code(&answer), (408, "request_timeout"));
            assert!(started.elapsed() >= limit && started.elapsed() < limit * 2);
        }
    }

    #[tokio::test]
    async fn pages_that_wait_keep_others_out_but_no_probe() {
        async fn waits() -> &'static str {
            std::future::pending().await
        }
        let routes = Router::new()
            .route("/admin/x", get(waits))
            .route("/live", get(|| async { "{}" }));
        let stack = stack(routes);
        let request = |path: &str| {
            let mut request = http::Request::builder().uri(path).body(Body::empty()).unwrap();
            request.extensions_mut().insert(Peer::Unix);
            request
        };
        let mut waiting: Vec<_> = (0..MAX_PAGES)
            .map(|_| Box::pin(stack.clone().oneshot(request("/admin/x"))))
            .collect();
        for page in &mut waiting {
            assert!(futures_util::poll!(page).is_pending());
        }
        let refused = stack.clone().oneshot(request("/admin/x")).await.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        let live = stack.clone().oneshot(request("/live")).await.unwrap();
        assert_eq!(live.status(), StatusCode::OK);
        // A client that leaves makes room.
        waiting.pop();
        assert!(futures_util::poll!(Box::pin(stack.oneshot(request("/admin/x")))).is_pending());
    }

    #[tokio::test]
    async fn a_request_without_a_known_peer_is_refused() {
        let request = http::Request::builder()
            .uri("/admin/x")
            .body(Body::empty())
            .unwrap();
        let routes = Router::new().route("/admin/x", get(|| async { "open" }));
        let response = stack(routes).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
}
