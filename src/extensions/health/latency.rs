//! How long calls took in the last five minutes, in buckets a fifth apart.

use std::time::Duration;

use crate::clock::Timestamp;

/// Slices of the window, and how long each is.
const SLICES: u64 = 5;
const SLICE_MS: u64 = 60_000;
/// Buckets per doubling, and doublings from a microsecond on: up to half a minute.
const PER_DOUBLING: usize = 4;
const BUCKETS: usize = 25 * PER_DOUBLING;

/// A histogram for each of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Latency {
    slices: Vec<Slice>,
}

#[derive(Debug)]
struct Slice {
    number: u64,
    count: u64,
    sum_ms: f64,
    buckets: Box<[u32; BUCKETS]>,
}

/// Milliseconds; zero where nothing was seen.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct LatencyReport {
    pub(super) avg_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
}

impl Latency {
    pub(super) fn record(&mut self, now: Timestamp, took: Duration) {
        let number = now.unix_ms / SLICE_MS;
        let index = match self.slices.iter().position(|slice| slice.number == number) {
            Some(index) => index,
            None => {
                self.slices.retain(|slice| slice.number + SLICES > number);
                self.slices.push(Slice {
                    number,
                    count: 0,
                    sum_ms: 0.0,
                    buckets: Box::new([0; BUCKETS]),
                });
                self.slices.len() - 1
            }
        };
        if let Some(slice) = self.slices.get_mut(index) {
            slice.count += 1;
            slice.sum_ms += took.as_secs_f64() * 1e3;
            if let Some(bucket) = slice.buckets.get_mut(bucket_of(took)) {
                *bucket = bucket.saturating_add(1);
            }
        }
    }

    /// Of several histograms together.
    pub(super) fn report(of: &[&Self], now: Timestamp) -> LatencyReport {
        let number = now.unix_ms / SLICE_MS;
        let recent = || {
            let slices = of.iter().flat_map(|one| &one.slices);
            slices.filter(|slice| slice.number + SLICES > number)
        };
        let count: u64 = recent().map(|slice| slice.count).sum();
        if count == 0 {
            return LatencyReport::default();
        }
        let sum_ms: f64 = recent().map(|slice| slice.sum_ms).sum();
        let at = |share: f64| {
            #[expect(clippy::cast_precision_loss, reason = "a count of calls in five minutes")]
            let wanted = share * count as f64;
            let mut seen = 0.0;
            for bucket in 0..BUCKETS {
                seen += recent()
                    .map(|slice| f64::from(slice.buckets[bucket]))
                    .sum::<f64>();
                if seen >= wanted {
                    return upper_ms(bucket);
                }
            }
            upper_ms(BUCKETS - 1)
        };
        #[expect(clippy::cast_precision_loss, reason = "a count of calls in five minutes")]
        let avg_ms = sum_ms / count as f64;
        LatencyReport {
            avg_ms,
            p50_ms: at(0.50),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "bounded before it is cut"
)]
fn bucket_of(took: Duration) -> usize {
    let micros = took.as_secs_f64() * 1e6;
    let place = micros.max(1.0).log2() * PER_DOUBLING as f64;
    (place.ceil() as usize).min(BUCKETS - 1)
}

#[expect(clippy::cast_precision_loss, reason = "a small index")]
fn upper_ms(bucket: usize) -> f64 {
    (bucket as f64 / PER_DOUBLING as f64).exp2() / 1e3
}
