//! Work that takes the processor for long, on a thread of its own: all requests of a store share one thread, and health must
//! not wait for the text of another's large answer.

use super::error::DbError;

/// Documents of so many bytes take about a millisecond to write out: what is shorter is done at once.
const LONG: usize = 256 << 10;

/// Does the work for documents of this many bytes.
pub(super) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DbError> {
    if bytes < LONG {
        return Ok(work());
    }
    Ok(tokio::task::spawn_blocking(work).await?)
}
