use beamline_extension_sdk::testing;
use serde_json::{Value, json};

use super::*;

fn config(text: &str) -> Config {
    let json = Json::from_text(text);
    MaskPii::check_config(&json).unwrap();
    json.read().unwrap()
}

/// The payload after the pre-processor, and whether it was replaced.
fn sent_on(config: &str, payload: &Value) -> (Value, bool) {
    let call = testing::call(self::config(config));
    let output = <MaskPii as PreProcessor>::process(&call, testing::message(payload)).unwrap();
    match output.message {
        Some(message) => (message.payload.value().unwrap(), true),
        None => (payload.clone(), false),
    }
}

fn masked(config: &str, text: &str) -> String {
    let (payload, _) = sent_on(config, &json!(text));
    payload.as_str().unwrap().to_owned()
}

fn added(config: &str, context: &str) -> Option<String> {
    let mut call = testing::call(self::config(config));
    call.context = Json::from_text(context);
    let decision = Decision {
        provider_id: "p".into(),
        reason: "weighted".into(),
        priority: 50,
    };
    let added = <MaskPii as PostProcessor>::process(&call, &decision).unwrap();
    added.map(Json::into_text)
}

fn paths(config: &str) -> Vec<String> {
    let problems = MaskPii::check_config(&Json::from_text(config)).unwrap_err();
    problems.into_iter().map(|problem| problem.path).collect()
}

#[test]
fn letters_and_digits_are_masked_and_the_rest_of_the_text_stays() {
    let text = "write to jane.doe@example.com or pay 4111 1111 1111 1111, please";
    assert_eq!(
        masked("{}", text),
        "write to ****.***@*******.*** or pay **** **** **** ****, please"
    );
    assert_eq!(
        masked(r#"{"mask": "•"}"#, "müller@bücher.example"),
        "••••••@••••••.•••••••"
    );
}

#[test]
fn the_last_ones_stay_where_asked() {
    let config = r#"{"keep_last": 4}"#;
    assert_eq!(
        masked(config, "4111-1111-1111-1234 4111 1111 1111 1111"),
        "4111-1111-1111-1234 **** **** **** 1111"
    );
}

#[test]
fn a_label_names_the_kind() {
    let text = "+358 40 123 4567, a@b.io; a@b.io";
    assert_eq!(masked(r#"{"style": "label"}"#, text), "[phone], [email]; [email]");
}

#[test]
fn what_overlaps_is_masked_once() {
    // The digits are an address's local part, and a card.
    let text = "4111111111111111@example.com!";
    assert_eq!(masked(r#"{"style": "label"}"#, text), "[card]!");
    assert_eq!(masked("{}", text), "****************@*******.***!");
}

#[test]
fn keys_and_integers_are_masked_too() {
    let payload = json!({"jane@example.com": 1, "joan@example.com": 2, "card": [4_111_111_111_111_111_u64]});
    let wanted = json!({"****@*******.***": 1, "****@*******.***_2": 2, "card": ["****************"]});
    assert_eq!(sent_on("{}", &payload), (wanted, true));
}

#[test]
fn only_what_is_meant_is_masked() {
    let payload = json!({"a": "x@y.io", "b": ["x@y.io", "x@z.io"], "c": "+358401234567"});
    let config =
        r#"{"fields": ["/a", "/b", "/c"], "ignore": ["/b/0"], "kinds": ["email"], "allow": ["@z.io"]}"#;
    let wanted = json!({"a": "*@*.**", "b": ["x@y.io", "x@z.io"], "c": "+358401234567"});
    assert_eq!(sent_on(config, &payload), (wanted, true));
}

#[test]
fn the_platforms_words_add_and_remove_a_kind() {
    let text = "a@b.io +358401234567";
    assert_eq!(
        masked(r#"{"kinds": [], "mask_email": true}"#, text),
        "*@*.** +358401234567"
    );
    assert_eq!(
        masked(r#"{"mask_email": false, "mask_phone": true}"#, text),
        "a@b.io +************"
    );
}

#[test]
fn without_personal_data_nothing_is_replaced() {
    assert!(!sent_on("{}", &json!({"prompt": "hello", "n": 12})).1);
    assert_eq!(added("{}", r#"{"tenant_id": "t"}"#), None);
}

#[test]
fn the_decision_gets_the_parts_of_the_context_that_were_masked() {
    let context = r#"{"tenant_id": "t", "user": {"mail": "a@b.io", "balance": 1.50}, "age": 1.50}"#;
    assert_eq!(
        added("{}", context).as_deref(),
        Some(r#"{"user":{"mail": "*@*.**", "balance": 1.50}}"#)
    );
    assert_eq!(added(r#"{"fields": ["/age"]}"#, context), None);
}

#[test]
fn every_mistake_in_a_configuration_is_told() {
    let wrong = r#"{"kinds": [], "fields": [], "allow": ["ab", "abc"], "mask": "4", "keep_last": 5}"#;
    assert_eq!(
        paths(wrong),
        ["/kinds", "/fields", "/allow/0", "/mask", "/keep_last"]
    );
    for mask in [" ", "é", "\u{7}"] {
        assert_eq!(paths(&json!({"mask": mask}).to_string()), ["/mask"], "{mask:?}");
    }
    let mut unreadable =
        paths(r#"{"kinds": ["mail"], "style": "x", "mask": "**", "masks": 1, "keep_last": -1}"#);
    unreadable.sort();
    assert_eq!(
        unreadable,
        ["/keep_last", "/kinds/0", "/mask", "/masks", "/style"]
    );
}

#[test]
fn the_example_records_have_good_configurations() {
    for record in [
        include_str!("../pre/extension.json"),
        include_str!("../post/extension.json"),
    ] {
        let record: Value = serde_json::from_str(record).unwrap();
        assert_eq!(MaskPii::check_config(&Json::from(&record["config"])), Ok(()));
    }
}
