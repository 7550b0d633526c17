//! The memory of all calls that are under way: of their instances, of input that waits, of answers that a request keeps.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use hashbrown::HashMap;

/// What all of them may have together.
#[derive(Debug)]
pub struct Budget {
    max_bytes: usize,
    used: AtomicUsize,
    /// What each tenant has of it in texts that wait or are kept. No tenant may have more than half of it all: instances
    /// are as few as there are threads, but texts as many as there are requests.
    tenants: Mutex<HashMap<Box<str>, usize>>,
}

/// What one of them has. It is given back when this is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
    tenant: Option<Box<str>>,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(max_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            used: AtomicUsize::new(0),
            tenants: Mutex::default(),
        })
    }

    /// A share of it, of no bytes yet.
    pub fn share(self: &Arc<Self>) -> Share {
        Share {
            budget: self.clone(),
            bytes: 0,
            tenant: None,
        }
    }

    /// So many bytes of it for a text that waits or is kept for a tenant. `None`: there is no room for it.
    pub fn share_of(self: &Arc<Self>, tenant: &str, bytes: usize) -> Option<Share> {
        let most = self.max_bytes / 2;
        {
            let mut tenants = self.tenants();
            let has = tenants.get(tenant).copied().unwrap_or_default();
            let would_have = has.checked_add(bytes).filter(|bytes| *bytes <= most)?;
            tenants.insert(tenant.into(), would_have);
        }
        let mut share = Share {
            budget: self.clone(),
            bytes: 0,
            tenant: None,
        };
        if !share.grow(bytes) {
            self.give_back(tenant, bytes);
            return None;
        }
        share.tenant = Some(tenant.into());
        Some(share)
    }

    fn give_back(&self, tenant: &str, bytes: usize) {
        let mut tenants = self.tenants();
        if let Some(has) = tenants.get_mut(tenant) {
            *has = has.saturating_sub(bytes);
            if *has == 0 {
                tenants.remove(tenant);
            }
        }
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<Box<str>, usize>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether half of it is in use: what can wait is not begun then.
    pub(in crate::extensions) fn is_half_used(&self) -> bool {
        self.used() >= self.max_bytes / 2
    }

    /// Bytes that are in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Takes more. Returns whether there was so much left.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let before = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before
            .checked_add(bytes)
            .is_some_and(|used| used <= self.budget.max_bytes);
        if fits {
            self.bytes += bytes;
        } else {
            self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(tenant) = &self.tenant {
            self.budget.give_back(tenant, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_are_bounded_and_given_back() {
        let budget = Budget::new(100);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.grow(60) && !second.grow(41) && second.grow(40));
        assert!(!first.grow(1));
        assert!(!first.grow(usize::MAX));
        assert_eq!(budget.used(), 100);
        drop(second);
        assert!(first.grow(40));
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_texts_of_one_tenant_leave_half_of_it_to_the_others() {
        let budget = Budget::new(100);
        let first = budget.share_of("a", 30);
        assert!(first.is_some() && budget.share_of("a", 21).is_none());
        let (more, other) = (budget.share_of("a", 20), budget.share_of("b", 50));
        assert!(more.is_some() && other.is_some() && budget.share_of("c", 1).is_none());
        drop(first);
        assert!(budget.share_of("c", 31).is_none());
        assert!(budget.share_of("c", 30).is_some() && budget.share_of("a", 30).is_some());
        drop((more, other));
        assert_eq!((budget.used(), budget.tenants().len()), (0, 0));
    }
}
