//! Which tenants may call a version of an extension. Input that crashes it blocks it for the tenant that sent it; for all
//! tenants only where the input of several crashes it, and it never worked for the one that calls.

use std::time::Duration;

use hashbrown::HashMap;

use super::{
    breaker::Breaker,
    outcome::{Admitted, Blocked, Change},
    quarantine::Quarantine,
};
use crate::{
    clock::Timestamp,
    extensions::{
        config::ExtensionsConfig,
        scheduling::{Lane, Place},
    },
};

/// Tenants that are remembered for a version.
const MAX_TENANTS: usize = 1_000;
/// How many are forgotten at once where there would be more.
const FORGOTTEN: usize = MAX_TENANTS / 8;
/// So many tenants must take part in the crashes in a row that block a version for all.
const SEVERAL: usize = 3;

/// The standing of each tenant, and what all have in common.
#[derive(Debug)]
pub(super) struct Standings {
    /// Where a tenant begins that is not known yet: from the calls of all.
    usual: Lane,
    tenants: HashMap<String, Standing>,
    /// For tenants for which it never worked.
    common: Quarantine,
    /// The tenants of the crashes in a row, of which the common quarantine depends: some of them, where there are many.
    crashing: Vec<Box<str>>,
}

/// What the calls of one tenant led to.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) lane: Lane,
    pub(super) breaker: Breaker,
    pub(super) quarantine: Quarantine,
    /// A call of this tenant succeeded: the crashes of other tenants do not concern it.
    has_worked: bool,
    last_call: Option<Timestamp>,
    /// What its last call computed that was over; `None`: that is not known.
    last_ran: Option<Duration>,
}

impl Standings {
    /// Of no tenant yet. Calls begin in the fast lane, unless they are to `start_slow`.
    pub(super) fn new(start_slow: bool) -> Self {
        Self {
            usual: Lane::new(start_slow),
            tenants: HashMap::new(),
            common: Quarantine::default(),
            crashing: Vec::new(),
        }
    }

    /// Admits a call of a tenant.
    pub(super) fn admit(
        &mut self,
        config: &ExtensionsConfig,
        now: Timestamp,
        tenant: &str,
    ) -> Result<Admitted, Blocked> {
        let standing = of(&mut self.tenants, &self.usual, tenant, now);
        let probe = standing.quarantine.admit(now)?;
        let trial = standing
            .breaker
            .admit(&config.breaker, now)
            .inspect_err(|_| standing.quarantine.withdraw(probe))?;
        let common_probe = if standing.has_worked {
            false
        } else {
            self.common.admit(now).inspect_err(|_| {
                standing.quarantine.withdraw(probe);
                standing.breaker.withdraw(trial);
            })?
        };
        Ok(Admitted {
            place: standing.lane.place(),
            is_trusted: standing.lane.is_trusted(),
            last_ran: standing.last_ran,
            probe,
            trial,
            common_probe,
        })
    }

    /// A call was not made.
    pub(super) fn withdraw(&mut self, admitted: Admitted, tenant: &str) {
        self.common.withdraw(admitted.common_probe);
        if let Some(standing) = self.tenants.get_mut(tenant) {
            standing.quarantine.withdraw(admitted.probe);
            standing.breaker.withdraw(admitted.trial);
        }
    }

    /// A call succeeded.
    pub(super) fn succeeded(
        &mut self,
        config: &ExtensionsConfig,
        now: Timestamp,
        tenant: &str,
        admitted: Admitted,
    ) -> Option<Change> {
        let Admitted {
            probe,
            trial,
            common_probe,
            ..
        } = admitted;
        self.crashing.clear();
        self.common.succeeded(common_probe);
        let standing = of(&mut self.tenants, &self.usual, tenant, now);
        standing.has_worked = true;
        standing.breaker.count(&config.breaker, now, true);
        standing.quarantine.succeeded(probe);
        let closed = standing.breaker.succeeded(trial);
        closed.or((probe || common_probe).then_some(Change::Released))
    }

    /// A call failed.
    pub(super) fn failed(
        &mut self,
        config: &ExtensionsConfig,
        now: Timestamp,
        tenant: &str,
        admitted: Admitted,
    ) -> Option<Change> {
        self.common.failed(admitted.common_probe);
        let standing = of(&mut self.tenants, &self.usual, tenant, now);
        standing.breaker.count(&config.breaker, now, false);
        standing.quarantine.failed(admitted.probe);
        standing.breaker.failed(&config.breaker, now, admitted.trial)
    }

    /// A call was not made because its input is too large, which counts as a failure.
    pub(super) fn refused(
        &mut self,
        config: &ExtensionsConfig,
        now: Timestamp,
        tenant: &str,
        admitted: Admitted,
    ) -> Option<Change> {
        self.common.withdraw(admitted.common_probe);
        let standing = of(&mut self.tenants, &self.usual, tenant, now);
        standing.quarantine.withdraw(admitted.probe);
        standing.breaker.count(&config.breaker, now, false);
        standing.breaker.failed(&config.breaker, now, admitted.trial)
    }

