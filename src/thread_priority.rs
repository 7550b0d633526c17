//! How soon a thread gets a processor that another thread occupies. Linux only; where the kernel does not support or
//! allow it, the thread stays as it is.

use std::time::Duration;

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// Niceness, as that of the compiler's process.
const NICE: i32 = 10;

/// The shortest slice that the kernel gives.
const SHORT: Duration = Duration::from_micros(100);

/// The priority of a thread against others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Short slices: it gets a processor sooner than others, but not for longer in total. For threads that seldom run
    /// for long.
    Prompt,
    /// A small share even of busy processors; other threads wait for it for a few milliseconds at most.
    Low,
    /// Only idle time; other threads hardly ever wait for it. On busy processors it hardly runs.
    Idle,
}

impl Priority {
    /// Applies the priority to the calling thread.
    pub(crate) fn take(self) {
        match self {
            Self::Prompt => ask_for_slices(SHORT),
            Self::Low => lower(),
            Self::Idle => {
                lower();
                // A runnable thread preempts an idle one immediately, but a nice one only in its turn.
                let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
                let _not_allowed =
                    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
            }
        }
    }
}

fn lower() {
    // A thread inherits the slices of its parent. These are the kernel's own.
    ask_for_slices(Duration::ZERO);
    let _not_allowed = rustix::process::nice(NICE);
}

/// From Linux 6.12 the run time of an ordinary thread is the slice that it asks for: a thread that
/// asks for short ones runs before those that ask for long ones. Older kernels ignore it.
#[cfg(target_env = "gnu")]
fn ask_for_slices(slice: Duration) {
    use thread_priority::{DeadlineFlags, RealtimeThreadSchedulePolicy, ThreadId};

    /// The kernel's `SCHED_FLAG_KEEP_POLICY`: the thread stays an ordinary one.
    const KEEP_POLICY: DeadlineFlags = DeadlineFlags::from_bits_retain(0x08);
    /// The kernel's id of a thread; zero is the calling thread.
    const CALLING: ThreadId = 0;

    // The call would also set the niceness. The one with which this process was started is kept.
    if rustix::process::getpriority_process(None) != Ok(0) {
        return;
    }
    let slice = ThreadPriority::Deadline {
        runtime: slice,
        deadline: Duration::ZERO,
        period: Duration::ZERO,
        flags: KEEP_POLICY,
    };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Deadline);
    let _not_allowed = set_thread_priority_and_policy(CALLING, slice, policy);
}

#[cfg(not(target_env = "gnu"))]
fn ask_for_slices(_: Duration) {}

#[cfg(test)]
pub(crate) mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    /// The kernel's view of a thread: its policy, its niceness, and its slice if the kernel shows it.
    pub(crate) type Shown = (ThreadSchedulePolicy, i32, Option<String>);

    pub(crate) fn shown() -> Shown {
        // Kernels without scheduler statistics have no such file.
        let slice = std::fs::read_to_string("/proc/thread-self/sched")
            .ok()
            .and_then(|shown| {
                let rest = shown.lines().find_map(|line| line.strip_prefix("se.slice"))?;
                rest.split_whitespace().last().map(str::to_owned)
            });
        (
            thread_priority::thread_schedule_policy().unwrap(),
            getpriority_process(None).unwrap(),
            slice,
        )
    }

    pub(crate) fn in_a_thread<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(ask).join().unwrap()
    }

    pub(crate) fn of(priority: Priority) -> Shown {
        priority.take();
        shown()
    }

    #[test]
    fn each_is_what_it_says_to_the_kernel_and_of_one_thread_alone() {
        let (ordinary, nice, slice) = in_a_thread(shown);
        let (policy, prompt, short) = in_a_thread(|| of(Priority::Prompt));
        assert_eq!((policy, prompt), (ordinary, nice));
        // Kernels before 6.12 show the slice but do not allow to choose it.
        if cfg!(target_env = "gnu") && knows_slices() && nice == 0 && slice.is_some() {
            assert_eq!(short.as_deref(), Some("100000"));
        }
        // The others are started by threads that are prompt.
        let below = |priority: Priority| {
            in_a_thread(move || {
                Priority::Prompt.take();
                in_a_thread(move || of(priority))
            })
        };
        assert_eq!(
            below(Priority::Low),
            (ordinary, (nice + NICE).min(19), slice.clone())
        );
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        assert_eq!(below(Priority::Idle).0, idle);
        assert_eq!(in_a_thread(shown), (ordinary, nice, slice));
    }

    fn knows_slices() -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release
            .split(['.', '-'])
            .map_while(|number| number.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(6), Some(12))
    }
}
