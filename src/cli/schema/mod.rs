//! `beamline-sidecar schema`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::output::print;
use crate::policy;

#[derive(Debug, Args)]
#[command(
    after_help = "Editors take it to complete and to check what is written. In YAML, the first line may name it:
  # yaml-language-server: $schema=./cases.schema.json

Examples:
  beamline-sidecar schema > policy.schema.json
  beamline-sidecar schema record > record.schema.json
  beamline-sidecar schema cases > cases.schema.json"
)]
pub(super) struct SchemaArgs {
    /// What it describes.
    #[arg(value_enum, default_value = "policy")]
    of: Described,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Described {
    /// The policy language.
    Policy,
    /// A registry record of an extension, extension.json.
    Record,
    /// The cases of an extension, tests/cases.yaml.
    Cases,
}

const RECORD: &str = include_str!("record.schema.json");
const CASES: &str = include_str!("cases.schema.json");

pub(super) fn run(args: &SchemaArgs) -> ExitCode {
    match args.of {
        Described::Policy => print(&format!("{:#}", policy::schema())),
        Described::Record => print(RECORD.trim_end()),
        Described::Cases => print(CASES.trim_end()),
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::extensions::{Manifest, testing};

    fn schema(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    /// Wrong values and right ones of a record: the schema and the reader agree about each.
    #[test]
    fn the_schema_of_records_takes_what_the_reader_takes() {
        let validator = jsonschema::draft202012::new(&schema(RECORD)).unwrap();
        let digest = "0".repeat(64);
        let values = [
            ("id", json!("a.b-c_1"), true),
            ("id", json!("a b"), false),
            ("id", json!(""), false),
            ("id", json!("reload"), false),
            ("type", json!("scorer"), true),
            ("type", json!("provider"), true),
            ("type", json!("guard"), false),
            ("module", json!("file:x.wasm"), true),
            ("module", json!(format!("heir:sha256/{digest}")), true),
            (
                "module",
                json!(format!("oci://r.example:5000/a/b@sha256:{digest}")),
                true,
            ),
            (
                "module",
                json!(format!("oci://r.example/a:v1@sha256:{digest}")),
                true,
            ),
            ("module", json!("oci://r.example/a:v1"), false),
            (
                "module",
                json!(format!("oci://r.example/A@sha256:{digest}")),
                false,
            ),
            ("module", json!("x.wasm"), false),
            ("module", json!("file:../x.wasm"), false),
            ("module", json!(1), false),
            ("module", json!("https://host/x.wasm"), false),
            ("sha256", json!(digest), true),
            ("sha256", json!("12"), false),
            ("timeout_ms", json!(50), true),
            ("timeout_ms", json!(0), false),
            ("timeout_ms", json!("50"), false),
            ("retry", json!(3), true),
            ("retry", json!(-1), false),
            ("enabled", json!(false), true),
            ("enabled", json!("no"), false),
            ("config", json!({"any": ["thing"]}), true),
            ("config", json!([]), false),
            (
                "metadata",
                json!({"description": "x", "max_payload_size": 1}),
                true,
            ),
            ("metadata", json!({"max_payload_size": 0}), false),
            ("capabilities", json!(["clock", "random", "metrics", "log"]), true),
            ("capabilities", json!(["files"]), false),
            (
                "limits",
                json!({"memory_bytes": 1_048_576, "output_bytes": 65_536, "concurrency": 4, "table_elements": 100}),
                true,
            ),
            ("limits", json!({"fuel": 1_000_000}), true),
            ("limits", json!({"fuel": 10}), false),
            ("limits", json!({"fuel": "1000"}), false),
            ("signature", json!("TWVtYmVycw=="), true),
            ("signature", json!("not base64"), false),
            ("signature", json!(5), false),
            ("limits", json!({"concurrency": 0}), false),
            ("limits", json!([]), false),
            (
                "versions",
                json!([{"version": "v2", "module": "file:y.wasm", "routing_rules": {"tier": ["gold"]}}]),
                true,
            ),
            ("versions", json!([{"module": "file:y.wasm"}]), false),
            (
                "instances",
                json!([{"instance_id": "i", "weight": 5, "module": "file:y.wasm"}]),
                true,
            ),
            ("instances", json!([{"weight": 5}]), false),
            ("instances", json!([{"instance_id": "i", "weight": 101}]), false),
        ];
        for (key, value, right) in values {
            let mut record = json!({"id": "x", "type": "validator", "module": "file:x.wasm"});
            record[key] = value;
            assert_eq!(
                Manifest::read(&record.to_string()).is_ok(),
                right,
                "the reader: {record}"
            );
            assert_eq!(validator.is_valid(&record), right, "the schema: {record}");
        }
        for text in ["{}", "[]", r#"{"id": "x", "type": "validator"}"#] {
            assert!(
                Manifest::read(text).is_err() && !validator.is_valid(&schema(text)),
                "{text}"
            );
        }
    }

    #[test]
    fn the_schema_of_records_has_every_field_and_no_other() {
        let schema = schema(RECORD);
        let source = include_str!("../../extensions/manifest/read.rs");
        let fields = |name: &str| -> BTreeSet<String> {
            let (_, list) = source.split_once(&format!("const {name}: &[&str] = &[")).unwrap();
            let list = list.split("];").next().unwrap();
            list.split('"')
                .skip(1)
                .step_by(2)
                .map(ToOwned::to_owned)
                .collect()
        };
        let properties = &schema["properties"];
        assert_eq!(keys(properties), fields("FIELDS"));
        assert_eq!(
            keys(&schema["$defs"]["version"]["properties"]),
            fields("RELEASE_FIELDS")
        );
        assert_eq!(
            keys(&schema["$defs"]["instance"]["properties"]),
            fields("INSTANCE_FIELDS")
        );
    }

    #[test]
    fn the_schema_of_cases_takes_what_the_reader_takes() {
        let validator = jsonschema::draft202012::new(&schema(CASES)).unwrap();
        let right = [
            json!({"extension": "validator", "cases": [{"name": "a", "expect": "accept"}, {"name": "b", "expect": "reject"}]}),
            json!({"extension": "validator", "cases": [{"name": "a", "message": {"message_id": "m", "message_type": "chat", "payload": [1], "metadata": {}},
                "context": {"tenant_id": "t"}, "config": {"a": 1}, "now_ms": 5, "seed": 7, "expect": {"reject": {"reason": "r", "details": {}}}}]}),
            json!({"extension": "validator", "cases": [{"name": "a", "expect": {"failure": "f"}}, {"name": "a", "expect": {"error": "trap"}}]}),
            json!({"extension": "validator", "cases": [{"name": "a", "expect": {"config_problems": ["/a"]}}]}),
            json!({"extension": "pre", "cases": [{"name": "a", "expect": "unchanged"}, {"name": "a", "expect": {"message": {"payload": 1}, "context": {"a": 1}}}]}),
            json!({"extension": "scorer", "cases": [{"name": "a", "candidates": [{"provider_id": "a", "weight": 1, "breaker": "half_open",
                "latency_ms": 1.5, "error_rate": 0.5, "cost": 2}], "expect": {"scores": {"a": 1}}}]}),
            json!({"extension": "scorer", "cases": [{"name": "a", "expect": {"config_problems": ["/a"]}}]}),
            json!({"extension": "post", "cases": [{"name": "a", "decision": {"provider_id": "a", "reason": "sticky", "priority": 5}, "expect": {"metadata": {"a": 1}}}]}),
            json!({"extension": "post", "cases": [{"name": "a", "expect": "unchanged"}, {"name": "a", "expect": {"metadata": null}}]}),
        ];
        let wrong = [
            json!({}),
            json!({"extension": "guard", "cases": [{"name": "a", "expect": "accept"}]}),
            json!({"extension": "validator", "cases": []}),
            json!({"extension": "validator", "cases": [{"expect": "accept"}]}),
            json!({"extension": "validator", "cases": [{"name": "a"}]}),
            json!({"extension": "validator", "cases": [{"name": "a", "expct": "accept", "expect": "accept"}]}),
            json!({"extension": "validator", "cases": [{"name": "a", "expect": "unchanged"}]}),
            json!({"extension": "validator", "cases": [{"name": "a", "expect": {"scores": {}}}]}),
            json!({"extension": "validator", "cases": [{"name": "a", "expect": {"failure": "f", "error": "trap"}}]}),
            json!({"extension": "validator", "cases": [{"name": "a", "expect": {"error": "flood"}}]}),
            json!({"extension": "validator", "cases": [{"name": "a", "expect": {"config_problems": []}}]}),
            json!({"extension": "validator", "cases": [{"name": "a", "candidates": [], "expect": "accept"}]}),
            json!({"extension": "validator", "cases": [{"name": "a", "message": {"type": "chat"}, "expect": "accept"}]}),
            json!({"extension": "validator", "cases": [{"name": "a", "seed": -1, "expect": "accept"}]}),
            json!({"extension": "scorer", "cases": [{"name": "a", "expect": {"scores": {"a": 1}}}]}),
            json!({"extension": "scorer", "cases": [{"name": "a", "candidates": [{"provider_id": "a", "error_rate": 2}], "expect": {"scores": {"a": 1}}}]}),
            json!({"extension": "post", "cases": [{"name": "a", "message": {}, "expect": "unchanged"}]}),
            json!({"extension": "pre", "cases": [{"name": "a", "decision": {"provider_id": "a"}, "expect": "unchanged"}]}),
        ];
        for (files, is_right) in [(&right[..], true), (&wrong[..], false)] {
            for file in files {
                assert_eq!(
                    testing::read(&file.to_string()).is_ok(),
                    is_right,
                    "the reader: {file}"
                );
                assert_eq!(validator.is_valid(file), is_right, "the schema: {file}");
            }
        }
    }
}
