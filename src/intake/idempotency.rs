//! What was counted lately, so that it is counted once however often it is sent.

use std::sync::Arc;

use crate::{clock::Timestamp, decide::memory::table::Table, policy::TenantId};

/// Most results that are remembered, and for how long.
const MAX_RESULTS: usize = 10_000;
const REMEMBERED_MS: u64 = 3_600_000;

/// Results that were counted lately, and when; a full table forgets the one that was sent longest ago.
#[derive(Debug)]
pub(super) struct SeenResults(Table<(TenantId, Arc<str>), Option<Timestamp>>);

impl Default for SeenResults {
    fn default() -> Self {
        Self(Table::of_tenants(MAX_RESULTS, |key| Some(&key.0), |_| false))
    }
}

impl SeenResults {
    /// Whether this is the first time within the hour.
    pub(super) fn is_new(&self, tenant: &TenantId, id: &str, now: Timestamp) -> bool {
        let key: (TenantId, Arc<str>) = (tenant.clone(), id.into());
        let counted = |at: &mut Option<Timestamp>| {
            let is_new = at.is_none_or(|since| now.since(since) >= REMEMBERED_MS);
            if is_new {
                *at = Some(now);
            }
            is_new
        };
        self.0.change_or_make(&key, now, || (key.clone(), None), counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_new_once_an_hour_and_for_each_tenant() {
        let seen = SeenResults::default();
        let [a, b] = ["a", "b"].map(|name| TenantId::parse(name).unwrap());
        let at = Timestamp::from_unix_ms;
        assert!(seen.is_new(&a, "1", at(0)));
        assert!(!seen.is_new(&a, "1", at(REMEMBERED_MS - 1)));
        assert!(seen.is_new(&b, "1", at(1)) && seen.is_new(&a, "2", at(1)));
        assert!(seen.is_new(&a, "1", at(REMEMBERED_MS)));
        assert!(!seen.is_new(&a, "1", at(REMEMBERED_MS + 1)));
    }
}
