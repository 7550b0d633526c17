//! A stored document as an element of a list, where it must name itself.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The document with `member` holding `id`: as it is where it already does, else with that one value put in.
/// `id` follows the grammar of ids, so nothing in it needs an escape.
pub fn listed<'a>(document: &'a str, member: &str, id: &str) -> Result<Cow<'a, str>, serde_json::Error> {
    let found = Member(member).deserialize(&mut serde_json::Deserializer::from_str(document))?;
    let Some(value) = found else {
        // The first brace opens the object: a stored document is one object.
        let (before, rest) = document.split_once('{').unwrap_or_default();
        let comma = if rest.trim_start().starts_with('}') {
            ""
        } else {
            ","
        };
        return Ok(format!("{before}{{\"{member}\":\"{id}\"{comma}{rest}").into());
    };
    if serde_json::from_str::<String>(value).is_ok_and(|named| named == id) {
        return Ok(document.into());
    }
    // The value borrows from the document, so where it lies is a matter of subtraction.
    let start = value.as_ptr().addr() - document.as_ptr().addr();
    let (before, rest) = document.split_at(start);
    let after = &rest[value.len()..];
    Ok(format!("{before}\"{id}\"{after}").into())
}

/// Finds the text of a top-level member's value.
struct Member<'m>(&'m str);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Name(name)) = members.next_key()? {
            if name == self.0 {
                found = Some(members.next_value::<&'de RawValue>()?.get());
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_names_itself_and_is_otherwise_left_alone() {
        for (document, element) in [
            ("{}", r#"{"policy_id":"p"}"#),
            (" { } ", r#" {"policy_id":"p" } "#),
            (
                r#"{ "a":{"policy_id":"q"}}"#,
                r#"{"policy_id":"p", "a":{"policy_id":"q"}}"#,
            ),
            (
                r#"{"policy_id":"p" , "a":1.50}"#,
                r#"{"policy_id":"p" , "a":1.50}"#,
            ),
            (r#"{"a":1,"policy_id": "q" }"#, r#"{"a":1,"policy_id": "p" }"#),
            (r#"{"policy_id":{"x":[1]},"é":1}"#, r#"{"policy_id":"p","é":1}"#),
            (
                r#"{"é":1,"policy\u005fid":null}"#,
                r#"{"é":1,"policy\u005fid":"p"}"#,
            ),
            (r#"{"policy_id":"\u0070"}"#, r#"{"policy_id":"\u0070"}"#),
        ] {
            let made = listed(document, "policy_id", "p").unwrap();
            assert_eq!(made, element);
            let read: crate::heir::wire::Listed<'_> = serde_json::from_str(&made).unwrap();
            assert_eq!(read.policy_id, "p");
        }
    }
}
