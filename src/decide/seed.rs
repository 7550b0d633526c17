//! Chance as an argument: all random choices of a decision come from one number.

use std::fmt;

use crate::split_mix::SplitMix64;

/// The number from which a decision's choices come. The same seed, inputs and memory always give the same decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for Seed {
    type Err = std::num::ParseIntError;

    /// Reads 1 to 16 hex digits, as they are printed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `from_str_radix` would take a sign.
        let text = if text.starts_with(['+', '-']) { "" } else { text };
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// The purpose of a choice. Each purpose has a stream of its own, so that one more draw for the one does not change the
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Weights = 1,
    Jitter = 2,
}

/// A stream of choices.
#[derive(Debug)]
pub(super) struct Choices(SplitMix64);

impl Choices {
    pub(super) fn new(seed: Seed, purpose: Purpose) -> Self {
        let mut stream = SplitMix64::new(seed.0 ^ (purpose as u64).wrapping_mul(0xd1b5_4a32_d192_ed03));
        stream.next();
        Self(stream)
    }

    /// Uniform in `[0, 1)`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exactly what an f64 holds")]
    pub(super) fn uniform(&mut self) -> f64 {
        (self.0.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `0..below`; zero where `below` is.
    pub(super) fn below(&mut self, below: u64) -> u64 {
        // The high half of the product: even to one part in 2^64 / below.
        let product = u128::from(self.0.next()) * u128::from(below);
        u64::try_from(product >> 64).unwrap_or(0)
    }
}

/// The random part of backoffs.
#[derive(Debug)]
pub struct Jitter(Choices);

impl Jitter {
    /// The jitter of the decision with this seed.
    pub fn new(seed: Seed) -> Self {
        Self(Choices::new(seed, Purpose::Jitter))
    }

    /// Below or at the bound, as [`Choices::below`].
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_are_those_of_recorded_decisions() {
        let mut choices = Choices::new(Seed(42), Purpose::Weights);
        let drawn: Vec<String> = (0..3).map(|_| format!("{:.6}", choices.uniform())).collect();
        assert_eq!(drawn, RECORDED, "a change here changes every replayed decision");
        assert_eq!(Choices::new(Seed(42), Purpose::Jitter).below(0), 0);
        let mut jitter = Choices::new(Seed(7), Purpose::Jitter);
        assert!((0..1000).all(|_| jitter.below(10) < 10));
    }
    const RECORDED: [&str; 3] = ["0.231250", "0.285461", "0.004386"];

    #[test]
    fn a_seed_reads_as_it_prints() {
        for seed in [Seed(0), Seed(u64::MAX), Seed(0x1f)] {
            assert_eq!(seed.to_string().parse(), Ok(seed));
        }
        for text in ["", "+1", "-1", "0x1", "10000000000000000", "g"] {
            assert!(text.parse::<Seed>().is_err(), "{text}");
        }
    }
}
