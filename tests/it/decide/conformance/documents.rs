//! Cases about documents: what they read as, what they are refused for, what their conditions and backoffs mean.

use beamline_sidecar::{
    decide::{Jitter, Seed, backoff_ms, redact},
    policy::{
        Condition, ConditionRules, Facts, PolicyDocument, Problem, Reason, Refusal, RoutingPolicy, Severity,
        check, read_object, refuse_document, refuse_id, refuse_sticky, refuse_value,
    },
};
use serde_json::{Value, json};

use super::{Case, Object, decisions::policy, shorthand};

/// A document as its text: JSON or not, an object or not.
pub(super) fn text(case: &mut Case) -> Result<(), String> {
    for key in ["json", "text"] {
        let Some(text) = case.take(key) else { continue };
        let text = text.as_str().ok_or("the document's text")?;
        let judged = match PolicyDocument::parse(text.to_owned().into()) {
            Ok(_) => "ok",
            Err(problems) if problems.iter().any(Problem::is_not_json) => "invalid_json, invalid_syntax",
            Err(_) => "invalid_json, invalid_structure",
        };
        let wanted = case.expect.take("error").ok_or("expect.error")?;
        let words = wanted.to_string();
        let met = match judged {
            "ok" => wanted.is_null() || wanted == "ok",
            judged => {
                judged.split(", ").last().is_some_and(|kind| words.contains(kind)) || wanted == "invalid_json"
            }
        };
        if !met {
            case.expect.differ("error", &wanted, &json!(judged));
        }
    }
    Ok(())
}

/// What a context looks like where people read along.
pub(super) fn redacted(case: &mut Case) -> Result<(), String> {
    let context = case.take("context").ok_or("given.context")?;
    let context = context.as_object().ok_or("given.context")?;
    for key in REDACTED {
        case.expect.check(key, &Value::Object(redact(context)));
    }
    Ok(())
}

/// What cases may call it.
pub(super) const REDACTED: [&str; 4] = ["filtered", "redacted", "logged", "log_context"];

/// Ids, times to live, sticky objects, records for validation.
pub(super) fn run(case: &mut Case) -> Result<(), String> {
    if let Some(texts) = case.take("ttl") {
        let sticky = |ttl: &Value| sticky_of(&json!({"enabled": true, "ttl": ttl}));
        let seconds: Vec<Value> = each(&texts)
            .iter()
            .map(|ttl| sticky(ttl)["ttl_seconds"].clone())
            .collect();
        case.expect.check_each("ttl_seconds", &seconds);
    }
    if let Some(objects) = case.take("sticky") {
        let read: Vec<Value> = each(&objects).iter().map(sticky_of).collect();
        for key in ["ttl_seconds", "session_key", "enabled", "ttl"] {
            let values: Vec<Value> = read.iter().map(|sticky| sticky[key].clone()).collect();
            case.expect.check_each(key, &values);
        }
    }
    if let Some(records) = case.take("validate") {
        let refusals: Vec<_> = match &records {
            Value::Array(list) if !list.is_empty() => list.iter().map(refuse_value).collect(),
            record => vec![refuse_value(record)],
        };
        check_refusals(case, &refusals);
    }
    if let Some(objects) = case.take("validate_sticky") {
        let refusals: Vec<_> = each(&objects)
            .iter()
            .map(|sticky| refuse_sticky(Some(sticky)))
            .collect();
        check_refusals(case, &refusals);
    }
    if let Some(values) = case.take("validate_fallback") {
        let document = |fallback: &Value| json!({"weights": {"a": 1.0}, "fallback": fallback});
        let refusal = |fallback: &Value| document(fallback).as_object().and_then(refuse_document);
        let refusals: Vec<_> = each(&values).iter().map(refusal).collect();
        check_refusals(case, &refusals);
    }
    for field in ["policy_id", "tenant_id"] {
        let Some(ids) = case.take(field) else { continue };
        let judged: Vec<Value> = each(&ids)
            .iter()
            .map(|id| {
                let id = id
                    .as_str()
                    .map_or_else(|| id.clone(), |text| shorthand::repeated(text).into());
                refuse_id(field, Some(&id))
                    .unwrap_or_else(|| "ok".to_owned())
                    .into()
            })
            .collect();
        case.expect.check_each("result", &judged);
    }
    Ok(())
}

/// A list, or the one value that it would be a list of.
pub(super) fn each(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_else(|| vec![value.clone()])
}

fn sticky_of(sticky: &Value) -> Value {
    let document = json!({"weights": {"a": 1.0}, "sticky": sticky});
    let policy = document.as_object().map(|document| read_object(document).0);
    let Some(sticky) = policy.and_then(|policy| policy.sticky) else {
        return Value::Null;
    };
    json!({
        "enabled": sticky.enabled, "session_key": sticky.session_key, "ttl": sticky.ttl,
        "ttl_seconds": sticky.ttl_seconds,
    })
}

