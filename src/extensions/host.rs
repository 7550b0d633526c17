//! What one call has of the host: its limits, and the functions it may call. What it says and counts is kept until the
//! call is over, so that a call which is begun anew elsewhere says nothing twice.

use std::time::{Duration, Instant};

use wasmtime::{
    ResourceLimiter, StoreContextMut, UpdateDeadline,
    component::{Linker, WasmStr},
};

use super::{clock::Watch, wire::LogLevel};

/// Lines of one call, and bytes of one line and of all of them; further ones are dropped.
const LOG_LINES: usize = 32;
const LOG_LINE_BYTES: usize = 1_024;
/// Counters of one call.
const COUNTERS: usize = 32;
/// The longest name of a counter.
const COUNTER_NAME_BYTES: usize = 48;

/// What a component may import besides `log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    Clock,
    Random,
    Metrics,
}

impl Capability {
    pub const ALL: [Self; 3] = [Self::Clock, Self::Random, Self::Metrics];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Random => "random",
            Self::Metrics => "metrics",
        }
    }
}

/// Why a call was ended by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ended {
    #[error("the deadline has passed")]
    Deadline,
    /// It takes longer than it may take where the request is served.
    #[error("the call takes longer than the fast lane allows")]
    Overrun,
}

/// Until when a call may go on.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    /// From its beginning.
    pub deadline: Duration,
    /// `None`: it is on a thread of its own.
    pub fast: Option<Fast>,
}

/// On the thread that serves the request.
#[derive(Debug, Clone, Copy)]
pub struct Fast {
    /// After this it is to be begun anew on a thread of its own.
    pub after: Duration,
    /// It was quick so often that it is looked at seldom.
    pub trusted: bool,
}

/// The state of one call.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) limiter: Limiter,
    began: Instant,
    time: Time,
    now_ms: u64,
    chance: u64,
    pub(super) said: Said,
}

/// What a call left behind.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Said {
    pub lines: Vec<(LogLevel, String)>,
    /// Lines that were dropped.
    pub dropped: u64,
    pub counters: Vec<(String, u64)>,
}

/// Keeps memory and tables within their limits, and remembers that it had to.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_bytes: usize,
    table_elements: usize,
    used: usize,
    pub(super) peak: usize,
    pub(super) refused: Option<Refused>,
}

/// What a call wanted more of than it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Memory,
    Table,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        // A component may have several memories; the limit is for all of them.
        let used = self.used.saturating_sub(current).saturating_add(desired);
        if used > self.memory_bytes {
            self.refused = Some(Refused::Memory);
            return Ok(false);
        }
        self.used = used;
        self.peak = self.peak.max(used);
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.table_elements;
        if !fits {
            self.refused = Some(Refused::Table);
        }
        Ok(fits)
    }
}

impl Host {
    pub(super) fn new(
        memory_bytes: usize,
        table_elements: usize,
        time: Time,
        now_ms: u64,
        seed: u64,
    ) -> Self {
        Self {
            limiter: Limiter {
                memory_bytes,
                table_elements,
                used: 0,
                peak: 0,
                refused: None,
            },
            began: Instant::now(),
            time,
            now_ms,
            chance: seed,
            said: Said::default(),
        }
    }

    /// How the clock is to look at it.
    pub(super) fn watch(&self) -> Watch {
        match self.time.fast {
            None => Watch::At(self.began + self.time.deadline),
            Some(fast) if fast.trusted => Watch::Trusting,
            Some(_) => Watch::Close,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn log(&mut self, level: LogLevel, message: &str) {
        if self.said.lines.len() == LOG_LINES {
            self.said.dropped = self.said.dropped.saturating_add(1);
            return;
        }
        let cut = message.floor_char_boundary(LOG_LINE_BYTES);
        // A line is a line: what could pass for another one is written as a blank.
        let line = message[..cut].replace(char::is_control, " ");
        self.said.lines.push((level, line));
    }

    /// SplitMix64, as the SDK's test host has it.
    fn next_u64(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn count(&mut self, name: &str, amount: u64) {
        if let Some((_, count)) = self.said.counters.iter_mut().find(|(known, _)| known == name) {
            *count = count.saturating_add(amount);
        } else if self.said.counters.len() < COUNTERS && is_counter_name(name) {
            self.said.counters.push((name.to_owned(), amount));
        }
    }
}

fn is_counter_name(name: &str) -> bool {
    name.len() <= COUNTER_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
}

/// Called at each tick of the clock that finds the call running.
pub(super) fn at_tick(store: StoreContextMut<'_, Host>) -> wasmtime::Result<UpdateDeadline> {
    let host = store.data();
    let elapsed = host.elapsed();
    if elapsed >= host.time.deadline {
        return Err(Ended::Deadline.into());
    }
    if host.time.fast.is_some_and(|fast| elapsed >= fast.after) {
        return Err(Ended::Overrun.into());
    }
    Ok(UpdateDeadline::Continue(1))
}

/// The functions that a component with these capabilities finds. There is nothing else: no WASI.
pub(super) fn linker(
    engine: &wasmtime::Engine,
    capabilities: &[Capability],
) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::<Host>::new(engine);
    linker.instance("beamline:extension/types@0.1.0")?;
    linker.instance("beamline:extension/log@0.1.0")?.func_wrap(
        "write",
        |mut store: StoreContextMut<'_, Host>, (level, message): (LogLevel, WasmStr)| {
            if store.data().said.lines.len() == LOG_LINES {
                store.data_mut().said.dropped += 1;
                return Ok(());
            }
            let message = message.to_str(&store)?.into_owned();
            store.data_mut().log(level, &message);
            Ok(())
        },
    )?;
    for capability in capabilities {
        match capability {
            Capability::Clock => linker
                .instance("beamline:extension/clock@0.1.0")?
                .func_wrap("now-ms", |store: StoreContextMut<'_, Host>, (): ()| {
                    Ok((store.data().now_ms,))
                })?,
            Capability::Random => linker
                .instance("beamline:extension/random@0.1.0")?
                .func_wrap("next-u64", |mut store: StoreContextMut<'_, Host>, (): ()| {
                    Ok((store.data_mut().next_u64(),))
                })?,
            Capability::Metrics => linker.instance("beamline:extension/metrics@0.1.0")?.func_wrap(
                "count",
                |mut store: StoreContextMut<'_, Host>, (name, amount): (WasmStr, u64)| {
                    let name = name.to_str(&store)?.into_owned();
                    store.data_mut().count(&name, amount);
                    Ok(())
                },
            )?,
        }
    }
    Ok(linker)
}
