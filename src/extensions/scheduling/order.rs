//! Which call of the worker threads computes next.
//!
//! What is shared is time, not places in a queue: a call may take a microsecond or five seconds. Extensions share it
//! equally, and so do the tenants of one extension. Each has an account of the time that its calls computed, retries and
//! calls that timed out included, and whichever will have spent least after its next slice goes next. One that had no call
//! for a while is not paid for that: it has spent at least as much as the one that was last chosen. So it saves up nothing,
//! and still goes next, before those whose calls take a whole slice.
//!
//! A call computes for a [`SLICE`] before the next is chosen. One that is not chosen pauses: its thread waits in the middle of
//! it, nothing that it computed is lost, and its time-out does not go on. So a call waits for about one slice, as long as
//! its tenant spends less than its equal part, whatever the number of tenants whose calls never end. Time beyond what
//! calls of an extension usually take counts for more, [`LONG_COUNTS`] times, so that even a caller that asks all
//! the time hardly notices them.
//!
//! Paused calls hold an instance and its memory. Besides those that compute there are [`PAUSED`] at most, of each tenant one,
//! and none where half of the memory of all calls is used. Where there is no place, the call makes room that has computed
//! for longest and for longer than usual. So up to [`PAUSED`] other tenants never keep a tenant waiting for a place. However
//! many there are, they do not keep one waiting whose last call took no more than a slice: there is one place more that
//! only such calls have, and they give it back at once. Others then wait until a call has taken longer than usual, which is
//! about 50 ms for each place.
//!
//! Two simpler ways were not enough. A queue by turns (as before) is fair only if all calls take equally long. To end long
//! calls and begin them anew needs no places, but a call that rightly computes for long is then never done beside others.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

/// For so long a call computes before another one is looked for. It is noticed at the next tick of the clock.
pub(super) const SLICE: Duration = Duration::from_millis(5);
/// How much time counts that a call computes beyond what is usual.
const LONG_COUNTS: u32 = 8;
/// Calls that may have begun besides those that compute.
pub(super) const PAUSED: usize = 12;
/// And places that only calls have which probably need no more than a slice.
pub(super) const FOR_SHORT: usize = 1;
/// Tenants and extensions without a call that are remembered because they spent more than others.
const MAX_REMEMBERED: usize = 1_024;

/// What a call probably computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extensions) struct Probably {
    /// As long as the last one of its tenant; `None`: there was none.
    pub(in crate::extensions) last: Option<Duration>,
    /// And no longer than this, as any call of its extension.
    pub(in crate::extensions) usual: Duration,
}

/// Whose a call is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::extensions) struct Owner {
    pub(in crate::extensions) extension: usize,
    pub(in crate::extensions) tenant: Box<str>,
}

/// The calls that wait, and those that have begun.
#[derive(Debug)]
pub(super) struct Order<Job> {
    room: Room,
    extensions: HashMap<usize, OfExtension<Job>>,
    /// By number.
    begun: BTreeMap<u64, Begun>,
    /// What the extension had spent that was chosen last.
    spent: Duration,
    waiting: usize,
    running: usize,
    leaving: usize,
    last: u64,
}

/// How many calls may be how far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// May compute.
    pub(super) running: usize,
    /// May compute, of one extension.
    pub(super) share: usize,
    /// May have begun.
    pub(super) begun: usize,
}

/// The account of an extension.
#[derive(Debug)]
struct OfExtension<Job> {
    spent: Duration,
    /// What the tenant had spent that was chosen last.
    chosen: Duration,
    tenants: HashMap<Box<str>, OfTenant<Job>>,
    waiting: usize,
    running: usize,
    begun: usize,
}

/// The account of a tenant with an extension.
#[derive(Debug)]
struct OfTenant<Job> {
    spent: Duration,
    waiting: VecDeque<Waiting<Job>>,
    begun: usize,
}

#[derive(Debug)]
struct Waiting<Job> {
    number: u64,
    probably: Probably,
    job: Job,
}

#[derive(Debug)]
struct Begun {
    owner: Owner,
    now: Now,
    /// What it computed.
    ran: Duration,
    /// What its like usually compute at most.
    usual: Duration,
}

