//! Refuses messages that are too long.

use beamline_extension_sdk::{
    Call, Extension, Failure, Json, Message, Problem, Rejection, Validator, Verdict, export,
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
    /// The longest payload that may pass, in bytes of JSON.
    pub max_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_bytes: 4_096 }
    }
}

impl Extension for MyExtension {
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        if config.max_bytes == 0 {
            vec![Problem::new(
                "/max_bytes",
                "nothing would pass: write 1 or more",
            )]
        } else {
            Vec::new()
        }
    }
}

impl Validator for MyExtension {
    fn validate(call: &Call<Config>, message: &Message) -> Result<Verdict, Failure> {
        let (bytes, max_bytes) = (message.payload.text().len(), call.config.max_bytes);
        if bytes <= max_bytes {
            return Ok(Verdict::Accept);
        }
        Ok(Verdict::Reject(Rejection {
            reason: format!("the message is too long: {bytes} bytes, at most {max_bytes} may pass"),
            details: Json::from(&json!({"bytes": bytes, "max_bytes": max_bytes})),
        }))
    }
}

export!(validator: MyExtension);

#[cfg(test)]
mod tests {
    use beamline_extension_sdk::testing;

    use super::*;

    fn verdict(max_bytes: usize) -> Verdict {
        let message = testing::message(&json!({"text": "hello"}));
        MyExtension::validate(&testing::call(Config { max_bytes }), &message).unwrap()
    }

    #[test]
    fn a_message_may_be_as_long_as_is_allowed() {
        assert_eq!(verdict(16), Verdict::Accept);
        assert!(matches!(verdict(15), Verdict::Reject(_)));
    }

    #[test]
    fn a_limit_that_lets_nothing_pass_is_a_mistake() {
        let problems =
            MyExtension::check_config(&Json::from_text(r#"{"max_bytes": 0}"#)).unwrap_err();
        assert_eq!(problems[0].path, "/max_bytes");
        assert!(MyExtension::check_config(&Json::empty_object()).is_ok());
    }
}
