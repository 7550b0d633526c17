//! The fields of a document as a tree of values, of a bounded size.
//!
//! A text of a megabyte can become a tree that is eighty times as large. What the language only keeps, or does not know, is no
//! part of the tree; for the rest there is a bound that no policy comes near which is meant to be one.

use std::{cell::Cell, fmt};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Top-level fields of the language.
pub(super) const FIELDS: [&str; 20] = [
    "version",
    "policy_id",
    "tenant_id",
    "providers",
    "weights",
    "fallbacks",
    "fallback",
    "sticky",
    "pre",
    "validators",
    "scorers",
    "post",
    "circuit_breaker",
    "rate_limit",
    "timeout_ms",
    "health_check",
    "explanation",
    "metadata",
    "defaults",
    "escalate_on",
];

/// Those that are kept and never used for routing.
const KEPT_ONLY: [&str; 3] = ["metadata", "defaults", "escalate_on"];

/// Bytes that a tree may take.
const MOST_BYTES: usize = 16 << 20;

/// What a value takes in a list that has just grown, and in an object.
const IN_A_LIST: usize = 2 * size_of::<Value>();
const IN_AN_OBJECT: usize = 2 * (size_of::<Value>() + size_of::<String>());

/// A list and an object make room for several entries with the first.
const FIRST_OF_A_LIST: usize = 4 * size_of::<Value>();
const FIRST_OF_AN_OBJECT: usize = 11 * (size_of::<Value>() + size_of::<String>());

/// Each text is a piece of memory of its own.
const OF_A_TEXT: usize = 16;

/// How the reason begins where a tree would take more.
pub(super) const TOO_LARGE: &str = "takes too much memory to read";

/// The top level of a document.
pub(super) struct Fields(pub(super) Map<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Top;
        impl<'de> Visitor<'de> for Top {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields, A::Error> {
                let left = Room(Cell::new(MOST_BYTES));
                let mut fields = Map::new();
                while let Some(key) = entries.next_key::<String>()? {
                    left.take(IN_AN_OBJECT + OF_A_TEXT + key.len())?;
                    let value = if !FIELDS.contains(&&*key) {
                        entries.next_value::<IgnoredAny>()?;
                        Value::Null
                    } else if KEPT_ONLY.contains(&&*key) {
                        entries.next_value_seed(Hollow)?
                    } else {
                        entries.next_value_seed(Tree(&left))?
                    };
                    fields.insert(key, value);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Top)
    }
}

/// What is left of the memory.
struct Room(Cell<usize>);

impl Room {
    fn take<E: serde::de::Error>(&self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(bytes);
        self.0.set(left.ok_or_else(|| {
            E::custom(format_args!(
                "the policy {TOO_LARGE}: more than {MOST_BYTES} bytes"
            ))
        })?);
        Ok(())
    }
}

/// A value, if there is room for it.
#[derive(Clone, Copy)]
struct Tree<'a>(&'a Room);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.0.take(OF_A_TEXT + value.len())?;
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            if list.is_empty() {
                self.0.take(FIRST_OF_A_LIST)?;
            }
            self.0.take(IN_A_LIST)?;
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.is_empty() {
                self.0.take(FIRST_OF_AN_OBJECT)?;
            }
            self.0.take(IN_AN_OBJECT + OF_A_TEXT + key.len())?;
            object.insert(key, entries.next_value_seed(self)?);
        }
        Ok(object.into())
    }
}

/// A value of the same type with nothing in it.
struct Hollow;

impl<'de> DeserializeSeed<'de> for Hollow {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Hollow {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(0.into())
    }
    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(0.into())
    }
    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(0.into())
    }
    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok("".into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Object(Map::new()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(text: &str) -> Result<Value, String> {
        let read = serde_json::from_str::<Fields>(text);
        read.map(|fields| Value::Object(fields.0))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_kept_only_or_unknown_is_left_out_and_the_rest_is_as_it_was() {
        let rest = json!({"weights": {"a": 1, "b": 0.5}, "fallbacks": [{"when": {"status": ["timeout", null, true, -1]}}]});
        let mut document = rest.clone();
        document["metadata"] = json!({"owner": "team", "list": [1]});
        document["defaults"] = json!(7);
        document["escalate_on"] = json!(["x"]);
        document["novelty"] = json!([[[]]]);
        let mut expected = rest;
        expected["metadata"] = json!({});
        expected["defaults"] = json!(0);
        expected["escalate_on"] = json!([]);
        expected["novelty"] = json!(null);
        assert_eq!(fields(&document.to_string()), Ok(expected));
        assert!(fields("[]").is_err());
    }

    #[test]
    fn a_tree_is_bounded_by_the_memory_that_it_takes() {
        for (item, fits, bound) in [
            ("0", 200_000, 400_000),
            ("[0]", 60_000, 120_000),
            ("{\"a\":0}", 15_000, 40_000),
            ("\"some text\"", 150_000, 300_000),
        ] {
            let of = |count: usize| {
                let items = vec![item; count].join(",");
                fields(&format!("{{\"fallbacks\":[{items}]}}"))
            };
            assert!(of(fits).is_ok(), "{fits} of {item}");
            let refused = of(bound).unwrap_err();
            assert!(refused.contains(TOO_LARGE), "{refused}");
            // Where nothing is kept of it there is no bound.
            let items = vec![item; bound].join(",");
            assert!(fields(&format!("{{\"metadata\":{{\"list\":[{items}]}}}}")).is_ok());
        }
    }
}