fn check_refusals(case: &mut Case, refusals: &[Option<Refusal>]) {
    let list = |of: &dyn Fn(&Refusal) -> Value, otherwise: Value| -> Vec<Value> {
        refusals
            .iter()
            .map(|refusal| refusal.as_ref().map_or_else(|| otherwise.clone(), of))
            .collect()
    };
    let no_error = if case.expect.mentions("error", "ok") {
        "ok".into()
    } else {
        Value::Null
    };
    case.expect
        .check_each("error", &list(&|_| "invalid_policy".into(), no_error));
    case.expect
        .check_each("context", &list(&|refusal| refusal.context.into(), "ok".into()));
    case.expect.check_each(
        "missing_fields",
        &list(&|refusal| json!(refusal.missing_fields), json!([])),
    );
    let text = case.expect.is_text("reason");
    let reason = |refusal: &Refusal| match &refusal.reason {
        Some(reason) if text => reason.text().into(),
        reason => json!(reason),
    };
    case.expect.check_each("reason", &list(&reason, Value::Null));
    let result = |refusal: &Refusal| {
        let reason = refusal.reason.as_ref();
        reason.map_or(refusal.context, Reason::text).into()
    };
    case.expect.check_each("result", &list(&result, "ok".into()));
}

/// `parsed`, `upsert` and `upsert_error` of a case with a policy.
pub(super) fn parsed(case: &mut Case) -> Result<(), String> {
    let document = policy(case)?;
    let (policy, problems) = read_object(&document);
    if let Some(wanted) = case.expect.take("parsed") {
        let got = shown(&policy);
        for (key, wanted) in wanted.as_object().ok_or("expect.parsed")? {
            case.expect.compare(
                &format!("parsed.{key}"),
                wanted,
                got.get(key).unwrap_or(&Value::Null),
            );
        }
    }
    let text = serde_json::to_vec(&document).map_err(|error| error.to_string())?;
    let refused = check(&text.into())
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    let words = refuse_document(&document);
    if let Some(wanted) = case.expect.take("upsert") {
        let got = match &words {
            Some(refusal) => json!(refusal),
            None if refused => json!(problems),
            None => "ok".into(),
        };
        case.expect.compare("upsert", &wanted, &got);
    }
    if let Some(wanted) = case.expect.take("upsert_error") {
        let told = words.as_ref().filter(|_| refused);
        let said = |text: &str| {
            told.is_some_and(|refusal| {
                refusal.context == text
                    || refusal
                        .reason
                        .as_ref()
                        .is_some_and(|reason| reason.text() == text)
            })
        };
        let met = match &wanted {
            Value::String(text) => said(text),
            Value::Object(object) => {
                let refusal = words.as_ref().filter(|_| refused).map(|refusal| json!(refusal));
                refusal.is_some_and(|refusal| super::expect::matches("upsert_error", &wanted, &refusal))
                    || !object.is_empty() && object.values().all(|value| value.as_str().is_some_and(said))
            }
            _ => false,
        };
        if !met {
            case.expect.differ("upsert_error", &wanted, &json!(words));
        }
    }
    for key in ["warning", "upsert_warning"] {
        let Some(wanted) = case.expect.take(key) else {
            continue;
        };
        let warnings: Vec<_> = problems
            .iter()
            .filter(|problem| problem.severity == Severity::Warning)
            .map(|problem| problem.message.as_str())
            .collect();
        let met = match &wanted {
            Value::Bool(wanted) => *wanted != warnings.is_empty(),
            Value::String(text) => warnings.iter().any(|warning| warning.contains(text)),
            _ => false,
        };
        if !met {
            case.expect.differ(key, &wanted, &json!(warnings));
        }
    }
    // A load takes everything.
    case.expect.check("load", &"ok".into());
    case.given.insert("parsed_policy".into(), Value::Object(document));
    if case.expect.is_empty() {
        case.given.remove("parsed_policy");
    }
    Ok(())
}

fn shown(policy: &RoutingPolicy) -> Object {
    let mut shown = match policy.to_normalised("default_tenant", "default") {
        Value::Object(shown) => shown,
        _ => Object::new(),
    };
    shown.insert("last_resort".into(), json!(policy.last_resort));
    shown.insert("detail_level".into(), json!(policy.detail_level));
    shown
}

/// Conditions on one context, or on several.
pub(super) fn conditions(case: &mut Case) -> Result<(), String> {
    let conditions = case.take("when").ok_or("given.when")?;
    let contexts = case
        .take("contexts")
        .or_else(|| case.take("context"))
        .unwrap_or_else(|| json!({}));
    let status_classes = case.take("status_classes").is_none_or(|classes| classes == true);
    let rules = ConditionRules { status_classes };
    let mut answers = Vec::new();
    for context in each(&contexts) {
        let context = context.as_object().ok_or("given.context")?;
        for condition in each(&conditions) {
            let holds = match &condition {
                Value::Object(when) => Condition::parse(when).holds(Facts::of(context), rules),
                _ => Condition::never().holds(Facts::of(context), rules),
            };
            answers.push(json!(holds));
        }
    }
    for key in ["match", "matches", "result"] {
        case.expect.check_each(key, &answers);
    }
    Ok(())
}

