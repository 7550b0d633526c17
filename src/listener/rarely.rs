//! What rarely happens, beside a future that is polled all the time.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Events that are polled for only when one of them has woken the task: to poll a timer and two notifications takes longer
/// than much of what a request needs, and each wake of a connection is a request.
pub(super) struct Rarely<P> {
    poll: P,
    woken: Arc<Woken>,
    waker: Waker,
}

/// Wakes the task, and says that it was for one of these events.
struct Woken {
    is_woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Release);
        self.task.wake();
    }
}

impl<E, P: FnMut(&mut Context<'_>) -> Poll<E>> Rarely<P> {
    /// `poll` as in [`poll_fn`]; it may be polled again after it was ready.
    pub(super) fn new(poll: P) -> Self {
        let woken = Arc::new(Woken {
            is_woken: AtomicBool::new(true),
            task: AtomicWaker::new(),
        });
        Self {
            poll,
            waker: Waker::from(woken.clone()),
            woken,
        }
    }

    /// The next event.
    pub(super) async fn next(&mut self) -> E {
        poll_fn(|context| {
            // Registered before it is looked whether there was a wake, so that none is missed.
            self.woken.task.register(context.waker());
            if !self.woken.is_woken.load(Acquire) {
                return Poll::Pending;
            }
            self.woken.is_woken.store(false, Release);
            let event = (self.poll)(&mut Context::from_waker(&self.waker));
            if event.is_ready() {
                // The others were not polled, and may be ready as well.
                self.woken.is_woken.store(true, Release);
            }
            event
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn only_a_wake_of_its_own_makes_it_poll() {
        let (send, mut receive) = mpsc::unbounded_channel();
        let polls = Cell::new(0);
        let mut rarely = Rarely::new(|context: &mut Context<'_>| {
            polls.set(polls.get() + 1);
            receive.poll_recv(context)
        });
        for turn in 1..5 {
            for _ in 0..10 {
                tokio::select! {
                    biased;
                    event = rarely.next() => assert_eq!(event, None::<u32>, "nothing was sent"),
                    () = tokio::task::yield_now() => {}
                }
            }
            assert_eq!(polls.get(), 2 * turn - 1);
            send.send(turn).unwrap();
            assert_eq!(rarely.next().await, Some(turn));
            assert_eq!(polls.get(), 2 * turn);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost() {
        let (send, mut receive) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for event in 0..20_000 {
                send.send(event).unwrap();
                if event % 3 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut rarely = Rarely::new(|context: &mut Context<'_>| receive.poll_recv(context));
        for expected in 0..20_000 {
            assert_eq!(rarely.next().await, Some(expected));
        }
        assert_eq!(rarely.next().await, None);
    }
}
