//! The one place that reads YAML: the configuration, decision cases and cases of extensions.

use serde::de::DeserializeOwned;

/// Reads YAML in which only `true` and `false` are booleans: types decide conditions, and `region: no` is Norway.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true })
}

/// Reads YAML in which `yes`, `no`, `on` and `off` are booleans as well, as operators write configurations.
pub fn read_config<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    serde_saphyr::from_str(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_words_that_are_booleans_depend_on_what_is_read() {
        let text = "{a: true, b: no, c: 'no'}";
        assert_eq!(
            read::<Value>(text).unwrap(),
            json!({"a": true, "b": "no", "c": "no"})
        );
        assert_eq!(
            read_config::<Value>(text).unwrap(),
            json!({"a": true, "b": false, "c": "no"})
        );
    }
}
