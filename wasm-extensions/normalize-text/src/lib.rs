//! A pre-processor that makes the texts of a message uniform, so that what looks alike is alike to
//! caches, validators and providers.

mod text;

use beamline_extension_sdk::{
    Call, Extension, Failure, Fields, Message, Part, Pointer, PreOutput, PreProcessor, Problem, export,
};
use serde::Deserialize;

/// The extension.
#[derive(Debug)]
pub struct NormalizeText;

/// What is done to a text, and which texts are meant.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to work in the payload: JSON Pointers, in which `*` stands for any key or index.
    pub fields: Vec<Pointer>,
    /// Which places to leave alone.
    pub ignore: Vec<Pointer>,
    /// Whether texts are brought into Unicode's normalization form C.
    pub nfc: bool,
    /// Whether blanks at both ends go.
    pub trim_whitespace: bool,
    /// Whether blanks in a row become one, and empty lines in a row become one.
    pub collapse_whitespace: bool,
    /// Whether letters become small.
    pub lowercase: bool,
}

impl Default for Config {
    fn default() -> Self {
        let Fields { only, not } = Fields::default();
        Self {
            fields: only,
            ignore: not,
            nfc: true,
            trim_whitespace: true,
            collapse_whitespace: true,
            lowercase: false,
        }
    }
}

impl Extension for NormalizeText {
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        if config.fields.is_empty() {
            problems.push(Problem::new(
                "/fields",
                "name at least one place, or leave the key out",
            ));
        }
        if !(config.nfc || config.trim_whitespace || config.collapse_whitespace || config.lowercase) {
            problems.push(Problem::new(
                "",
                "everything is switched off: leave one of nfc, trim_whitespace, collapse_whitespace and lowercase on",
            ));
        }
        problems
    }
}

impl PreProcessor for NormalizeText {
    fn process(call: &Call<Config>, message: Message) -> Result<PreOutput, Failure> {
        let config = &call.config;
        let fields = Fields {
            only: config.fields.clone(),
            not: config.ignore.clone(),
        };
        let payload = fields.edit(&message.payload, &mut |part, text| match part {
            Part::Text => text::normalize(text, config),
            // What is not prose stays.
            Part::Key | Part::Integer => None,
        })?;
        Ok(PreOutput {
            message: payload.map(|payload| Message { payload, ..message }),
            context: None,
        })
    }
}

export!(pre_processor: NormalizeText);

#[cfg(test)]
mod tests {
    use beamline_extension_sdk::{Json, testing};
    use serde_json::{Value, json};

    use super::*;

    fn config(text: &str) -> Config {
        let json = Json::from_text(text);
        NormalizeText::check_config(&json).unwrap();
        json.read().unwrap()
    }

    fn processed(config: Config, payload: &Value) -> PreOutput {
        NormalizeText::process(&testing::call(config), testing::message(payload)).unwrap()
    }

    fn paths(config: &str) -> Vec<String> {
        let problems = NormalizeText::check_config(&Json::from_text(config)).unwrap_err();
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn texts_of_the_payload_change_and_the_rest_of_the_message_stays() {
        let payload = json!({"messages": [{"content": "  two   words "}], "top p": 1});
        let mut sent = testing::message(&payload);
        sent.message_id = "  m  ".into();
        let call = testing::call(Config::default());
        let output = NormalizeText::process(&call, sent.clone()).unwrap();
        let wanted = Message {
            payload: Json::from(&json!({"messages": [{"content": "two words"}], "top p": 1})),
            ..sent
        };
        assert_eq!(output.message, Some(wanted));
        assert_eq!(output.context, None);
    }

    #[test]
    fn what_is_uniform_already_is_not_replaced() {
        let payload = json!({"prompt": "two words", " key ": 12});
        assert_eq!(processed(Config::default(), &payload), PreOutput::default());
    }

    #[test]
    fn only_the_fields_that_are_meant_change() {
        let config = config(r#"{"fields": ["/a", "/b"], "ignore": ["/b/code"], "lowercase": true}"#);
        let payload = json!({"a": "X", "b": {"code": "X", "text": "X"}, "c": "X"});
        let changed = processed(config, &payload).message.unwrap().payload;
        assert_eq!(
            changed.value().unwrap(),
            json!({"a": "x", "b": {"code": "X", "text": "x"}, "c": "X"})
        );
    }

    #[test]
    fn the_example_record_has_a_good_configuration() {
        let record: serde_json::Value = serde_json::from_str(include_str!("../extension.json")).unwrap();
        assert_eq!(
            NormalizeText::check_config(&Json::from(&record["config"])),
            Ok(())
        );
    }

    #[test]
    fn every_mistake_in_a_configuration_is_told() {
        let off = r#"{"fields": [], "nfc": false, "trim_whitespace": false, "collapse_whitespace": false}"#;
        assert_eq!(paths(off), ["/fields", ""]);
        let mut found = paths(r#"{"fields": ["a"], "nfc": "yes", "lower_case": true}"#);
        found.sort();
        assert_eq!(found, ["/fields/0", "/lower_case", "/nfc"]);
    }
}
