//! How soon a thread gets a processor that somebody else has. Linux only; where the kernel does not allow or know it, the
//! thread goes without.

use std::time::Duration;

use thread_priority::{
    DeadlineFlags, NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority,
    ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

/// As the compiler's process.
const NICE: i32 = 10;

/// The shortest slice that the kernel gives.
const SLICE: Duration = Duration::from_micros(100);

/// The kernel's `SCHED_FLAG_KEEP_POLICY`: only what else is given changes.
const KEEP_POLICY: DeadlineFlags = DeadlineFlags::from_bits_retain(0x08);

/// How far a thread stands back for others, or they for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// It asks for less at a time than others and gets it sooner, but not more in all. For threads that never run for long.
    Prompt,
    /// It gets a small share even of processors that are always busy, and others wait for it, a few milliseconds at most.
    Low,
    /// It gets what nobody else wants, and hardly anybody waits for it. Beside busy processors it hardly runs.
    Idle,
}

impl Priority {
    /// Takes it on, for the thread that calls.
    pub(crate) fn take(self) {
        match self {
            Self::Prompt => short_slices(),
            Self::Low => lower(),
            Self::Idle => {
                lower();
                // Who becomes runnable takes the processor from an idle thread at once, but from a nice one only in its turn.
                let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
                let _not_allowed =
                    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
            }
        }
    }
}

fn lower() {
    let _not_allowed = rustix::process::nice(NICE);
}

/// From Linux 6.12 the run time of an ordinary thread is the slice that it asks for: who asks for short ones is let in before
/// those who ask for long ones. Before that, and where the flag is not known, nothing changes.
#[cfg(target_env = "gnu")]
fn short_slices() {
    /// Here the kernel's number of a thread is wanted, of which this one stands for the thread that calls.
    const CALLING: thread_priority::ThreadId = 0;
    let slice = ThreadPriority::Deadline {
        runtime: SLICE,
        deadline: Duration::ZERO,
        period: Duration::ZERO,
        flags: KEEP_POLICY,
    };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Deadline);
    let _not_known = set_thread_priority_and_policy(CALLING, slice, policy);
}

#[cfg(not(target_env = "gnu"))]
fn short_slices() {}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    /// What a thread of this priority is for the kernel: its policy, how nice it is, and its slice if the kernel shows it.
    fn of_a_thread(priority: Option<Priority>) -> (ThreadSchedulePolicy, i32, Option<String>) {
        let ask = move || {
            if let Some(priority) = priority {
                priority.take();
            }
            let shown = std::fs::read_to_string("/proc/thread-self/sched").unwrap_or_default();
            let slice = shown.lines().find_map(|line| line.strip_prefix("se.slice"));
            (
                thread_priority::thread_schedule_policy().unwrap(),
                getpriority_process(None).unwrap(),
                slice.and_then(|rest| rest.split_whitespace().last().map(str::to_owned)),
            )
        };
        std::thread::spawn(ask).join().unwrap()
    }

    #[test]
    fn each_is_what_it_says_to_the_kernel_and_of_one_thread_alone() {
        let (ordinary, nice, slice) = of_a_thread(None);
        let (policy, low, _) = of_a_thread(Some(Priority::Low));
        assert_eq!((policy, low), (ordinary, (nice + NICE).min(19)));
        let (policy, ..) = of_a_thread(Some(Priority::Idle));
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        assert_eq!(policy, idle);
        let (policy, prompt, short) = of_a_thread(Some(Priority::Prompt));
        assert_eq!((policy, prompt), (ordinary, nice));
        // Kernels before 6.12 show a slice and do not let it be chosen.
        if cfg!(target_env = "gnu") && knows_slices() && slice.is_some() {
            assert_eq!(short.as_deref(), Some("100000"));
        }
        assert_eq!(of_a_thread(None), (ordinary, nice, slice));
    }

    fn knows_slices() -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release
            .split(['.', '-'])
            .map_while(|number| number.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(6), Some(12))
    }
}
