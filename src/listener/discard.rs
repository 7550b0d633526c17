//! Bodies that are refused.

use std::time::Duration;

use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

/// How much of a refused body is read after all, and for how long.
const BYTES: u64 = 64 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(2);
/// A client that sends nothing for so long may be reading.
const PAUSE: Duration = Duration::from_millis(100);

/// Reads a body that is refused, so that the client, which may read nothing before it has sent everything, comes to
/// read the refusal. A client that goes on for too long may then not see it.
pub async fn discard(headers: &HeaderMap, body: Incoming) {
    let told = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    // A client that waits for `100 Continue` has sent nothing yet and must not be told to.
    if told.is_some_and(|told| told > BYTES) || headers.contains_key(header::EXPECT) {
        return;
    }
    drain(body).await;
}

/// As [`discard`], of a body that was being read when it was refused.
pub async fn drain(mut body: Incoming) {
    let mut left = BYTES;
    let all = async {
        while let Ok(Some(Ok(frame))) = timeout(PAUSE, body.frame()).await {
            left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
            if left == 0 {
                return;
            }
        }
    };
    let _elapsed = timeout(PATIENCE, all).await;
}
