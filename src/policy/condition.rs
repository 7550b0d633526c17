//! `when`: whether a context satisfies a rule.
//!
//! Equality is type-strict and case-sensitive: the number 503 is not the text "503", and 1 is not 1.0. Several keys are
//! a logical AND. `{}` is always true.

use serde_json::{Map, Value};

use super::exact;

/// A parsed `when`.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition(Box<[Clause]>);

#[derive(Debug, Clone, PartialEq)]
enum Clause {
    /// The value of the key in the context is one of these.
    OneOf { key: Box<str>, values: Box<[Value]> },
    /// The value of the key in the context is this.
    Is { key: Box<str>, value: Value },
    /// `{"<": [operand, operand]}`.
    Compare {
        operator: Operator,
        left: Operand,
        right: Operand,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    In,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    /// `{"var": "context.a.b"}`, as its segments.
    Variable(Box<[Box<str>]>),
    Literal(Value),
}

/// How conditions are read, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConditionRules {
    /// `"5xx"` among the values of `status` stands for every three-digit status of that class.
    pub status_classes: bool,
}

impl Default for ConditionRules {
    fn default() -> Self {
        Self { status_classes: true }
    }
}

/// The input of a condition: a context, one key of which may be replaced.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The context of the request.
    pub context: &'a Map<String, Value>,
    /// Replaces the context's `status` where the decision itself determined one.
    pub status: Option<&'a Value>,
}

impl<'a> Facts<'a> {
    /// The context as it is.
    pub fn of(context: &'a Map<String, Value>) -> Self {
        Self {
            context,
            status: None,
        }
    }

    /// The value of a key, if there is one.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        match self.status {
            Some(status) if key == "status" => Some(status),
            _ => self.context.get(key),
        }
    }
}

impl Condition {
    /// Reads the object under `when`.
    pub fn parse(when: &Map<String, Value>) -> Self {
        Self(
            when.iter()
                .map(|(key, value)| Clause::parse(key, value))
                .collect(),
        )
    }

    /// The meaning of a `when` that is not an object: never.
    pub fn never() -> Self {
        let (key, values) = ("when".into(), Box::default());
        Self(Box::new([Clause::OneOf { key, values }]))
    }

    /// Whether every clause holds.
    pub fn holds(&self, facts: Facts<'_>, rules: ConditionRules) -> bool {
        self.0.iter().all(|clause| clause.holds(facts, rules))
    }

    /// The object from which [`parse`](Self::parse) makes this condition.
    pub fn to_json(&self) -> Map<String, Value> {
        self.0.iter().map(Clause::to_json).collect()
    }
}

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "==" => Self::Equal,
            "!=" => Self::NotEqual,
            ">" => Self::Greater,
            "<" => Self::Less,
            ">=" => Self::GreaterOrEqual,
            "<=" => Self::LessOrEqual,
            "in" => Self::In,
            _ => return None,
        })
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::GreaterOrEqual => ">=",
            Self::LessOrEqual => "<=",
            Self::In => "in",
        }
    }

    fn holds(self, left: &Value, right: &Value) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Greater => compare(left, right) == Some(Greater),
            Self::Less => compare(left, right) == Some(Less),
            Self::GreaterOrEqual => matches!(compare(left, right), Some(Greater | Equal)),
            Self::LessOrEqual => matches!(compare(left, right), Some(Less | Equal)),
            Self::In => right.as_array().is_some_and(|list| list.contains(left)),
        }
    }
}

/// Compares numbers with numbers and texts with texts; any other pair has no order.
fn compare(left: &Value, right: &Value) -> Option<std::cmp::Ordering> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => exact::compare(left, right),
    }
}

impl Operand {
    fn parse(value: &Value) -> Self {
        let variable = value.as_object().filter(|object| object.len() == 1);
        match variable
            .and_then(|object| object.get("var"))
            .and_then(Value::as_str)
        {
            Some(path) => {
                let path = path.strip_prefix("context.").unwrap_or(path);
                Self::Variable(path.split('.').map(Into::into).collect())
            }
            None => Self::Literal(value.clone()),
        }
    }

    fn value<'a>(&'a self, facts: Facts<'a>) -> Option<&'a Value> {
        match self {
            Self::Literal(value) => Some(value),
            Self::Variable(path) => {
                let (first, rest) = path.split_first()?;
                rest.iter()
                    .try_fold(facts.value(first)?, |value, key| value.get(&**key))
            }
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Literal(value) => value.clone(),
            Self::Variable(path) => serde_json::json!({"var": format!("context.{}", path.join("."))}),
        }
    }
}

impl Clause {
    fn parse(key: &str, value: &Value) -> Self {
        match (Operator::parse(key), value) {
            (Some(operator), Value::Array(operands)) if operands.len() == 2 => Self::Compare {
                operator,
                left: Operand::parse(&operands[0]),
                right: Operand::parse(&operands[1]),
            },
            (_, Value::Array(values)) => Self::OneOf {
                key: key.into(),
                values: values.clone().into(),
            },
            (_, value) => Self::Is {
                key: key.into(),
                value: value.clone(),
            },
        }
    }

