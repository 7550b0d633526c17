//! A patch of explicit additions (RFC 6902). Nothing is ever compared, removed or replaced: a patch that is computed as the
//! difference of two documents rewrites the neighbours of an inserted container.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

/// One `add` operation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Add {
    op: &'static str,
    path: String,
    value: Value,
}

impl Add {
    /// Adds `value` at the place whose names these are; `-` or a number is a place in a list.
    pub(super) fn new(path: &[&str], value: Value) -> Self {
        let escaped: String = path
            .iter()
            .map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1")))
            .collect();
        Self {
            op: "add",
            path: escaped,
            value,
        }
    }

    /// The place, as a JSON pointer.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Carries the additions out, for documents that no API server patches. Returns the path of an addition for which there is
/// no place.
///
/// # Errors
/// The path, if there is such an addition; the document is half changed then.
pub fn apply(document: &mut Value, additions: &[Add]) -> Result<(), String> {
    additions
        .iter()
        .try_for_each(|add| add_to(document, add).ok_or_else(|| add.path.clone()))
}

fn add_to(document: &mut Value, add: &Add) -> Option<()> {
    let (parent, name) = add.path.rsplit_once('/')?;
    let name: Cow<'_, str> = name.replace("~1", "/").replace("~0", "~").into();
    match document.pointer_mut(parent)? {
        Value::Object(object) => {
            object.insert(name.into_owned(), add.value.clone());
        }
        Value::Array(list) if name == "-" => list.push(add.value.clone()),
        Value::Array(list) => {
            let index = name.parse().ok().filter(|index| *index <= list.len())?;
            list.insert(index, add.value.clone());
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_escaped_and_lists_grow_where_they_should() {
        let mut document = json!({"metadata": {"annotations": {}}, "list": ["b"]});
        let additions = [
            Add::new(&["metadata", "annotations", "a.b/c~d"], "1".into()),
            Add::new(&["list", "0"], "a".into()),
            Add::new(&["list", "-"], "c".into()),
        ];
        assert_eq!(additions[0].path(), "/metadata/annotations/a.b~1c~0d");
        apply(&mut document, &additions).unwrap();
        assert_eq!(
            document,
            json!({"metadata": {"annotations": {"a.b/c~d": "1"}}, "list": ["a", "b", "c"]})
        );
        let nowhere = Add::new(&["list", "9"], "x".into());
        assert_eq!(apply(&mut document, &[nowhere]).unwrap_err(), "/list/9");
    }
}
