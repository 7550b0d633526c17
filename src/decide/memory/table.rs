//! The bounded table: breakers, buckets and estimates are kept in one, and so is whatever else must not grow with what
//! clients send.
//!
//! A key's hash picks one of many locks, so tenants do not wait for each other. The bound holds for the whole table,
//! exactly: a new entry takes the place of one in its part of the table. There the tenant that has most gives one up,
//! so that no tenant can take the room of those that need little: of its entries the one used longest ago, first of
//! those that are not worth more than others. Since hashes spread every tenant over all parts alike, the shares of a
//! part are those of the table.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crossbeam_utils::CachePadded;
use hashbrown::{Equivalent, HashMap, HashTable, hash_table};

use crate::{clock::Timestamp, policy::TenantId};

/// Parts of a large table. A small one has fewer, so that a part's oldest entry is nearly the whole table's.
const PARTS: usize = 64;
const SMALLEST_PART: usize = 256;

/// How many parts a table of this capacity has: a power of two.
pub(super) fn parts(capacity: usize) -> usize {
    let parts = (capacity / SMALLEST_PART).clamp(1, PARTS);
    1 << parts.ilog2()
}

pub(super) fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked with the lock held left an entry at worst half changed, never the table.
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    used: Timestamp,
}

#[derive(Debug)]
struct Part<K, V> {
    slots: HashTable<Slot<K, V>>,
    /// How many entries each tenant has here.
    shares: HashMap<TenantId, usize>,
}

impl<K, V> Default for Part<K, V> {
    fn default() -> Self {
        Self {
            slots: HashTable::new(),
            shares: HashMap::new(),
        }
    }
}

impl<K, V> Part<K, V> {
    fn joined(&mut self, owner: Option<&TenantId>) {
        if let Some(owner) = owner {
            *self.shares.entry_ref(owner).or_insert(0) += 1;
        }
    }

    fn left(&mut self, owner: Option<&TenantId>) {
        if let Some(owner) = owner
            && let hashbrown::hash_map::EntryRef::Occupied(mut share) = self.shares.entry_ref(owner)
        {
            *share.get_mut() -= 1;
            if *share.get() == 0 {
                share.remove();
            }
        }
    }

    /// Entries of a tenant, or those of none.
    fn share(&self, owner: Option<&TenantId>) -> usize {
        owner.map_or_else(
            || self.slots.len() - self.shares.values().sum::<usize>(),
            |owner| self.shares.get(owner).copied().unwrap_or(0),
        )
    }
}

/// A part with its lock on cache lines of its own: threads that work on neighbouring parts do not wait for each other's.
type PaddedPart<K, V> = CachePadded<Mutex<Part<K, V>>>;

/// A bounded table. Reading an entry is no use of it; changing one is.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    parts: Box<[PaddedPart<K, V>]>,
    hasher: RandomState,
    capacity: usize,
    len: AtomicUsize,
    evicted: AtomicU64,
    /// Whose an entry is.
    owner: fn(&K) -> Option<&TenantId>,
    /// Which of a tenant's entries a full table forgets last.
    precious: fn(&V) -> bool,
}

