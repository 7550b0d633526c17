//! What a provider's calls have lately taken and cost.

use serde::Serialize;

use super::{
    provider_key::{ProviderKey, ProviderName},
    table::Table,
};
use crate::{
    clock::Timestamp,
    policy::{ProviderId, TenantId},
};

/// How much one result moves an average: the last ten make nine tenths of it.
const WEIGHT: f64 = 0.2;

/// Moving averages over a provider's results.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Estimate {
    /// Milliseconds. A failure counts only if it took longer than the average.
    pub latency_ms: f64,
    /// In the unit of the results. `None`: no result had a cost yet.
    pub cost: Option<f64>,
    /// Share of failures, 0–1.
    pub error_rate: f64,
    /// Results since the first one, whether they had a latency and a cost or not.
    pub results: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Averages {
    latency_ms: Option<f64>,
    cost: Option<f64>,
    error_rate: Option<f64>,
    results: u64,
}

impl Averages {
    fn record(&mut self, latency_ms: Option<u64>, cost: Option<f64>, failed: bool) {
        // A failure that comes fast says nothing good about a provider; one that comes late says something bad.
        let latency = latency_ms.map(|ms| ms as f64);
        let misleading = failed && self.latency_ms >= latency;
        self.latency_ms = moved(self.latency_ms, latency.filter(|_| !misleading));
        self.cost = moved(self.cost, cost.filter(|cost| cost.is_finite() && *cost >= 0.0));
        self.error_rate = moved(self.error_rate, Some(f64::from(u8::from(failed))));
        self.results = self.results.saturating_add(1);
    }
}

fn moved(average: Option<f64>, sample: Option<f64>) -> Option<f64> {
    match (average, sample) {
        (Some(average), Some(sample)) => Some(average + WEIGHT * (sample - average)),
        (average, sample) => average.or(sample),
    }
}

/// All estimates.
#[derive(Debug)]
pub struct Estimates {
    table: Table<ProviderKey, Averages>,
}

impl Estimates {
    /// Where there would be more than this many, the tenant that has most loses the one used longest ago.
    pub fn new(providers: usize) -> Self {
        Self {
            table: Table::of_tenants(providers, |key| Some(&key.0), |_| false),
        }
    }

    /// Takes in one result. A cost that is no amount is passed over.
    pub fn record(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        latency_ms: Option<u64>,
        cost: Option<f64>,
        failed: bool,
        now: Timestamp,
    ) {
        self.table.change_or_make(
            &ProviderName::new(tenant, provider.as_str()),
            now,
            || ((tenant.clone(), provider.clone()), Averages::default()),
            |averages| averages.record(latency_ms, cost, failed),
        );
    }

    /// `None` until a result had a latency.
    pub fn of(&self, tenant: &TenantId, provider: &str) -> Option<Estimate> {
        let averages = self
            .table
            .read(&ProviderName::new(tenant, provider), |averages| *averages)?;
        Some(Estimate {
            latency_ms: averages.latency_ms?,
            cost: averages.cost,
            error_rate: averages.error_rate.unwrap_or(0.0),
            results: averages.results,
        })
    }

    /// The tenant's estimates, by the names of their providers.
    pub fn list(&self, tenant: &TenantId) -> Vec<(ProviderId, Estimate)> {
        let mut providers = Vec::new();
        self.table.each(|key, _| {
            if key.0 == *tenant {
                providers.push(key.1.clone());
            }
        });
        providers.sort_unstable();
        let known = |provider: ProviderId| Some((provider.clone(), self.of(tenant, provider.as_str())?));
        providers.into_iter().filter_map(known).collect()
    }

    /// Forgets what a provider's calls took. Whether anything was known.
    pub fn forget(&self, tenant: &TenantId, provider: &str) -> bool {
        self.table.remove(&ProviderName::new(tenant, provider)).is_some()
    }

    /// Number of providers with results, of all tenants.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no provider has results.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn prune(&self, keep: &mut impl FnMut(&TenantId) -> bool) -> usize {
        self.table.retain(|key, _| keep(&key.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_follow_the_results_and_pass_over_what_is_no_amount() {
        let estimates = Estimates::new(10);
        let tenant = TenantId::parse("acme").unwrap();
        let (provider, now) = (ProviderId::new("openai"), Timestamp::from_unix_ms(0));
        let record = |latency, cost, failed| estimates.record(&tenant, &provider, latency, cost, failed, now);
        let of = || estimates.of(&tenant, "openai").unwrap();
        assert_eq!(estimates.of(&tenant, "openai"), None);
        record(None, Some(f64::NAN), false);
        assert_eq!(estimates.of(&tenant, "openai"), None);
        record(Some(100), None, false);
        assert_eq!((of().latency_ms, of().cost, of().error_rate), (100.0, None, 0.0));
        record(Some(200), Some(0.5), false);
        assert_eq!((of().latency_ms, of().cost), (120.0, Some(0.5)));
        for cost in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
            record(None, Some(cost), false);
        }
        assert_eq!((of().latency_ms, of().cost, of().results), (120.0, Some(0.5), 7));
        record(Some(1), None, true);
        assert_eq!((of().latency_ms, of().error_rate), (120.0, WEIGHT));
        record(Some(u64::MAX), None, true);
        assert!(of().latency_ms > 1e18 && of().latency_ms.is_finite());
        assert!((0.0..=1.0).contains(&of().error_rate));
    }

    #[test]
    fn there_are_never_more_than_asked_for() {
        let estimates = Estimates::new(100);
        let tenant = TenantId::parse("acme").unwrap();
        for index in 0..1_000 {
            let provider = ProviderId::new(&format!("p{index}"));
            let now = Timestamp::from_unix_ms(index);
            estimates.record(&tenant, &provider, Some(1), None, false, now);
        }
        assert_eq!(estimates.len(), 100);
        assert!(estimates.of(&tenant, "p999").is_some() && estimates.of(&tenant, "p0").is_none());
    }
}
