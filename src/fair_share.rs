//! A bounded number of places that several holders share: none of them can keep the others out.
//!
//! A holder takes another place only while it has fewer than are free. The first that wants all of them gets half, the
//! second a quarter, and one that has none gets one as long as there is one: switches share their buffers like this (the
//! dynamic threshold of Choudhury and Hahne), because it needs no number of holders and no share set in advance. Of those
//! that wait, the one that has fewest is next.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// The places.
#[derive(Debug)]
pub struct FairShare<K: Eq + Hash + Clone> {
    state: Arc<Mutex<State<K>>>,
}

/// A place, free again when this is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash + Clone> {
    holder: K,
    state: Arc<Mutex<State<K>>>,
}

#[derive(Debug)]
struct State<K: Eq + Hash + Clone> {
    free: usize,
    /// Only holders that have one.
    held: HashMap<K, usize>,
    waiting: VecDeque<(K, oneshot::Sender<Share<K>>)>,
}

impl<K: Eq + Hash + Clone> FairShare<K> {
    /// So many places.
    pub fn new(places: usize) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                free: places,
                held: HashMap::new(),
                waiting: VecDeque::new(),
            })),
        }
    }

    /// Takes a place if there is one for this holder now.
    pub fn try_take(&self, holder: &K) -> Option<Share<K>> {
        let mut state = lock(&self.state);
        state.may_take(holder).then(|| state.take(holder, &self.state))
    }

    /// Takes a place, and waits for it where there is none.
    pub async fn take(&self, holder: &K) -> Share<K> {
        loop {
            let granted = {
                let mut state = lock(&self.state);
                if state.may_take(holder) {
                    return state.take(holder, &self.state);
                }
                let (grant, granted) = oneshot::channel();
                state.waiting.push_back((holder.clone(), grant));
                granted
            };
            // It is lost only with the places themselves.
            if let Ok(share) = granted.await {
                return share;
            }
        }
    }
}

impl<K: Eq + Hash + Clone> State<K> {
    fn held(&self, holder: &K) -> usize {
        self.held.get(holder).copied().unwrap_or_default()
    }

    fn may_take(&self, holder: &K) -> bool {
        self.held(holder) < self.free
    }

    fn take(&mut self, holder: &K, state: &Arc<Mutex<Self>>) -> Share<K> {
        self.free -= 1;
        *self.held.entry(holder.clone()).or_default() += 1;
        Share {
            holder: holder.clone(),
            state: state.clone(),
        }
    }

    fn give_back(&mut self, holder: &K) {
        self.free += 1;
        if let Some(held) = self.held.get_mut(holder) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(holder);
            }
        }
    }

    /// Whose turn it is of those that wait: the one that holds fewest, and of these the first.
    fn next(&mut self) -> Option<(K, oneshot::Sender<Share<K>>)> {
        self.waiting.retain(|(_, grant)| !grant.is_closed());
        let (index, holder) = self
            .waiting
            .iter()
            .enumerate()
            .min_by_key(|(_, (holder, _))| self.held(holder))
            .map(|(index, (holder, _))| (index, holder))?;
        self.may_take(holder).then(|| self.waiting.remove(index))?
    }
}

impl<K: Eq + Hash + Clone> Drop for Share<K> {
    fn drop(&mut self) {
        lock(&self.state).give_back(&self.holder);
        loop {
            let granted = {
                let mut state = lock(&self.state);
                state
                    .next()
                    .map(|(holder, grant)| (state.take(&holder, &self.state), grant))
            };
            let Some((share, grant)) = granted else { return };
            // A waiter that gave up in between: the place is given back by dropping it, outside the lock.
            let _given_up = grant.send(share);
        }
    }
}

fn lock<K: Eq + Hash + Clone>(state: &Mutex<State<K>>) -> MutexGuard<'_, State<K>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    fn as_many_as_it_gets(places: &FairShare<u8>, holder: u8) -> Vec<Share<u8>> {
        iter::from_fn(|| places.try_take(&holder)).take(1_000).collect()
    }

    #[test]
    fn one_holder_leaves_half_and_the_next_half_of_that() {
        let places = FairShare::new(50);
        let taken: Vec<_> = (1..=6)
            .map(|holder| as_many_as_it_gets(&places, holder))
            .collect();
        let counts: Vec<usize> = taken.iter().map(Vec::len).collect();
        assert_eq!(counts, [25, 13, 6, 3, 2, 1]);
        drop(taken);
        assert_eq!(as_many_as_it_gets(&places, 7).len(), 25);
        assert_eq!(as_many_as_it_gets(&FairShare::new(1), 1).len(), 1);
    }

    #[tokio::test]
    async fn who_has_fewest_is_next_and_who_gave_up_is_passed_over() {
        let places = Arc::new(FairShare::new(2));
        let (first, second) = (places.take(&1).await, places.take(&2).await);
        let waits = |holder: u8| {
            let places = places.clone();
            tokio::spawn(async move { places.take(&holder).await })
        };
        let (again, given_up, other) = (waits(1), waits(3), waits(4));
        tokio::task::yield_now().await;
        given_up.abort();
        assert!(given_up.await.is_err());
        drop(second);
        let other = other.await.unwrap();
        assert!(!again.is_finished());
        drop(other);
        assert!(!again.is_finished(), "one that has one does not take the last");
        drop(first);
        again.await.unwrap();
        assert_eq!(as_many_as_it_gets(&places, 5).len(), 1);
        let state = lock(&places.state);
        assert_eq!((state.held.len(), state.waiting.len()), (0, 0));
    }
}
