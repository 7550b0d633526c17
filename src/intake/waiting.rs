//! Requests that wait for HEIR or the disk: a bounded number at a time, the rest refused at once.

use std::future::Future;

use prometheus::IntGauge;
use tokio::sync::Semaphore;

use crate::failure::{ErrorCode, Failure};

/// The bound, shared by every transport.
#[derive(Debug)]
pub struct WaitingRequests {
    permits: Semaphore,
    waiting: IntGauge,
}

impl WaitingRequests {
    /// `max` requests may wait at a time; `waiting` counts them.
    pub fn new(max: usize, waiting: IntGauge) -> Self {
        Self {
            permits: Semaphore::new(max),
            waiting,
        }
    }

    /// Does work that waits for something.
    ///
    /// # Errors
    /// `overloaded` where too many requests wait already; the work's own failure otherwise.
    pub async fn admit<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let Ok(_permit) = self.permits.try_acquire() else {
            let message = "too many requests wait for HEIR already (limits.max_waiting_requests)";
            return Err(Failure::new(ErrorCode::Overloaded, message).retry_after_seconds(1));
        };
        let _counted = Counted::new(&self.waiting);
        work.await
    }
}

/// One request that waits; counted until dropped, also when its caller leaves.
struct Counted<'a>(&'a IntGauge);

impl<'a> Counted<'a> {
    fn new(waiting: &'a IntGauge) -> Self {
        waiting.inc();
        Self(waiting)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn one_too_many_is_refused_at_once_and_a_place_is_free_again_however_the_work_ends() {
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        let requests = WaitingRequests::new(1, gauge.clone());
        let (release, released) = oneshot::channel::<()>();
        let first = requests.admit(async {
            let _ended = released.await;
            Ok(1)
        });
        let second = async {
            assert_eq!(gauge.get(), 1);
            let refused = requests.admit(async { Ok(2) }).await.unwrap_err();
            assert_eq!(
                (refused.code, refused.retry_after_seconds),
                (ErrorCode::Overloaded, Some(1))
            );
            release.send(()).unwrap();
        };
        let (first, ()) = tokio::join!(first, second);
        assert_eq!((first.unwrap(), gauge.get()), (1, 0));
        // A caller that leaves drops the work.
        drop(Box::pin(
            requests.admit(std::future::pending::<Result<(), Failure>>()),
        ));
        assert_eq!(requests.admit(async { Ok(3) }).await.unwrap(), 3);
    }
}