impl<K: Hash + Eq, V> Table<K, V> {
    /// A table for this many entries, at least one, that belong to no tenant.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::of_tenants(capacity, |_| None, |_| false)
    }

    /// A table that tenants share. `precious` names those of a tenant's entries that a full table forgets last.
    pub(crate) fn of_tenants(
        capacity: usize,
        owner: fn(&K) -> Option<&TenantId>,
        precious: fn(&V) -> bool,
    ) -> Self {
        let capacity = capacity.max(1);
        Self {
            parts: (0..parts(capacity)).map(|_| CachePadded::default()).collect(),
            hasher: RandomState::new(),
            capacity,
            len: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            owner,
            precious,
        }
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Entries that a full table has forgotten.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Looks at an entry.
    pub(crate) fn read<Q, R>(&self, name: &Q, look: impl FnOnce(&V) -> R) -> Option<R>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = self.hasher.hash_one(name);
        let part = lock(self.part(hash));
        part.slots
            .find(hash, |slot| name.equivalent(&slot.key))
            .map(|slot| look(&slot.value))
    }

    /// Changes an entry that exists.
    pub(crate) fn change<Q, R>(
        &self,
        name: &Q,
        now: Option<Timestamp>,
        change: impl FnOnce(&mut V) -> R,
    ) -> Option<R>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = self.hasher.hash_one(name);
        let mut part = lock(self.part(hash));
        let slot = part.slots.find_mut(hash, |slot| name.equivalent(&slot.key))?;
        slot.used = now.unwrap_or(slot.used);
        Some(change(&mut slot.value))
    }

    /// Changes an entry, which is made first if there is none.
    pub(crate) fn change_or_make<Q, R>(
        &self,
        name: &Q,
        now: Timestamp,
        make: impl FnOnce() -> (K, V),
        change: impl FnOnce(&mut V) -> R,
    ) -> R
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = self.hasher.hash_one(name);
        let known = |slot: &Slot<K, V>| name.equivalent(&slot.key);
        {
            let mut part = lock(self.part(hash));
            if let Some(slot) = part.slots.find_mut(hash, known) {
                slot.used = now;
                return change(&mut slot.value);
            }
        }
        let (key, mut value) = make();
        // Room is made without this lock, since it may be found in another part.
        self.reserve(self.index(hash), (self.owner)(&key));
        let mut part = lock(self.part(hash));
        let part = &mut *part;
        match part
            .slots
            .entry(hash, known, |slot| self.hasher.hash_one(&slot.key))
        {
            hash_table::Entry::Occupied(mut entry) => {
                self.len.fetch_sub(1, Ordering::Relaxed);
                entry.get_mut().used = now;
                change(&mut entry.get_mut().value)
            }
            hash_table::Entry::Vacant(entry) => {
                let answer = change(&mut value);
                let slot = Slot {
                    key,
                    value,
                    used: now,
                };
                let owner = (self.owner)(&entry.insert(slot).get().key).cloned();
                part.joined(owner.as_ref());
                answer
            }
        }
    }

    /// Removes an entry.
    pub(crate) fn remove<Q>(&self, name: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.remove_if(name, |_| true)
    }

    /// Removes an entry whose value passes the test.
    pub(crate) fn remove_if<Q>(&self, name: &Q, test: impl FnOnce(&V) -> bool) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = self.hasher.hash_one(name);
        let mut part = lock(self.part(hash));
        let entry = part
            .slots
            .find_entry(hash, |slot| name.equivalent(&slot.key))
            .ok()?;
        if !test(&entry.get().value) {
            return None;
        }
        let (slot, _) = entry.remove();
        part.left((self.owner)(&slot.key));
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(slot.value)
    }

    /// Keeps the entries that pass the test, and returns the number of those removed.
    pub(super) fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) -> usize {
        let mut gone = 0;
        for part in &self.parts {
            let mut part = lock(part);
            let Part { slots, shares } = &mut *part;
            let before = slots.len();
            slots.retain(|slot| keep(&slot.key, &slot.value));
            let removed = before - slots.len();
            if removed > 0 {
                shares.clear();
                for owner in slots.iter().filter_map(|slot| (self.owner)(&slot.key)) {
                    *shares.entry_ref(owner).or_insert(0) += 1;
                }
            }
            self.len.fetch_sub(removed, Ordering::Relaxed);
            gone += removed;
        }
        gone
    }

    /// Looks at every entry, one part of the table after the other.
    pub(crate) fn each(&self, mut look: impl FnMut(&K, &V)) {
        for part in &self.parts {
            for slot in lock(part).slots.iter() {
                look(&slot.key, &slot.value);
            }
        }
    }

    /// Counts one more entry; where that is one too many, another one goes.
    fn reserve(&self, index: usize, owner: Option<&TenantId>) {
        let room = |len: usize| (len < self.capacity).then_some(len + 1);
        while self
            .len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_err()
        {
            if !self.evict(index, owner) {
                // Every counted entry is one that another thread is about to insert.
                std::thread::yield_now();
            }
        }
    }

    /// Forgets one entry, if possible of this part, for a new one of this owner.
    fn evict(&self, index: usize, owner: Option<&TenantId>) -> bool {
        for part in self.parts[index..].iter().chain(&self.parts[..index]) {
            let mut part = lock(part);
            let most = part.shares.values().copied().max().unwrap_or(0);
            let most = most.max(part.share(None));
            let own = part.share(owner);
            // A tenant that has as many as any other pays for its new entry itself.
            let owner_pays = own > 0 && own + 1 >= most;
            let gives_up = |slot: &&Slot<K, V>| {
                let other = (self.owner)(&slot.key);
                if owner_pays {
                    other == owner
                } else {
                    part.share(other) == most
                }
            };
            let oldest = part
                .slots
                .iter()
                .filter(gives_up)
                .min_by_key(|slot| ((self.precious)(&slot.value), slot.used))
                .map(|slot| (self.hasher.hash_one(&slot.key), slot as *const Slot<K, V>));
            let Some((hash, oldest)) = oldest else { continue };
            if let Ok(entry) = part.slots.find_entry(hash, |slot| std::ptr::eq(slot, oldest)) {
                let (slot, _) = entry.remove();
                part.left((self.owner)(&slot.key));
                self.len.fetch_sub(1, Ordering::Relaxed);
                self.evicted.fetch_add(1, Ordering::Relaxed);
                return true;
            }
        }
        false
    }

    fn index(&self, hash: u64) -> usize {
        // The table itself uses the lowest and the highest bits.
        (hash >> 32) as usize & (self.parts.len() - 1)
    }

    fn part(&self, hash: u64) -> &Mutex<Part<K, V>> {
        &self.parts[self.index(hash)]
    }
}

#[cfg(test)]
mod tests {
    use super::{super::provider_key::ProviderKey, *};
    use crate::policy::{ProviderId, TenantId};

