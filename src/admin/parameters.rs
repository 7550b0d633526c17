//! Named parameters, of a path or of a query, as typed structs. What is wrong with them is said with their names.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IntoDeserializer, value::MapAccessDeserializer},
    forward_to_deserialize_any,
};

/// Reads parameters, already decoded, into a struct that denies unknown fields.
pub(super) fn read<'de, T: Deserialize<'de>>(
    parameters: impl Iterator<Item = (String, String)>,
) -> Result<T, InvalidParameter> {
    T::deserialize(MapAccessDeserializer::new(Parameters {
        rest: parameters,
        at_hand: None,
    }))
}

/// Why parameters are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidParameter {
    /// As a whole, or named already.
    #[error("{0}")]
    Sentence(String),
    /// What is said of the parameter that is at hand.
    #[error("the parameter {0}")]
    Predicate(String),
}

impl InvalidParameter {
    fn of(self, name: &str) -> Self {
        match self {
            Self::Predicate(predicate) => Self::Sentence(format!("{name} {predicate}")),
            whole @ Self::Sentence(_) => whole,
        }
    }
}

impl de::Error for InvalidParameter {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self::Predicate(message.to_string())
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Predicate(format!("is one of {}", expected.join(", ")))
    }

    fn unknown_field(name: &str, expected: &'static [&'static str]) -> Self {
        let known = if expected.is_empty() {
            "this path takes none".to_owned()
        } else {
            format!("this path takes {}", expected.join(", "))
        };
        Self::Sentence(format!("unknown parameter {name:?}: {known}"))
    }

    fn missing_field(name: &'static str) -> Self {
        Self::Sentence(format!("the parameter {name} is required"))
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::Sentence(format!("the parameter {name} is given more than once"))
    }
}

/// All parameters, one after the other.
struct Parameters<I> {
    rest: I,
    /// The one whose name was read last.
    at_hand: Option<(String, String)>,
}

impl<'de, I: Iterator<Item = (String, String)>> de::MapAccess<'de> for Parameters<I> {
    type Error = InvalidParameter;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, InvalidParameter> {
        self.at_hand = self.rest.next();
        let name = self.at_hand.as_ref().map(|(name, _)| name.as_str());
        name.map(|name| seed.deserialize(name.into_deserializer()))
            .transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, InvalidParameter> {
        let (name, text) = self.at_hand.take().unwrap_or_default();
        seed.deserialize(Text(text)).map_err(|error| error.of(&name))
    }
}

/// The text of one parameter.
struct Text(String);

impl<'de> Deserializer<'de> for Text {
    type Error = InvalidParameter;

    fn deserialize_any<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidParameter> {
        visitor.visit_string(self.0)
    }

    fn deserialize_bool<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidParameter> {
        match self.0.as_str() {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(InvalidParameter::Predicate("is true or false".into())),
        }
    }

    fn deserialize_u64<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidParameter> {
        let number = self.0.parse();
        let number = number.map_err(|_| InvalidParameter::Predicate("is a whole number".into()))?;
        visitor.visit_u64(number)
    }

    fn deserialize_option<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, InvalidParameter> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, InvalidParameter> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, InvalidParameter> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        operate::{Limit, RateLimitScope},
        policy::TenantId,
    };

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        tenant: TenantId,
        #[serde(default)]
        limit: Limit,
        #[serde(default)]
        confirm: bool,
        scope: Option<RateLimitScope>,
        text: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    fn given(parameters: &[(&str, &str)]) -> Result<Example, String> {
        let parameters = parameters
            .iter()
            .map(|(name, text)| ((*name).into(), (*text).into()));
        read(parameters).map_err(|error| error.to_string())
    }

    #[test]
    fn parameters_become_their_types() {
        let all = [
            ("tenant", "acme"),
            ("limit", "7"),
            ("confirm", "true"),
            ("scope", "global"),
            ("text", "a b"),
        ];
        let all = given(&all).unwrap();
        assert_eq!(all.tenant.as_str(), "acme");
        assert_eq!((all.limit.get(), all.confirm), (7, true));
        assert_eq!(
            (all.scope, all.text.as_deref()),
            (Some(RateLimitScope::Global), Some("a b"))
        );
        let few = given(&[("tenant", "acme")]).unwrap();
        assert_eq!(
            (few.limit, few.confirm, few.scope, few.text),
            (Limit::default(), false, None, None)
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_the_parameters_name() {
        for (extra, message) in [
            (("limit", "0"), "limit is 1 to 1000"),
            (("limit", "1001"), "limit is 1 to 1000"),
            (("limit", "many"), "limit is a whole number"),
            (("confirm", "perhaps"), "confirm is true or false"),
            (("scope", "all"), "scope is one of global, tenant, policy"),
            (
                ("tenant", "other"),
                "the parameter tenant is given more than once",
            ),
            (
                ("tenat", "x"),
                "unknown parameter \"tenat\": this path takes tenant, limit, confirm, scope, text",
            ),
        ] {
            assert_eq!(given(&[("tenant", "acme"), extra]).unwrap_err(), message);
        }
        assert_eq!(given(&[]).unwrap_err(), "the parameter tenant is required");
        assert_eq!(
            given(&[("tenant", "a/b")]).unwrap_err(),
            "tenant has a character outside A-Z a-z 0-9 _ . -"
        );
        let none: Result<Nothing, _> = read(std::iter::once(("x".to_owned(), String::new())));
        assert_eq!(
            none.unwrap_err().to_string(),
            "unknown parameter \"x\": this path takes none"
        );
    }
}
