//! Adds a label to decisions, for later readers.

use beamline_extension_sdk::{
    Call, Decision, Extension, Failure, Json, PostProcessor, Problem, export,
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
    /// Where the decision's metadata has the label.
    pub key: String,
    /// Decisions that were made so are not labelled, such as `sticky`.
    pub except: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            key: "route".into(),
            except: Vec::new(),
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

impl PostProcessor for MyExtension {
    fn process(call: &Call<Config>, decision: &Decision) -> Result<Option<Json>, Failure> {
        if call.config.except.contains(&decision.reason) {
            return Ok(None);
        }
        let label = format!("{}/{}", decision.provider_id, decision.reason);
        Ok(Some(Json::from(
            &json!({ call.config.key.as_str(): label }),
        )))
    }
}

export!(post_processor: MyExtension);

#[cfg(test)]
mod tests {
    use beamline_extension_sdk::testing;

    use super::*;

    fn added(config: Config) -> Option<String> {
        let decision = Decision {
            provider_id: "openai".into(),
            reason: "sticky".into(),
            priority: 100,
        };
        let added = MyExtension::process(&testing::call(config), &decision).unwrap();
        added.map(Json::into_text)
    }

    #[test]
    fn a_decision_is_labelled_unless_excepted() {
        assert_eq!(
            added(Config::default()).as_deref(),
            Some(r#"{"route":"openai/sticky"}"#)
        );
        let except = vec!["sticky".to_owned()];
        assert_eq!(
            added(Config {
                except,
                ..Config::default()
            }),
            None
        );
    }

    #[test]
    fn a_key_without_a_name_is_a_mistake() {
        let problems = MyExtension::check_config(&Json::from_text(r#"{"key": ""}"#)).unwrap_err();
        assert_eq!(problems[0].path, "/key");
        assert!(MyExtension::check_config(&Json::empty_object()).is_ok());
    }
}
