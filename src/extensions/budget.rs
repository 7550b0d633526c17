//! What compiling may cost: one record, and all of them together.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// What the modules of one record may take, as a multiple of what one may.
const RECORD: u32 = 4;
/// What all modules together may take before compiling is slowed down, as a multiple of what one may.
const ALL: u32 = 20;
/// Then, compiling takes this part of the time of one processor.
const SHARE: u32 = 10;

/// The time that compilers took, all of them and by record.
#[derive(Debug)]
pub(super) struct Budget {
    one: Duration,
    spent: HashMap<Box<str>, Duration>,
    left: Duration,
    at: Instant,
}

impl Budget {
    /// A budget where one module may take so long.
    pub(super) fn new(one: Duration, now: Instant) -> Self {
        Self {
            one,
            spent: HashMap::new(),
            left: one * ALL,
            at: now,
        }
    }

    /// Compiling a module of these records took so long. `was_too_costly`: and in vain. The records cannot be used without it,
    /// so their other modules are not compiled at all.
    pub(super) fn spend<'a>(
        &mut self,
        records: impl Iterator<Item = &'a str>,
        took: Duration,
        was_too_costly: bool,
        now: Instant,
    ) {
        self.refill(now);
        self.left = self.left.saturating_sub(took);
        let of_record = self.of_record();
        for record in records {
            let spent = self.spent.entry(record.into()).or_default();
            *spent += took;
            if was_too_costly {
                *spent = (*spent).max(of_record);
            }
        }
    }

    /// Whether more may be compiled for one of these records.
    pub(super) fn allows<'a>(&self, mut records: impl Iterator<Item = &'a str>) -> bool {
        records.any(|record| {
            self.spent
                .get(record)
                .is_none_or(|spent| *spent < self.of_record())
        })
    }

    /// What the modules of one record may take.
    pub(super) fn of_record(&self) -> Duration {
        self.one * RECORD
    }

    /// When more may be compiled, if not now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Instant> {
        self.refill(now);
        self.left
            .is_zero()
            .then(|| now + Duration::from_secs(1).min(self.one) * SHARE)
    }

    /// Begins anew: an operator asked for it.
    pub(super) fn begin(&mut self) {
        self.spent.clear();
        self.left = self.one * ALL;
    }

    /// Forgets what one record took.
    pub(super) fn forget(&mut self, record: &str) {
        self.spent.remove(record);
    }

    /// Forgets records that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.spent.retain(|record, _| is_there(record));
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        self.left = (self.left + passed / SHARE).min(self.one * ALL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_may_spend_so_much_and_nothing_once_a_module_of_it_was_too_costly() {
        let (now, one) = (Instant::now(), Duration::from_secs(10));
        let mut budget = Budget::new(one, now);
        let allows = |budget: &Budget, record| budget.allows([record].into_iter());
        for _ in 0..3 {
            budget.spend(["a"].into_iter(), one, false, now);
            assert!(allows(&budget, "a"));
        }
        budget.spend(["a"].into_iter(), one, false, now);
        budget.spend(["b"].into_iter(), one, true, now);
        assert!(!allows(&budget, "a") && !allows(&budget, "b") && allows(&budget, "c"));
        assert!(
            budget.allows(["a", "c"].into_iter()),
            "another record needs the module"
        );
        budget.begin();
        assert!(allows(&budget, "a") && allows(&budget, "b"));
    }

    #[test]
    fn past_the_budget_of_all_records_compiling_takes_a_share_of_the_time() {
        let (mut now, one) = (Instant::now(), Duration::from_secs(10));
        let mut budget = Budget::new(one, now);
        let record = |number: u32| number.to_string();
        for number in 0..ALL {
            assert_eq!(budget.next(now), None);
            budget.spend([record(number).as_str()].into_iter(), one, true, now);
        }
        let next = budget.next(now).unwrap();
        assert!(next > now);
        now += Duration::from_secs(100);
        assert_eq!(budget.next(now), None);
        budget.spend(["x"].into_iter(), one, true, now);
        assert!(budget.next(now).is_some());
    }
}
