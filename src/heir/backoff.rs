//! Pauses between attempts, as arithmetic over a random source.

use std::time::Duration;

use super::config::RetryConfig;

/// Exponential backoff with full jitter: a pause is anything between nothing and a bound that grows. Seeded, so
/// that a fleet that was started together does not ask together, and a test can repeat what it saw.
#[derive(Debug, Clone)]
pub struct Backoff {
    config: RetryConfig,
    random: fastrand::Rng,
    attempt: u32,
}

impl Backoff {
    /// Begins with the shortest pause. The same seed gives the same pauses.
    pub fn new(config: RetryConfig, seed: u64) -> Self {
        Self {
            config,
            random: fastrand::Rng::with_seed(seed),
            attempt: 0,
        }
    }

    /// The pause before the next attempt.
    pub fn next_pause(&mut self) -> Duration {
        let grown = self
            .config
            .factor
            .powi(i32::try_from(self.attempt).unwrap_or(i32::MAX));
        self.attempt = self.attempt.saturating_add(1);
        let bound = (self.config.initial_ms as f64 * grown).min(self.config.max_ms as f64);
        Duration::from_secs_f64(bound * self.random.f64() / 1e3)
    }

    /// Starts again from the shortest pause.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// An interval of the given length give or take a fifth.
pub(crate) fn jittered(interval: Duration, random: &mut fastrand::Rng) -> Duration {
    interval.mul_f64(0.8 + 0.4 * random.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_again() {
        let config = RetryConfig {
            max_attempts: 9,
            initial_ms: 100,
            factor: 2.0,
            max_ms: 1_000,
        };
        let mut longest = [Duration::ZERO; 8];
        for seed in 0..500 {
            let mut backoff = Backoff::new(config.clone(), seed);
            for longest in &mut longest {
                *longest = (*longest).max(backoff.next_pause());
            }
            backoff.reset();
            assert!(backoff.next_pause() <= Duration::from_millis(100));
        }
        for (pause, bound) in longest
            .iter()
            .zip([100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000])
        {
            assert!(*pause <= Duration::from_millis(bound) && *pause > Duration::from_millis(bound * 9 / 10));
        }
    }

    #[test]
    fn intervals_stay_within_a_fifth() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..1_000 {
            let interval = jittered(Duration::from_secs(10), &mut random);
            assert!(interval >= Duration::from_secs(8) && interval <= Duration::from_secs(12));
        }
    }
}
