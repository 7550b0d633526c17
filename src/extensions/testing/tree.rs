//! YAML that knows where each of its values stands, and a reader over it that goes on after a mistake.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

use super::mistake::Mistake;

/// A value and its place.
pub(super) type Node = Spanned<Tree>;

#[derive(Debug, Clone)]
pub(super) enum Tree {
    /// Null, a truth value, a number or a text.
    Scalar(Value),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        match Number::from_f64(value) {
            Some(number) => Ok(Tree::Scalar(Value::Number(number))),
            None => Err(E::custom("JSON has no such number")),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Object(entries))
    }
}

/// A value as a node whose place is not known.
pub(super) fn without_places(value: Value) -> Node {
    let tree = match value {
        Value::Array(items) => Tree::List(items.into_iter().map(without_places).collect()),
        Value::Object(entries) => {
            let entries = entries.into_iter();
            Tree::Object(entries.map(|(key, value)| (key, without_places(value))).collect())
        }
        scalar => Tree::Scalar(scalar),
    };
    Spanned::new(tree, Location::UNKNOWN, Location::UNKNOWN)
}

pub(super) fn value(node: &Node) -> Value {
    match &node.value {
        Tree::Scalar(value) => value.clone(),
        Tree::List(items) => items.iter().map(value).collect(),
        Tree::Object(entries) => Value::Object(map(entries)),
    }
}

fn map(entries: &[(String, Node)]) -> Map<String, Value> {
    entries
        .iter()
        .map(|(key, node)| (key.clone(), value(node)))
        .collect()
}

/// Collects mistakes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) mistakes: Vec<Mistake>,
}

impl Reader {
    pub(super) fn mistake(&mut self, node: &Node, message: impl Into<String>) {
        self.mistakes.push(Mistake {
            line: node.referenced.line(),
            column: node.referenced.column(),
            message: message.into(),
        });
    }

    /// The entries of an object that has only these keys.
    pub(super) fn object<'a>(&mut self, what: &str, node: &'a Node, keys: &[&str]) -> Option<Entries<'a>> {
        let Tree::Object(entries) = &node.value else {
            self.mistake(node, format!("{what} is an object with {}", keys.join(", ")));
            return None;
        };
        for (key, node) in entries {
            if !keys.contains(&key.as_str()) {
                let help = nearest(key, keys);
                self.mistake(node, format!("{what} has no `{key}`: {help}"));
            }
        }
        Some(Entries(entries))
    }

    pub(super) fn list<'a>(&mut self, what: &str, node: &'a Node) -> &'a [Node] {
        match &node.value {
            Tree::List(items) => items,
            _ => {
                self.mistake(node, format!("{what} is a list"));
                &[]
            }
        }
    }

    /// Any object.
    pub(super) fn map(&mut self, what: &str, node: &Node) -> Map<String, Value> {
        match &node.value {
            Tree::Object(entries) => map(entries),
            _ => {
                self.mistake(node, format!("{what} is an object"));
                Map::new()
            }
        }
    }

    pub(super) fn text(&mut self, what: &str, node: &Node) -> String {
        match &node.value {
            Tree::Scalar(Value::String(text)) => text.clone(),
            _ => {
                self.mistake(node, format!("{what} is a text"));
                String::new()
            }
        }
    }

    /// A whole number from 0.
    pub(super) fn whole(&mut self, what: &str, node: &Node) -> u64 {
        match &node.value {
            Tree::Scalar(Value::Number(number)) if number.is_u64() => number.as_u64().unwrap_or_default(),
            _ => {
                self.mistake(node, format!("{what} is a whole number, 0 or more"));
                0
            }
        }
    }

    /// A finite number from 0 to `most`.
    pub(super) fn number(&mut self, what: &str, node: &Node, most: f64) -> f64 {
        let number = match &node.value {
            Tree::Scalar(Value::Number(number)) => number.as_f64(),
            _ => None,
        };
        match number {
            Some(number) if (0.0..=most).contains(&number) => number,
            _ => {
                let range = if most == f64::MAX {
                    "0 or more".to_owned()
                } else {
                    format!("from 0 to {most}")
                };
                self.mistake(node, format!("{what} is a number, {range}"));
                0.0
            }
        }
    }
}

/// The entries of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entries<'a>(&'a [(String, Node)]);

impl<'a> Entries<'a> {
    pub(super) fn get(self, key: &str) -> Option<&'a Node> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// What may have been meant.
fn nearest(word: &str, of: &[&str]) -> String {
    let close = |known: &&&str| strsim::damerau_levenshtein(word, known) <= 2;
    match of
        .iter()
        .filter(close)
        .min_by_key(|known| strsim::damerau_levenshtein(word, known))
    {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("there are {}", of.join(", ")),
    }
}
