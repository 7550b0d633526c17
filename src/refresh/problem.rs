//! What can be wrong with one policy, while the others are taken.

use crate::{heir::HeirError, policy::Problem, snapshot::Key};

/// The problem of a document that is too long, if it is.
pub(super) fn too_large(bytes: u64, limit: usize) -> Option<Problem> {
    (bytes > limit as u64).then(|| {
        too_long(format!(
            "the document has {bytes} bytes, more than limits.max_body_bytes ({limit})"
        ))
    })
}

/// The problem of a policy that HEIR has and does not give out.
pub(super) fn unreadable(error: &HeirError, limit: usize) -> Problem {
    match error {
        HeirError::TooLarge { .. } => too_long(format!(
            "the document has more than {limit} bytes (limits.max_body_bytes)"
        )),
        error => {
            let message = format!("it cannot be read: {}", error.chain());
            Problem::error("$", message, "see what HEIR has against this request")
        }
    }
}

fn too_long(message: String) -> Problem {
    Problem::error("$", message, "shorten the policy, or raise the limit")
}

/// Logs that a policy could not be taken.
pub(super) fn log_problem(key: &Key, problems: &[Problem]) {
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let (tenant, policy) = (key.0.as_str(), key.1.as_str());
    tracing::warn!(
        tenant,
        policy,
        problems = text.join("; "),
        "A policy from HEIR is broken; its last good version stays."
    );
}
