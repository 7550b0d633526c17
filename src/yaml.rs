//! The one place that reads and writes YAML: the configuration, decision cases, cases of extensions, manifests.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads YAML in which only `true` and `false` are booleans: types decide conditions, and `region: no` is Norway.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true })
}

/// Reads YAML in which `yes`, `no`, `on` and `off` are booleans as well, as operators write configurations.
pub fn read_config<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    serde_saphyr::from_str(text)
}

/// Reads every document of a manifest as `kubectl` reads it, which speaks YAML 1.1: `yes` is a boolean, and `0644` is octal.
pub fn read_manifests(text: &str) -> Result<Vec<Value>, serde_saphyr::Error> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(text, options)
}

/// Writes a document so that readers of YAML 1.1 and 1.2 read the same.
pub fn write(document: &Value) -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(document)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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

    #[test]
    fn manifests_are_read_as_kubectl_reads_them_and_written_so_that_all_read_the_same() {
        let text = "mode: 0644\nlate: yes\nname: 'yes'\n---\n---\nkind: B\n";
        let documents = read_manifests(text).unwrap();
        assert_eq!(documents[0], json!({"mode": 420, "late": true, "name": "yes"}));
        assert_eq!(documents.last().unwrap(), &json!({"kind": "B"}));
        let awkward = json!({
            "strings": ["yes", "no", "on", "y", "null", "~", "", " a", "0644", "1e3", "12:30", "1_000", "0x1F", "- a", "a: b",
                "#", "@x", "true", "2001-01-01", "line\nline\n", "tab\t", "\u{7f}", "é"],
            "numbers": [1, -1, 1.5, 9_007_199_254_740_993_u64, 1e300],
            "other": [null, true, {}, [], [[1], [{"a": []}]]],
            "b/c~d": {"x y": 1, "no": 2, "1": 3},
        });
        let written = write(&awkward).unwrap();
        assert_eq!(
            read_manifests(&written).unwrap(),
            std::slice::from_ref(&awkward),
            "{written}"
        );
        assert_eq!(read::<Value>(&written).unwrap(), awkward, "{written}");
    }
}
