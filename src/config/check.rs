//! Checks a configuration against the schema of its types and reports every mistake with its remedy.

use std::collections::BTreeMap;

use jsonschema::{ValidationError, error::ValidationErrorKind};
use serde_json::Value;

use super::{mistake::Mistake, renamed};

/// One key that holds a value.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// With dots: `heir.pool.max_requests`.
    pub(super) path: String,
    pub(super) schema: Value,
}

impl Key {
    /// A variable's text as a value of this key's type.
    pub(super) fn value_from_text(&self, text: &str) -> Value {
        if self.takes("array") && text.contains(',') || self.takes("array") && !self.takes("string") {
            return text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .collect();
        }
        let wants_a_scalar = ["integer", "number", "boolean"]
            .iter()
            .any(|wanted| self.takes(wanted));
        if wants_a_scalar
            && let Ok(value) = serde_json::from_str::<Value>(text.trim())
            && (value.is_number() || value.is_boolean())
        {
            return value;
        }
        Value::String(text.to_owned())
    }

    fn takes(&self, wanted: &str) -> bool {
        types(&self.schema).iter().any(|found| found == wanted)
    }

    /// A line about what would be valid, taken from the schema.
    pub(super) fn valid(&self) -> String {
        describe(&self.schema)
    }
}

/// Every key of the configuration, by path.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) schema: Value,
    leaves: BTreeMap<String, Key>,
    sections: BTreeMap<String, Vec<String>>,
}

impl Keys {
    pub(super) fn of<T: schemars::JsonSchema>() -> Self {
        // Subschemas are inlined, so that each key has its schema in place.
        let settings =
            schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
        let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
        let mut keys = Self {
            schema: Value::Null,
            leaves: BTreeMap::new(),
            sections: BTreeMap::new(),
        };
        keys.collect("", &schema);
        keys.schema = schema;
        keys
    }

    fn collect(&mut self, path: &str, schema: &Value) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            self.leaves.insert(
                path.to_owned(),
                Key {
                    path: path.to_owned(),
                    schema: schema.clone(),
                },
            );
            return;
        };
        self.sections
            .insert(path.to_owned(), properties.keys().cloned().collect());
        for (name, schema) in properties {
            self.collect(&below(path, name), schema);
        }
    }

    pub(super) fn leaves(&self) -> impl Iterator<Item = &Key> {
        self.leaves.values()
    }

    /// Every mistake that the schema can find.
    pub(super) fn check(&self, document: &Value) -> Vec<Mistake> {
        match jsonschema::validator_for(&self.schema) {
            Ok(validator) => validator
                .iter_errors(document)
                .flat_map(|error| self.mistakes_of(&error))
                .collect(),
            Err(error) => {
                vec![Mistake::new(
                    "",
                    format!("the schema is broken: {error}"),
                    "report this as a bug",
                )]
            }
        }
    }

    fn mistakes_of(&self, error: &ValidationError<'_>) -> Vec<Mistake> {
        let key = error
            .instance_path()
            .as_str()
            .trim_start_matches('/')
            .replace('/', ".");
        if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
            return unexpected
                .iter()
                .filter_map(|name| self.unknown_key(&key, name))
                .collect();
        }
        let valid = self
            .leaves
            .get(&key)
            .or_else(|| self.leaves.get(key.rsplit_once('.')?.0))
            .map(Key::valid);
        let remedy = match (valid, self.sections.get(&key)) {
            (Some(valid), _) => valid,
            (None, Some(names)) => format!("a section with the keys {}", names.join(", ")),
            (None, None) => "see docs/configuration.md".to_owned(),
        };
        let message = match error.kind() {
            // The message is about the schema, which the reader has not seen.
            ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
                format!("{} is not a value of this key", error.instance())
            }
            _ => error.to_string(),
        };
        vec![Mistake::new(key, message, remedy)]
    }

    /// `None` for a key that was renamed, which is reported as such.
    fn unknown_key(&self, section: &str, name: &str) -> Option<Mistake> {
        let path = below(section, name);
        if renamed::new_name(&path).is_some() {
            return None;
        }
        let known = self.sections.get(section).map(Vec::as_slice).unwrap_or_default();
        let near = known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(known, name), known))
            .filter(|(distance, _)| *distance <= 3)
            .min();
        let remedy = match near {
            Some((_, near)) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        Some(Mistake::new(path, "there is no such key", remedy))
    }
}

/// The path of a key in a section; the whole file is the section without a name.
fn below(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}

/// The JSON types that a schema takes, alternatives included.
pub(super) fn types(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match schema.get("type") {
        Some(Value::String(one)) => found.push(one.clone()),
        Some(Value::Array(many)) => found.extend(many.iter().filter_map(Value::as_str).map(str::to_owned)),
        _ => {}
    }
    for alternatives in ["anyOf", "oneOf"] {
        for schema in schema
            .get(alternatives)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            found.extend(types(schema));
        }
    }
    found
}

/// The values that a schema takes, in words.
pub(super) fn describe(schema: &Value) -> String {
    let mut choices: Vec<&str> = Vec::new();
    collect_choices(schema, &mut choices);
    if !choices.is_empty() {
        return format!("one of {}", choices.join(", "));
    }
    let mut words = types(schema)
        .into_iter()
        .filter(|t| t != "null")
        .collect::<Vec<_>>()
        .join(" or ");
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) => words.push_str(&format!(" from {least} to {most}")),
        (Some(least), None) => words.push_str(&format!(" of at least {least}")),
        (None, Some(most)) => words.push_str(&format!(" of at most {most}")),
        (None, None) => {}
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        words.push_str(&format!(" matching {pattern}"));
    }
    words
}

fn collect_choices<'a>(schema: &'a Value, choices: &mut Vec<&'a str>) {
    choices.extend(
        schema
            .get("enum")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str),
    );
    choices.extend(schema.get("const").and_then(Value::as_str));
    for alternatives in ["anyOf", "oneOf"] {
        for schema in schema
            .get(alternatives)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            collect_choices(schema, choices);
        }
    }
}
