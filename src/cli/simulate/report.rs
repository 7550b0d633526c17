//! The result of a simulation: a table, bars, and a timeline of breakers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::args::SimulateArgs;
use crate::{
    cli::{
        output::{counted, print},
        policy_files::Paint,
    },
    decide::memory::State,
    policy::ProviderId,
};

/// Columns of the bars and of the timelines.
const COLUMNS: usize = 40;

/// The requests that a provider got.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Share {
    pub(super) weighted: u64,
    pub(super) sticky: u64,
    pub(super) retries: u64,
    pub(super) fallbacks: u64,
    pub(super) failures: u64,
    pub(super) served: u64,
}

/// A breaker's change, for the timeline.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    /// Milliseconds since the run began.
    pub(super) at_ms: u64,
    pub(super) provider: ProviderId,
    pub(super) to: State,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Report {
    pub(super) shares: BTreeMap<String, Share>,
    pub(super) refused: BTreeMap<&'static str, u64>,
    pub(super) unserved: u64,
    pub(super) retries: u64,
    pub(super) waited_ms: u64,
    pub(super) moved_sessions: u64,
    /// In order of time.
    pub(super) changes: Vec<Change>,
}

impl Report {
    pub(super) fn to_json(&self, args: &SimulateArgs) -> Value {
        let shares = self.shares.iter().map(|(provider, share)| {
            let Share {
                weighted,
                sticky,
                retries,
                fallbacks,
                failures,
                served,
            } = share;
            json!({
                "provider_id": provider, "weighted": weighted, "sticky": sticky, "retries": retries,
                "fallbacks": fallbacks, "failures": failures, "served": served,
            })
        });
        let changes = self
            .changes
            .iter()
            .map(|change| json!({"at_ms": change.at_ms, "provider_id": change.provider, "to": change.to}));
        json!({
            "requests": args.requests,
            "seed": args.seed.to_string(),
            "providers": shares.collect::<Value>(),
            "refused": self.refused,
            "unserved": self.unserved,
            "waited_ms": self.waited_ms,
            "moved_sessions": self.moved_sessions,
            "breaker_changes": changes.collect::<Value>(),
        })
    }

    pub(super) fn show(&self, args: &SimulateArgs) {
        let seconds = f64::from(args.requests) / f64::from(args.rps);
        let paint = Paint::of_stdout();
        let width = self
            .shares
            .keys()
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0)
            .max("provider".len());
        print(&format!(
            "{} at {} per second: {seconds:.0} s. Seed {}.\n",
            counted(args.requests as usize, "request", "requests"),
            args.rps,
            args.seed
        ));
        print(&format!(
            "{:width$}  {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "provider", "weighted", "sticky", "retries", "fallbacks", "failures", "served"
        ));
        for (provider, share) in &self.shares {
            let Share {
                weighted,
                sticky,
                retries,
                fallbacks,
                failures,
                served,
            } = share;
            print(&format!(
                "{provider:width$}  {weighted:>9} {sticky:>9} {retries:>9} {fallbacks:>9} {failures:>9} {served:>9}"
            ));
        }
        print("\nServed by");
        let total = f64::from(args.requests);
        let bar = |count: u64| {
            let share = count as f64 / total;
            let filled = (share * COLUMNS as f64).round() as usize;
            format!(
                "{}{} {:5.1} %",
                "█".repeat(filled),
                " ".repeat(COLUMNS - filled.min(COLUMNS)),
                share * 100.0
            )
        };
        for (provider, share) in &self.shares {
            print(&format!(
                "{provider:width$}  {}",
                paint.color("36", &bar(share.served))
            ));
        }
        let refused: u64 = self.refused.values().sum();
        print(&format!(
            "{:width$}  {}",
            "unserved",
            paint.color("31", &bar(refused + self.unserved))
        ));
        for (error, count) in &self.refused {
            print(&format!(
                "\n{} refused: {error}",
                counted(*count as usize, "request", "requests")
            ));
        }
        if self.waited_ms > 0 {
            print(&format!(
                "\nBackoff, all together: {:.1} s",
                self.waited_ms as f64 / 1e3
            ));
        }
        if args.sessions > 0 {
            print(&format!(
                "\nTimes that a session changed its provider: {}",
                self.moved_sessions
            ));
        }
        self.show_breakers(seconds, width, paint);
    }

    /// A line for each provider whose breaker changed: `·` closed, `█` open, `▒` half open.
    fn show_breakers(&self, seconds: f64, width: usize, paint: Paint) {
        let mut names: Vec<&str> = self
            .changes
            .iter()
            .map(|change| change.provider.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return;
        }
        print(&format!(
            "\nBreakers over {seconds:.0} s (· closed, █ open, ▒ half open)"
        ));
        for name in names {
            let of_this = || {
                self.changes
                    .iter()
                    .filter(|change| change.provider.as_str() == name)
            };
            let line = timeline(of_this(), seconds);
            let opened = of_this().filter(|change| change.to == State::Open).count();
            let last = of_this().next_back().map_or("", |change| change.to.as_str());
            print(&format!(
                "{name:width$}  {}  opened {}, now {last}",
                counted(opened, "time", "times"),
                paint.color("31", &line)
            ));
        }
    }
}

/// A column for each part of the run, with the breaker's worst state in it, so that a short opening stays visible.
fn timeline<'c>(changes: impl Iterator<Item = &'c Change>, seconds: f64) -> String {
    let worst = |state| match state {
        State::Closed => 0,
        State::HalfOpen => 1,
        State::Open => 2,
    };
    let mut columns = [State::Closed; COLUMNS];
    for change in changes {
        let column = (change.at_ms as f64 / 1e3 / seconds * COLUMNS as f64) as usize;
        for (index, cell) in columns.iter_mut().enumerate().skip(column) {
            if index > column || worst(change.to) > worst(*cell) {
                *cell = change.to;
            }
        }
    }
    let mark = |state| match state {
        State::Closed => '·',
        State::Open => '█',
        State::HalfOpen => '▒',
    };
    columns.into_iter().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_opening_is_seen() {
        let change = |at_ms, to| Change {
            at_ms,
            provider: ProviderId::new("a"),
            to,
        };
        let changes = [
            change(100, State::Open),
            change(200, State::HalfOpen),
            change(300, State::Closed),
            change(10_000, State::Open),
            change(12_500, State::HalfOpen),
            change(39_000, State::Closed),
            change(41_000, State::Open),
        ];
        let line = timeline(changes.iter(), 40.0);
        assert_eq!(line, format!("█{}███{}▒", "·".repeat(9), "▒".repeat(26)));
    }
}