/// What a call that has begun does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Now {
    Runs,
    Pauses,
    /// It ends as soon as its thread notices.
    Leaves,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<Job> {
    /// A call that waited begins.
    Begins(u64, Job),
    /// A call that paused goes on.
    GoesOn(u64),
    /// A call that paused makes room.
    Leaves(u64),
}

/// A call that could be next. Fields in the order in which they decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Choice {
    /// What its tenant will have spent after its slice.
    spent: Duration,
    has_begun: bool,
    number: u64,
    /// It probably needs no more than one.
    is_short: bool,
}

impl<Job> Order<Job> {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            extensions: HashMap::new(),
            begun: BTreeMap::new(),
            spent: Duration::ZERO,
            waiting: 0,
            running: 0,
            leaving: 0,
            last: 0,
        }
    }

    /// How many calls wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many calls of an extension wait.
    pub(super) fn waiting_of(&self, extension: usize) -> usize {
        self.extensions
            .get(&extension)
            .map_or(0, |extension| extension.waiting)
    }

    /// A call waits from now on.
    pub(super) fn push(&mut self, owner: Owner, probably: Probably, job: Job) {
        self.last += 1;
        let number = self.last;
        let extension = self
            .extensions
            .entry(owner.extension)
            .or_insert_with(OfExtension::new);
        let tenant = extension
            .tenants
            .entry(owner.tenant)
            .or_insert_with(OfTenant::new);
        tenant.waiting.push_back(Waiting {
            number,
            probably,
            job,
        });
        extension.waiting += 1;
        self.waiting += 1;
    }

    /// What is next, if there is a thread for it. `may_pause`: whether there is memory for calls that pause.
    pub(super) fn next(&mut self, may_pause: bool) -> Option<Next<Job>> {
        if self.running >= self.room.running {
            return None;
        }
        let (id, choice) = self.choice(true)?;
        let may_have_begun = match (may_pause, choice.is_short) {
            (true, true) => self.room.begun,
            (true, false) => self.room.begun.saturating_sub(FOR_SHORT).max(self.room.running),
            (false, _) => self.room.running,
        };
        if choice.has_begun || self.begun.len() < may_have_begun {
            return self.choose(id, choice);
        }
        if self.leaving > 0 {
            // It begins as soon as there is a place.
            return None;
        }
        if let Some(number) = self.longest() {
            self.leave(number);
            return Some(Next::Leaves(number));
        }
        let (id, choice) = self.choice(false)?;
        self.choose(id, choice)
    }

    /// The extension that has spent least of those that could have a call computed, and the call of it.
    fn choice(&self, may_begin: bool) -> Option<(usize, Choice)> {
        let ready = self.extensions.iter().filter_map(|(id, extension)| {
            let is_ready = extension.running < self.room.share;
            let choice = is_ready.then(|| self.choice_of(*id, extension, may_begin))??;
            Some((extension.spent.max(self.spent), choice.number, *id, choice))
        });
        let (_, _, id, choice) = ready.min()?;
        Some((id, choice))
    }

    fn choice_of(&self, id: usize, extension: &OfExtension<Job>, may_begin: bool) -> Option<Choice> {
        // A tenant with one that has begun keeps no other tenant's call from a place.
        let is_free = self.begun.len() < self.room.running;
        let paused = self
            .begun
            .iter()
            .filter(|(_, begun)| begun.owner.extension == id && begun.now == Now::Pauses);
        let waiting = extension.tenants.iter().filter_map(|(name, tenant)| {
            let first = tenant.waiting.front()?;
            let has_paused = || paused.clone().any(|(_, begun)| begun.owner.tenant == *name);
            let begins = may_begin && (tenant.begun == 0 || (is_free && !has_paused()));
            let slice = first.probably.last.map_or(SLICE, |last| last.min(SLICE));
            begins.then_some(Choice {
                spent: tenant.spent.max(extension.chosen) + slice,
                has_begun: false,
                number: first.number,
                is_short: first.probably.last.is_some_and(|last| last <= SLICE),
            })
        });
        let go_on = paused.clone().filter_map(|(number, begun)| {
            let tenant = extension.tenants.get(&begun.owner.tenant)?;
            Some(Choice {
                spent: tenant.spent.max(extension.chosen) + SLICE,
                has_begun: true,
                number: *number,
                is_short: false,
            })
        });
        waiting.chain(go_on).min()
    }

    fn choose(&mut self, id: usize, choice: Choice) -> Option<Next<Job>> {
        let number = choice.number;
        let extension = self.extensions.get_mut(&id)?;
        self.spent = self.spent.max(extension.spent);
        extension.spent = self.spent;
        let (name, next) = if choice.has_begun {
            let begun = self.begun.get_mut(&number)?;
            begun.now = Now::Runs;
            (begun.owner.tenant.clone(), Next::GoesOn(number))
        } else {
            let mut tenants = extension.tenants.iter_mut();
            let (name, tenant) = tenants.find(|(_, tenant)| {
                let first = tenant.waiting.front();
                first.is_some_and(|first| first.number == number)
            })?;
            let Waiting { probably, job, .. } = tenant.waiting.pop_front()?;
            let name = name.clone();
            tenant.begun += 1;
            extension.waiting -= 1;
            extension.begun += 1;
            self.waiting -= 1;
            let begun = Begun {
                owner: Owner {
                    extension: id,
                    tenant: name.clone(),
                },
                now: Now::Runs,
                ran: Duration::ZERO,
                usual: probably.usual,
            };
            self.begun.insert(number, begun);
            (name, Next::Begins(number, job))
        };
        let tenant = extension.tenants.get_mut(&name)?;
        extension.chosen = extension.chosen.max(tenant.spent);
        tenant.spent = extension.chosen;
        extension.running += 1;
        self.running += 1;
        Some(next)
    }

    /// Of the calls that pause and have taken longer than usual the one that computed for longest.
    fn longest(&self) -> Option<u64> {
        let long = self
            .begun
            .iter()
            .filter(|(_, begun)| begun.now == Now::Pauses && begun.ran > begun.usual);
        long.max_by_key(|(_, begun)| begun.ran).map(|(number, _)| *number)
    }

    /// Has the call of another tenant of the same extension end that computed for longest, if that is longer than usual or
    /// `any` may end. Returns which.
    pub(super) fn end_longest(&mut self, owner: &Owner, any: bool) -> Option<u64> {
        let long = self.of_others(owner).filter(|(_, begun)| {
            let is_long = any || begun.ran > begun.usual;
            is_long && begun.now != Now::Leaves
        });
        let (number, _) = long.max_by_key(|(_, begun)| begun.ran)?;
        let number = *number;
        self.leave(number);
        Some(number)
    }

    /// Whether calls of other tenants of the same extension have begun. Those end before long, or take longer than usual.
    pub(super) fn has_begun_of_others(&self, owner: &Owner) -> bool {
        self.of_others(owner).next().is_some()
    }

    fn of_others(&self, owner: &Owner) -> impl Iterator<Item = (&u64, &Begun)> {
        let (extension, tenant) = (owner.extension, &owner.tenant);
        self.begun
            .iter()
            .filter(move |(_, begun)| begun.owner.extension == extension && begun.owner.tenant != *tenant)
    }

    /// What a call does that has begun.
    pub(super) fn now(&self, number: u64) -> Now {
        self.begun.get(&number).map_or(Now::Leaves, |begun| begun.now)
    }

    /// A call has computed for so long by now.
    pub(super) fn ran(&mut self, number: u64, ran: Duration) {
        let Some(begun) = self.begun.get_mut(&number) else {
            return;
        };
        let more = ran.saturating_sub(begun.ran);
        let long = more.min(ran.saturating_sub(begun.usual));
        begun.ran += more;
        if let Some(extension) = self.extensions.get_mut(&begun.owner.extension) {
            extension.spent += more;
            if let Some(tenant) = extension.tenants.get_mut(&begun.owner.tenant) {
                tenant.spent += more + long * (LONG_COUNTS - 1);
            }
        }
    }

    /// A call stops computing, until it is chosen again.
    pub(super) fn pause(&mut self, number: u64) {
        self.stop(number, Now::Pauses);
    }

    /// A call that has begun is to end.
    pub(super) fn leave(&mut self, number: u64) {
        if self.now(number) != Now::Leaves {
            self.stop(number, Now::Leaves);
            self.leaving += 1;
        }
    }

    fn stop(&mut self, number: u64, now: Now) {
        let Some(begun) = self.begun.get_mut(&number) else {
            return;
        };
        if begun.now == Now::Runs {
            self.running -= 1;
            if let Some(extension) = self.extensions.get_mut(&begun.owner.extension) {
                extension.running -= 1;
            }
        }
        begun.now = now;
    }

    /// A call that had begun is over.
    pub(super) fn done(&mut self, number: u64) {
        let leaves = self.now(number) == Now::Leaves;
        self.stop(number, Now::Leaves);
        let Some(begun) = self.begun.remove(&number) else {
            return;
        };
        self.leaving -= usize::from(leaves);
        let Owner { extension, tenant } = begun.owner;
        if let Some(extension) = self.extensions.get_mut(&extension) {
            extension.begun -= 1;
            if let Some(tenant) = extension.tenants.get_mut(&tenant) {
                tenant.begun -= 1;
            }
        }
        self.forget();
    }

    /// Forgets those that have no call and owe nothing: all of them, where nothing is to be done.
    fn forget(&mut self) {
        if self.begun.is_empty() && self.waiting == 0 {
            self.extensions.clear();
            self.spent = Duration::ZERO;
            return;
        }
        let spent = self.spent;
        self.extensions
            .retain(|_, extension| extension.is_active() || extension.spent > spent);
        let mut remembered = self.extensions.len();
        for extension in self.extensions.values_mut() {
            let chosen = extension.chosen;
            extension
                .tenants
                .retain(|_, tenant| tenant.is_active() || tenant.spent > chosen);
            remembered += extension.tenants.len();
            if remembered > MAX_REMEMBERED {
                extension.tenants.retain(|_, tenant| tenant.is_active());
            }
        }
    }

    /// How many calls of the owner wait or have begun.
    pub(super) fn calls_of(&self, owner: &Owner) -> usize {
        let extension = self.extensions.get(&owner.extension);
        let tenant = extension.and_then(|extension| extension.tenants.get(&owner.tenant));
        tenant.map_or(0, OfTenant::calls)
    }

    /// Takes out the call that came last of the tenant with most calls that wait or have begun, if those are more than one
    /// more than the owner's `own`: only among those of the owner's extension, or among all.
    pub(super) fn push_out(&mut self, owner: &Owner, own: usize, of_its_own: bool) -> Option<Job> {
        let candidates = self
            .extensions
            .iter()
            .filter(|(extension, _)| !of_its_own || **extension == owner.extension);
        let tenants = candidates.flat_map(|(id, extension)| {
            let waiting = extension.tenants.iter().filter(|(_, of)| !of.waiting.is_empty());
            waiting.map(|(name, of)| (of.calls(), of.spent, *id, name))
        });
        let (calls, _, id, name) = tenants.max_by_key(|(calls, spent, ..)| (*calls, *spent))?;
        if calls < own + 2 {
            return None;
        }
        let name = name.clone();
        self.take_out(id, &name)
    }

    /// Takes out a call of another tenant of the same extension.
    pub(super) fn push_out_another(&mut self, owner: &Owner) -> Option<Job> {
        let tenants = &self.extensions.get(&owner.extension)?.tenants;
        let (name, _) = tenants
            .iter()
            .find(|(name, of)| **name != owner.tenant && !of.waiting.is_empty())?;
        let name = name.clone();
        self.take_out(owner.extension, &name)
    }

    /// Takes out the call of the tenant that came last.
    fn take_out(&mut self, extension: usize, tenant: &str) -> Option<Job> {
        let extension = self.extensions.get_mut(&extension)?;
        let Waiting { job, .. } = extension.tenants.get_mut(tenant)?.waiting.pop_back()?;
        extension.waiting -= 1;
        self.waiting -= 1;
        Some(job)
    }
}

impl<Job> OfExtension<Job> {
    fn new() -> Self {
        Self {
            spent: Duration::ZERO,
            chosen: Duration::ZERO,
            tenants: HashMap::new(),
            waiting: 0,
            running: 0,
            begun: 0,
        }
    }

    fn is_active(&self) -> bool {
        self.waiting + self.begun > 0
    }
}

impl<Job> OfTenant<Job> {
    fn new() -> Self {
        Self {
            spent: Duration::ZERO,
            waiting: VecDeque::new(),
            begun: 0,
        }
    }

    fn calls(&self) -> usize {
        self.waiting.len() + self.begun
    }

    fn is_active(&self) -> bool {
        self.calls() > 0
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
