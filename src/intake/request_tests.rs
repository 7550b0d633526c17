use serde_json::json;

use super::*;

fn good() -> Value {
    json!({
        "version": "1", "request_id": "r-1", "tenant_id": "acme", "policy_id": "chat",
        "task": {"type": "chat", "payload": {"text": "hello"}},
        "constraints": {"max_cost": 1, "user_id": "old"}, "metadata": {"user_id": "ada"},
        "trace_id": "0123456789abcdef0123456789ABCDEF",
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut request = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = request.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    parent.insert(key.to_owned(), value);
    request
}

fn without(key: &str) -> Value {
    let mut request = good();
    request.as_object_mut().unwrap().remove(key);
    request
}

fn reason(request: &Value) -> (&'static str, &'static str) {
    let refused = DecideRequest::parse(request.to_string().as_bytes()).unwrap_err();
    (refused.intake.as_str(), refused.reason)
}

#[test]
fn the_context_is_constraints_under_metadata_and_what_the_message_knows() {
    let body = good().to_string();
    let mut request = DecideRequest::parse(body.as_bytes()).unwrap();
    assert_eq!(
        (request.tenant.as_str(), request.policy_id.as_str()),
        ("acme", "chat")
    );
    assert!(
        matches!(request.request_id, Cow::Borrowed("r-1")),
        "nothing is copied that need not be"
    );
    assert_eq!(
        Value::Object(request.take_context("ci")),
        json!({
            "max_cost": 1, "user_id": "ada", "tenant_id": "acme", "environment": "ci", "message_type": "chat",
            "trace_id": "0123456789abcdef0123456789ABCDEF",
        })
    );
    let message = request.message().to_json(&request.tenant);
    assert_eq!(message["payload"], json!({"text": "hello"}));
    let body = with(
        "/metadata",
        json!({"tenant_id": "evil", "trace_id": "own", "policy_id": "x"}),
    )
    .to_string();
    let context = DecideRequest::parse(body.as_bytes()).unwrap().take_context("");
    assert_eq!(
        (&context["tenant_id"], &context["trace_id"]),
        (&json!("acme"), &json!("own"))
    );
}

#[test]
fn the_policy_is_the_requests_the_contexts_or_the_default() {
    let policy = |request: Value| {
        DecideRequest::parse(request.to_string().as_bytes())
            .unwrap()
            .policy_id
            .to_string()
    };
    assert_eq!(policy(without("policy_id")), "default");
    let mut request = without("policy_id");
    request["metadata"]["policy_id"] = "beta".into();
    assert_eq!(policy(request), "beta");
}

#[test]
fn every_mistake_has_the_contracts_name() {
    const FIELDS: &str = "CORRELATION_FIELDS_INVALID";
    let uuid = "3f2b8c1e-4d5a-4b6c-8d7e-9f0a1b2c3d4e";
    let mut three = good();
    for key in ["run_id", "flow_id", "step_id"] {
        three[key] = uuid.into();
    }
    assert!(DecideRequest::parse(three.to_string().as_bytes()).is_ok());
    three["step_id"] = "01ARZ3NDEKTSV4RRFFQ69G5FAV".into();
    assert!(DecideRequest::parse(three.to_string().as_bytes()).is_ok());
    three["step_id"] = "01arz3ndektsv4rrffq69g5fav".into();
    assert_eq!(reason(&three), (FIELDS, "invalid_step_id_format"));
    for (request, expected) in [
        (
            without("version"),
            ("SCHEMA_VALIDATION_FAILED", "missing_version"),
        ),
        (
            with("/version", json!("2")),
            ("VERSION_UNSUPPORTED", "unsupported_version"),
        ),
        (
            with("/version", json!(1)),
            ("VERSION_UNSUPPORTED", "unsupported_version"),
        ),
        (without("tenant_id"), (FIELDS, "missing_tenant_id")),
        (with("/tenant_id", json!("")), (FIELDS, "empty_tenant_id")),
        (
            with("/tenant_id", json!("a/b")),
            (FIELDS, "tenant_invalid_format"),
        ),
        (with("/tenant_id", json!(5)), (FIELDS, "tenant_invalid_format")),
        (
            with("/run_id", json!(uuid)),
            (FIELDS, "flow_id_required_when_run_id_present"),
        ),
        (
            with("/step_id", json!(uuid)),
            (FIELDS, "run_id_required_when_step_id_present"),
        ),
        (
            with("/trace_id", json!("tr-123")),
            (FIELDS, "invalid_trace_id_format"),
        ),
        (
            with("/idempotency_key", json!("")),
            (FIELDS, "empty_idempotency_key"),
        ),
        (
            with("/idempotency_key", json!("x".repeat(257))),
            (FIELDS, "idempotency_key_too_long"),
        ),
        (without("request_id"), (FIELDS, "missing_request_id")),
        (with("/request_id", json!("")), (FIELDS, "empty_request_id")),
        (
            with("/request_id", json!(1)),
            (FIELDS, "invalid_request_id_format"),
        ),
        (without("task"), (FIELDS, "missing_task")),
        (with("/task", json!("x")), (FIELDS, "invalid_task_format")),
        (
            with("/task", json!({"payload_ref": "s3://x"})),
            (FIELDS, "missing_task_type"),
        ),
        (with("/task/type", json!("")), (FIELDS, "empty_task_type")),
        (with("/task/type", json!(1)), (FIELDS, "invalid_task_type")),
        (
            with("/task", json!({"type": "chat"})),
            (FIELDS, "missing_task_payload"),
        ),
        (with("/task/payload", json!({})), (FIELDS, "payload_too_small")),
        (
            with("/task/payload", json!("a long enough text")),
            (FIELDS, "invalid_payload_format"),
        ),
        (
            with("/policy_id", json!("../x")),
            ("SCHEMA_VALIDATION_FAILED", "invalid_policy_id"),
        ),
        (
            with("/metadata", json!([])),
            ("SCHEMA_VALIDATION_FAILED", "invalid_structure"),
        ),
        (json!([]), ("SCHEMA_VALIDATION_FAILED", "invalid_json")),
    ] {
        assert_eq!(reason(&request), expected, "{request}");
    }
    let twice = r#"{"version":"1","tenant_id":"a","tenant_id":"b"}"#;
    assert_eq!(
        DecideRequest::parse(twice.as_bytes()).unwrap_err().reason,
        "invalid_structure"
    );
    let refused = DecideRequest::parse(without("task").to_string().as_bytes()).unwrap_err();
    assert_eq!(refused.request_id.as_deref(), Some("r-1"));
}

#[test]
fn the_older_form_is_taken_as_it_always_was() {
    let request = json!({
        "message": {"message_id": "m-1", "tenant_id": "acme", "trace_id": "trace_1", "message_type": "chat", "payload": "SGk="},
        "policy_id": "chat", "context": {"user_id": "ada"},
    });
    let body = request.to_string();
    let mut parsed = DecideRequest::parse(body.as_bytes()).unwrap();
    assert_eq!(
        (&*parsed.request_id, parsed.trace_id.as_deref()),
        ("m-1", Some("trace_1"))
    );
    let context = parsed.take_context("");
    assert_eq!(
        (&context["user_id"], &context["message_type"]),
        (&json!("ada"), &json!("chat"))
    );
    assert_eq!(parsed.message().to_json(&parsed.tenant)["payload"], "SGk=");
    assert_eq!(
        reason(&json!({"message": {"tenant_id": "a"}})).1,
        "missing_request_id"
    );
}

proptest::proptest! {
    #[test]
    fn no_body_panics(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _parsed = DecideRequest::parse(&body);
    }
}

#[test]
fn what_an_assignment_needs_is_kept() {
    let mut request = good();
    let fields = json!({
        "idempotency_key": "k-1", "push_assignment": 1, "assignment_subject": "caf.assign",
        "options": {"priority": "high"},
    });
    request
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let body = request.to_string().replace("caf.assign", r"caf.\u0061ssign");
    let parsed = DecideRequest::parse(body.as_bytes()).unwrap();
    assert_eq!(parsed.idempotency_key.as_deref(), Some("k-1"));
    assert!(parsed.push_assignment);
    assert_eq!(parsed.assignment_subject.as_deref(), Some("caf.assign"));
    assert_eq!(parsed.options.map(RawValue::get), Some(r#"{"priority":"high"}"#));

    // Fields of another type mean nothing, as before an assignment could be asked for.
    for (push, subject, options) in [
        (json!(true), json!(5), json!([1])),
        (json!("true"), json!(null), json!(7)),
    ] {
        request["push_assignment"] = push;
        request["assignment_subject"] = subject;
        request["options"] = options;
        let body = request.to_string();
        let parsed = DecideRequest::parse(body.as_bytes()).unwrap();
        assert!(parsed.push_assignment && parsed.assignment_subject.is_none() && parsed.options.is_none());
    }
    for push in [
        json!(false),
        json!("yes"),
        json!(0),
        json!(1.5),
        json!({}),
        json!(null),
    ] {
        request["push_assignment"] = push;
        let body = request.to_string();
        assert!(
            !DecideRequest::parse(body.as_bytes()).unwrap().push_assignment,
            "{body}"
        );
    }
}
