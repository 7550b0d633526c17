//! Sticky sessions: which provider a session of a tenant was given.
//!
//! Laid out for a million of them: an entry names its tenant and its provider by number and its neighbours in its
//! tenant's order of use by index, and a value that is longer than a digest is kept as one.

use std::{
    borrow::{Borrow, Cow},
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crossbeam_utils::CachePadded;
use hashbrown::{HashMap, HashTable};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::table::{lock, parts};
use crate::{
    clock::Timestamp,
    policy::{ProviderId, TenantId, exact},
};

/// Longest value in bytes that is kept as it is; a longer one is known by its SHA-256.
const LONGEST_VALUE: usize = 128;
/// Slots of a part below which unused ones are no waste.
const WORTH_GIVING_BACK: usize = 256;
/// No entry.
const NONE: u32 = u32::MAX;

/// A session's name: the tenant, and the context's value under the policy's `session_key`. Neither the policy nor the
/// key's name is part of it; values that are no texts count by their JSON, and are never equal to a text.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    /// The tenant whose session it is.
    pub tenant: &'a TenantId,
    /// The context's value under the policy's `session_key`.
    pub value: &'a Value,
}

/// A session as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct SessionView {
    /// The text, or the JSON of a value that is none, or `sha256:` and the digest of a long one.
    pub value: String,
    /// The provider that the session is kept with.
    pub provider: ProviderId,
    /// Unix seconds.
    pub last_set: u64,
    /// Unix seconds, under the time it was stored with.
    pub expires_at: u64,
}

/// A session as it is kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The tenant whose session it is.
    pub tenant: TenantId,
    /// The value's kind and text.
    pub key: Box<str>,
    /// The provider that the session is kept with.
    pub provider: ProviderId,
    /// Unix seconds.
    pub last_set: u32,
    /// Seconds that the session lives after `last_set`.
    pub ttl_seconds: u32,
}

/// A value's kind — a text, JSON, or a digest of either — and its text. Values of different kinds are never equal.
#[derive(Debug, Hash)]
struct Name<'a> {
    tenant: &'a str,
    kind: u8,
    text: Cow<'a, str>,
}

impl<'a> Name<'a> {
    fn new(session: Session<'a>) -> Self {
        let (text, plain, digested) = match session.value {
            Value::String(text) => (Cow::Borrowed(text.as_str()), b's', b'S'),
            other => match exact::integer(other) {
                Some(integer) => (Cow::Borrowed(integer), b'j', b'J'),
                None => (Cow::Owned(exact::written(other.to_string())), b'j', b'J'),
            },
        };
        let long = text.len() > LONGEST_VALUE;
        Self {
            tenant: session.tenant.as_str(),
            kind: if long { digested } else { plain },
            text: if long { Cow::Owned(digest(&text)) } else { text },
        }
    }

    /// The name of what is stored under a key.
    fn of(tenant: &'a str, key: &'a str) -> Self {
        let (kind, text) = key.split_at_checked(1).unwrap_or(("s", key));
        Self {
            tenant,
            kind: kind.as_bytes()[0],
            text: Cow::Borrowed(text),
        }
    }

    /// What is stored: kind and text in one.
    fn key(&self) -> Box<str> {
        let mut key = String::with_capacity(1 + self.text.len());
        key.push(char::from(self.kind));
        key.push_str(&self.text);
        key.into_boxed_str()
    }
}

fn digest(text: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes())))
}

/// Names that many entries share, by number, for as long as one of them does.
#[derive(Debug)]
struct Names<T> {
    slots: Vec<(Option<T>, u32)>,
    free: Vec<u32>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            numbers: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash + Borrow<str>> Names<T> {
    fn acquire(&mut self, name: &T) -> u32 {
        if let Some(&number) = self.numbers.get(name.borrow()) {
            self.slots[number as usize].1 += 1;
            return number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push((None, 0));
            (self.slots.len() - 1) as u32
        });
        self.slots[number as usize] = (Some(name.clone()), 1);
        self.numbers.insert(name.clone(), number);
        number
    }

    fn release(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.1 -= 1;
        if slot.1 == 0 {
            if let Some(name) = slot.0.take() {
                self.numbers.remove(name.borrow());
            }
            self.free.push(number);
        }
    }

    fn name(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize)?.0.as_ref()
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }
}

