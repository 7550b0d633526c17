//! Work that is shared by all processors while nothing is served yet, and not waited for past its time.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

/// Threads at most: each holds a module.
const MAX_THREADS: usize = 8;

/// How many processors there are to be used, up to a bound.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().min(MAX_THREADS))
}

/// Does something with each item, on all processors. Returns what is left of the time; where nothing is, the items that
/// were not begun are left out, and those that were are finished later.
pub(super) fn in_parallel<T: Send + 'static>(
    items: impl IntoIterator<Item = T>,
    within: Duration,
    work: impl Fn(T) + Send + Sync + 'static,
) -> Duration {
    let deadline = Instant::now() + within;
    let items: VecDeque<T> = items.into_iter().collect();
    let threads = processors().min(items.len());
    let (items, work) = (Arc::new(Mutex::new(items)), Arc::new(work));
    let (done, all_done) = mpsc::channel::<()>();
    for _ in 0..threads {
        let (items, work, done) = (items.clone(), work.clone(), done.clone());
        let thread = std::thread::Builder::new().name("at-start".into());
        let begun = thread.spawn(move || {
            let next = || {
                let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
                items.pop_front().filter(|_| Instant::now() < deadline)
            };
            while let Some(item) = next() {
                work(item);
            }
            drop(done);
        });
        if let Err(error) = begun {
            // The others do the work. Without any it is left out, as where there is no time.
            tracing::warn!(%error, "The system has no thread for a part of the start.");
            break;
        }
    }
    drop(done);
    let left = || deadline.saturating_duration_since(Instant::now());
    // Ends when the last thread has dropped its end, or in time.
    let _ended = all_done.recv_timeout(left());
    left()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[test]
    fn all_items_are_worked_on_and_none_past_the_time() {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let left = in_parallel(0..100, Duration::from_secs(60), move |_| {
            count.fetch_add(1, SeqCst);
        });
        assert_eq!(seen.load(SeqCst), 100);
        assert!(left > Duration::ZERO);
        let (hold, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let left = in_parallel(0..100, Duration::from_millis(20), move |_| {
            // Until this test ends.
            let _ended = held.lock().unwrap().recv();
        });
        assert_eq!(left, Duration::ZERO);
        drop(hold);
    }
}
