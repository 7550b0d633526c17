//! Whether a document may be written, and the refusal that names what is wrong with it.

use bytes::Bytes;

use crate::{
    failure::{ErrorCode, Failure},
    policy::{PolicyDocument, Problem, Severity, TenantId, read},
    snapshot::SnapshotStore,
};

/// Checks a document that was sent; every problem is named.
pub(super) fn check(body: &Bytes, strict: bool) -> Result<PolicyDocument, Failure> {
    let document = PolicyDocument::parse(body.clone()).map_err(|problems| invalid_policy(&problems))?;
    if strict {
        let (_, problems) = read(body);
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
    let (policy, _) = read(body);
    let Some(pipeline) = policy.pipeline else {
        return Ok(());
    };
    let (host, registry, tenant) = (host.clone(), store.load().registry().clone(), tenant.clone());
    // An extension may take its time, which is bounded, but not by what a worker has.
    let checked = tokio::task::spawn_blocking(move || host.check_pipeline(&registry, &tenant, &pipeline));
    let problems = checked.await.unwrap_or_default();
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(invalid_policy(&problems));
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