#[derive(Debug)]
struct Entry {
    key: Box<str>,
    tenant: u32,
    provider: u32,
    /// Unix seconds.
    last_set: u32,
    ttl_seconds: u32,
    /// Neighbours in the tenant's order of use. Of an entry that is not used, `older` is the next such one.
    newer: u32,
    older: u32,
}

impl Entry {
    /// A time that goes back must not prolong a session by as much.
    fn heed_time(&mut self, now: Timestamp) {
        let now = u32::try_from(seconds(now)).unwrap_or(u32::MAX);
        if self.last_set > now {
            self.last_set = now;
        }
    }

    fn expires_at(&self, ttl_seconds: u32) -> u64 {
        u64::from(self.last_set) + u64::from(self.ttl_seconds.min(ttl_seconds))
    }
}

/// The ends of a tenant's order of use.
#[derive(Debug, Clone, Copy)]
struct Order {
    newest: u32,
    oldest: u32,
}

impl Order {
    const EMPTY: Self = Self {
        newest: NONE,
        oldest: NONE,
    };
}

/// One lock's share of the table.
#[derive(Debug)]
struct Part {
    index: HashTable<u32>,
    entries: Vec<Entry>,
    unused: u32,
    tenants: Names<TenantId>,
    /// By the tenant's number.
    orders: Vec<Order>,
    providers: Names<ProviderId>,
}

impl Default for Part {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            entries: Vec::new(),
            unused: NONE,
            tenants: Names::default(),
            orders: Vec::new(),
            providers: Names::default(),
        }
    }
}

impl Part {
    fn find(&self, hash: u64, name: &Name<'_>) -> Option<u32> {
        let tenant = self.tenants.number(name.tenant)?;
        let same = |&at: &u32| {
            let entry = &self.entries[at as usize];
            entry.tenant == tenant
                && entry.key.as_bytes().first() == Some(&name.kind)
                && entry.key.get(1..) == Some(&*name.text)
        };
        self.index.find(hash, same).copied()
    }

    fn insert(&mut self, hash: u64, hasher: &RandomState, entry: Entry) {
        let at = if self.unused == NONE {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            let at = self.unused;
            self.unused = self.entries[at as usize].older;
            self.entries[at as usize] = entry;
            at
        };
        let Self {
            index,
            entries,
            tenants,
            ..
        } = self;
        index.insert_unique(hash, at, |&at| hash_of(hasher, tenants, &entries[at as usize]));
        self.link(at);
    }

    fn remove(&mut self, hasher: &RandomState, at: u32) {
        let hash = hash_of(hasher, &self.tenants, &self.entries[at as usize]);
        if let Ok(found) = self.index.find_entry(hash, |&other| other == at) {
            found.remove();
        }
        self.unlink(at);
        let entry = &mut self.entries[at as usize];
        entry.key = Box::default();
        entry.older = self.unused;
        let (tenant, provider) = (entry.tenant, entry.provider);
        self.unused = at;
        self.tenants.release(tenant);
        self.providers.release(provider);
    }

    fn used(&mut self, at: u32) {
        let tenant = self.entries[at as usize].tenant as usize;
        if self.orders[tenant].newest != at {
            self.unlink(at);
            self.link(at);
        }
    }

    fn link(&mut self, at: u32) {
        let tenant = self.entries[at as usize].tenant as usize;
        if self.orders.len() <= tenant {
            self.orders.resize(tenant + 1, Order::EMPTY);
        }
        let newest = std::mem::replace(&mut self.orders[tenant].newest, at);
        let entry = &mut self.entries[at as usize];
        (entry.newer, entry.older) = (NONE, newest);
        match self.entries.get_mut(newest as usize) {
            Some(before) => before.newer = at,
            None => self.orders[tenant].oldest = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Entry {
            newer, older, tenant, ..
        } = self.entries[at as usize];
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.orders[tenant as usize].newest = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.orders[tenant as usize].oldest = newer,
        }
    }

    /// One tenant after the other: from the session used last to the one used longest ago.
    fn iter(&self) -> impl Iterator<Item = (u32, &Entry)> {
        self.orders.iter().flat_map(|order| self.of(*order))
    }

    fn of(&self, order: Order) -> impl Iterator<Item = (u32, &Entry)> {
        let at = |at: u32| self.entries.get(at as usize).map(|entry| (at, entry));
        std::iter::successors(at(order.newest), move |(_, entry)| at(entry.older))
    }

