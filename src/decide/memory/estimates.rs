//! What a provider's calls have lately taken and cost.

use serde::Serialize;

use crate::{
    decide::Moment,
    policy::{ProviderId, TenantId},
};

/// Moving averages over a provider's results.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    pub latency_ms: f64,
    pub cost: Option<f64>,
    /// Share of failures, 0–1.
    pub error_rate: f64,
    pub results: u64,
}

/// All estimates.
#[derive(Debug)]
pub struct Estimates {}

impl Estimates {
    pub fn new(_providers: usize) -> Self {
        Self {}
    }

    /// Takes in one result.
    pub fn record(
        &self,
        _tenant: &TenantId,
        _provider: &ProviderId,
        _latency_ms: Option<u64>,
        _cost: Option<f64>,
        _failed: bool,
        _now: Moment,
    ) {
        todo!()
    }

    pub fn of(&self, _tenant: &TenantId, _provider: &str) -> Option<Estimate> {
        todo!()
    }
}
