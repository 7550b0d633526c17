//! Adds to the context how long a message is, for a policy's conditions to look at.

use beamline_extension_sdk::{
    Call, Extension, Failure, Json, Message, PreOutput, PreProcessor, Problem, export,
};
use serde::Deserialize;
use serde_json::json;

/// The extension.
#[derive(Debug)]
pub struct MyExtension;

/// What a policy, or the registry record, may set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The key of the context that has it.
    pub key: String,
    /// From so many bytes of JSON a payload is long.
    pub long_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            key: "length".into(),
            long_bytes: 4_096,
        }
    }
}

impl Extension for MyExtension {
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        if config.key.is_empty() {
            vec![Problem::new("/key", "name a key, or leave it out")]
        } else {
            Vec::new()
        }
    }
}

impl PreProcessor for MyExtension {
    fn process(call: &Call<Config>, message: Message) -> Result<PreOutput, Failure> {
        let is_long = message.payload.text().len() >= call.config.long_bytes;
        let length = if is_long { "long" } else { "short" };
        Ok(PreOutput {
            // To change the message, answer with `Some(Message { payload, ..message })`.
            message: None,
            context: Some(Json::from(&json!({ call.config.key.as_str(): length }))),
        })
    }
}

export!(pre_processor: MyExtension);

#[cfg(test)]
mod tests {
    use beamline_extension_sdk::testing;

    use super::*;

    fn context(config: Config) -> String {
        let message = testing::message(&json!({"text": "hello"}));
        let output = MyExtension::process(&testing::call(config), message).unwrap();
        assert_eq!(output.message, None);
        output.context.map(Json::into_text).unwrap_or_default()
    }

    #[test]
    fn a_message_is_long_from_so_many_bytes() {
        let config = |long_bytes| Config {
            long_bytes,
            ..Config::default()
        };
        assert_eq!(context(config(16)), r#"{"length":"long"}"#);
        assert_eq!(context(config(17)), r#"{"length":"short"}"#);
    }

    #[test]
    fn a_key_without_a_name_is_a_mistake() {
        let problems = MyExtension::check_config(&Json::from_text(r#"{"key": ""}"#)).unwrap_err();
        assert_eq!(problems[0].path, "/key");
        assert!(MyExtension::check_config(&Json::empty_object()).is_ok());
    }
}