    /// The entry that goes for a new one of this tenant: of the tenant that has most the one used longest ago. A
    /// tenant that has as many as any other pays itself; of others with as many, the one that set its session first.
    fn gives_up(&self, tenant: &str) -> Option<u32> {
        let share = |number: usize| self.tenants.slots[number].1;
        let most = (0..self.orders.len()).map(share).max()?;
        let own = self.tenants.number(tenant).map(|number| number as usize);
        let payer = own.filter(|&number| share(number) + 1 >= most).or_else(|| {
            let have_most = (0..self.orders.len()).filter(|&number| share(number) == most);
            have_most.min_by_key(|&number| {
                let oldest = self.entries.get(self.orders[number].oldest as usize);
                oldest.map_or(u32::MAX, |entry| entry.last_set)
            })
        })?;
        Some(self.orders[payer].oldest).filter(|&oldest| oldest != NONE)
    }

    fn remove_where(&mut self, hasher: &RandomState, gone: impl Fn(&Entry) -> bool) -> usize {
        let found: Vec<u32> = self
            .iter()
            .filter(|(_, entry)| gone(entry))
            .map(|(at, _)| at)
            .collect();
        for &at in &found {
            self.remove(hasher, at);
        }
        if self.entries.len() >= WORTH_GIVING_BACK && self.index.len() < self.entries.len() / 4 {
            self.give_back(hasher);
        }
        found.len()
    }

    /// Moves what is left into less room, in the same order.
    fn give_back(&mut self, hasher: &RandomState) {
        let mut order: Vec<u32> = self.iter().map(|(at, _)| at).collect();
        order.reverse();
        let old = std::mem::take(self);
        (self.tenants, self.providers) = (old.tenants, old.providers);
        self.orders = vec![Order::EMPTY; old.orders.len()];
        let mut entries: Vec<Option<Entry>> = old.entries.into_iter().map(Some).collect();
        for at in order {
            if let Some(entry) = entries.get_mut(at as usize).and_then(Option::take) {
                let hash = hash_of(hasher, &self.tenants, &entry);
                self.insert(hash, hasher, entry);
            }
        }
    }
}

fn hash_of(hasher: &RandomState, tenants: &Names<TenantId>, entry: &Entry) -> u64 {
    let tenant = tenants.name(entry.tenant).map_or("", TenantId::as_str);
    hasher.hash_one(Name::of(tenant, &entry.key))
}

/// The table. A full one forgets the session used longest ago of the tenant that has most: of a small table the very
/// one, of a large one that of the new session's part.
#[derive(Debug)]
pub struct StickyTable {
    parts: Box<[CachePadded<Mutex<Part>>]>,
    hasher: RandomState,
    capacity: usize,
    len: AtomicUsize,
    evicted: AtomicU64,
}

