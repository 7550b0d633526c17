//! The memory of all calls that are under way: of their instances, of input that waits, of answers that a request keeps.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What all of them may have together.
#[derive(Debug)]
pub struct Budget {
    max_bytes: usize,
    used: AtomicUsize,
}

/// What one of them has. It is given back when this is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(max_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            used: AtomicUsize::new(0),
        })
    }

    /// A share of it, of no bytes yet.
    pub fn share(self: &Arc<Self>) -> Share {
        Share {
            budget: self.clone(),
            bytes: 0,
        }
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
}
