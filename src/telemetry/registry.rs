//! Registering metrics: one call a family. Each room registers its own, in its `metrics.rs`; `docs/metrics.md` lists
//! them all, and a test compares the two.
//!
//! The names of the platform's contract are used where it has one. Its `policy_id` label is left out everywhere and
//! `tenant_id` is bounded: the first tenants that a snapshot brings get a label, all others share `other`, and an
//! id that a client made up never becomes one.

use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// Buckets of what takes from a millisecond to a minute, in seconds.
pub const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// Buckets of what is answered from memory, in milliseconds.
pub const MEMORY_MS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 50.0, 500.0, 5000.0,
];

/// Registers counters with labels.
///
/// # Errors
/// When the name is taken.
pub fn counters(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Registers whole-number gauges with labels.
///
/// # Errors
/// When the name is taken.
pub fn gauges(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Registers a whole-number gauge.
///
/// # Errors
/// When the name is taken.
pub fn gauge(r: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let metric = IntGauge::new(name, help)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Registers a gauge of fractions.
///
/// # Errors
/// When the name is taken.
pub fn float_gauge(r: &Registry, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    let metric = Gauge::new(name, help)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Registers histograms with labels; `buckets` are the upper bounds.
///
/// # Errors
/// When the name is taken.
pub fn histograms(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Registers a counter.
///
/// # Errors
/// When the name is taken.
pub fn counter(r: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let metric = IntCounter::new(name, help)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Registers gauges of fractions with labels.
///
/// # Errors
/// When the name is taken.
pub fn float_gauges(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<GaugeVec, prometheus::Error> {
    let metric = GaugeVec::new(Opts::new(name, help), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// The exposition, Prometheus text format 0.0.4.
///
/// # Errors
/// When two families have the same name, which registering refuses.
pub fn scrape(r: &Registry) -> Result<Vec<u8>, prometheus::Error> {
    let mut text = Vec::with_capacity(32 * 1024);
    TextEncoder::new().encode(&r.gather(), &mut text)?;
    Ok(text)
}