/// How long retries wait.
pub(super) fn backoff(case: &mut Case) -> Result<(), String> {
    let backoffs = case.take("backoff").ok_or("given.backoff")?;
    let attempts = case
        .take("n")
        .or_else(|| case.take("attempt"))
        .unwrap_or_else(|| json!(1));
    let attempts: Vec<u64> = each(&attempts)
        .iter()
        .map(|n| n.as_u64().ok_or_else(|| format!("the attempt {n}")))
        .collect::<Result<_, _>>()?;
    let seeds = case
        .take("runs")
        .map_or(Some(2_000), |runs| runs.as_u64())
        .ok_or("given.runs")?;
    let (mut exact, mut lowest, mut highest) = (Vec::new(), Vec::new(), Vec::new());
    for backoff in each(&backoffs) {
        let backoff = match backoff {
            Value::Null => json!({}),
            Value::String(text) if ["absent", "none", "default", "defaults"].contains(&text.as_str()) => {
                json!({})
            }
            Value::Object(_) => json!({"backoff": backoff}),
            other => return Err(format!("given.backoff = {other}")),
        };
        let document = json!({"fallbacks": [backoff]});
        let policy = document
            .as_object()
            .map(|document| read_object(document).0)
            .ok_or("given.backoff")?;
        let backoff = policy.fallbacks.first().and_then(|rule| rule.backoff);
        let wait = |seed: u64, n: u64| backoff_ms(backoff.as_ref(), n, &mut Jitter::new(Seed(seed)));
        let waits =
            |n: u64| (0..seeds.max(1)).map(move |seed| wait(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), n));
        exact.push(
            attempts
                .iter()
                .map(|n| waits(*n).next().unwrap_or(0))
                .collect::<Value>(),
        );
        lowest.push(
            attempts
                .iter()
                .map(|n| waits(*n).min().unwrap_or(0))
                .collect::<Vec<_>>(),
        );
        highest.push(
            attempts
                .iter()
                .map(|n| waits(*n).max().unwrap_or(0))
                .collect::<Vec<_>>(),
        );
    }
    if case.expect.has("ms") && lowest == highest {
        match case.expect.is_list_of_lists("ms") {
            true => case.expect.check_each("ms", &exact),
            false => case.expect.check("ms", exact.first().unwrap_or(&Value::Null)),
        }
    }
    let flat = |list: &[Vec<u64>]| -> Vec<u64> { list.iter().flatten().copied().collect() };
    let (lowest, highest) = (flat(&lowest), flat(&highest));
    for key in ["ms", "range", "ranges", "ms_range", "ms_ranges", "between"] {
        let Some(wanted) = case.expect.take(key) else {
            continue;
        };
        let mut bounds = Vec::new();
        numbers(&wanted, &mut bounds);
        let met = bounds.len() == 2 * lowest.len()
            && bounds
                .chunks(2)
                .zip(lowest.iter().zip(&highest))
                .all(|(bounds, (low, high))| bounds[0] <= *low as f64 && *high as f64 <= bounds[1]);
        if !met {
            case.expect.differ(key, &wanted, &json!([lowest, highest]));
        }
    }
    for (key, got, within) in [
        ("min", &lowest, f64::le as fn(&f64, &f64) -> bool),
        ("max", &highest, f64::ge),
    ] {
        let names = [key.to_owned(), format!("{key}_ms"), format!("ms_{key}")];
        for name in names {
            let Some(wanted) = case.expect.take(&name) else {
                continue;
            };
            let mut bounds = Vec::new();
            numbers(&wanted, &mut bounds);
            let bound = |index: usize| {
                if bounds.len() == 1 {
                    bounds.first()
                } else {
                    bounds.get(index)
                }
            };
            let met = got
                .iter()
                .enumerate()
                .all(|(index, got)| bound(index).is_some_and(|bound| within(bound, &(*got as f64))));
            if !met {
                case.expect.differ(&name, &wanted, &json!(got));
            }
        }
    }
    Ok(())
}

/// The numbers of a value in order: of lists, of `{"min": …, "max": …}`, of `"100-109"`.
fn numbers(value: &Value, into: &mut Vec<f64>) {
    match value {
        Value::String(text) => into.extend(
            text.split(|letter: char| !letter.is_ascii_digit())
                .filter_map(|part| part.parse::<f64>().ok()),
        ),
        Value::Object(bounds) => {
            for key in ["min", "max"] {
                bounds.get(key).into_iter().for_each(|value| numbers(value, into));
            }
        }
        Value::Array(list) => list.iter().for_each(|value| numbers(value, into)),
        Value::Number(number) => into.extend(number.as_f64()),
        _ => {}
    }
}
