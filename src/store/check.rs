//! Whether a document may be stored. What every sidecar would set aside is refused where it is written, to the one who
//! can correct it.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::key::Key;
use crate::{
    extensions::Manifest,
    policy::{PolicyDocument, Problem, errors, read},
};

/// The document, unless it has an error; then every problem of it. With `allow_invalid` it need be no more than one JSON
/// object.
pub(super) fn check(key: &Key, bytes: Bytes, allow_invalid: bool) -> Result<PolicyDocument, Vec<Problem>> {
    let document = PolicyDocument::parse(bytes)?;
    if allow_invalid {
        return Ok(document);
    }
    let problems = match key {
        Key::Policy { .. } => read(document.bytes()).1,
        Key::Extension(id) => problems_of_record(id.as_str(), document.bytes()),
    };
    if errors(&problems).next().is_some() {
        return Err(problems);
    }
    Ok(document)
}

fn problems_of_record(id: &str, bytes: &[u8]) -> Vec<Problem> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let record: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    let mut problems = match Manifest::read(text) {
        Ok((_, warnings)) => warnings,
        Err(problems) => problems,
    };
    // Sidecars do not call handlers on the message bus; the Router, whose records these are too, does.
    if record.get("subject").is_some_and(Value::is_string) && !record.contains_key("module") {
        problems.retain(|problem| problem.path != "$.module");
    }
    let own = record.get("id").and_then(Value::as_str);
    if let Some(own) = own.filter(|own| *own != id) {
        problems.push(Problem::error(
            "$.id",
            format!("the record says {own:?} and is to be stored as {id:?}"),
            "use one name",
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::key::ExtensionId;

    fn paths(record: &str) -> Vec<String> {
        let key = Key::Extension(ExtensionId::parse("pii").unwrap());
        match check(&key, Bytes::copy_from_slice(record.as_bytes()), false) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.into_iter().map(|problem| problem.path).collect(),
        }
    }

    #[test]
    fn a_record_of_the_router_needs_no_module_and_any_record_its_own_id() {
        let module = format!("heir:sha256/{}", "0".repeat(64));
        let valid = format!(r#"{{"id":"pii","type":"validator","module":"{module}"}}"#);
        assert_eq!(paths(&valid), [""; 0]);
        assert_eq!(
            paths(r#"{"id":"pii","type":"pre","subject":"beamline.ext.pii"}"#),
            [""; 0]
        );
        assert_eq!(paths("{}"), ["$.id", "$.type"]);
        assert_eq!(paths(r#"{"id":"pii","type":"validator"}"#), ["$.module"]);
        assert_eq!(paths(&valid.replace("\"pii\"", "\"other\"")), ["$.id"]);
    }
}
