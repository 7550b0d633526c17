//! The complexity of a policy's pipeline, computed as on the platform.

use serde::Serialize;
use serde_json::{Value, json};

use crate::policy::Pipeline;

/// The estimated time of one extension.
const LATENCY_MS: usize = 30;
/// A pipeline that takes longer causes a warning.
const SLOW_MS: usize = 150;
const RECOMMENDED: usize = 4;
const RECOMMENDED_OF_A_KIND: usize = 2;

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Complexity {
    /// Extensions in all lists together, scorers included.
    pub total_extensions: usize,
    /// Pre-processors.
    pub pre_count: usize,
    /// Validators.
    pub validators_count: usize,
    /// Post-processors.
    pub post_count: usize,
    /// The sidecar's own; the platform has none.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(default)]
    pub scorers_count: usize,
    /// 0–100.
    #[schemars(range(max = 100))]
    pub complexity_score: usize,
    /// `low`, `medium`, `high`, `very_high`.
    pub complexity_level: &'static str,
    /// Milliseconds, at 30 for each extension.
    pub estimated_latency_ms: usize,
    /// Extensions that are recommended at most: `max_total`, `max_pre`, `max_validators`, `max_post`.
    pub recommended_limits: Value,
    /// One sentence for each recommendation that is exceeded, and one for a slow pipeline.
    pub warnings: Vec<String>,
    /// One sentence for each recommended limit that is exceeded.
    pub recommendations: Vec<String>,
}

impl Complexity {
    /// The complexity of a policy's pipeline, if it has one.
    pub fn of(pipeline: Option<&Pipeline>) -> Self {
        let counts = |p: &Pipeline| [p.pre.len(), p.validators.len(), p.post.len(), p.scorers.len()];
        Self::of_counts(pipeline.map_or([0; 4], counts))
    }

    fn of_counts([pre, validators, post, scorers]: [usize; 4]) -> Self {
        let total = pre + validators + post + scorers;
        let kinds = [
            ("pre-processors", pre),
            ("validators", validators),
            ("post-processors", post),
            ("scorers", scorers),
        ];
        let excessive = || {
            kinds
                .into_iter()
                .filter(|(_, count)| *count > RECOMMENDED_OF_A_KIND)
        };
        let over = total.saturating_sub(RECOMMENDED);
        let base = if over == 0 {
            total * 60 / RECOMMENDED
        } else {
            60 + (over * 5).min(20)
        };
        let score = (base + 5 * excessive().count() + (over * 4).min(20)).min(100);
        let latency = total * LATENCY_MS;
        let mut warnings = Vec::new();
        let mut recommendations = Vec::new();
        if over > 0 {
            warnings.push(format!(
                "{total} extensions are more than the recommended {RECOMMENDED}"
            ));
            recommendations.push(format!("Use at most {RECOMMENDED} extensions"));
        }
        for (kind, count) in excessive() {
            warnings.push(format!(
                "{count} {kind} are more than the recommended {RECOMMENDED_OF_A_KIND}"
            ));
            recommendations.push(format!("Use at most {RECOMMENDED_OF_A_KIND} {kind}"));
        }
        if latency > SLOW_MS {
            warnings.push(format!(
                "Estimated latency of {latency} ms is more than {SLOW_MS} ms"
            ));
        }
        Self {
            total_extensions: total,
            pre_count: pre,
            validators_count: validators,
            post_count: post,
            scorers_count: scorers,
            complexity_score: score,
            complexity_level: match score {
                0..30 => "low",
                30..60 => "medium",
                60..80 => "high",
                _ => "very_high",
            },
            estimated_latency_ms: latency,
            recommended_limits: json!({
                "max_total": RECOMMENDED,
                "max_pre": RECOMMENDED_OF_A_KIND,
                "max_validators": RECOMMENDED_OF_A_KIND,
                "max_post": RECOMMENDED_OF_A_KIND,
            }),
            warnings,
            recommendations,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_values() {
        for (counts, score, level) in [
            ([0, 0, 0], 0, "low"),
            ([1, 0, 0], 15, "low"),
            ([1, 1, 0], 30, "medium"),
            ([1, 1, 1], 45, "medium"),
            ([2, 1, 1], 60, "high"),
            ([2, 2, 1], 69, "high"),
            ([2, 2, 2], 78, "high"),
            ([3, 2, 2], 92, "very_high"),
            ([5, 5, 5], 100, "very_high"),
        ] {
            let report = Complexity::of_counts([counts[0], counts[1], counts[2], 0]);
            assert_eq!(
                (report.complexity_score, report.complexity_level),
                (score, level),
                "{counts:?}"
            );
        }
        let report = Complexity::of_counts([3, 2, 2, 0]);
        assert_eq!(
            (
                report.warnings.len(),
                report.recommendations.len(),
                report.estimated_latency_ms
            ),
            (3, 2, 210)
        );
        assert!(Complexity::of_counts([2, 1, 1, 0]).warnings.is_empty());
    }
}
