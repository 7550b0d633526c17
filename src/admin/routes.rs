//! Every path of the admin listener: where it leads, and what the OpenAPI document says of it. One registration makes
//! both, so that neither can have a path that the other has not.

use std::sync::Arc;

use aide::{
    axum::{
        ApiRouter,
        routing::{delete_with, get_with, post_with},
    },
    generate::in_context,
    openapi::OpenApi,
    transform::TransformOperation,
};
use axum::{Extension, Router};
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{
    pages::{self, MakeDocument},
    reply::{Json, Refused},
};
use crate::{
    operate::{Liveness, Operator},
    readiness::ReadinessStatus,
};

/// The routes, ready to answer. The document is made anew each time it is asked for.
pub(super) fn serving(operator: Arc<Operator>, document: fn() -> Value) -> Router {
    described()
        .finish_api(&mut OpenApi::default())
        .fallback(pages::unknown)
        .layer(Extension(MakeDocument(document)))
        .with_state(operator)
}

/// The routes with their descriptions.
pub(super) fn described() -> ApiRouter<Arc<Operator>> {
    // OpenAPI 3.1 has the schemas of this draft.
    let settings = SchemaSettings::draft2020_12();
    let settings = settings.with(|settings| settings.definitions_path = "/components/schemas".into());
    in_context(|context| context.schema = settings.into_generator());
    probes().merge(knowledge()).merge(memory()).merge(extensions())
}

type Op<'t> = TransformOperation<'t>;

fn probes() -> ApiRouter<Arc<Operator>> {
    ApiRouter::new()
        .api_route("/live", get_with(pages::live, live))
        .api_route("/ready", get_with(pages::ready, ready))
        .api_route(
            "/metrics",
            get_with(pages::metrics, |op| op.summary("Prometheus text format 0.0.4")),
        )
}

