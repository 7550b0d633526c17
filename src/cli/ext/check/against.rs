//! What a component says of itself, held against its bytes, its record and the version before it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::report::Report;
use crate::{
    cli::ext::{about::About, component_info::ComponentInfo},
    extensions::Kind,
    policy::json_path,
};

impl Report {
    /// Compares what a component says of itself with what it is, and the record's configuration with its schema.
    pub(super) fn about(&mut self, info: &ComponentInfo, about: Result<Option<About>, String>) {
        let about = match about {
            Ok(Some(about)) => about,
            Ok(None) => return,
            Err(reason) => return self.problem("about", reason, "build it anew with `ext build`"),
        };
        if info.kind.is_some_and(|kind| kind != about.kind) {
            self.problem(
                "about",
                format!("it says that it is a {}, and is none", about.kind.as_str()),
                "build it anew with `ext build`",
            );
        }
        let hidden: Vec<&str> = info
            .capabilities
            .iter()
            .filter(|needed| !about.capabilities.contains(needed))
            .map(|needed| needed.as_str())
            .collect();
        if !hidden.is_empty() {
            self.problem(
                "about",
                format!("it imports {} and does not say so", hidden.join(", ")),
                "ask its author why; `ext build` writes what it imports",
            );
        }
        let (Some(schema), Some(record)) = (&about.config_schema, self.record()) else {
            return;
        };
        let config = Value::Object(record.base.config.clone());
        let validator = match jsonschema::validator_for(schema) {
            Ok(validator) => validator,
            Err(error) => {
                return self.problem(
                    "about",
                    format!("the schema of its configuration is no JSON Schema: {error}"),
                    "correct config.schema.json and build it anew",
                );
            }
        };
        let errors: Vec<(String, String)> = validator
            .iter_errors(&config)
            .map(|error| (error.instance_path().to_string(), error.to_string()))
            .map(|(path, message)| (json_path::below("$.config", &path), message))
            // What the component itself refuses was reported.
            .filter(|(path, _)| !self.problems.iter().any(|known| known.path == *path))
            .collect();
        for (path, message) in errors {
            self.problem(
                &path,
                format!("{message} (the schema within the component)"),
                "correct the configuration in the record",
            );
        }
    }

    /// Says what a component asks for, or expects, that the one in use does not.
    pub(super) fn against(&mut self, new: &ComponentInfo, old: &ComponentInfo) {
        let (name, before) = (named(new, "it"), named(old, "the one in use"));
        if new.kind != old.kind {
            let world = |info: &ComponentInfo| info.kind.map_or("nothing known", Kind::world);
            self.problem(
                "against",
                format!(
                    "{name} is of the world {}, and {before} of {}",
                    world(new),
                    world(old)
                ),
                "give it another id: policies name the old one in another list",
            );
        }
        let newly: Vec<&str> = new
            .capabilities
            .iter()
            .filter(|capability| !old.capabilities.contains(capability))
            .map(|capability| capability.as_str())
            .collect();
        if !newly.is_empty() {
            self.warning(
                "against",
                format!("{name} newly asks for {}", newly.join(", ")),
                "grant it in the record if it may; a record that grants less refuses it",
            );
        }
        if let (Some(about), Some(was)) = (&new.about, &old.about) {
            if about.version == was.version && new.sha256 != old.sha256 {
                self.warning(
                    "against",
                    format!(
                        "both say that they are version {}, and they differ",
                        about.version
                    ),
                    "count the version of the package on",
                );
            }
            let gone: Vec<String> = keys(was, "properties")
                .difference(&keys(about, "properties"))
                .cloned()
                .collect();
            if !gone.is_empty() {
                self.warning(
                    "against",
                    format!("{name} no longer knows {} of the configuration", gone.join(", ")),
                    "correct records and policies that have it before the new one is used",
                );
            }
            let needed: Vec<String> = keys(about, "required")
                .difference(&keys(was, "required"))
                .cloned()
                .collect();
            if !needed.is_empty() {
                self.warning(
                    "against",
                    format!("{name} newly requires {} in the configuration", needed.join(", ")),
                    "add it to records and policies before the new one is used",
                );
            }
        }
    }
}

fn named(info: &ComponentInfo, otherwise: &str) -> String {
    match &info.about {
        Some(about) => format!("version {}", about.version.replace(char::is_control, " ")),
        None => otherwise.to_owned(),
    }
}

/// The keys of the configuration under `properties`, or those that are `required`, as far as a schema names them.
fn keys(about: &About, under: &str) -> BTreeSet<String> {
    let named = about.config_schema.as_ref().and_then(|schema| schema.get(under));
    let keys: Vec<&str> = match named {
        Some(Value::Object(properties)) => properties.keys().map(String::as_str).collect(),
        Some(Value::Array(required)) => required.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    keys.iter()
        .map(|key| key.replace(char::is_control, " "))
        .collect()
}
