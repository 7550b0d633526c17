//! What can be wrong with one policy, while the others are taken.

use bytes::Bytes;

use crate::{policy::Problem, snapshot::Key};

/// The problem of a document that is too long, if it is.
pub(super) fn too_large(bytes: &Bytes, limit: usize) -> Option<Problem> {
    (bytes.len() > limit).then(|| {
        Problem::error(
            "$",
            format!(
                "the document has {} bytes, more than limits.max_body_bytes ({limit})",
                bytes.len()
            ),
            "shorten the policy, or raise the limit",
        )
    })
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