fn live(op: Op<'_>) -> Op<'_> {
    op.summary("Whether the threads that answer the Router run")
        .response_with::<200, Json<Liveness>, _>(|answer| answer.description("live"))
        .response_with::<503, Json<Liveness>, _>(|answer| answer.description("stuck: a restart helps"))
}

fn ready(op: Op<'_>) -> Op<'_> {
    op.summary("Whether lookups can be answered, how well, and why")
        .response_with::<200, Json<ReadinessStatus>, _>(|answer| answer.description("live or degraded"))
        .response_with::<503, Json<ReadinessStatus>, _>(|answer| answer.description("not_ready"))
}

/// The snapshot, the journal, and what the process says of itself.
fn knowledge() -> ApiRouter<Arc<Operator>> {
    ApiRouter::new()
        .api_route(
            "/admin/snapshot",
            get_with(pages::snapshot, |op| {
                op.summary("Where the snapshot stands, with every problem")
            }),
        )
        .api_route(
            "/admin/policies",
            get_with(pages::policies, |op| {
                not_found(
                    op.summary("Tenants, or the policies of one"),
                    "No such tenant in memory",
                )
            }),
        )
        .api_route(
            "/admin/policies/{tenant}/{policy}",
            get_with(pages::policy, |op| {
                not_found(op.summary("A policy as decisions understand it"), "Not in memory")
            }),
        )
        .api_route(
            "/admin/refresh",
            post_with(pages::refresh, |op| {
                conflict(op.summary("Refresh now"), "HEIR's answer is withheld")
            }),
        )
        .api_route(
            "/admin/log",
            get_with(pages::log_filter, |op| op.summary("The log filter"))
                .put_with(pages::set_log_filter, |op| {
                    op.summary("Change the log filter until the next change of the configuration")
                })
                .post_with(pages::set_log_filter, |op| op.summary("The same")),
        )
        .api_route(
            "/admin/writes",
            get_with(pages::writes, |op| op.summary("The write journal")),
        )
        .api_route(
            "/admin/writes/{id}/discard",
            post_with(pages::discard_write, |op| {
                not_found(op.summary("Give a write up"), "There is no such write")
            }),
        )
        .api_route(
            "/admin/writes/{id}/retry",
            post_with(pages::retry_write, |op| {
                let op = op.summary("Make a conflicting write over whatever HEIR has");
                conflict(not_found(op, "There is no such write"), "It is queued already")
            }),
        )
        .api_route(
            "/admin/openapi.json",
            get_with(pages::document, |op| op.summary("This document")),
        )
}

/// What decisions remember.
fn memory() -> ApiRouter<Arc<Operator>> {
    ApiRouter::new()
        .api_route(
            "/admin/sticky",
            get_with(pages::sessions, |op| {
                op.summary("Sticky sessions: how many, or those of a tenant")
            })
            .delete_with(pages::forget_sessions, |op| {
                op.summary("Forget a tenant's sessions, or one")
            }),
        )
        .api_route(
            "/admin/providers",
            get_with(pages::providers, |op| {
                op.summary("Breakers, estimates and health of a tenant's providers")
            }),
        )
        .api_route(
            "/admin/providers/{tenant}/{provider}/breaker/close",
            post_with(pages::close_breaker, |op| {
                breaker(op, "Close a provider's breaker")
            }),
        )
        .api_route(
            "/admin/providers/{tenant}/{provider}/breaker/half-open",
            post_with(pages::half_open_breaker, |op| {
                breaker(op, "Let some calls try a provider whose breaker is open")
            }),
        )
        .api_route(
            "/admin/providers/{tenant}/{provider}/breaker/reset",
            post_with(pages::reset_breaker, |op| {
                breaker(op, "Close a provider's breaker and forget what it counted")
            }),
        )
        .api_route(
            "/admin/providers/{tenant}/{provider}/estimate",
            delete_with(pages::forget_estimate, |op| {
                op.summary("Forget how long a provider's calls took and what they cost")
            }),
        )
        .api_route(
            "/admin/rate-limits",
            get_with(pages::rate_limits, |op| {
                op.summary("Token buckets: how many, or those of a tenant")
            })
            .delete_with(pages::reset_rate_limit, |op| {
                not_found(op.summary("Fill a bucket again"), "There is no such bucket")
            }),
        )
}

fn extensions() -> ApiRouter<Arc<Operator>> {
    ApiRouter::new()
        .api_route(
            "/admin/extensions",
            get_with(pages::extensions, |op| {
                op.summary("Extensions that can be called, those that cannot, and why")
            }),
        )
        .api_route(
            "/admin/extensions/health",
            get_with(pages::extension_health, |op| {
                op.summary("Health of extensions, by id")
            }),
        )
        .api_route(
            "/admin/extensions/circuit-breakers",
            get_with(pages::extension_breakers, |op| {
                op.summary("Breakers and quarantines of extensions, by id")
            }),
        )
        .api_route(
            "/admin/extensions/reload",
            post_with(pages::reload_extensions, |op| {
                op.summary("Read extensions_dir again, fetch what is missing, and apply what changed")
            }),
        )
        .api_route(
            "/admin/extensions/{id}",
            get_with(pages::extension, |op| {
                extension(op, "One extension, with its health and its last crashes")
            }),
        )
        .api_route(
            "/admin/extensions/{id}/enable",
            post_with(pages::enable_extension, |op| {
                conflict(
                    extension(op, "Switch an extension on again"),
                    "Its record disables it",
                )
            }),
        )
        .api_route(
            "/admin/extensions/{id}/disable",
            post_with(pages::disable_extension, |op| {
                extension(op, "Switch an extension off until the next start")
            }),
        )
        .api_route(
            "/admin/extensions/{id}/release",
            post_with(pages::release_extension, |op| {
                extension(op, "End an extension's quarantine and close its breaker")
            }),
        )
}

fn breaker<'t>(op: Op<'t>, summary: &str) -> Op<'t> {
    not_found(op.summary(summary), "There is no such breaker")
}

fn extension<'t>(op: Op<'t>, summary: &str) -> Op<'t> {
    not_found(op.summary(summary), "There is no such extension")
}

fn not_found<'t>(op: Op<'t>, description: &str) -> Op<'t> {
    op.response_with::<404, Refused, _>(|answer| answer.description(description))
}

fn conflict<'t>(op: Op<'t>, description: &str) -> Op<'t> {
    op.response_with::<409, Refused, _>(|answer| answer.description(description))
}
