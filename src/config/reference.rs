//! The reference of all keys, written from the schema.

use std::fmt::Write;

use serde_json::Value;

use super::{check, env, sections::Config};

/// `docs/configuration.md`: every key with its type, bounds, default, environment variable and meaning.
pub fn reference() -> String {
    let keys = check::Keys::of::<Config>();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut page = String::from(
        "# Configuration\n\nWritten by `beamline-sidecar check --reference`; a test fails when it is out of date.\n\n\
         One YAML file (`run --config FILE`), every key optional, unknown keys refused. A variable in the environment\n\
         wins over the file; lists are written with commas there. Changes of keys marked *live* apply when the file\n\
         changes or on SIGHUP, those of the others at the next start.\n\n\
         | key | values | default | variable | meaning |\n|---|---|---|---|---|\n",
    );
    for key in keys.leaves() {
        let pointer = format!("/{}", key.path.replace('.', "/"));
        let default = match defaults.pointer(&pointer) {
            None | Some(Value::Null) => "unset".to_owned(),
            Some(Value::String(text)) if text.is_empty() => "empty".to_owned(),
            Some(value) => format!("`{}`", value.to_string().trim_matches('"')),
        };
        let meaning = key
            .schema
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .replace('\n', " ");
        let live = if is_live(&key.path) { "*live* · " } else { "" };
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            page,
            "| `{}` | {} | {default} | `{}` | {live}{} |",
            key.path,
            key.valid().replace('|', "\\|"),
            env::variable(&key.path),
            meaning.replace('|', "\\|"),
        );
    }
    page
}

/// Whether a running sidecar applies a change of this key.
pub(crate) fn is_live(path: &str) -> bool {
    path.starts_with("refresh.") || path.starts_with("writes.") || path == "log.filter"
}
