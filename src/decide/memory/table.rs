//! The bounded table: breakers, buckets and estimates are kept in one, and so is whatever else must not grow with what
//! clients send.
//!
//! A key's hash picks one of many locks, so tenants do not wait for each other. The bound holds for the whole table,
//! exactly: a new entry takes the place of the one used longest ago in its part of the table, first of those that
//! are not worth more than others.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crossbeam_utils::CachePadded;
use hashbrown::{Equivalent, HashTable, hash_table};

use crate::clock::Timestamp;

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

type Part<K, V> = HashTable<Slot<K, V>>;

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
    /// Which entries a full table forgets last.
    precious: fn(&V) -> bool,
}

impl<K: Hash + Eq, V> Table<K, V> {
    /// A table for this many entries, at least one. `precious` names the entries that a full table forgets last.
    pub(crate) fn new(capacity: usize, precious: fn(&V) -> bool) -> Self {
        let capacity = capacity.max(1);
        Self {
            parts: (0..parts(capacity)).map(|_| CachePadded::default()).collect(),
            hasher: RandomState::new(),
            capacity,
            len: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
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
        part.find(hash, |slot| name.equivalent(&slot.key))
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
        let slot = part.find_mut(hash, |slot| name.equivalent(&slot.key))?;
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
            if let Some(slot) = part.find_mut(hash, known) {
                slot.used = now;
                return change(&mut slot.value);
            }
        }
        // Room is made without this lock, since it may be found in another part.
        self.reserve(self.index(hash));
        let mut part = lock(self.part(hash));
        match part.entry(hash, known, |slot| self.hasher.hash_one(&slot.key)) {
            hash_table::Entry::Occupied(mut entry) => {
                self.len.fetch_sub(1, Ordering::Relaxed);
                entry.get_mut().used = now;
                change(&mut entry.get_mut().value)
            }
            hash_table::Entry::Vacant(entry) => {
                let (key, mut value) = make();
                let answer = change(&mut value);
                entry.insert(Slot {
                    key,
                    value,
                    used: now,
                });
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
        let entry = part.find_entry(hash, |slot| name.equivalent(&slot.key)).ok()?;
        if !test(&entry.get().value) {
            return None;
        }
        let (slot, _) = entry.remove();
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(slot.value)
    }

    /// Keeps the entries that pass the test, and returns the number of those removed.
    pub(super) fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) -> usize {
        let mut gone = 0;
        for part in &self.parts {
            let mut part = lock(part);
            let before = part.len();
            part.retain(|slot| keep(&slot.key, &slot.value));
            let removed = before - part.len();
            self.len.fetch_sub(removed, Ordering::Relaxed);
            gone += removed;
        }
        gone
    }

    /// Looks at every entry, one part of the table after the other.
    pub(crate) fn each(&self, mut look: impl FnMut(&K, &V)) {
        for part in &self.parts {
            for slot in lock(part).iter() {
                look(&slot.key, &slot.value);
            }
        }
    }

    /// Counts one more entry; where that is one too many, another one goes.
    fn reserve(&self, index: usize) {
        let room = |len: usize| (len < self.capacity).then_some(len + 1);
        while self
            .len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_err()
        {
            if !self.evict(index, false) && !self.evict(index, true) {
                // Every counted entry is one that another thread is about to insert.
                std::thread::yield_now();
            }
        }
    }

    /// Forgets one entry, if possible of this part.
    fn evict(&self, index: usize, precious_too: bool) -> bool {
        for part in self.parts[index..].iter().chain(&self.parts[..index]) {
            let mut part = lock(part);
            let oldest = part
                .iter()
                .filter(|slot| precious_too || !(self.precious)(&slot.value))
                .min_by_key(|slot| slot.used)
                .map(|slot| (self.hasher.hash_one(&slot.key), slot as *const Slot<K, V>));
            let Some((hash, oldest)) = oldest else { continue };
            if let Ok(entry) = part.find_entry(hash, |slot| std::ptr::eq(slot, oldest)) {
                drop(entry.remove());
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
            let table = Table::new(capacity, |_| false);
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
    fn where_a_part_has_only_precious_entries_another_part_gives_one_up() {
        let table = Table::new(600, |value| *value == 1);
        assert_eq!(table.parts.len(), 2);
        for index in 0..599 {
            set(&table, index, 1);
        }
        set(&table, 599, 0);
        for index in 600..700 {
            set(&table, index, 0);
        }
        let mut precious = 0;
        table.each(|_, value| precious += value);
        assert_eq!((precious, table.len()), (599, 600));
        for index in 700..703 {
            set(&table, index, 1);
        }
        // The last that was not goes first, and then older precious ones, whichever part they are in.
        let mut precious = 0;
        table.each(|_, value| precious += value);
        assert_eq!((precious, table.len(), count(&table)), (600, 600, 600));
    }

    #[test]
    fn threads_agree_on_how_many_there_are() {
        for capacity in [1, 10, 1_000] {
            let table = Table::new(capacity, |_| false);
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
