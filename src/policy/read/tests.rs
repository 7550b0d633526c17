use serde_json::json;

use super::*;
use crate::policy::{OnFail, Severity, Strategy};

fn parsed(document: Value) -> RoutingPolicy {
    read(document.to_string().as_bytes()).0
}

fn weights(document: &str) -> Vec<(String, f64)> {
    let (policy, _) = read(document.as_bytes());
    policy
        .providers
        .iter()
        .map(|p| (p.id.to_string(), p.weight))
        .collect()
}

fn errors(document: &str) -> Vec<String> {
    let (_, problems) = read(document.as_bytes());
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    errors
        .map(|problem| format!("{} {}", problem.path, problem.message))
        .collect()
}

fn warnings(document: &str) -> Vec<String> {
    let (_, problems) = read(document.as_bytes());
    let warnings = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Warning);
    warnings
        .map(|problem| format!("{} {}", problem.path, problem.message))
        .collect()
}

#[test]
fn weights_of_every_form_become_fractions() {
    for (document, expected) in [
        (
            r#"{"providers":[{"name":"a","weight":70},{"name":"b","weight":30}]}"#,
            vec![("a", 0.7), ("b", 0.3)],
        ),
        (r#"{"providers":[{"name":"a","weight":50.0}]}"#, vec![("a", 0.5)]),
        (r#"{"providers":[{"name":"a","weight":1}]}"#, vec![("a", 0.01)]),
        (r#"{"providers":[{"name":"a","weight":1.0}]}"#, vec![("a", 1.0)]),
        (
            r#"{"providers":[{"name":"a","weight":150},{"name":"b","weight":-10}]}"#,
            vec![("a", 1.5), ("b", -0.1)],
        ),
        (
            r#"{"providers":[{"name":"b","weight":10},{"name":"a","weight":10},{"name":"b","weight":90}]}"#,
            vec![("a", 0.1), ("b", 0.9)],
        ),
        (
            r#"{"providers":["openai:gpt", 1, {"name":"a"}, {"weight":1}, {"name":1,"weight":1}, {"name":"a","weight":"1"}]}"#,
            vec![],
        ),
        (r#"{"providers":[],"weights":{"a":1.0}}"#, vec![]),
        (r#"{"providers":"x","weights":{"a":1.0}}"#, vec![("a", 1.0)]),
        (r#"{"weights":{"a":0.7,"b":0.3}}"#, vec![("a", 0.7), ("b", 0.3)]),
        (r#"{"weights":{"a":70,"b":30}}"#, vec![("a", 0.7), ("b", 0.3)]),
        (r#"{"weights":{"a":1.5,"b":0.5}}"#, vec![("a", 1.5), ("b", 0.5)]),
        (r#"{"weights":{"a":1.0,"b":2.0}}"#, vec![("a", 0.01), ("b", 0.02)]),
        (r#"{"weights":{"a":150,"b":0.3}}"#, vec![("a", 1.5), ("b", 0.003)]),
        (r#"{"weights":"x"}"#, vec![]),
        (r"{}", vec![]),
    ] {
        let expected: Vec<(String, f64)> = expected.into_iter().map(|(n, w)| (n.to_owned(), w)).collect();
        assert_eq!(weights(document), expected, "{document}");
    }
}

#[test]
fn the_older_fallback_is_a_rule_and_the_last_resort() {
    let policy =
        parsed(json!({"weights": {"a": 1.0}, "fallback": {"provider": "c", "conditions": ["timeout"]}}));
    assert_eq!(
        Value::Object(policy.fallbacks[0].to_json()),
        json!({"when": {"status": ["timeout"]}, "retry": 1, "to": "c"})
    );
    assert_eq!(
        policy.last_resort.as_ref().map(ToString::to_string).as_deref(),
        Some("c")
    );
    for fallback in [
        json!("c"),
        json!({"provider": "c"}),
        json!({"provider": "c", "conditions": []}),
    ] {
        let policy = parsed(json!({"weights": {"a": 1.0}, "fallback": fallback}));
        assert_eq!(policy.fallbacks[0].match_text(), "status:all_providers_failed");
    }
    let both = parsed(json!({"fallbacks": "x", "fallback": {"provider": "c"}}));
    assert!(both.fallbacks.is_empty());
    assert_eq!(
        both.last_resort.as_ref().map(ToString::to_string).as_deref(),
        Some("c")
    );
}

#[test]
fn a_rule_keeps_what_it_was_given_and_has_an_id_of_what_it_says() {
    let policy = parsed(json!({"fallbacks": [
        {"when": {"status": ["timeout"]}, "retry": -1, "to": "b", "backoff": {"strategy": "bogus", "base_ms": 7}},
        5,
        {"when": "x", "retry": 50},
    ]}));
    let [first, second, third] = &*policy.fallbacks else {
        panic!("{policy:?}")
    };
    assert_eq!(
        (first.retry, first.backoff.unwrap().strategy),
        (-1, Strategy::Exponential)
    );
    assert_eq!(
        (first.backoff.unwrap().base_ms, first.backoff.unwrap().max_ms),
        (7, 5_000)
    );
    assert_eq!((second.to.as_ref(), third.retry), (None, 50));
    let (index, digest) = first.id.split_once('-').unwrap();
    assert_eq!((index, digest.len()), ("0", 8));
    assert_ne!(first.id.split_once('-'), third.id.split_once('-'));
}

#[test]
fn a_ttl_is_digits_and_a_unit_and_wins_even_when_it_is_none() {
    let ttl = |sticky: Value| parsed(json!({"sticky": sticky})).sticky.unwrap().ttl_seconds;
    for (text, seconds) in [("30s", 30), ("5m", 300), ("2h", 7200), ("0s", 0), ("99m", 5940)] {
        assert_eq!(ttl(json!({"ttl": text, "ttl_seconds": 60})), seconds, "{text}");
    }
    for text in [
        "",
        "10",
        "m",
        "-1s",
        "+1s",
        "1d",
        "10m\n",
        " 1s",
        "99999999999999999999s",
        "9223372036854775807h",
    ] {
        assert_eq!(ttl(json!({"ttl": text, "ttl_seconds": 60})), 3600, "{text:?}");
    }
    assert_eq!(ttl(json!({"ttl": 5, "ttl_seconds": 60})), 3600);
    assert_eq!(ttl(json!({"ttl_seconds": -100})), -100);
    assert_eq!(ttl(json!({})), 3600);
    let sticky = parsed(json!({"sticky": {}})).sticky.unwrap();
    assert_eq!((sticky.enabled, &*sticky.session_key), (false, "session_id"));
}

#[test]
fn settings_out_of_range_are_clamped_when_stored() {
    let policy = parsed(json!({
        "circuit_breaker": {"enabled": true, "failure_threshold": 0, "timeout_ms": 1, "error_rate_threshold": 2.0},
        "rate_limit": {"enabled": true, "requests_per_second": 0, "burst": 5_000_000},
    }));
    let breaker = policy.circuit_breaker.unwrap();
    assert_eq!(
        (
            breaker.failure_threshold,
            breaker.timeout_ms,
            breaker.success_threshold
        ),
        (1, 1_000, 2)
    );
    assert!((breaker.error_rate_threshold - 2.0).abs() < 1e-9 && breaker.latency_threshold_ms.is_none());
    let limit = policy.rate_limit.unwrap();
    assert_eq!((limit.requests_per_second, limit.burst), (1.0, 1_000_000));
    let limit = parsed(json!({"rate_limit": {"enabled": true, "limit": 30, "window_seconds": 60}}))
        .rate_limit
        .unwrap();
    assert_eq!(
        (limit.requests_per_second, limit.burst, limit.per_window()),
        (0.5, 50, 30)
    );
    for off in [
        json!({"burst": 5}),
        json!({"enabled": false}),
        json!({"enabled": "true"}),
        json!(7),
    ] {
        assert!(parsed(json!({"rate_limit": off})).rate_limit.is_none());
    }
    assert!(parsed(json!({"circuit_breaker": "on"})).circuit_breaker.is_none());
}

#[test]
fn both_shapes_of_a_health_check_are_one() {
    let check = |check: Value| parsed(json!({"health_check": check})).health_check.unwrap();
    let older =
        check(json!({"enabled": true, "interval_ms": 2000, "timeout_ms": 200, "failure_threshold": 4}));
    assert_eq!(
        (
            older.interval_ms,
            older.timeout_ms,
            older.unhealthy_threshold,
            older.healthy_threshold
        ),
        (2000, 200, 4, 2)
    );
    let newer = check(json!({"enabled": true, "url": "https://p/health", "unhealthy_threshold": 5}));
    assert_eq!(
        (newer.interval_ms, newer.unhealthy_threshold, newer.url.as_deref()),
        (10_000, 5, Some("https://p/health"))
    );
    for url in ["ftp://x", "file:///etc/passwd", "x", "http://", ""] {
        assert_eq!(check(json!({"enabled": true, "url": url})).url, None, "{url}");
    }
}

#[test]
fn extensions_have_defaults_and_items_without_an_id_stay_as_they_are() {
    let policy = parsed(json!({
        "pre": [{"id": "p"}, {"mode": "required"}, 5], "validators": [{"id": "v"}, {"id": "w", "on_fail": "explode"}],
        "post": [{"id": "q", "mode": "mandatory", "when": 5}],
    }));
    let pipeline = policy.pipeline.unwrap();
    assert_eq!(
        (pipeline.pre[0].mode, pipeline.pre[0].item.id.as_deref()),
        (Mode::Optional, Some("p"))
    );
    assert_eq!(
        (
            pipeline.pre.len(),
            &pipeline.pre[1].item.id,
            &pipeline.pre[2].item.id
        ),
        (3, &None, &None)
    );
    assert_eq!(
        (pipeline.validators[0].on_fail, pipeline.validators[1].on_fail),
        (OnFail::Block, OnFail::Unknown)
    );
    assert_eq!(pipeline.post[0].item.when, Some(Condition::never()));
    assert!(parsed(json!({"pre": "x"})).pipeline.is_none());
}
use crate::policy::{Condition, Mode};

#[test]
fn a_write_names_every_mistake_with_its_path() {
    let document = json!({
        "providers": [{"name": "a", "weight": 150}, {"name": "b c", "weight": 10}],
        "fallbacks": [5, {"when": [], "retry": 11, "to": "", "backoff": {"base_ms": 0, "jitter": 1, "strategy": "x"}}],
        "sticky": {"session_key": "", "ttl": "soon"},
        "circuit_breaker": {"enabled": "yes", "failure_threshold": 101},
        "rate_limit": {"enabled": true, "burst": 0},
        "timeout_ms": 0,
        "pre": [{"id": "p", "timeout_ms": 5001, "retry": 4}],
    });
    assert_eq!(
        errors(&document.to_string()),
        [
            "$.providers[0].weight Weight must be a number between 0.0 and 1.0",
            "$.providers[1].name the provider's name has a character outside A-Z a-z 0-9 _ . : / -",
            "$.fallbacks[0] the rule is not an object",
            "$.fallbacks[1].when when must be an object",
            "$.fallbacks[1].retry retry must be 0 to 10",
            "$.fallbacks[1].to the provider's name is empty",
            "$.fallbacks[1].backoff.strategy there is no such strategy",
            "$.fallbacks[1].backoff.base_ms base_ms must be 1 to 10000",
            "$.fallbacks[1].backoff.jitter jitter must be a boolean",
            "$.sticky.enabled sticky.enabled is required",
            "$.sticky.session_key sticky.session_key must be 1-255 characters",
            "$.sticky.ttl ttl is not a time",
            "$.circuit_breaker.enabled circuit_breaker.enabled must be a boolean",
            "$.circuit_breaker.failure_threshold failure_threshold must be 1 to 100",
            "$.rate_limit.burst burst must be 1 to 1000000",
            "$.pre[0].timeout_ms timeout_ms must be 10 to 5000",
            "$.pre[0].retry retry must be 0 to 3",
            "$.timeout_ms timeout_ms must be 1 to 300000",
        ]
    );
    assert_eq!(errors("{}"), ["$ weights cannot be empty"]);
    assert_eq!(errors("[]").len(), 1);
}

#[test]
fn a_loaded_rule_that_is_no_object_is_passed_over() {
    for rule in ["5", "null", "[]", "\"x\""] {
        let rule: Value = serde_json::from_str(rule).unwrap();
        let policy = parsed(json!({"weights": {"a": 1.0}, "fallbacks": [rule, {"to": "b"}]}));
        let facts = json!({"current_provider": "a", "status": "down"});
        let holds = |index: usize| {
            let facts = crate::policy::Facts::of(facts.as_object().unwrap());
            policy.fallbacks[index].when.holds(facts, Default::default())
        };
        assert_eq!((holds(0), holds(1)), (false, true), "{rule}");
        assert!(policy.fallbacks[1].id.starts_with("1-"), "it keeps its place");
    }
}

#[test]
fn a_loaded_fallback_without_a_provider_is_a_rule_without_a_target() {
    for (fallback, when) in [
        (r#"{"conditions":["timeout","503"]}"#, json!(["timeout", "503"])),
        (
            r#"{"provider":5,"conditions":[]}"#,
            json!(["all_providers_failed"]),
        ),
        ("{}", json!(["all_providers_failed"])),
    ] {
        let fallback: Value = serde_json::from_str(fallback).unwrap();
        let policy = parsed(json!({"weights": {"a": 1.0}, "fallback": fallback}));
        let [rule] = &*policy.fallbacks else {
            panic!("{fallback}")
        };
        assert_eq!((&rule.to, rule.retry, &policy.last_resort), (&None, 1, &None));
        assert_eq!(
            Value::Object(rule.when.to_json()),
            json!({"status": when}),
            "{fallback}"
        );
    }
    for none in ["5", "[]"] {
        let none: Value = serde_json::from_str(none).unwrap();
        let policy = parsed(json!({"weights": {"a": 1.0}, "fallback": none}));
        assert!(policy.fallbacks.is_empty() && policy.last_resort.is_none());
    }
}

#[test]
fn what_is_odd_but_meant_is_a_warning() {
    for (document, expected) in [
        (
            r#"{"providers":[{"name":"a","weight":70}]}"#,
            "$.providers Provider weights do not sum to 100 (the sum is 70.00)",
        ),
        (
            r#"{"providers":[{"name":"a","weight":0}]}"#,
            "$.providers Total weight is 0: no provider is ever drawn",
        ),
        (
            r#"{"providers":[{"name":"a","weight":-20},{"name":"b","weight":10}]}"#,
            "$.providers Total weight is -0.1: no provider is ever drawn",
        ),
        (
            r#"{"weights":{"a":1.0},"fallbacks":[{"when":{"status":["429",503]},"to":"b"}]}"#,
            "$.fallbacks[0].when.status a status is a text, and 503 is none: it never matches one",
        ),
        (
            r#"{"providers":["x"]}"#,
            "$.providers[0] the entry is not an object of a name and a weight",
        ),
        (
            r#"{"providers":[{"name":"GPT-4","weight":100}]}"#,
            "$.providers[0].name the platform's schema knows provider names of a-z 0-9 _ only",
        ),
        (
            r#"{"weights":{"a":1.0},"fallbackz":[]}"#,
            "$.fallbackz there is no such field",
        ),
        (
            r#"{"weights":{"a":1.0},"pre":[{"id":"p","mode":"mandatory"}]}"#,
            "$.pre[0].mode there is no such mode",
        ),
    ] {
        assert_eq!(warnings(document), [expected], "{document}");
    }
    let sample = include_str!("../../../examples/policies/acme/chat.json");
    assert_eq!((errors(sample), warnings(sample)), (vec![], vec![]));
    let many: Vec<Value> = (0..1000).map(|_| json!(5)).collect();
    // No number of warnings hides an error, or the write would be taken.
    let document = json!({"providers": many, "sticky": 5}).to_string();
    assert_eq!(warnings(&document).len(), 100);
    assert_eq!(
        errors(&document),
        [
            "$.providers weights cannot be empty",
            "$.sticky sticky must be an object"
        ]
    );
}

mod round_trip {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{errors, parsed};

    fn name() -> impl Strategy<Value = String> {
        "[a-z][a-z0-9_]{0,8}"
    }

    fn rule() -> impl Strategy<Value = Value> {
        let backoff = (prop_oneof!["exponential", "linear", "fixed"], 1..10_000, 1..60_000, any::<bool>())
            .prop_map(|(strategy, base, max, jitter)| json!({"strategy": strategy, "base_ms": base, "max_ms": max, "jitter": jitter}));
        (proptest::collection::vec("[a-z0-9]{1,5}", 1..3), 0..=10, proptest::option::of(backoff), name()).prop_map(
            |(status, retry, backoff, to)| {
                let mut rule = json!({"when": {"status": status, ">": [{"var": "context.n"}, 5]}, "retry": retry, "to": to});
                if let Some(backoff) = backoff {
                    rule["backoff"] = backoff;
                }
                rule
            },
        )
    }

    fn document() -> impl Strategy<Value = Value> {
        let providers = proptest::collection::btree_map(
            name(),
            (0..=100_u32, proptest::option::of(1..300_000_u32)),
            1..6,
        );
        let sticky = prop_oneof![
            (any::<bool>(), "[0-9]{1,4}[smh]")
                .prop_map(|(on, ttl)| json!({"enabled": on, "ttl": ttl, "session_key": "u"})),
            (any::<bool>(), 1..86_400).prop_map(|(on, ttl)| json!({"enabled": on, "ttl_seconds": ttl})),
        ];
        let rate = prop_oneof![
            (1..1000, 1..1000).prop_map(
                |(rate, burst)| json!({"enabled": true, "requests_per_second": rate, "burst": burst})
            ),
            (1..1000, 2..1000).prop_map(
                |(limit, window)| json!({"enabled": true, "limit": limit, "window_seconds": window})
            ),
        ];
        let some = proptest::option::of::<proptest::strategy::Just<()>>;
        (
            providers,
            proptest::collection::vec(rule(), 0..3),
            proptest::option::of(name()),
            proptest::option::of(sticky),
            proptest::option::of(rate),
            (some(Just(())), some(Just(())), some(Just(())), any::<bool>()),
        )
            .prop_map(|(providers, rules, last, sticky, rate, (breaker, health, pipeline, metadata))| {
                let providers = providers.into_iter().map(|(name, (weight, timeout))| {
                    let mut provider = json!({"name": name, "weight": weight});
                    if let Some(timeout) = timeout {
                        provider["timeout_ms"] = timeout.into();
                    }
                    provider
                });
                let mut document = json!({"version": "1.0", "providers": providers.collect::<Value>(), "fallbacks": rules});
                let mut put = |key: &str, value: Option<Value>| {
                    if let Some(value) = value {
                        document[key] = value;
                    }
                };
                put("fallback", last.map(|provider| json!({"provider": provider})));
                put("sticky", sticky);
                put("rate_limit", rate);
                put("circuit_breaker", breaker.map(|()| json!({"enabled": true, "error_rate_threshold": 0.25})));
                put("health_check", health.map(|()| json!({"enabled": true, "url": "http://h/x", "interval_ms": 1500})));
                put("pre", pipeline.map(|()| json!([{"id": "p", "config": {"a": [1.0, 1]}, "when": {"x": 1}, "retry": 2}])));
                put("validators", pipeline.map(|()| json!([{"id": "v", "on_fail": "warn"}])));
                put("metadata", metadata.then(|| json!({"owner": "x"})));
                document
            })
    }

    proptest! {
        #[test]
        fn a_policy_written_out_reads_the_same(document in document()) {
            prop_assert_eq!(errors(&document.to_string()), Vec::<String>::new());
            let policy = parsed(document);
            let written = Value::Object(policy.to_json());
            prop_assert_eq!(errors(&written.to_string()), Vec::<String>::new(), "{}", written);
            prop_assert_eq!(parsed(written), policy);
        }

        #[test]
        fn any_json_is_read_without_a_panic(text in "(\\{|\\}|\\[|\\]|:|,|\"(providers|weights|fallbacks|sticky|when|pre|id)\"|\"a\"|-?[0-9]{1,3}(\\.5|e300)?|true|null){0,40}") {
            let _read = super::read(text.as_bytes());
        }
    }
}

#[test]
fn what_a_document_repeats_is_read_up_to_a_bound() {
    // Each of these documents is a valid request of less than a megabyte, and took seconds.
    let many =
        |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(",");
    let keys = format!(
        "{{\"weights\":{{\"a\":1}},{}}}",
        many(90_000, &|i| format!("\"stick{i}\":1"))
    );
    let (_, problems) = read(keys.as_bytes());
    let suggested = problems
        .iter()
        .filter(|problem| problem.remedy.starts_with("did you mean"));
    assert_eq!(problems.len(), 100);
    assert!((1..=20).contains(&suggested.count()), "{problems:?}");

    let rules = format!(
        "{{\"weights\":{{\"a\":1}},\"fallbacks\":[{}]}}",
        many(300_000, &|_| "{}".into())
    );
    let (policy, _) = read(rules.as_bytes());
    assert_eq!(policy.fallbacks.len(), 1_000);
    assert_eq!(errors(&rules), ["$.fallbacks 300000 rules are more than 1000"]);

    let listed = format!(
        "{{\"providers\":[{}]}}",
        many(30_000, &|i| format!("{{\"name\":\"p{i}\",\"weight\":1}}"))
    );
    assert_eq!(read(listed.as_bytes()).0.providers.len(), 10_000);
    assert_eq!(
        errors(&listed),
        ["$.providers 30000 providers are more than 10000"]
    );
    let mapped = format!("{{\"weights\":{{{}}}}}", many(30_000, &|i| format!("\"p{i}\":1")));
    assert_eq!(read(mapped.as_bytes()).0.providers.len(), 10_000);
    assert_eq!(errors(&mapped), ["$.weights 30000 providers are more than 10000"]);

    let items = format!(
        "{{\"weights\":{{\"a\":1}},\"pre\":[{}]}}",
        many(300_000, &|_| "{}".into())
    );
    let depth = read(items.as_bytes()).0.pipeline.unwrap().pre.len();
    assert_eq!(depth, 100);
    assert_eq!(
        errors(&items).len(),
        2,
        "the list is too long, and so is the pipeline"
    );
    // What is at the bound is in order.
    let full = format!(
        "{{\"providers\":[{}]}}",
        many(10_000, &|i| format!("{{\"name\":\"p{i}\",\"weight\":0.1}}"))
    );
    assert_eq!(errors(&full), Vec::<String>::new());
}

#[test]
fn a_long_key_is_not_written_once_for_each_problem_below_it() {
    let key = "k".repeat(500_000);
    let twice = "\"a\":1,".repeat(200);
    let document = format!("{{\"metadata\":{{\"{key}\":{{{twice}\"b\":1}}}}}}");
    let problems = check(&document.into());
    assert_eq!(problems.len(), 100);
    let shown: usize = problems.iter().map(|problem| problem.to_string().len()).sum();
    assert!(shown < 100_000, "{shown}");
}
