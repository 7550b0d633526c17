//! What a case expects, compared with what came out.

use serde_json::{Map, Value};

/// Keys that are informative and expect nothing.
const INFORMATIONAL: [&str; 3] = ["source_differs", "note", "notes"];
/// What has to be there whole; of every other object, only the keys that a case names.
const WHOLE: [&str; 6] = [
    "weights",
    "config",
    "when",
    "distribution",
    "metadata_exact",
    "get",
];

/// The expectations not met so far, and the differences found.
pub(super) struct Expect {
    open: Map<String, Value>,
    differences: Vec<String>,
    remarks: Vec<String>,
    compared: usize,
}

impl Expect {
    pub(super) fn new(mut expect: Map<String, Value>) -> Self {
        for key in INFORMATIONAL {
            expect.remove(key);
        }
        Self {
            open: expect,
            differences: Vec::new(),
            remarks: Vec::new(),
            compared: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.open.contains_key(key)
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.open.keys().cloned().collect()
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        let taken = self.open.remove(key);
        self.compared += usize::from(taken.is_some());
        taken
    }

    /// Sets an expectation aside that nothing here can meet or miss, and says why.
    pub(super) fn set_aside(&mut self, key: &str, why: &str) {
        if let Some(value) = self.open.remove(key) {
            self.remarks.push(format!("not compared: {key} = {value}: {why}"));
        }
    }

    pub(super) fn remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    /// Takes one expectation, if it is there, and compares it.
    pub(super) fn check(&mut self, key: &str, got: &Value) {
        if let Some(wanted) = self.take(key) {
            self.compare(key, &wanted, got);
        }
    }

    /// How many results a case lists under a key.
    pub(super) fn length_of(&self, key: &str) -> Option<usize> {
        self.open.get(key)?.as_array().map(Vec::len)
    }

    /// Whether what a case wants under a key is a text, or texts.
    pub(super) fn is_text(&self, key: &str) -> bool {
        match self.open.get(key) {
            Some(Value::Array(list)) => list.iter().all(|one| one.is_string() || one.is_null()),
            wanted => wanted.is_some_and(Value::is_string),
        }
    }

    /// Whether a text is among what a case wants under a key.
    pub(super) fn mentions(&self, key: &str, text: &str) -> bool {
        let wanted = self.open.get(key);
        wanted.is_some_and(|wanted| {
            wanted == text || wanted.as_array().is_some_and(|list| list.contains(&text.into()))
        })
    }

    /// The names under an expectation that is an object.
    pub(super) fn keys_of(&self, key: &str) -> Vec<String> {
        let object = self.open.get(key).and_then(Value::as_object);
        object
            .into_iter()
            .flat_map(|object| object.keys().cloned())
            .collect()
    }

    pub(super) fn is_list_of_lists(&self, key: &str) -> bool {
        let list = self.open.get(key).and_then(Value::as_array);
        list.is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_array))
    }

    pub(super) fn expects(&self, key: &str, value: &Value) -> bool {
        self.open.get(key) == Some(value)
    }

    /// A list in the order of what was given, or one value for all of it.
    pub(super) fn check_each(&mut self, key: &str, got: &[Value]) {
        let Some(wanted) = self.take(key) else { return };
        let single = got.len() == 1;
        match (&wanted, got) {
            (Value::Array(list), _) if list.len() == got.len() => {
                for (index, (wanted, got)) in list.iter().zip(got).enumerate() {
                    self.compare(&format!("{key}[{index}]"), wanted, got);
                }
            }
            (Value::Array(list), [got]) if got.is_array() => {
                self.compare(key, &Value::Array(list.clone()), got);
            }
            (Value::Array(_), _) => {
                self.compare(key, &wanted, &Value::Array(got.to_vec()));
            }
            _ => {
                for (index, got) in got.iter().enumerate() {
                    let name = if single {
                        key.to_owned()
                    } else {
                        format!("{key}[{index}]")
                    };
                    self.compare(&name, &wanted, got);
                }
            }
        }
    }

    pub(super) fn compare(&mut self, key: &str, wanted: &Value, got: &Value) {
        let leaf = key.rsplit(['.', '[']).next().unwrap_or(key);
        if !matches(leaf, wanted, got) {
            self.differ(key, wanted, got);
        }
    }

    pub(super) fn differ(&mut self, key: &str, wanted: &Value, got: &Value) {
        self.differences
            .push(format!("{key}: wanted {wanted}, got {got}"));
    }

    /// Everything that was wrong, or never looked at.
    pub(super) fn finish(&mut self) -> Vec<String> {
        let mut differences = std::mem::take(&mut self.differences);
        for (key, value) in &self.open {
            differences.push(format!("not understood: expect.{key} = {value}"));
        }
        if self.compared == 0 && differences.is_empty() {
            differences.push("nothing was compared".to_owned());
        }
        differences
    }
}

/// Whether what came out is what was wanted. Numbers count by their value, and a text may go on in brackets.
pub(super) fn matches(key: &str, wanted: &Value, got: &Value) -> bool {
    match (wanted, got) {
        (Value::Number(wanted), Value::Number(got)) => {
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-9;
            wanted == got
                || wanted
                    .as_f64()
                    .zip(got.as_f64())
                    .is_some_and(|(a, b)| close(a, b))
        }
        (Value::Object(wanted), Value::Object(got)) => {
            let all = wanted.iter().all(|(key, value)| match (value, got.get(key)) {
                (value, Some(found)) => matches(key, value, found),
                (Value::Null, None) => true,
                _ => false,
            });
            all && (!WHOLE.contains(&key) && !wanted.is_empty() || wanted.len() == got.len())
        }
        (Value::Array(wanted), Value::Array(got)) => {
            wanted.len() == got.len()
                && wanted
                    .iter()
                    .zip(got)
                    .all(|(wanted, got)| matches(key, wanted, got))
        }
        (Value::String(wanted), Value::Null) => {
            ["absent", "undefined", "null", "none"].contains(&wanted.as_str())
        }
        (Value::String(wanted), Value::String(got)) => same_text(wanted, got),
        _ => wanted == got,
    }
}

/// `ok (non-integers ignored)` is `ok`; `validator_blocked` is `validator_blocked: why`.
fn same_text(wanted: &str, got: &str) -> bool {
    let remark = |text: &'_ str| text.split_once(" (").map(|(text, _)| text.to_owned());
    wanted == got
        || (wanted.ends_with(')') && !got.ends_with(')') && remark(wanted).is_some_and(|text| text == got))
        || (!wanted.is_empty()
            && !wanted.contains(' ')
            && got.strip_prefix(wanted).is_some_and(|rest| {
                rest.starts_with(": ") || rest.starts_with(" (") || rest.starts_with(", ")
            }))
}
