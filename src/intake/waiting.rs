//! Requests that wait for HEIR or the disk: a bounded number at a time, the rest refused at once.

use prometheus::IntGauge;

use crate::{
    failure::{ErrorCode, Failure},
    fair_share::{FairShare, Share},
    policy::TenantId,
};

/// The bound, shared by every transport.
#[derive(Debug)]
pub struct WaitingRequests {
    places: FairShare<Holder>,
    waiting: IntGauge,
}

/// Whose requests wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Holder {
    Tenant(TenantId),
    /// What is forwarded is unknown here, and may take as long as it likes.
    Forwarded,
}

/// A place among the requests that wait, free again when this is dropped. It goes with the work, also where that goes on
/// after its caller has left, and with the answer until its last byte is sent.
#[derive(Debug)]
pub struct Place {
    _share: Share<Holder>,
    waiting: IntGauge,
}

impl WaitingRequests {
    /// `max` requests may wait at a time; `waiting` counts them.
    pub fn new(max: usize, waiting: IntGauge) -> Self {
        Self {
            places: FairShare::new(max),
            waiting,
        }
    }

    /// Takes a place. A request takes it when its body is there: one that sends slowly must not keep others out. No tenant
    /// takes more places than are free.
    ///
    /// # Errors
    /// `overloaded` where too many requests wait already.
    pub fn place(&self, tenant: &TenantId) -> Result<Place, Failure> {
        self.place_of(&Holder::Tenant(tenant.clone()))
    }

    /// Takes a place for a request that is forwarded. All of these share as if they were one tenant's.
    ///
    /// # Errors
    /// As those of [`place`](Self::place).
    pub fn forwarded_place(&self) -> Result<Place, Failure> {
        self.place_of(&Holder::Forwarded)
    }

    fn place_of(&self, holder: &Holder) -> Result<Place, Failure> {
        let share = self.places.try_take(holder).ok_or_else(|| {
            let message = "too many requests wait for HEIR already (limits.max_waiting_requests)";
            Failure::new(ErrorCode::Overloaded, message).retry_after_seconds(1)
        })?;
        self.waiting.inc();
        Ok(Place {
            _share: share,
            waiting: self.waiting.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str) -> TenantId {
        TenantId::parse(id).unwrap()
    }

    #[test]
    fn one_too_many_is_refused_at_once_and_a_place_is_free_again_when_it_is_dropped() {
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        let requests = WaitingRequests::new(1, gauge.clone());
        let first = requests.place(&tenant("a")).unwrap();
        assert_eq!(gauge.get(), 1);
        let refused = requests.place(&tenant("b")).unwrap_err();
        assert_eq!(
            (refused.code, refused.retry_after_seconds),
            (ErrorCode::Overloaded, Some(1))
        );
        drop(first);
        assert_eq!(gauge.get(), 0);
        let _second = requests.place(&tenant("a")).unwrap();
    }

    #[test]
    fn forwarded_requests_and_each_tenant_leave_places_to_others() {
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        let requests = WaitingRequests::new(8, gauge);
        let forwarded: Vec<_> = (0..4).map(|_| requests.forwarded_place().unwrap()).collect();
        assert!(requests.forwarded_place().is_err());
        let others: Vec<_> = (0..2).map(|_| requests.place(&tenant("a")).unwrap()).collect();
        assert!(requests.place(&tenant("a")).is_err());
        let _third = requests.place(&tenant("b")).unwrap();
        drop(others);
        assert!(requests.forwarded_place().is_err());
        drop(forwarded);
        assert!(requests.forwarded_place().is_ok());
    }
}
