//! Provider breakers: one small state machine per tenant and provider.

use serde::Serialize;

use crate::{
    decide::Moment,
    policy::{BreakerSettings, ProviderId, TenantId},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Closed,
    Open,
    HalfOpen,
}

/// Whether a provider may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Allowed,
    Denied,
}

/// What became of a call, as far as a breaker minds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallResult {
    Success,
    Failure,
}

/// Why a breaker changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    LatencyThresholdExceeded,
    FailureThresholdExceeded,
    ErrorRateThresholdExceeded,
    HalfOpenFailure,
    TimeoutElapsed,
    SuccessThresholdMet,
}

/// A change of state, for whoever logs and counts it.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    pub tenant: TenantId,
    pub provider: ProviderId,
    pub from: State,
    pub to: State,
    pub trigger: Trigger,
    pub failure_count: u32,
    pub success_count: u32,
    pub error_rate: f64,
    pub window_failures: u32,
    pub window_total: u32,
    pub settings: BreakerSettings,
    /// Since the state before began.
    pub elapsed_ms: u64,
}

/// All breakers.
#[derive(Debug)]
pub struct Breakers {}

impl Breakers {
    pub fn new(_providers: usize) -> Self {
        Self {}
    }

    /// What `admit` would say, changing nothing.
    pub fn peek(&self, _tenant: &TenantId, _provider: &str, _now: Moment) -> Admission {
        todo!()
    }

    /// Asks to call the provider. Opens half an open breaker whose time has come, and uses the half-open budget.
    pub fn admit(
        &self,
        _tenant: &TenantId,
        _provider: &str,
        _now: Moment,
    ) -> (Admission, Option<Transition>) {
        todo!()
    }

    /// Gives a provider its settings; the last policy that chose it wins. Creates a closed breaker where there is none.
    pub fn configure(
        &self,
        _tenant: &TenantId,
        _provider: &ProviderId,
        _settings: BreakerSettings,
        _now: Moment,
    ) {
        todo!()
    }

    /// Takes in what became of a call.
    pub fn record(
        &self,
        _tenant: &TenantId,
        _provider: &ProviderId,
        _result: CallResult,
        _latency_ms: Option<u64>,
        _now: Moment,
    ) -> Option<Transition> {
        todo!()
    }

    /// State of a breaker as it stands, time not applied. `None`: there is none, which allows.
    pub fn state(&self, _tenant: &TenantId, _provider: &str) -> Option<State> {
        todo!()
    }
}
