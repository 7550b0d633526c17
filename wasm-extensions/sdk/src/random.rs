//! Chance, repeated when a decision is replayed: good for sampling, useless for secrets. An extension
//! that uses it needs the capability `random`.

/// A number from the whole range.
pub fn next_u64() -> u64 {
    #[cfg(target_family = "wasm")]
    {
        crate::component::next_u64()
    }
    #[cfg(not(target_family = "wasm"))]
    crate::testing::with(|host| host.next_u64())
}

/// Whether an event of this probability (0 to 1) happens: never at 0 and below, always at 1 and above.
pub fn happens(probability: f64) -> bool {
    // 53 bits are what a double holds: from 0 to just below 1.
    let drawn = (next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    drawn < probability
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_ends_are_certain() {
        testing::seed(1);
        assert!((0..1000).all(|_| happens(1.0)));
        assert!(!(0..1000).any(|_| happens(0.0)));
    }

    #[test]
    fn a_seed_repeats_the_sequence() {
        let draw = |seed| {
            testing::seed(seed);
            [next_u64(), next_u64(), next_u64()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
