//! Cases about extensions: what they answer, in what order they run, how many there may be.

use beamline_sidecar::{
    decide::{Complexity, PipelineLimits, Script, check_call, check_depth},
    policy::{Pipeline, read_object},
};
use serde_json::{Value, json};

use super::{
    Case, Object,
    decisions::{script, world},
    documents::each,
    shorthand::numbers,
    world::{Told, World},
};

/// What extensions do: `all succeed`, `both fail`, or an answer, a failure, a timeout for each.
pub(super) fn told(case: &mut Case) -> Result<Told, String> {
    let mut told = Told::default();
    match case.take("extensions") {
        None => {}
        Some(Value::String(text)) => match text.as_str() {
            "all succeed" | "both succeed" | "succeed" => told.script.others_succeed = true,
            "all fail" | "both fail" | "fail" => told.all_fail = true,
            "unknown" | "none" | "not registered" => {}
            text => {
                // `pii_guard fails, others succeed`.
                let mut answers = Vec::new();
                for part in text.split([',', ';']) {
                    match part.split_whitespace().collect::<Vec<_>>()[..] {
                        ["others" | "rest", "succeed"] | ["the", "rest", "succeed"] => {}
                        [id, "fails"] => {
                            answers.push((id.to_owned(), Script::Fails("told to fail".to_owned())))
                        }
                        [id, "times", "out"] => answers.push((id.to_owned(), Script::TimesOut(5_000))),
                        [id, "rejects"] => {
                            answers.push((id.to_owned(), Script::Answers(json!({"valid": false}))))
                        }
                        [id, "succeeds"] => answers.push((id.to_owned(), Script::Answers(json!({})))),
                        _ => return Err(format!("the extensions {part:?}")),
                    }
                }
                told.script = script(answers, true);
            }
        },
        Some(Value::Object(each)) => {
            let mut answers = Vec::new();
            for (id, does) in each {
                let does = self::does(&does).map_err(|what| format!("the extension {id}: {what}"))?;
                answers.push((id, does));
            }
            told.script = script(answers, false);
        }
        Some(other) => return Err(format!("given.extensions = {other}")),
    }
    Ok(told)
}

/// What one extension does: a word for it, or its answer.
fn does(answer: &Value) -> Result<Script, String> {
    Ok(match answer {
        Value::String(text) => match text.as_str() {
            "ok" | "succeeds" | "succeed" | "success" => Script::Answers(json!({})),
            "fail" | "fails" | "error" | "failure" => Script::Fails("told to fail".to_owned()),
            "timeout" | "times out" => Script::TimesOut(5_000),
            "not an object" | "not JSON" => Script::Answers(json!(1)),
            _ => return Err(format!("{text:?}")),
        },
        answer => Script::Answers(answer.clone()),
    })
}

/// Lists of extensions without a policy: settings to be tried one by one, or items to be run together.
pub(super) async fn run(case: &mut Case) -> Result<(), String> {
    let lists: Object = ["pre", "validators", "post"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), case.take(key)?)))
        .collect();
    if lists.is_empty() {
        // Only answers: a validator's, each.
        let answers = case.given.get("answers").map_or(1, |answers| each(answers).len());
        return one_by_one(case, "validators", &vec![json!("block"); answers]).await;
    }
    let words = |list: &Value| {
        list.as_array()
            .is_some_and(|list| list.iter().all(Value::is_string))
    };
    if lists.len() == 1
        && let Some((key, list)) = lists.iter().find(|(_, list)| words(list))
    {
        return one_by_one(case, key, &each(list)).await;
    }
    let mut document = json!({"weights": {"a": 1.0}})
        .as_object()
        .cloned()
        .unwrap_or_default();
    document.extend(lists);
    let context = case.take("context").unwrap_or_else(|| json!({}));
    let context = context.as_object().ok_or("given.context")?;
    let mut world = world(case, &document)?;
    let got = world.decide(context).await;
    for key in case.expect.keys() {
        if let Some(value) = got.get(&key) {
            case.expect.check(&key, value);
        } else if let Some(text) = became_of(&world, &got, &key) {
            let wanted = case.expect.take(&key).unwrap_or_default();
            let told: Vec<&str> = wanted
                .as_str()
                .unwrap_or_default()
                .split(',')
                .map(str::trim)
                .collect();
            let goes_on = |word: &str| ["request continues", "continues"].contains(&word);
            let met = !told.is_empty()
                && told
                    .iter()
                    .all(|word| text == *word || goes_on(word) && text.starts_with("listed"));
            if !met {
                case.expect.differ(&key, &wanted, &json!(text));
            }
        }
    }
    Ok(())
}

/// What became of an extension of the policy.
fn became_of(world: &World, got: &Object, id: &str) -> Option<String> {
    let pipeline = world.policy.pipeline.as_deref()?;
    let items = pipeline
        .pre
        .iter()
        .chain(&pipeline.post)
        .map(|processor| &processor.item);
    let mut items = items.chain(pipeline.validators.iter().map(|validator| &validator.item));
    items.find(|item| item.id.as_deref() == Some(id))?;
    if got.get("extension_id").and_then(Value::as_str) == Some(id) {
        return Some(got.get("error")?.as_str()?.to_owned());
    }
    let listed = got
        .get("executed_extensions")?
        .as_array()?
        .iter()
        .find(|entry| entry["id"] == id);
    Some(listed.map_or_else(
        || "not listed".to_owned(),
        |entry| format!("listed {}", entry["status"].as_str().unwrap_or_default()),
    ))
}

