//! The paths of the data plane, described by the types that it reads and writes. The data plane has no router of its
//! own to ask: [`Target`] is the list of its paths, and a test holds the two together.

use std::marker::PhantomData;

use aide::{
    OperationInput,
    generate::GenContext,
    openapi::{
        HeaderStyle, MediaType, Operation, Parameter, ParameterData, ParameterSchemaOrContent, PathItem,
        PathStyle, ReferenceOr, RequestBody, SchemaObject,
    },
    operation::set_body,
    transform::TransformOperation,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use crate::{
    admin::reply::{Json, Refused},
    decide::Complexity,
    intake::{DecideRequest, Decided, DryRunRequest, ExecResults},
    route::Target,
};

type Op<'t> = TransformOperation<'t>;

/// What docs/policies.md and docs/operations.md describe.
type Any = Json<Map<String, Value>>;

/// Each path with its operations.
pub(super) fn paths() -> Vec<(&'static str, PathItem)> {
    vec![
        (Target::HEALTH, get(health)),
        (Target::TENANT, get(list)),
        (Target::POLICY, policy()),
        (Target::COMPLEXITY, get(complexity)),
        (Target::DRY_RUN, post(dry_run)),
        (Target::DECIDE, post(decide)),
        (Target::RESULTS, post(results)),
    ]
}

fn policy() -> PathItem {
    PathItem {
        put: Some(operation(write)),
        delete: Some(operation(delete)),
        ..get(lookup)
    }
}

fn health(op: Op<'_>) -> Op<'_> {
    refused::<503>(
        ok::<Any>(op.summary("Whether lookups can be answered"), "Ready"),
        "Not ready",
    )
}

fn list(op: Op<'_>) -> Op<'_> {
    let op = tenant(op.summary("The policies of a tenant: HEIR's list, or that of memory"));
    let op = refused::<400>(ok::<Any>(op, "The list"), "Not an id");
    refused::<503>(
        refused::<502>(op, "HEIR failed"),
        "HEIR is away and nothing is known",
    )
}

fn lookup(op: Op<'_>) -> Op<'_> {
    let op = ids(op.summary("A policy, byte for byte as HEIR has it"));
    let op = header(op, "if-none-match", "An entity tag that the client has");
    let op = empty::<304>(ok::<Json<Policy>>(op, "The document"), "The client has it");
    let op = refused::<404>(refused::<400>(op, "Not ids"), "There is none");
    refused::<503>(op, "Too old, or only HEIR knows")
}

fn write(op: Op<'_>) -> Op<'_> {
    let op = ids(op.summary("Write a policy: to HEIR, or into the journal"));
    let op = header(op, "if-match", "The entity tag that is to be replaced").input::<Body<Policy>>();
    let op = ok::<Any>(op, "Replaced, or queued")
        .response_with::<201, Any, _>(|answer| answer.description("Created, or queued"));
    let op = refused::<412>(refused::<400>(op, "Not JSON"), "Not the version expected");
    let op = refused::<422>(
        refused::<413>(op, "Too large"),
        "Mistakes in the policy, every one",
    );
    refused::<503>(op, "HEIR is away and nothing is queued")
}

fn delete(op: Op<'_>) -> Op<'_> {
    let op = empty::<204>(ids(op.summary("Delete a policy")), "Deleted, or queued");
    refused::<503>(
        refused::<404>(op, "There is none"),
        "HEIR is away and nothing is queued",
    )
}

fn complexity(op: Op<'_>) -> Op<'_> {
    let op = ids(op.summary("How heavy a policy's pipeline is"));
    refused::<404>(
        ok::<Json<Complexity>>(op, "The report"),
        "There is no such policy",
    )
}

fn dry_run(op: Op<'_>) -> Op<'_> {
    let op = op.summary("What would be decided; nothing is remembered or called");
    let op = ok::<Any>(op.input::<Body<DryRunRequest>>(), "The decision, explained");
    let op = refused::<404>(
        refused::<400>(op, "Not such a request"),
        "There is no such policy",
    );
    refused::<503>(
        refused::<422>(op, "Mistakes in the policy that was sent"),
        "No provider",
    )
}

fn decide(op: Op<'_>) -> Op<'_> {
    let op = op.summary("Decide which provider a request goes to");
    let explain = "Asks for an explanation: true, minimal, detailed or verbose";
    let op = header(op, "x-beamline-explain", explain);
    let seed = "Repeats a decision; only where decide.allow_seed is on";
    let op = header(op, "x-beamline-seed", seed).input::<Body<DecideRequest<'static>>>();
    let op = ok::<Json<Decided<'static>>>(op, "The decision");
    let op = refused::<400>(op, "Not such a request");
    let op = refused::<403>(op, "The tenant may not ask, or a validator blocked the request");
    let op = refused::<413>(refused::<404>(op, "There is no such policy"), "Too large");
    let op = refused::<429>(op, "A rate limit; Retry-After and X-RateLimit-* say when");
    let op = refused::<500>(op, "An extension failed");
    let op = refused::<503>(op, "No provider is available, or the policies are too old");
    refused::<504>(op, "The request's deadline has passed")
}

fn results(op: Op<'_>) -> Op<'_> {
    let op = op.summary("Report what became of calls to providers, one result or up to 100");
    let op = op.input::<Body<ExecResults>>();
    let op = op.response_with::<202, Any, _>(|answer| answer.description("Counted"));
    refused::<413>(refused::<400>(op, "Not such results"), "Too large")
}

fn operation(describe: fn(Op<'_>) -> Op<'_>) -> Operation {
    let mut operation = Operation::default();
    let _described = describe(TransformOperation::new(&mut operation));
    operation
}

fn get(describe: fn(Op<'_>) -> Op<'_>) -> PathItem {
    PathItem {
        get: Some(operation(describe)),
        ..PathItem::default()
    }
}

fn post(describe: fn(Op<'_>) -> Op<'_>) -> PathItem {
    PathItem {
        post: Some(operation(describe)),
        ..PathItem::default()
    }
}

fn ok<'t, R: aide::OperationOutput>(op: Op<'t>, description: &str) -> Op<'t> {
    op.response_with::<200, R, _>(|answer| answer.description(description))
}

fn empty<'t, const STATUS: u16>(op: Op<'t>, description: &str) -> Op<'t> {
    op.response_with::<STATUS, (), _>(|answer| answer.description(description))
}

fn refused<'t, const STATUS: u16>(op: Op<'t>, description: &str) -> Op<'t> {
    op.response_with::<STATUS, Refused, _>(|answer| answer.description(description))
}

fn tenant(op: Op<'_>) -> Op<'_> {
    path(op, "tenant")
}

fn ids(op: Op<'_>) -> Op<'_> {
    path(tenant(op), "policy")
}

fn path<'t>(op: Op<'t>, name: &str) -> Op<'t> {
    let schema = json_schema!({"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,255}$"});
    let parameter = Parameter::Path {
        parameter_data: parameter(name, None, schema),
        style: PathStyle::Simple,
    };
    with_parameter(op, parameter)
}

fn header<'t>(op: Op<'t>, name: &str, description: &str) -> Op<'t> {
    let mut data = parameter(name, Some(description), json_schema!({"type": "string"}));
    data.required = false;
    with_parameter(
        op,
        Parameter::Header {
            parameter_data: data,
            style: HeaderStyle::Simple,
        },
    )
}

fn parameter(name: &str, description: Option<&str>, json_schema: Schema) -> ParameterData {
    ParameterData {
        name: name.to_owned(),
        description: description.map(ToOwned::to_owned),
        required: true,
        deprecated: None,
        format: ParameterSchemaOrContent::Schema(schema_object(json_schema)),
        example: None,
        examples: Default::default(),
        explode: None,
        extensions: Default::default(),
    }
}

fn with_parameter(mut op: Op<'_>, parameter: Parameter) -> Op<'_> {
    op.inner_mut().parameters.push(ReferenceOr::Item(parameter));
    op
}

fn schema_object(json_schema: Schema) -> SchemaObject {
    SchemaObject {
        json_schema,
        external_docs: None,
        example: None,
    }
}

/// A body in JSON.
struct Body<T>(PhantomData<T>);

impl<T: JsonSchema> OperationInput for Body<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        let media = MediaType {
            schema: Some(schema_object(context.schema.subschema_for::<T>())),
            ..MediaType::default()
        };
        let body = RequestBody {
            content: [("application/json".to_owned(), media)].into_iter().collect(),
            required: true,
            ..RequestBody::default()
        };
        set_body(context, operation, body);
    }
}

/// A policy, as a document. Its own schema, which `beamline-sidecar schema` prints, is a document with definitions.
struct Policy;

impl JsonSchema for Policy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Policy".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "A policy; `beamline-sidecar schema` prints its JSON Schema",
        })
    }
}
