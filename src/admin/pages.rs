//! One function for each page: it names what the page takes, calls `operate`, and returns what comes back.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    extract::{Nothing, Path, Query, Text},
    reply::{Json, Metrics, Page, Refused},
};
use crate::{
    extensions::{BreakerReport, HealthReport},
    failure::{ErrorCode, Failure},
    operate::{
        BreakerChange, BreakerChanged, EstimateForgotten, ExtensionChange, ExtensionChanged, ExtensionList,
        ExtensionView, ExtensionsReloaded, Journal, Limit, LivenessState, LogFilter, Operator, PolicyDetail,
        PolicyList, ProviderList, RateLimitList, RateLimitReset, RateLimitScope, Refreshed, SessionList,
        SessionsForgotten, Settled, SnapshotStatus,
    },
    policy::{PolicyId, TenantId},
    readiness::State as ReadinessState,
    write::EntryId,
};

type Asked = State<Arc<Operator>>;
type NoQuery = Query<Nothing>;

/// A tenant's policy, by ids that need not exist.
#[derive(Deserialize, JsonSchema)]
pub(super) struct PolicyPath {
    tenant: String,
    policy: String,
}

/// A write.
#[derive(Deserialize, JsonSchema)]
pub(super) struct WritePath {
    /// The number of a write; see `GET /admin/writes`.
    id: EntryId,
}

/// A tenant's provider.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ProviderPath {
    tenant: TenantId,
    /// The provider's name, with `/` written as `%2F`.
    provider: String,
}

