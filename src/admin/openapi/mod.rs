//! The API as an OpenAPI 3.1 document: this listener's routes, and the data plane's.

mod data_plane;

use aide::{
    openapi::{License, OpenApi, PathItem, ReferenceOr, SecurityScheme, Server},
    transform::{TransformOpenApi, TransformOperation},
};
use serde_json::Value;

use super::{access::OPEN, reply::Refused, routes};

const DESCRIPTION: &str = "Policy lookups and routing decisions for the Beamline Router beside it. Paths under /admin, \
    and /live, /ready and /metrics, are on the admin listener; the others on the data listener. What is not listed \
    here is forwarded to HEIR.";

/// The name of the token's scheme.
const SCHEME: &str = "admin";

/// Writes the document.
pub fn document() -> Value {
    let mut document = OpenApi::default();
    let _routes = routes::described().finish_api_with(&mut document, |document| {
        let mut document = secured(described(document));
        let paths = document.inner_mut().paths.get_or_insert_default();
        for (path, item) in data_plane::paths() {
            paths.paths.insert(path.to_owned(), ReferenceOr::Item(item));
        }
        document
    });
    // A document is made of texts, numbers and lists: it always serialises.
    serde_json::to_value(&document).unwrap_or_default()
}

fn described(document: TransformOpenApi<'_>) -> TransformOpenApi<'_> {
    let server = |url: &str, description: &str| Server {
        url: url.to_owned(),
        description: Some(description.to_owned()),
        ..Server::default()
    };
    document
        .title("beamline-sidecar")
        .version(env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(License {
            name: "Apache-2.0".into(),
            identifier: Some("Apache-2.0".into()),
            ..License::default()
        })
        .server(server("http://127.0.0.1:8080", "data plane"))
        .server(server("http://127.0.0.1:9901", "admin"))
        .security_scheme(
            SCHEME,
            SecurityScheme::Http {
                scheme: "bearer".into(),
                bearer_format: None,
                description: Some(
                    "The token of admin.token_file; without one, clients on the same machine.".into(),
                ),
                extensions: Default::default(),
            },
        )
}

/// Says of everything that is not open that it wants the token: the same list that lets requests pass.
fn secured(mut document: TransformOpenApi<'_>) -> TransformOpenApi<'_> {
    let paths = document.inner_mut().paths.iter_mut();
    let closed = paths
        .flat_map(|paths| &mut paths.paths)
        .filter(|(path, _)| !OPEN.contains(&path.as_str()));
    for (_, item) in closed {
        if let ReferenceOr::Item(item) = item {
            for operation in operations(item) {
                let op = TransformOperation::new(operation).security_requirement(SCHEME);
                let _op = op.response_with::<401, Refused, _>(|answer| {
                    answer.description("No token, or not the right one")
                });
            }
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut aide::openapi::Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete]
        .into_iter()
        .flatten()
}
