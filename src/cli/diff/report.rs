//! A comparison as text and as JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::compare::{Compared, Decided};
use crate::{
    cli::{
        output::{counted, print},
        policy_files::Paint,
    },
    decide::Context,
    policy::exact,
};

/// The most changed requests that are shown.
const EXAMPLES: usize = 5;

impl Compared {
    pub(super) fn to_json(&self) -> Value {
        let examples = self.examples().into_iter().map(|(context, before, after)| {
            json!({
                "context": context,
                "old": {"outcomes": before.counts, "steps": before.steps},
                "new": {"outcomes": after.counts, "steps": after.steps},
            })
        });
        let fields = self
            .fields
            .iter()
            .map(|change| json!({"path": change.path, "old": change.old, "new": change.new}));
        json!({
            "requests": self.requests,
            "changed_requests": self.changed.len(),
            "moved_share": self.moved as f64 / self.decisions().max(1) as f64,
            "least_moved_share": self.least_moved as f64 / self.decisions().max(1) as f64,
            "old": self.old,
            "new": self.new,
            "policy_changes": fields.collect::<Value>(),
            "examples": examples.collect::<Value>(),
        })
    }

    pub(super) fn show(&self) {
        self.show_fields();
        if self.changed.is_empty() {
            print(&format!(
                "No decision changes, of {} with {} each.",
                counted(self.requests, "request", "requests"),
                counted(usize::try_from(self.seeds).unwrap_or(usize::MAX), "seed", "seeds")
            ));
            return;
        }
        print(&format!(
            "Decisions change for {} of {}. With the same seeds {:.1} % of all decisions move; {:.1} % must at least.\n",
            self.changed.len(),
            counted(self.requests, "request", "requests"),
            self.percent(self.moved),
            self.percent(self.least_moved)
        ));
        self.show_providers();
        let examples = self.examples();
        for (context, before, after) in &examples {
            let mut context = (*context).clone();
            context.remove("tenant_id");
            let context = exact::written(Value::Object(context).to_string());
            print(&format!("\nRequest {context}"));
            self.show_decided("old", before);
            self.show_decided("new", after);
        }
        let more = self.changed.len() - examples.len();
        if more > 0 {
            print(&format!("\n… and {} more.", counted(more, "request", "requests")));
        }
    }

    /// Some of the changed requests, each with a different change.
    fn examples(&self) -> Vec<&(Context, Decided, Decided)> {
        let mut seen = BTreeSet::new();
        let mut examples = Vec::new();
        for example in &self.changed {
            let (_, before, after) = example;
            if examples.len() < EXAMPLES && seen.insert((&before.counts, &after.counts)) {
                examples.push(example);
            }
        }
        examples
    }

    fn percent(&self, count: u64) -> f64 {
        100.0 * count as f64 / self.decisions().max(1) as f64
    }

    fn show_fields(&self) {
        let paint = Paint::of_stdout();
        for change in &self.fields {
            print(&change.path);
            for (sign, color, value) in [("-", "31", &change.old), ("+", "32", &change.new)] {
                if let Some(value) = value {
                    let value = exact::written(value.to_string());
                    print(&paint.color(color, &format!("  {sign} {value}")));
                }
            }
        }
        if !self.fields.is_empty() {
            print("");
        }
    }

    fn show_providers(&self) {
        let names: BTreeSet<&String> = self.old.keys().chain(self.new.keys()).collect();
        let width = names.iter().map(|name| name.chars().count()).max();
        let width = width.unwrap_or(0).max("provider".len());
        print(&format!("{:width$}      old      new   change", "provider"));
        for name in names {
            let share = |total: &BTreeMap<String, u64>| self.percent(total.get(name).copied().unwrap_or(0));
            let (before, after) = (share(&self.old), share(&self.new));
            print(&format!(
                "{name:width$}  {before:5.1} %  {after:5.1} %  {:+6.1} %",
                after - before
            ));
        }
    }

    fn show_decided(&self, name: &str, decided: &Decided) {
        let share = |count: u64| 100.0 * count as f64 / self.seeds.max(1) as f64;
        let outcomes: Vec<String> = decided
            .counts
            .iter()
            .map(|(outcome, count)| format!("{outcome} {:.0} %", share(*count)))
            .collect();
        print(&format!("  {name}: {}", outcomes.join(", ")));
        for step in &decided.steps {
            print(&format!("       {step}"));
        }
    }
}
