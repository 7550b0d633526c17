//! Requests that wait for HEIR or the disk: a bounded number at a time, the rest refused at once.

use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::failure::{ErrorCode, Failure};

/// The bound, shared by every transport.
#[derive(Debug)]
pub struct WaitingRequests {
    permits: Arc<Semaphore>,
    /// A part of those: what is forwarded is unknown here, and may take as long as it likes.
    forwarded: Arc<Semaphore>,
    waiting: IntGauge,
}

/// A place among the requests that wait, free again when this is dropped. It goes with the work, also where that goes on
/// after its caller has left, and with the answer until its last byte is sent.
#[derive(Debug)]
pub struct Place {
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
    waiting: IntGauge,
}

impl WaitingRequests {
    /// `max` requests may wait at a time; `waiting` counts them.
    pub fn new(max: usize, waiting: IntGauge) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max)),
            forwarded: Arc::new(Semaphore::new(max.div_ceil(2))),
            waiting,
        }
    }

    /// Takes a place. A request takes it when its body is there: one that sends slowly must not keep others out.
    ///
    /// # Errors
    /// `overloaded` where too many requests wait already.
    pub fn place(&self) -> Result<Place, Failure> {
        self.with(None)
    }

    /// Takes a place for a request that is forwarded. Half of all places are for such.
    ///
    /// # Errors
    /// As those of [`place`](Self::place).
    pub fn forwarded_place(&self) -> Result<Place, Failure> {
        let forwarded = self.forwarded.clone().try_acquire_owned();
        self.with(Some(forwarded.map_err(|_taken| overloaded())?))
    }

    fn with(&self, forwarded: Option<OwnedSemaphorePermit>) -> Result<Place, Failure> {
        let permit = self.permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_taken| overloaded())?;
        self.waiting.inc();
        Ok(Place {
            _permits: (permit, forwarded),
            waiting: self.waiting.clone(),
        })
    }
}

fn overloaded() -> Failure {
    let message = "too many requests wait for HEIR already (limits.max_waiting_requests)";
    Failure::new(ErrorCode::Overloaded, message).retry_after_seconds(1)
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_is_refused_at_once_and_a_place_is_free_again_when_it_is_dropped() {
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        let requests = WaitingRequests::new(1, gauge.clone());
        let first = requests.place().unwrap();
        assert_eq!(gauge.get(), 1);
        let refused = requests.place().unwrap_err();
        assert_eq!(
            (refused.code, refused.retry_after_seconds),
            (ErrorCode::Overloaded, Some(1))
        );
        drop(first);
        assert_eq!(gauge.get(), 0);
        let _second = requests.place().unwrap();
    }

    #[test]
    fn forwarded_requests_leave_half_of_the_places_to_others() {
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        let requests = WaitingRequests::new(4, gauge);
        let forwarded: Vec<_> = (0..2).map(|_| requests.forwarded_place().unwrap()).collect();
        assert!(requests.forwarded_place().is_err());
        let others: Vec<_> = (0..2).map(|_| requests.place().unwrap()).collect();
        assert!(requests.place().is_err());
        drop(others);
        assert!(requests.forwarded_place().is_err());
        drop(forwarded);
        assert!(requests.forwarded_place().is_ok());
    }
}
