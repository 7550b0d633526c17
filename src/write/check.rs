//! Whether a document may be written, and the refusal that names what is wrong with it.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    extensions::Checking,
    failure::{ErrorCode, Failure},
    policy::{PolicyDocument, Problem, Severity, TenantId, read_for_routing},
    snapshot::SnapshotStore,
};

/// For how long the extensions of a document are asked. Where that is not enough, it is to be sent again.
const MAX_CHECKING: Duration = Duration::from_secs(5);

/// Checks a document that was sent; every problem is named.
pub(super) fn check(body: &Bytes, strict: bool) -> Result<PolicyDocument, Failure> {
    let document = PolicyDocument::parse(body.clone()).map_err(|problems| invalid_policy(&problems))?;
    if strict {
        let (_, problems) = read_for_routing(body);
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(invalid_policy(&problems));
        }
    }
    Ok(document)
}

/// Asks the extensions that a policy names about their configurations there.
pub(super) async fn check_extensions(
    store: &SnapshotStore,
    tenant: &TenantId,
    body: &Bytes,
) -> Result<(), Failure> {
    let Some(host) = store.extensions() else {
        return Ok(());
    };
    let (policy, _) = read_for_routing(body);
    let Some(pipeline) = policy.pipeline else {
        return Ok(());
    };
    let (host, registry, tenant) = (host.clone(), store.load().registry().clone(), tenant.clone());
    // An extension may take its time, which is bounded, but not by what a worker has.
    let check = move || {
        let checking = Checking::For {
            within: MAX_CHECKING,
            patience: MAX_CHECKING,
        };
        host.check_pipeline(&registry, &tenant, &pipeline, checking)
    };
    let judged = tokio::task::spawn_blocking(check).await.unwrap_or_default();
    let mut problems = judged.problems.iter();
    if problems.any(|problem| problem.severity == Severity::Error) {
        return Err(invalid_policy(&judged.problems));
    }
    if judged.has_unasked {
        let message = "there was no time or no instance to check the configurations of its extensions";
        return Err(Failure::new(ErrorCode::Overloaded, message).retry_after_seconds(1));
    }
    Ok(())
}

/// The refusal of a document: `invalid_json` for what is no JSON at all, `invalid_policy` for JSON that is no policy.
pub fn invalid_policy(problems: &[Problem]) -> Failure {
    let code = if problems.iter().any(Problem::is_not_json) {
        ErrorCode::InvalidJson
    } else {
        ErrorCode::InvalidPolicy
    };
    let mut errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    let message = match (errors.next(), errors.count()) {
        (Some(first), 0) => first.to_string(),
        (Some(first), more) => format!("{first} (and {more} more)"),
        (None, _) => "the policy is not acceptable".to_owned(),
    };
    Failure::new(code, message).detail("problems", serde_json::to_value(problems).unwrap_or_default())
}
