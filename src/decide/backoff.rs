//! How long the caller of a retry waits. Reported, never slept here.

use super::seed::Jitter;
use crate::policy::{Backoff, Strategy};

/// The longest wait, regardless of the policy: the language's largest `max_ms`.
const CEILING_MS: u64 = 60_000;

/// The backoff of a rule without `backoff`.
const DEFAULT: Backoff = Backoff {
    strategy: Strategy::Exponential,
    base_ms: 100,
    max_ms: CEILING_MS,
    jitter: true,
};

/// Milliseconds before the attempt with this number, counted from 1. Jitter is added before the cap.
pub fn backoff_ms(backoff: Option<&Backoff>, attempt: u64, choices: &mut Jitter) -> u64 {
    let backoff = backoff.unwrap_or(&DEFAULT);
    let delay = match backoff.strategy {
        Strategy::Exponential => {
            let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
            backoff.base_ms.saturating_mul(2_u64.saturating_pow(doublings))
        }
        Strategy::Linear => backoff.base_ms.saturating_mul(attempt),
        Strategy::Fixed => backoff.base_ms,
    };
    let jitter = if backoff.jitter {
        choices.below(delay / 10)
    } else {
        0
    };
    delay.saturating_add(jitter).min(backoff.max_ms).min(CEILING_MS)
}

/// The strategy that a rule's retries use.
pub(super) fn strategy(backoff: Option<&Backoff>) -> Strategy {
    backoff.unwrap_or(&DEFAULT).strategy
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    fn table(strategy: Strategy, base_ms: u64, max_ms: u64) -> Vec<u64> {
        let backoff = Backoff {
            strategy,
            base_ms,
            max_ms,
            jitter: false,
        };
        let mut jitter = Jitter::new(Seed(1));
        (1..=7)
            .map(|n| backoff_ms(Some(&backoff), n, &mut jitter))
            .collect()
    }

    #[test]
    fn the_contracts_worked_values() {
        assert_eq!(
            table(Strategy::Exponential, 100, 5000),
            [100, 200, 400, 800, 1600, 3200, 5000]
        );
        assert_eq!(table(Strategy::Linear, 100, 5000)[..4], [100, 200, 300, 400]);
        assert_eq!(table(Strategy::Fixed, 250, 5000), [250; 7]);
    }

    #[test]
    fn jitter_is_under_a_tenth_and_nothing_waits_longer_than_a_minute() {
        for seed in 0..2000 {
            let mut jitter = Jitter::new(Seed(seed));
            let waited = backoff_ms(None, 1, &mut jitter);
            assert!((100..110).contains(&waited), "{waited}");
            assert_eq!(backoff_ms(None, 11, &mut jitter), CEILING_MS);
            assert_eq!(backoff_ms(None, u64::MAX, &mut jitter), CEILING_MS);
        }
        let tight = Backoff {
            max_ms: 105,
            ..DEFAULT
        };
        assert!((0..100).all(|seed| backoff_ms(Some(&tight), 1, &mut Jitter::new(Seed(seed))) <= 105));
    }
}