/// One extension under each of several settings.
async fn one_by_one(case: &mut Case, list: &str, settings: &[Value]) -> Result<(), String> {
    let setting = if list == "validators" { "on_fail" } else { "mode" };
    let answers = case.take("answers").or_else(|| case.take("answer"));
    let told = told(case)?;
    let mut got = Vec::new();
    for (index, value) in settings.iter().enumerate() {
        let document = json!({"weights": {"a": 1.0}, list: [{"id": "x", setting: value}]});
        let mut world = World::of(document.as_object().ok_or("the policy")?);
        world.extensions.all_fail = told.all_fail;
        world.extensions.script = told.script.clone();
        if let Some(answers) = &answers {
            let answer = answers
                .as_array()
                .and_then(|answers| answers.get(index))
                .unwrap_or(answers);
            world.extensions.script = script([("x".to_owned(), does(answer)?)], false);
        }
        let shown = world.decide(&Object::new()).await;
        got.push(match shown.get("error").and_then(Value::as_str) {
            Some(_) => shown.get("result").cloned().unwrap_or_default(),
            None => json!(format!(
                "ok, {}",
                became_of(&world, &shown, "x").unwrap_or_default()
            )),
        });
    }
    case.expect.check_each("result", &got);
    Ok(())
}

/// `4/4/3`: pre-processors, validators, post-processors.
pub(super) fn counts(case: &mut Case) -> Result<(), String> {
    let counts = case.take("counts").ok_or("given.counts")?;
    let (mut results, mut codes, mut reports) = (Vec::new(), Vec::new(), Vec::new());
    for text in each(&counts) {
        let not_understood = || format!("the counts {text}");
        let parts: Vec<usize> = text
            .as_str()
            .ok_or_else(not_understood)?
            .split('/')
            .map(|part| part.trim().parse().map_err(|_| not_understood()))
            .collect::<Result<_, _>>()?;
        let [pre, validators, post] = parts[..] else {
            return Err(not_understood());
        };
        let items = |count: usize| vec![json!({"id": "x"}); count];
        let document = json!({"pre": items(pre), "validators": items(validators), "post": items(post)});
        let policy = document.as_object().map(|document| read_object(document).0);
        let pipeline: Pipeline = policy
            .and_then(|policy| policy.pipeline)
            .map(|pipeline| *pipeline)
            .unwrap_or_default();
        results.push(match check_depth(&pipeline, PipelineLimits::default()) {
            Ok(()) => json!("ok"),
            Err(refusal) => {
                codes.push(json!(refusal.code().as_str()));
                let details = refusal.details();
                let number = |key: &str| details.get(key).cloned().unwrap_or_default();
                let (count, max) = match details.get("depth") {
                    Some(depth) => (depth.clone(), number("max_depth")),
                    None => (number("count"), number("max_count")),
                };
                json!(format!("{} ({count} > {max})", refusal.error_type()))
            }
        });
        reports.push(Complexity::of(Some(&pipeline)));
    }
    case.expect.check_each("result", &results);
    if let Some(wanted) = case.expect.take("wire_code") {
        for code in &codes {
            case.expect.compare("wire_code", &wanted, code);
        }
    }
    let of = |key: &str| {
        reports
            .iter()
            .map(|report| json!(report)[key].clone())
            .collect::<Vec<_>>()
    };
    for (key, field) in [
        ("score", "complexity_score"),
        ("complexity_score", "complexity_score"),
        ("level", "complexity_level"),
        ("complexity_level", "complexity_level"),
        ("estimated_latency_ms", "estimated_latency_ms"),
        ("total_extensions", "total_extensions"),
    ] {
        case.expect.check_each(key, &of(field));
    }
    Ok(())
}

/// `payload 1048577 bytes`, `timeout_ms 5001`: limits of one call.
pub(super) fn checks(case: &mut Case) -> Result<(), String> {
    let checks = case.take("checks").ok_or("given.checks")?;
    let mut results = Vec::new();
    for check in each(&checks) {
        let text = check.as_str().ok_or("given.checks")?;
        let (what, _) = text
            .split_once(' ')
            .ok_or_else(|| format!("the check {text:?}"))?;
        let number = match numbers(text)[..] {
            [number] => usize::try_from(number).map_err(|_| format!("the check {text:?}"))?,
            _ => return Err(format!("the check {text:?}")),
        };
        let small = u32::try_from(number).map_err(|_| format!("the check {text:?}"));
        let checked = match what {
            "payload" | "request" => check_call(number, 0, 1_000, 0),
            "metadata" => check_call(0, number, 1_000, 0),
            "timeout_ms" | "timeout" => check_call(0, 0, small?, 0),
            "retry" | "retries" => check_call(0, 0, 1_000, small?),
            _ => return Err(format!("the check {text:?}")),
        };
        results.push(json!(checked.map_or_else(|error| error.name(), |()| "ok")));
    }
    case.expect.check_each("result", &results);
    Ok(())
}
