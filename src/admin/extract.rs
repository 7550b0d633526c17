//! What a page takes from a request. What is refused is refused with the error body of the contracts.

use std::time::Duration;

use aide::{
    OperationInput,
    generate::GenContext,
    openapi::{MediaType, Operation, RequestBody, SchemaObject},
    operation::{ParamLocation, add_parameters, parameters_from_schema, set_body},
};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use bytes::Bytes;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, de::DeserializeOwned};

use super::{parameters, reply::Refused};
use crate::failure::{ErrorCode, Failure};

/// Time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The parameters of the query.
pub(super) struct Query<T>(pub(super) T);

/// The parameters of the path.
pub(super) struct Path<T>(pub(super) T);

/// The body, as a text.
pub(super) struct Text(pub(super) String);

/// A query that has no parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

fn invalid(message: impl Into<String>) -> Refused {
    Refused(Failure::new(ErrorCode::InvalidRequest, message))
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let query = parts.uri.query().unwrap_or_default();
        let given = query.split('&').filter(|parameter| !parameter.is_empty());
        let given = given.map(|parameter| {
            let (name, text) = parameter.split_once('=').unwrap_or((parameter, ""));
            Ok((decoded(name, name)?, decoded(name, text)?))
        });
        let given = given.collect::<Result<Vec<_>, Refused>>()?;
        let read = parameters::read(given.into_iter());
        read.map(Self).map_err(|error| invalid(error.to_string()))
    }
}

fn decoded(name: &str, text: &str) -> Result<String, Refused> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_no_text| invalid(format!("{name} is not UTF-8")))?;
    Ok(decoded.into_owned())
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let given = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|error| invalid(error.body_text()))?;
        let given = given
            .iter()
            .map(|(name, text)| (name.to_owned(), text.to_owned()));
        let read = parameters::read(given);
        read.map(Self).map_err(|error| invalid(error.to_string()))
    }
}

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let body = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state))
            .await
            .map_err(|_elapsed| invalid("the body did not arrive in time"))?
            .map_err(|error| invalid(error.body_text()))?;
        let text = std::str::from_utf8(&body).map_err(|error| invalid(error.to_string()))?;
        Ok(Self(text.to_owned()))
    }
}

impl<T: JsonSchema> OperationInput for Query<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        describe::<T>(context, operation, ParamLocation::Query);
    }
}

impl<T: JsonSchema> OperationInput for Path<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        describe::<T>(context, operation, ParamLocation::Path);
    }
}

impl OperationInput for Text {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        let media = MediaType {
            schema: Some(SchemaObject {
                json_schema: context.schema.subschema_for::<String>(),
                external_docs: None,
                example: None,
            }),
            ..MediaType::default()
        };
        let body = RequestBody {
            content: [("text/plain".to_owned(), media)].into_iter().collect(),
            required: true,
            ..RequestBody::default()
        };
        set_body(context, operation, body);
    }
}

/// The fields of a struct as parameters. Their schemas stand where they are used: the struct is no part of the API.
fn describe<T: JsonSchema>(context: &mut GenContext, operation: &mut Operation, location: ParamLocation) {
    let inline = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = inline.into_generator().into_root_schema_for::<T>();
    let parameters = parameters_from_schema(context, schema, location);
    add_parameters(context, operation, parameters);
}
