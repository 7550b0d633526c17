//! What a page answers.

use aide::{
    OperationOutput,
    generate::GenContext,
    openapi::{self, MediaType, Operation, SchemaObject},
};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use super::error_body::ErrorBody;
use crate::{
    failure::{ErrorCode, Failure},
    policy::exact::Written,
    respond,
};

/// A page, as JSON with status 200.
pub(super) struct Json<T>(pub(super) T);

/// Metrics in Prometheus' text format.
pub(super) struct Metrics(pub(super) Vec<u8>);

/// A failure, with the error body of the contracts.
#[derive(Debug)]
pub(super) struct Refused(pub(super) Failure);

/// A page, or why there is none.
pub(super) type Page<T> = Result<Json<T>, Refused>;

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    /// As a tree first, whose keys are in alphabetical order: operators compare pages as texts, and the order of fields
    /// in a type is nothing to rely on.
    fn into_response(self) -> Response {
        match serde_json::to_value(&self.0) {
            Ok(page) => respond::json(StatusCode::OK, &Written(page)).map(Body::new),
            Err(error) => Refused(Failure::new(ErrorCode::InternalError, error.to_string())).into_response(),
        }
    }
}

impl IntoResponse for Metrics {
    fn into_response(self) -> Response {
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        respond::with_body(StatusCode::OK, kind, self.0.into()).map(Body::new)
    }
}

impl IntoResponse for Refused {
    /// The failure's code goes along, for the log.
    fn into_response(self) -> Response {
        let code = self.0.code;
        let mut response = respond::failure(self.0).map(Body::new);
        response.extensions_mut().insert(code);
        response
    }
}

impl<T: JsonSchema> OperationOutput for Json<T> {
    type Inner = T;

    fn operation_response(context: &mut GenContext, _: &mut Operation) -> Option<openapi::Response> {
        Some(described::<T>(context))
    }

    fn inferred_responses(
        context: &mut GenContext,
        _: &mut Operation,
    ) -> Vec<(Option<openapi::StatusCode>, openapi::Response)> {
        vec![(Some(openapi::StatusCode::Code(200)), described::<T>(context))]
    }
}

impl OperationOutput for Metrics {
    type Inner = String;

    fn inferred_responses(
        _: &mut GenContext,
        _: &mut Operation,
    ) -> Vec<(Option<openapi::StatusCode>, openapi::Response)> {
        let response = openapi::Response {
            description: "Prometheus text format 0.0.4".into(),
            content: [("text/plain".to_owned(), MediaType::default())]
                .into_iter()
                .collect(),
            ..openapi::Response::default()
        };
        vec![(Some(openapi::StatusCode::Code(200)), response)]
    }
}

impl OperationOutput for Refused {
    type Inner = ErrorBody;

    fn operation_response(context: &mut GenContext, _: &mut Operation) -> Option<openapi::Response> {
        Some(described::<ErrorBody>(context))
    }

    /// Of every page that can fail: whatever has no description of its own.
    fn inferred_responses(
        context: &mut GenContext,
        _: &mut Operation,
    ) -> Vec<(Option<openapi::StatusCode>, openapi::Response)> {
        vec![(None, described::<ErrorBody>(context))]
    }
}

fn described<T: JsonSchema>(context: &mut GenContext) -> openapi::Response {
    let json_schema = context.schema.subschema_for::<T>();
    let resolved = context.resolve_schema(&json_schema);
    let description = resolved.get("description").and_then(|text| text.as_str());
    let description = description.unwrap_or_default().to_owned();
    let media = MediaType {
        schema: Some(SchemaObject {
            json_schema,
            external_docs: None,
            example: None,
        }),
        ..MediaType::default()
    };
    openapi::Response {
        description,
        content: [("application/json".to_owned(), media)].into_iter().collect(),
        ..openapi::Response::default()
    }
}