    fn holds(&self, facts: Facts<'_>, rules: ConditionRules) -> bool {
        match self {
            Self::OneOf { key, values } => facts.value(key).is_some_and(|found| {
                values.contains(found) || values.iter().any(|value| in_class(key, value, found, rules))
            }),
            Self::Is { key, value } => facts
                .value(key)
                .is_some_and(|found| found == value || in_class(key, value, found, rules)),
            Self::Compare {
                operator,
                left,
                right,
            } => match (left.value(facts), right.value(facts)) {
                (Some(left), Some(right)) => operator.holds(left, right),
                _ => false,
            },
        }
    }

    fn to_json(&self) -> (String, Value) {
        match self {
            Self::OneOf { key, values } => (key.to_string(), Value::Array(values.to_vec())),
            Self::Is { key, value } => (key.to_string(), value.clone()),
            Self::Compare {
                operator,
                left,
                right,
            } => (
                operator.as_str().to_owned(),
                Value::Array(vec![left.to_json(), right.to_json()]),
            ),
        }
    }
}

/// Whether the status `found`, such as 503 or "503", belongs to the class that `value` names, such as "5xx".
fn in_class(key: &str, value: &Value, found: &Value, rules: ConditionRules) -> bool {
    if !rules.status_classes || key != "status" {
        return false;
    }
    let Some([class @ b'1'..=b'5', b'x', b'x']) = value.as_str().map(str::as_bytes) else {
        return false;
    };
    match found {
        Value::Number(status) => status
            .as_u64()
            .is_some_and(|n| (100..1000).contains(&n) && n / 100 == u64::from(class - b'0')),
        Value::String(status) => {
            let digits = status.as_bytes();
            digits.len() == 3 && digits.iter().all(u8::is_ascii_digit) && digits[0] == *class
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(when: Value, context: Value) -> bool {
        let condition = Condition::parse(when.as_object().unwrap());
        condition.holds(Facts::of(context.as_object().unwrap()), ConditionRules::default())
    }

    #[test]
    fn equality_is_strict_and_several_keys_are_an_and() {
        let context = json!({"status": "timeout", "n": 1, "f": 1.0, "type": "chat"});
        for (when, expected) in [
            (json!({}), true),
            (json!({"status": ["timeout", "x"]}), true),
            (json!({"status": "timeout"}), true),
            (json!({"status": "Timeout"}), false),
            (json!({"status": []}), false),
            (json!({"n": 1}), true),
            (json!({"n": 1.0}), false),
            (json!({"f": [1.0]}), true),
            (json!({"n": "1"}), false),
            (json!({"missing": [null]}), false),
            (json!({"missing": null}), false),
            (json!({"status": ["timeout"], "type": ["chat"]}), true),
            (json!({"status": ["timeout"], "type": ["text"]}), false),
        ] {
            assert_eq!(holds(when.clone(), context.clone()), expected, "{when}");
        }
    }

    #[test]
    fn a_status_class_stands_for_its_statuses_and_can_be_switched_off() {
        for (status, expected) in [
            (json!(503), true),
            (json!("503"), true),
            (json!("5xx"), true),
            (json!(403), false),
            (json!("50"), false),
            (json!("5033"), false),
            (json!("5a3"), false),
            (json!(503.0), false),
        ] {
            assert_eq!(
                holds(json!({"status": ["5xx"]}), json!({"status": status})),
                expected,
                "{status}"
            );
        }
        assert!(!holds(json!({"code": ["5xx"]}), json!({"code": 503})));
        assert!(!holds(json!({"status": ["6xx"]}), json!({"status": 603})));
        let condition = Condition::parse(json!({"status": "5xx"}).as_object().unwrap());
        let context = json!({"status": 503});
        let literal = ConditionRules {
            status_classes: false,
        };
        assert!(!condition.holds(Facts::of(context.as_object().unwrap()), literal));
    }

    #[test]
    fn operators_compare_like_with_like_and_a_missing_variable_is_false() {
        let context =
            json!({"a": {"b": 10}, "s": "m", "list": ["x"], "existing": 1, "big": 9_007_199_254_740_993_u64});
        let var = |path: &str| json!({"var": path});
        for (when, expected) in [
            (json!({"==": [var("context.a.b"), 10]}), true),
            (json!({"==": [var("a.b"), 10.0]}), false),
            (json!({"!=": [var("a.b"), 10.0]}), true),
            (json!({">": [var("a.b"), 9.5]}), true),
            (json!({"<=": [10, var("a.b")]}), true),
            (json!({"<": [var("s"), "n"]}), true),
            (json!({"<": [1, "a"]}), false),
            (json!({">": [var("big"), 9_007_199_254_740_992_u64]}), true),
            (json!({">": [var("big"), 9_007_199_254_740_992.0]}), true),
            (json!({"in": ["x", var("list")]}), true),
            (json!({"in": ["a", "abc"]}), false),
            (json!({"==": [var("context.missing"), 1]}), false),
            (json!({"!=": [var("context.missing"), 1]}), false),
            (json!({"==": [1]}), false),
        ] {
            assert_eq!(holds(when.clone(), context.clone()), expected, "{when}");
        }
        assert!(
            holds(json!({"==": ["a", "b", "c"]}), json!({"==": "b"})),
            "not two operands: a key of that name"
        );
    }

    #[test]
    fn a_condition_written_out_reads_the_same() {
        for when in [
            json!({"status": ["5xx", 503], "x": null}),
            json!({"in": ["x", {"var": "a.b"}]}),
        ] {
            let condition = Condition::parse(when.as_object().unwrap());
            assert_eq!(Condition::parse(&condition.to_json()), condition);
        }
    }
}
