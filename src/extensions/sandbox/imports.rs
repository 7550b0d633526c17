//! What a component may import, and the state of one call behind it: its limits, and what it logged and counted. That is
//! kept until the call is over, so that a call which is begun anew elsewhere logs nothing twice.

use std::{sync::Arc, time::Duration};

use wasmtime::{
    ResourceLimiter, StoreContextMut, UpdateDeadline,
    component::{Linker, WasmStr},
};

use super::{
    budget::Share,
    epoch::Watch,
    text::is_name,
    timer::Timer,
    turns::{Go, Turns},
    types::{CallEnv, CallLimits, Capability, GuestOutput, Time},
    wire::LogLevel,
};
use crate::split_mix::SplitMix64;

/// Lines of one call, and bytes of one line and of all of them; further ones are dropped.
const MAX_LOG_LINES: usize = 32;
const MAX_LOG_LINE_BYTES: usize = 1_024;
/// For so long a call that takes turns computes before it is looked at for the first time.
const FIRST_LOOK: Duration = Duration::from_millis(6);
/// Counters of one call.
const MAX_COUNTERS: usize = 32;
/// The longest name of a counter.
const MAX_COUNTER_NAME_BYTES: usize = 48;

/// Why a call was ended by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ended {
    /// It computed for as long as it may.
    #[error("the deadline has passed")]
    Deadline,
    /// It is not waited for any longer.
    #[error("it is not waited for any longer")]
    Late,
    /// Another call needs its place more.
    #[error("it made room for another call")]
    PushedOut,
    /// It takes longer than it may take where the request is served.
    #[error("the call takes longer than the fast lane allows")]
    Overrun,
    /// All calls together have as much memory as they may have.
    #[error("the memory of all calls together is used up")]
    NoRoom,
}

/// The state of one call.
#[derive(Debug)]
pub(super) struct CallState {
    pub(super) limiter: Limiter,
    pub(super) timer: Timer,
    time: Time,
    /// `None`: its thread is its own.
    turns: Option<Arc<dyn Turns>>,
    now_ms: u64,
    random: SplitMix64,
    pub(super) output: GuestOutput,
}

/// Keeps memory and tables within their limits, and remembers that it had to.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_bytes: usize,
    table_elements: usize,
    used: usize,
    pub(super) peak: usize,
    pub(super) refused: Option<Refused>,
    /// What it has of the memory of all calls.
    share: Share,
}

/// What a call asked more of than it may have.
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
        // Nothing of it is given back before its end.
        if !self.share.grow(used.saturating_sub(self.used)) {
            return Err(Ended::NoRoom.into());
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

impl CallState {
    pub(super) fn new(
        limits: CallLimits,
        time: Time,
        turns: Option<Arc<dyn Turns>>,
        env: CallEnv,
        share: Share,
    ) -> Self {
        Self {
            limiter: Limiter {
                memory_bytes: limits.memory_bytes,
                table_elements: limits.table_elements,
                used: 0,
                peak: 0,
                refused: None,
                share,
            },
            timer: Timer::begin(),
            time,
            turns,
            now_ms: env.now_ms,
            random: SplitMix64::new(env.seed),
            output: GuestOutput::default(),
        }
    }

    /// How often the clock checks it.
    pub(super) fn watch(&self) -> Watch {
        match self.time.fast {
            None => {
                let end = self.time.deadline.min(self.time.patience);
                let first = self.turns.as_ref().map_or(end, |_| end.min(FIRST_LOOK));
                Watch::At(self.timer.began() + first)
            }
            Some(fast) if fast.trusted => Watch::Trusting,
            Some(_) => Watch::Close,
        }
    }

    fn log(&mut self, level: LogLevel, message: &str) {
        if self.output.lines.len() == MAX_LOG_LINES {
            self.output.dropped = self.output.dropped.saturating_add(1);
            return;
        }
        let cut = message.floor_char_boundary(MAX_LOG_LINE_BYTES);
        // A line is a line: what could pass for another one is written as a blank.
        let line = message[..cut].replace(char::is_control, " ");
        self.output.lines.push((level, line));
    }

    fn count(&mut self, name: &str, amount: u64) {
        if let Some((_, count)) = self.output.counters.iter_mut().find(|(known, _)| known == name) {
            *count = count.saturating_add(amount);
        } else if self.output.counters.len() < MAX_COUNTERS && is_name(name, MAX_COUNTER_NAME_BYTES) {
            self.output.counters.push((name.to_owned(), amount));
        }
    }
}

/// Called at each tick of the clock that finds the call running.
pub(super) fn at_tick(store: StoreContextMut<'_, CallState>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data();
    let time = state.time;
    let fast = time.fast.map_or(Duration::MAX, |fast| fast.after);
    if let Some(turns) = &state.turns
        && state.timer.elapsed() < time.patience
    {
        match turns.wait(state.timer.began() + time.patience) {
            Go::On => {}
            Go::Late => return Err(Ended::Late.into()),
            Go::Away => return Err(Ended::PushedOut.into()),
        }
    }
    let elapsed = state.timer.elapsed();
    // It cannot have computed for longer than it is here.
    if elapsed < time.deadline.min(time.patience).min(fast) {
        return Ok(UpdateDeadline::Continue(1));
    }
    let ran = state.timer.ran(elapsed);
    if ran >= time.deadline {
        return Err(Ended::Deadline.into());
    }
    if elapsed >= time.patience {
        return Err(Ended::Late.into());
    }
    if ran >= fast {
        return Err(Ended::Overrun.into());
    }
    Ok(UpdateDeadline::Continue(1))
}

/// The functions that a component with these capabilities finds. There is nothing else: no WASI.
pub(super) fn linker(
    engine: &wasmtime::Engine,
    capabilities: &[Capability],
) -> wasmtime::Result<Linker<CallState>> {
    let mut linker = Linker::<CallState>::new(engine);
    linker.instance("beamline:extension/types@0.1.0")?;
    linker.instance("beamline:extension/log@0.1.0")?.func_wrap(
        "write",
        |mut store: StoreContextMut<'_, CallState>, (level, message): (LogLevel, WasmStr)| {
            if store.data().output.lines.len() == MAX_LOG_LINES {
                store.data_mut().output.dropped += 1;
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
                .func_wrap("now-ms", |store: StoreContextMut<'_, CallState>, (): ()| {
                    Ok((store.data().now_ms,))
                })?,
            Capability::Random => linker
                .instance("beamline:extension/random@0.1.0")?
                .func_wrap("next-u64", |mut store: StoreContextMut<'_, CallState>, (): ()| {
                    Ok((store.data_mut().random.next(),))
                })?,
            Capability::Metrics => linker.instance("beamline:extension/metrics@0.1.0")?.func_wrap(
                "count",
                |mut store: StoreContextMut<'_, CallState>, (name, amount): (WasmStr, u64)| {
                    let name = name.to_str(&store)?.into_owned();
                    store.data_mut().count(&name, amount);
                    Ok(())
                },
            )?,
        }
    }
    Ok(linker)
}