/// An extension.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ExtensionPath {
    id: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PoliciesQuery {
    /// The tenant whose policies are wanted.
    tenant: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshQuery {
    /// `true` accepts an answer of HEIR's that removes many policies.
    #[serde(default)]
    confirm: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// The tenant whose entries are wanted.
    tenant: Option<TenantId>,
    /// At most so many entries.
    #[serde(default)]
    limit: Limit,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionsQuery {
    tenant: TenantId,
    /// The value of the session; without it, all sessions of the tenant.
    session: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProvidersQuery {
    tenant: TenantId,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimitQuery {
    tenant: Option<TenantId>,
    policy: Option<PolicyId>,
    /// Without it, the bucket of a policy.
    scope: Option<RateLimitScope>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExtensionsQuery {
    /// `pre`, `validator`, `scorer` or `post`.
    #[serde(rename = "type")]
    kind: Option<String>,
}

pub(super) async fn live(State(operator): Asked) -> Response {
    let liveness = operator.liveness();
    let code = match liveness.status {
        LivenessState::Live => StatusCode::OK,
        LivenessState::Stuck => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(liveness)).into_response()
}

/// 200 while lookups can be answered, with how well and why; 503 otherwise.
pub(super) async fn ready(State(operator): Asked) -> Response {
    let status = operator.readiness();
    let code = match status.state {
        ReadinessState::Live | ReadinessState::Starting | ReadinessState::Degraded => StatusCode::OK,
        ReadinessState::NotReady => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = Json(status).into_response();
    *response.status_mut() = code;
    response
}

pub(super) async fn metrics(State(operator): Asked) -> Result<Metrics, Refused> {
    Ok(Metrics(operator.scrape()?))
}

/// What makes the OpenAPI document. It is handed in, because it is made of the routes that lead to the pages.
#[derive(Clone, Copy)]
pub(super) struct MakeDocument(pub(super) fn() -> Value);

pub(super) async fn document(Extension(make): Extension<MakeDocument>, _: NoQuery) -> Json<Value> {
    Json((make.0)())
}

pub(super) async fn snapshot(State(operator): Asked, _: NoQuery) -> Json<SnapshotStatus> {
    Json(operator.snapshot_status())
}

pub(super) async fn policies(State(operator): Asked, Query(query): Query<PoliciesQuery>) -> Page<PolicyList> {
    Ok(Json(operator.policies(query.tenant.as_deref())?))
}

pub(super) async fn policy(
    State(operator): Asked,
    Path(path): Path<PolicyPath>,
    _: NoQuery,
) -> Page<PolicyDetail> {
    Ok(Json(operator.policy(&path.tenant, &path.policy)?))
}

pub(super) async fn refresh(State(operator): Asked, Query(query): Query<RefreshQuery>) -> Page<Refreshed> {
    Ok(Json(operator.refresh(query.confirm).await?))
}

pub(super) async fn log_filter(State(operator): Asked, _: NoQuery) -> Json<LogFilter> {
    Json(operator.log_filter())
}

pub(super) async fn set_log_filter(
    State(operator): Asked,
    _: NoQuery,
    Text(filter): Text,
) -> Page<LogFilter> {
    Ok(Json(operator.set_log_filter(&filter)?))
}

pub(super) async fn writes(State(operator): Asked, _: NoQuery) -> Json<Journal> {
    Json(operator.writes())
}

pub(super) async fn discard_write(
    State(operator): Asked,
    Path(path): Path<WritePath>,
    _: NoQuery,
) -> Page<Settled> {
    Ok(Json(operator.discard_write(path.id).await?))
}

pub(super) async fn retry_write(
    State(operator): Asked,
    Path(path): Path<WritePath>,
    _: NoQuery,
) -> Page<Settled> {
    Ok(Json(operator.retry_write(path.id).await?))
}

pub(super) async fn sessions(State(operator): Asked, Query(query): Query<ListQuery>) -> Json<SessionList> {
    Json(operator.sessions(query.tenant, query.limit))
}

pub(super) async fn forget_sessions(
    State(operator): Asked,
    Query(query): Query<SessionsQuery>,
) -> Json<SessionsForgotten> {
    Json(operator.forget_sessions(&query.tenant, query.session))
}

pub(super) async fn providers(
    State(operator): Asked,
    Query(query): Query<ProvidersQuery>,
) -> Json<ProviderList> {
    Json(operator.providers(query.tenant))
}

pub(super) async fn close_breaker(
    operator: Asked,
    path: Path<ProviderPath>,
    _: NoQuery,
) -> Page<BreakerChanged> {
    change_breaker(&operator, &path.0, BreakerChange::Close)
}

pub(super) async fn half_open_breaker(
    operator: Asked,
    path: Path<ProviderPath>,
    _: NoQuery,
) -> Page<BreakerChanged> {
    change_breaker(&operator, &path.0, BreakerChange::HalfOpen)
}

pub(super) async fn reset_breaker(
    operator: Asked,
    path: Path<ProviderPath>,
    _: NoQuery,
) -> Page<BreakerChanged> {
    change_breaker(&operator, &path.0, BreakerChange::Reset)
}

fn change_breaker(operator: &Operator, path: &ProviderPath, change: BreakerChange) -> Page<BreakerChanged> {
    Ok(Json(operator.change_breaker(
        &path.tenant,
        &path.provider,
        change,
    )?))
}

pub(super) async fn forget_estimate(
    State(operator): Asked,
    Path(path): Path<ProviderPath>,
    _: NoQuery,
) -> Json<EstimateForgotten> {
    Json(operator.forget_estimate(&path.tenant, &path.provider))
}

pub(super) async fn rate_limits(
    State(operator): Asked,
    Query(query): Query<ListQuery>,
) -> Json<RateLimitList> {
    Json(operator.rate_limits(query.tenant, query.limit))
}

pub(super) async fn reset_rate_limit(
    State(operator): Asked,
    Query(query): Query<RateLimitQuery>,
) -> Page<RateLimitReset> {
    let bucket = RateLimitScope::bucket(query.scope, query.tenant, query.policy)?;
    Ok(Json(operator.reset_rate_limit(&bucket)?))
}

pub(super) async fn extensions(
    State(operator): Asked,
    Query(query): Query<ExtensionsQuery>,
) -> Page<ExtensionList> {
    Ok(Json(operator.extensions(query.kind.as_deref())?))
}

pub(super) async fn extension(
    State(operator): Asked,
    Path(path): Path<ExtensionPath>,
    _: NoQuery,
) -> Page<ExtensionView> {
    Ok(Json(operator.extension(&path.id)?))
}

pub(super) async fn extension_health(
    State(operator): Asked,
    _: NoQuery,
) -> Page<BTreeMap<String, HealthReport>> {
    Ok(Json(operator.extension_health()?))
}

pub(super) async fn extension_breakers(
    State(operator): Asked,
    _: NoQuery,
) -> Page<BTreeMap<String, BreakerReport>> {
    Ok(Json(operator.extension_breakers()?))
}

pub(super) async fn enable_extension(
    operator: Asked,
    path: Path<ExtensionPath>,
    _: NoQuery,
) -> Page<ExtensionChanged> {
    change_extension(&operator, &path.0, ExtensionChange::Enable).await
}

pub(super) async fn disable_extension(
    operator: Asked,
    path: Path<ExtensionPath>,
    _: NoQuery,
) -> Page<ExtensionChanged> {
    change_extension(&operator, &path.0, ExtensionChange::Disable).await
}

pub(super) async fn release_extension(
    operator: Asked,
    path: Path<ExtensionPath>,
    _: NoQuery,
) -> Page<ExtensionChanged> {
    change_extension(&operator, &path.0, ExtensionChange::Release).await
}

async fn change_extension(
    operator: &Operator,
    path: &ExtensionPath,
    change: ExtensionChange,
) -> Page<ExtensionChanged> {
    Ok(Json(operator.change_extension(&path.id, change).await?))
}

pub(super) async fn reload_extensions(State(operator): Asked, _: NoQuery) -> Page<ExtensionsReloaded> {
    Ok(Json(operator.reload_extensions().await?))
}

/// What has no route.
pub(super) async fn unknown() -> Refused {
    Refused(Failure::new(
        ErrorCode::NotFound,
        "there is no such page; see docs/operations.md",
    ))
}
