//! How long a call computed. Its thread may have waited for a processor meanwhile, which is not the extension's fault.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// For so long the processor time of a thread, once read, serves its next calls too: to read it is a system call.
const FRESH: Duration = Duration::from_micros(100);

thread_local! {
    /// The processor time of this thread, and when it was read.
    static READ: Cell<Option<Reading>> = const { Cell::new(None) };
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    processor: Duration,
}

/// Counts from the beginning of a call, on its thread.
#[derive(Debug, Clone, Copy)]
pub struct Timer {
    began: Instant,
    /// The last reading before that.
    before: Reading,
}

impl Timer {
    /// A call begins.
    pub fn begin() -> Self {
        let began = Instant::now();
        let known = READ.get();
        let before = known
            .filter(|read| began.saturating_duration_since(read.at) < FRESH)
            .unwrap_or_else(|| {
                let read = Reading {
                    at: began,
                    processor: processor(),
                };
                READ.set(Some(read));
                read
            });
        Self { began, before }
    }

    /// When the call began.
    pub const fn began(&self) -> Instant {
        self.began
    }

    /// The time since then.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The time that the call computed, where so much has elapsed; it is never overstated, and by no more than 0.1 ms
    /// understated.
    pub fn ran(&self, elapsed: Duration) -> Duration {
        let other = self.began.saturating_duration_since(self.before.at);
        let since = processor().saturating_sub(self.before.processor);
        since.saturating_sub(other).min(elapsed)
    }
}

/// The processor time that this thread has had.
pub(in crate::extensions) fn processor() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compute(for_so_long: Duration) {
        let began = processor();
        while processor() - began < for_so_long {
            std::hint::black_box(());
        }
    }

    #[test]
    fn what_a_thread_waits_for_is_not_counted() {
        let timer = Timer::begin();
        compute(Duration::from_millis(3));
        #[expect(clippy::disallowed_methods, reason = "a thread that waits")]
        std::thread::sleep(Duration::from_millis(30));
        let elapsed = timer.elapsed();
        let ran = timer.ran(elapsed);
        assert!(elapsed >= Duration::from_millis(33));
        assert!(
            ran >= Duration::from_millis(2) && ran <= elapsed - Duration::from_millis(30),
            "{ran:?}"
        );
    }

    #[test]
    fn what_a_thread_did_before_is_not_counted() {
        let ran = || {
            let _other = Timer::begin();
            compute(Duration::from_micros(60));
            let timer = Timer::begin();
            #[expect(clippy::disallowed_methods, reason = "a thread that waits")]
            std::thread::sleep(Duration::from_millis(1));
            timer.ran(timer.elapsed())
        };
        // Of several, since to sleep and to wake takes some time as well.
        let least = (0..20).map(|_| ran()).min().unwrap();
        assert!(least < Duration::from_micros(60), "{least:?}");
    }
}