impl StickyTable {
    /// There are never more sessions than this.
    pub fn new(sessions: usize) -> Self {
        let capacity = sessions.clamp(1, NONE as usize);
        Self {
            parts: (0..parts(capacity)).map(|_| CachePadded::default()).collect(),
            hasher: RandomState::new(),
            capacity,
            len: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// The session's provider, if it is alive under both the time it was stored with and this one. An expired session
    /// is forgotten; under a time at or below zero every session is expired.
    pub fn lookup(&self, session: Session<'_>, ttl_seconds: i64, now: Timestamp) -> Option<ProviderId> {
        let ttl_seconds = ttl(ttl_seconds).unwrap_or(0);
        let name = Name::new(session);
        let hash = self.hasher.hash_one(&name);
        let mut part = lock(self.part(hash));
        let at = part.find(hash, &name)?;
        part.entries[at as usize].heed_time(now);
        let entry = &part.entries[at as usize];
        if ttl_seconds > 0 && entry.expires_at(ttl_seconds) > seconds(now) {
            let provider = part.providers.name(entry.provider).cloned();
            part.used(at);
            return provider;
        }
        part.remove(&self.hasher, at);
        self.len.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// As `lookup`, changing nothing.
    pub fn peek(&self, session: Session<'_>, ttl_seconds: i64, now: Timestamp) -> Option<ProviderId> {
        let ttl_seconds = ttl(ttl_seconds)?;
        let name = Name::new(session);
        let hash = self.hasher.hash_one(&name);
        let mut part = lock(self.part(hash));
        let at = part.find(hash, &name)?;
        part.entries[at as usize].heed_time(now);
        let entry = &part.entries[at as usize];
        if entry.expires_at(ttl_seconds) > seconds(now) {
            part.providers.name(entry.provider).cloned()
        } else {
            None
        }
    }

    /// Gives the session to a provider, from now on. A time at or below zero stores nothing.
    pub fn store(&self, session: Session<'_>, provider: &ProviderId, ttl_seconds: i64, now: Timestamp) {
        let _none = self.pin(session, provider, |_| false, ttl_seconds, now);
    }

    /// As `store`, unless the session is alive with another provider that it keeps: then that one, and the session
    /// lives on. Of two requests that give a session its first provider at one time, both get what came first.
    pub fn pin(
        &self,
        session: Session<'_>,
        provider: &ProviderId,
        keeps: impl Fn(&ProviderId) -> bool,
        ttl_seconds: i64,
        now: Timestamp,
    ) -> Option<ProviderId> {
        let ttl_seconds = ttl(ttl_seconds)?;
        let now = seconds(now);
        let last_set = u32::try_from(now).unwrap_or(u32::MAX);
        let name = Name::new(session);
        let alive = |entry: &Entry| entry.expires_at(ttl_seconds) > now;
        self.put(
            session.tenant,
            &name,
            provider,
            (last_set, ttl_seconds),
            |entry, held| alive(entry) && keeps(held),
        )
    }

    fn put(
        &self,
        tenant: &TenantId,
        name: &Name<'_>,
        provider: &ProviderId,
        (last_set, ttl_seconds): (u32, u32),
        keeps: impl Fn(&Entry, &ProviderId) -> bool,
    ) -> Option<ProviderId> {
        let hash = self.hasher.hash_one(name);
        // `None`: there is no such session. Else whom it is kept with, if with another provider than this.
        let renew = |part: &mut Part| {
            let at = part.find(hash, name)?;
            let entry = &part.entries[at as usize];
            let held = part
                .providers
                .name(entry.provider)
                .filter(|held| *held != provider && keeps(entry, held))
                .cloned();
            if held.is_none() {
                let (new, old) = (part.providers.acquire(provider), entry.provider);
                part.providers.release(old);
                part.entries[at as usize].provider = new;
            }
            let entry = &mut part.entries[at as usize];
            (entry.last_set, entry.ttl_seconds) = (last_set, ttl_seconds);
            part.used(at);
            Some(held)
        };
        if let Some(held) = renew(&mut lock(self.part(hash))) {
            return held;
        }
        // Room is made without this lock, since it may be found in another part.
        self.reserve(self.number(hash), tenant.as_str());
        let mut part = lock(self.part(hash));
        if let Some(held) = renew(&mut part) {
            self.len.fetch_sub(1, Ordering::Relaxed);
            return held;
        }
        let entry = Entry {
            key: name.key(),
            tenant: part.tenants.acquire(tenant),
            provider: part.providers.acquire(provider),
            last_set,
            ttl_seconds,
            newer: NONE,
            older: NONE,
        };
        part.insert(hash, &self.hasher, entry);
        None
    }

    /// Counts one more session; where that is one too many, another one goes.
    fn reserve(&self, number: usize, tenant: &str) {
        let room = |len: usize| (len < self.capacity).then_some(len + 1);
        while self
            .len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_err()
        {
            let evicted = self.parts[number..]
                .iter()
                .chain(&self.parts[..number])
                .any(|part| {
                    let mut part = lock(part);
                    let gone = part.gives_up(tenant);
                    if let Some(at) = gone {
                        part.remove(&self.hasher, at);
                    }
                    gone.is_some()
                });
            if evicted {
                self.len.fetch_sub(1, Ordering::Relaxed);
                self.evicted.fetch_add(1, Ordering::Relaxed);
            } else {
                // Every counted session is one that another thread is about to insert.
                std::thread::yield_now();
            }
        }
    }

    /// Forgets one session. `false`: there was none.
    pub fn clear(&self, session: Session<'_>) -> bool {
        let name = Name::new(session);
        let hash = self.hasher.hash_one(&name);
        let mut part = lock(self.part(hash));
        let Some(at) = part.find(hash, &name) else {
            return false;
        };
        part.remove(&self.hasher, at);
        self.len.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Forgets a tenant's sessions.
    pub fn clear_tenant(&self, tenant: &TenantId) -> usize {
        self.prune(&mut |other| other != tenant)
    }

    /// Forgets sessions whose time is over under the time they were stored with, and says how many.
    pub fn clear_expired(&self, at: Timestamp) -> usize {
        let now = seconds(at);
        let mut gone = 0;
        for part in &self.parts {
            let mut part = lock(part);
            for entry in &mut part.entries {
                entry.heed_time(at);
            }
            let removed = part.remove_where(&self.hasher, |entry| entry.expires_at(u32::MAX) < now);
            self.len.fetch_sub(removed, Ordering::Relaxed);
            gone += removed;
        }
        gone
    }

    /// Forgets the sessions of tenants that are not to be kept.
    pub(super) fn prune(&self, keep: &mut impl FnMut(&TenantId) -> bool) -> usize {
        let mut gone = 0;
        for part in &self.parts {
            let mut part = lock(part);
            let mut left = vec![false; part.tenants.slots.len()];
            for (tenant, &number) in &part.tenants.numbers {
                left[number as usize] = !keep(tenant);
            }
            if left.contains(&true) {
                let removed = part.remove_where(&self.hasher, |entry| left[entry.tenant as usize]);
                self.len.fetch_sub(removed, Ordering::Relaxed);
                gone += removed;
            }
        }
        gone
    }

    /// The tenant's sessions, in no order.
    pub fn list(&self, tenant: &TenantId, limit: usize) -> Vec<SessionView> {
        let mut found = Vec::new();
        for part in &self.parts {
            let part = lock(part);
            let Some(number) = part.tenants.number(tenant.as_str()) else {
                continue;
            };
            for (_, entry) in part.of(part.orders[number as usize]) {
                if found.len() == limit {
                    return found;
                }
                if let Some(provider) = part.providers.name(entry.provider) {
                    found.push(SessionView {
                        value: entry.key.get(1..).unwrap_or_default().to_owned(),
                        provider: provider.clone(),
                        last_set: entry.last_set.into(),
                        expires_at: entry.expires_at(u32::MAX),
                    });
                }
            }
        }
        found
    }

    /// Number of sessions, of all tenants.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sessions that a full table has forgotten.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Looks at everything, of each tenant from the session used longest ago, for a later `restore`. One lock is held
    /// at a time, and not while `take` runs.
    pub fn records(&self, mut take: impl FnMut(SessionRecord)) {
        for part in &self.parts {
            let mut records: Vec<SessionRecord> = {
                let part = lock(part);
                let record = |(_, entry): (u32, &Entry)| {
                    Some(SessionRecord {
                        tenant: part.tenants.name(entry.tenant)?.clone(),
                        key: entry.key.clone(),
                        provider: part.providers.name(entry.provider)?.clone(),
                        last_set: entry.last_set,
                        ttl_seconds: entry.ttl_seconds,
                    })
                };
                part.iter().filter_map(record).collect()
            };
            records.reverse();
            records.into_iter().for_each(&mut take);
        }
    }

    /// Takes back what an earlier run had. A session whose time is over, or that is none, is passed over; and so is one
    /// whose time of setting lies ahead, as its age is unknown.
    pub fn restore(&self, record: &SessionRecord, now: Timestamp) {
        let now = seconds(now);
        // Whole seconds of two clocks may be one apart.
        let alive = u64::from(record.last_set) + u64::from(record.ttl_seconds) > now
            && u64::from(record.last_set) <= now + 1;
        let known_kind = matches!(record.key.as_bytes().first(), Some(b's' | b'j' | b'S' | b'J'));
        if alive && known_kind && record.key.len() <= 1 + LONGEST_VALUE {
            let last_set = record.last_set.min(u32::try_from(now).unwrap_or(u32::MAX));
            let name = Name::of(record.tenant.as_str(), &record.key);
            let times = (last_set, record.ttl_seconds);
            let _none = self.put(&record.tenant, &name, &record.provider, times, |_, _| false);
        }
    }

    fn number(&self, hash: u64) -> usize {
        // The index itself uses the lowest and the highest bits.
        (hash >> 32) as usize & (self.parts.len() - 1)
    }

    fn part(&self, hash: u64) -> &Mutex<Part> {
        &self.parts[self.number(hash)]
    }
}

/// Whole seconds, as expiry is counted.
fn seconds(now: Timestamp) -> u64 {
    now.unix_ms / 1_000
}

/// A time in which a session can live.
fn ttl(seconds: i64) -> Option<u32> {
    (seconds > 0).then(|| u32::try_from(seconds).unwrap_or(u32::MAX))
}

#[cfg(test)]
#[path = "sticky_tests.rs"]
mod tests;
