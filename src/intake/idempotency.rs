//! What was counted lately, so that it is counted once however often it is sent.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{clock::Timestamp, policy::TenantId};

/// Most results that are remembered, and for how long.
const MAX_RESULTS: usize = 10_000;
const REMEMBERED_MS: u64 = 3_600_000;

/// Results that were counted lately.
#[derive(Debug, Default)]
pub(super) struct SeenResults(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    at: HashMap<(TenantId, Arc<str>), Timestamp>,
    order: VecDeque<((TenantId, Arc<str>), Timestamp)>,
}

impl SeenResults {
    /// Whether this is the first time within the hour.
    pub(super) fn is_new(&self, tenant: &TenantId, id: &str, now: Timestamp) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since: Timestamp| now.since(since) >= REMEMBERED_MS;
        while seen.order.front().is_some_and(|(_, since)| is_over(*since)) || seen.order.len() >= MAX_RESULTS
        {
            let Some((oldest, _)) = seen.order.pop_front() else {
                break;
            };
            seen.at.remove(&oldest);
        }
        let key: (TenantId, Arc<str>) = (tenant.clone(), id.into());
        if seen.at.contains_key(&key) {
            return false;
        }
        seen.at.insert(key.clone(), now);
        seen.order.push_back((key, now));
        true
    }
}