    /// A call crashed.
    pub(super) fn crashed(
        &mut self,
        config: &ExtensionsConfig,
        now: Timestamp,
        tenant: &str,
        admitted: Admitted,
    ) -> Option<Change> {
        if self.crashing.len() < SEVERAL && !self.crashing.iter().any(|known| **known == *tenant) {
            self.crashing.push(tenant.into());
        }
        let are_several = self.crashing.len() >= SEVERAL;
        let for_all = self
            .common
            .crashed(config, now, admitted.common_probe, are_several);
        let standing = of(&mut self.tenants, &self.usual, tenant, now);
        standing.breaker.count(&config.breaker, now, false);
        let opened = standing.breaker.failed(&config.breaker, now, admitted.trial);
        let for_one = standing.quarantine.crashed(config, now, admitted.probe, true);
        match (for_all, for_one) {
            (Some(pause), _) => Some(Change::QuarantinedForAll { pause }),
            (None, Some(pause)) => Some(Change::Quarantined { pause }),
            (None, None) => opened,
        }
    }

    /// Counts a call by the time that it computed. Returns where the calls of its tenant run from now on, if that is another
    /// place.
    pub(super) fn ran(&mut self, now: Timestamp, tenant: &str, ran: Duration) -> Option<Place> {
        self.usual.count(ran);
        let standing = of(&mut self.tenants, &self.usual, tenant, now);
        // It was not over.
        standing.last_ran = None;
        standing.lane.count(ran)
    }

    /// Counts a call that is over, by the time that it computed, and again where that says something about its lane, and by
    /// whether it ended in time; as above.
    pub(super) fn ended(
        &mut self,
        now: Timestamp,
        tenant: &str,
        (computed, ran): (Duration, Option<Duration>),
        in_time: bool,
    ) -> Option<Place> {
        let standing = of(&mut self.tenants, &self.usual, tenant, now);
        standing.last_ran = Some(computed);
        let lane = &mut standing.lane;
        let before = lane.place();
        if let Some(ran) = ran {
            lane.count(ran);
            self.usual.count(ran);
        }
        lane.count_timeout(!in_time);
        let place = lane.place();
        (place != before).then_some(place)
    }

    /// Where the calls of a tenant run.
    pub(super) fn place(&self, tenant: &str) -> Place {
        self.tenants
            .get(tenant)
            .map_or(&self.usual, |standing| &standing.lane)
            .place()
    }

    /// Where calls run, of the tenant for which they take longest.
    pub(super) fn slowest_place(&self) -> Place {
        let places = self.tenants.values().map(|standing| standing.lane.place());
        places.max().unwrap_or_else(|| self.usual.place())
    }

    /// Ends all quarantines and closes all breakers.
    pub(super) fn release(&mut self) {
        self.common = Quarantine::default();
        self.crashing.clear();
        for standing in self.tenants.values_mut() {
            standing.quarantine = Quarantine::default();
            standing.breaker = Breaker::default();
        }
    }

    /// Each tenant that is remembered.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Standing)> {
        self.tenants
            .iter()
            .map(|(tenant, standing)| (tenant.as_str(), standing))
    }

    /// When it may be called for all tenants again, if it may not.
    pub(super) fn common_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.common.until(now)
    }
}

fn of<'a>(
    tenants: &'a mut HashMap<String, Standing>,
    usual: &Lane,
    tenant: &str,
    now: Timestamp,
) -> &'a mut Standing {
    if tenants.len() >= MAX_TENANTS && !tenants.contains_key(tenant) {
        forget_some(tenants, now);
    }
    let standing = tenants.entry_ref(tenant).or_insert_with(|| Standing::new(usual));
    standing.last_call = Some(now);
    standing
}

/// Makes room: tenants that are not blocked go first, and of these the ones that called longest ago.
fn forget_some(tenants: &mut HashMap<String, Standing>, now: Timestamp) {
    let rank = |standing: &Standing| (standing.is_blocked(now), standing.last_call);
    let mut ranks: Vec<_> = tenants.values().map(rank).collect();
    let (_, last, _) = ranks.select_nth_unstable(FORGOTTEN);
    let last = *last;
    let mut left = FORGOTTEN;
    tenants.retain(|_, standing| {
        let goes = left > 0 && rank(standing) <= last;
        left -= usize::from(goes);
        !goes
    });
}

impl Standing {
    fn new(usual: &Lane) -> Self {
        Self {
            lane: usual.clone(),
            breaker: Breaker::default(),
            quarantine: Quarantine::default(),
            has_worked: false,
            last_call: None,
            last_ran: None,
        }
    }

    /// Whether this tenant may not call it.
    pub(super) fn is_blocked(&self, now: Timestamp) -> bool {
        self.quarantine.until(now).is_some() || self.breaker.is_open()
    }
}
