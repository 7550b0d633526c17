//! The weighted draw: by the weights as they are, never normalised.

use super::seed::Choices;
use crate::policy::Provider;

/// A draw and its basis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Index among the policy's providers.
    pub index: usize,
    /// The point drawn, in `[0, total)`.
    pub point: f64,
    /// Sum of the weights that took part.
    pub total: f64,
}

/// More than any policy has; keeps the sum of scored weights finite.
const MOST_PROVIDERS: f64 = 1e9;

/// Draws among the providers that may be chosen, which are those with a weight above zero and no exclusion. `None`:
/// there is none, or the weights of all of them sum to nothing. Factors, by index, weigh the weights.
pub(super) fn draw(
    providers: &[Provider],
    mut is_eligible: impl FnMut(usize) -> bool,
    factors: Option<&[f64]>,
    choices: &mut Choices,
) -> Option<Draw> {
    let sum: f64 = providers.iter().map(|provider| provider.weight).sum();
    // A stored policy may hold negative weights; they take away from the sum, here and in the walk below, and are never
    // drawn themselves.
    if sum <= 0.0 || sum.is_nan() {
        return None;
    }
    // Weights near the end of what an f64 holds would sum to infinity, and a share of that is no number.
    let scale = if sum.is_finite() {
        1.0
    } else {
        f64::EPSILON * f64::EPSILON
    };
    let mut weight = |index: usize, provider: &Provider| {
        if provider.weight > 0.0 && is_eligible(index) {
            let factor = factors.map_or(1.0, |factors| factors.get(index).copied().unwrap_or(1.0));
            // A huge factor of a huge weight is still a weight.
            (provider.weight * scale * factor).min(f64::MAX / MOST_PROVIDERS)
        } else {
            (provider.weight * scale).clamp(-f64::MAX / MOST_PROVIDERS, 0.0)
        }
    };
    let total: f64 = providers
        .iter()
        .enumerate()
        .map(|(index, provider)| weight(index, provider))
        .sum();
    if total <= 0.0 {
        return None;
    }
    let point = choices.uniform() * total;
    let mut reached = 0.0;
    let mut last = None;
    for (index, provider) in providers.iter().enumerate() {
        let weight = weight(index, provider);
        reached += weight;
        if weight <= 0.0 {
            continue;
        }
        last = Some(index);
        if point <= reached {
            break;
        }
    }
    // Where rounding leaves the point past the last sum, the last provider has it.
    last.map(|index| Draw { index, point, total })
}

#[cfg(test)]
mod tests {
    use super::{super::Seed, super::seed::Purpose, *};
    use crate::policy::ProviderId;

    fn providers(weights: &[f64]) -> Vec<Provider> {
        let provider = |(index, weight): (usize, &f64)| Provider {
            id: ProviderId::new(&format!("p{index:03}")),
            weight: *weight,
            timeout_ms: None,
            health_check: None,
        };
        weights.iter().enumerate().map(provider).collect()
    }

    fn counts(weights: &[f64], eligible: impl Fn(usize) -> bool, n: u64) -> Vec<u64> {
        let providers = providers(weights);
        let mut counts = vec![0; weights.len()];
        for seed in 0..n {
            if let Some(draw) = draw(
                &providers,
                &eligible,
                None,
                &mut Choices::new(Seed(seed), Purpose::Weights),
            ) {
                counts[draw.index] += 1;
            }
        }
        counts
    }

    #[test]
    fn nothing_to_draw_from_is_no_draw() {
        for weights in [&[][..], &[0.0, 0.0], &[-0.5, 0.4], &[-1.0]] {
            assert_eq!(
                counts(weights, |_| true, 10).iter().sum::<u64>(),
                0,
                "{weights:?}"
            );
        }
        assert_eq!(counts(&[1.0, 0.0], |index| index == 1, 10), [0, 0]);
    }

    #[test]
    fn negative_weights_take_away_from_the_sum_that_is_drawn_from() {
        let share = |weights: &[f64]| {
            let counts = counts(weights, |_| true, 10_000);
            counts
                .into_iter()
                .map(|count| count as f64 / 1e4)
                .collect::<Vec<_>>()
        };
        assert_eq!(share(&[-0.5, 1.0]), [0.0, 1.0]);
        assert_eq!(share(&[1.0, -0.5]), [1.0, 0.0]);
        // Of 0.7 in all, the first has 0.5 and the last what is left.
        let shares = share(&[0.5, -0.3, 0.5]);
        assert!(
            (shares[0] - 5.0 / 7.0).abs() < 0.03 && shares[1] == 0.0,
            "{shares:?}"
        );
        let drawn = draw(
            &providers(&[0.5, -0.3, 0.5]),
            |_| true,
            None,
            &mut Choices::new(Seed(1), Purpose::Weights),
        );
        assert!((drawn.unwrap().total - 0.7).abs() < 1e-9);
    }

    #[test]
    fn zero_and_excluded_are_never_drawn_and_huge_weights_are_shared() {
        assert_eq!(counts(&[0.0, 1.0, 0.0], |_| true, 1000), [0, 1000, 0]);
        assert_eq!(counts(&[0.5, 0.5], |index| index == 1, 1000), [0, 1000]);
        let huge = counts(&[f64::MAX, f64::MAX, 1.0], |_| true, 1000);
        assert!(huge[0] > 400 && huge[1] > 400, "{huge:?}");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
        /// Five standard deviations: one failure in two million honest runs per provider.
        #[test]
        fn shares_follow_the_weights(weights in proptest::collection::vec(0_u32..100, 1..8)) {
            let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
            let total: f64 = weights.iter().sum();
            let n = 4000;
            let counts = counts(&weights, |_| true, n);
            for (weight, count) in weights.iter().zip(counts) {
                let share = if total > 0.0 { weight / total } else { 0.0 };
                let n = n as f64;
                let allowed = 5.0 * (n * share * (1.0 - share)).sqrt() + 1e-9;
                proptest::prop_assert!((count as f64 - n * share).abs() <= allowed, "{weight} of {total}: {count}");
            }
        }
    }
}