    fn key(index: u32) -> ProviderKey {
        let tenant = TenantId::parse(&format!("t{}", index % 7)).unwrap();
        (tenant, ProviderId::new(&format!("p{index}")))
    }

    fn set(table: &Table<ProviderKey, u32>, index: u32, value: u32) {
        let key = key(index);
        let now = Timestamp::from_unix_ms(index.into());
        table.change_or_make(&key.clone(), now, || (key, 0), |kept| *kept = value);
    }

    fn count(table: &Table<ProviderKey, u32>) -> usize {
        let mut count = 0;
        table.each(|_, _| count += 1);
        count
    }

    #[test]
    fn the_bound_is_exact_and_used_whole() {
        for capacity in [0, 1, 2, 255, 256, 600, 5_000] {
            let table = Table::of_tenants(capacity, |key: &ProviderKey| Some(&key.0), |_| false);
            for index in 0..10_000 {
                set(&table, index, index);
                assert!(table.len() <= capacity.max(1));
            }
            assert_eq!((table.len(), count(&table)), (capacity.max(1), capacity.max(1)));
            assert_eq!(table.evicted(), 10_000 - capacity.max(1) as u64);
            let newest = key(9_999);
            assert_eq!(table.read(&newest, |value| *value), Some(9_999));
            assert_eq!(table.remove_if(&newest, |value| *value != 9_999), None);
            assert_eq!(table.remove(&newest), Some(9_999));
            assert_eq!((table.len(), table.remove(&newest)), (capacity.max(1) - 1, None));
        }
    }

    #[test]
    fn of_a_tenant_s_entries_the_precious_go_last() {
        let table = Table::of_tenants(200, |key: &ProviderKey| Some(&key.0), |value| *value == 1);
        let tenant = TenantId::parse("t").unwrap();
        let set = |index: u32, value: u32| {
            let key = (tenant.clone(), ProviderId::new(&format!("p{index}")));
            let now = Timestamp::from_unix_ms(index.into());
            table.change_or_make(&key.clone(), now, || (key, 0), |kept| *kept = value);
        };
        let precious = || {
            let mut precious = 0;
            table.each(|_, value| precious += value);
            precious
        };
        for index in 0..199 {
            set(index, 1);
        }
        for index in 199..300 {
            set(index, 0);
        }
        assert_eq!((precious(), table.len()), (199, 200));
        for index in 300..303 {
            set(index, 1);
        }
        // The last that was not precious goes first, and then older precious ones.
        assert_eq!((precious(), table.len(), count(&table)), (200, 200, 200));
    }

    #[test]
    fn a_tenant_that_floods_a_table_takes_nothing_from_the_others() {
        for capacity in [10, 256, 1_000, 10_000] {
            let table = Table::of_tenants(capacity, |key: &ProviderKey| Some(&key.0), |value| *value == 1);
            let set = |tenant: &str, index: usize, value: u32| {
                let key = (
                    TenantId::parse(tenant).unwrap(),
                    ProviderId::new(&format!("p{index}")),
                );
                let now = Timestamp::from_unix_ms(index as u64);
                table.change_or_make(&key.clone(), now, || (key, 0), |kept| *kept = value);
            };
            // Two tenants with little, one of them with nothing precious, all of it older than the flood.
            for index in 0..2 {
                set("small", index, 1);
                set("plain", index, 0);
            }
            // The flood is precious itself, and of twice the capacity.
            for index in 0..2 * capacity {
                set("flood", index, 1);
            }
            let mut left = std::collections::BTreeMap::<String, usize>::new();
            table.each(|key, _| *left.entry(key.0.to_string()).or_default() += 1);
            assert_eq!((left["small"], left["plain"]), (2, 2), "of {capacity}");
            assert_eq!(left["flood"], capacity - 4, "the table is used whole");
            // A tenant that comes late gets its share from the one that has most.
            for index in 0..capacity / 4 {
                set("late", index, 0);
            }
            let mut left = std::collections::BTreeMap::<String, usize>::new();
            table.each(|key, _| *left.entry(key.0.to_string()).or_default() += 1);
            assert_eq!((left["small"], left["plain"]), (2, 2), "of {capacity}");
            assert_eq!((left["late"], table.len()), (capacity / 4, capacity));
        }
    }

    #[test]
    fn threads_agree_on_how_many_there_are() {
        for capacity in [1, 10, 1_000] {
            let table = Table::of_tenants(capacity, |key: &ProviderKey| Some(&key.0), |_| false);
            std::thread::scope(|scope| {
                for thread in 0..8_u32 {
                    let table = &table;
                    scope.spawn(move || {
                        for step in 0..3_000 {
                            let index = (step * 31 + thread * 977) % 1_500;
                            match step % 5 {
                                0 => drop(table.remove(&key(index))),
                                1 if step % 500 == 1 => {
                                    table.retain(|_, value| value % 2 == 0);
                                }
                                _ => set(table, index, step),
                            }
                            assert!(table.len() <= capacity);
                        }
                    });
                }
            });
            assert_eq!(table.len(), count(&table));
        }
    }
}
