//! `pre`, `validators`, `scorers` and `post`.

use serde_json::{Map, Value};

use super::{fallbacks::check_when, notes::Notes};
use crate::policy::{Condition, Item, Mode, OnFail, Pipeline, Processor, Validator, json_path::At};

/// Longest pipeline, and longest of its lists, that a new document may have.
const MOST: usize = 10;
const MOST_OF_A_KIND: usize = 5;

/// Items of a list that are read at all. A pipeline with more than this is as unusable as one with these.
const MOST_READ: usize = 100;

pub(super) fn pipeline(document: &Map<String, Value>, notes: &mut Notes) -> Option<Box<Pipeline>> {
    let root = At::Root;
    let mut list = |key| {
        let at = At::Key(&root, key);
        let list = notes.array(document.get(key), at, key).unwrap_or_default();
        if list.len() > MOST_OF_A_KIND {
            let message = format!("{} items are more than {MOST_OF_A_KIND}", list.len());
            notes.error(
                at,
                message,
                "a request for a decision would be refused: remove some",
            );
        }
        list.get(..MOST_READ).unwrap_or(list)
    };
    let (pre, validators, scorers, post) = (list("pre"), list("validators"), list("scorers"), list("post"));
    let depth = pre.len() + validators.len() + scorers.len() + post.len();
    if depth == 0 {
        return None;
    }
    if depth > MOST {
        let message = format!("the pipeline has {depth} extensions, more than {MOST}");
        notes.error(
            root,
            message,
            "a request for a decision would be refused: remove some",
        );
    }
    let pre = pre
        .iter()
        .enumerate()
        .map(|(index, entry)| processor("pre", index, entry, notes))
        .collect();
    let validators = validators
        .iter()
        .enumerate()
        .map(|(index, entry)| validator(index, entry, notes))
        .collect();
    let scorers = scorers
        .iter()
        .enumerate()
        .map(|(index, entry)| processor("scorers", index, entry, notes))
        .collect();
    let post = post
        .iter()
        .enumerate()
        .map(|(index, entry)| processor("post", index, entry, notes))
        .collect();
    Some(Box::new(Pipeline {
        pre,
        validators,
        scorers,
        post,
    }))
}

fn processor(list: &str, index: usize, entry: &Value, notes: &mut Notes) -> Processor {
    let at_list = At::Key(&At::Root, list);
    let at = At::Index(&at_list, index);
    let item = item(entry, at, "mode", notes);
    let mode = match entry.get("mode").map(Value::as_str) {
        Some(Some("required")) => Mode::Required,
        None | Some(Some("optional")) => Mode::Optional,
        Some(_) => {
            let remedy = "use \"required\" or \"optional\": it counts as optional";
            notes.warn(At::Key(&at, "mode"), "there is no such mode", remedy);
            Mode::Optional
        }
    };
    Processor { item, mode }
}

fn validator(index: usize, entry: &Value, notes: &mut Notes) -> Validator {
    let at_list = At::Key(&At::Root, "validators");
    let at = At::Index(&at_list, index);
    let item = item(entry, at, "on_fail", notes);
    let on_fail = match entry.get("on_fail").map(Value::as_str) {
        None | Some(Some("block")) => OnFail::Block,
        Some(Some("warn")) => OnFail::Warn,
        Some(Some("ignore")) => OnFail::Ignore,
        Some(_) => {
            let remedy = "use \"block\", \"warn\" or \"ignore\": it counts as block";
            notes.warn(At::Key(&at, "on_fail"), "there is no such on_fail", remedy);
            OnFail::Unknown
        }
    };
    Validator { item, on_fail }
}

fn item(entry: &Value, at: At<'_>, policy: &str, notes: &mut Notes) -> Item {
    let empty = Map::new();
    let object = entry.as_object().unwrap_or_else(|| {
        notes.error(
            at,
            "the item is not an object",
            "write {\"id\": …}: it is never run, and counts",
        );
        &empty
    });
    notes.unknown_keys(
        object,
        &at,
        &["id", policy, "config", "when", "timeout_ms", "retry"],
    );
    let at_id = At::Key(&at, "id");
    let id = match object.get("id") {
        Some(Value::String(id)) if (1..=255).contains(&id.len()) => Some(id.as_str().into()),
        Some(_) => {
            notes.error(
                at_id,
                "id must be a string of 1-255 characters",
                "name an extension",
            );
            None
        }
        None if entry.is_object() => {
            notes.warn(
                at,
                "the item has no id: it is never run, and counts",
                "name an extension",
            );
            None
        }
        None => None,
    };
    let at_when = At::Key(&at, "when");
    let when = match object.get("when") {
        None => None,
        Some(Value::Object(when)) => {
            check_when(when, at_when, notes);
            Some(Condition::parse(when))
        }
        Some(_) => {
            let remedy = "write {\"status\": [\"timeout\"]}: as it stands the item is never run";
            notes.error(at_when, "when must be an object", remedy);
            Some(Condition::never())
        }
    };
    let config = notes
        .object(object.get("config"), At::Key(&at, "config"), "config")
        .cloned()
        .unwrap_or_default();
    Item {
        id,
        when,
        config,
        timeout_ms: notes.whole_u32(object, &at, "timeout_ms", 10..=5_000),
        retry: notes.whole_u32(object, &at, "retry", 0..=3),
    }
}
