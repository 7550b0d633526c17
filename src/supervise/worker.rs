//! One run of the sidecar below the supervisor.

use std::{
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process};

use crate::parent::{RESTART_CAUSE, RESTARTS, SUCCESSOR};

/// The first descriptor of a process that inherits sockets, by the protocol of sd_listen_fds(3).
const FIRST_DESCRIPTOR: i32 = 3;

/// How often a worker says that it runs, until it has said itself how often it must.
const FIRST_LIMIT: Duration = Duration::from_secs(5);

/// How long a start may take until it is first heard of.
const FIRST_START: Duration = Duration::from_secs(60);

/// A worker that runs, as far as is known.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    /// Since when it answers.
    pub(super) ready: Option<Instant>,
    /// When it last said something of itself.
    heard: Instant,
    state: State,
    /// How long one that runs may be silent.
    pub(super) limit: Duration,
    /// It was ended because it was silent for longer.
    pub(super) hung: bool,
}

/// How far a worker is.
#[derive(Debug)]
enum State {
    /// It starts, and is heard of again within this time.
    Starts(Duration),
    /// It waits for the worker that it takes over from.
    Waits,
    Runs,
}

/// What a worker is started with.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) program: &'a Path,
    pub(super) arguments: &'a [OsString],
    pub(super) notices: String,
    /// The sockets that are kept, by name.
    pub(super) sockets: &'a [(String, OwnedFd)],
    /// How often workers were replaced, as the environment variable has it.
    pub(super) restarts: String,
    pub(super) cause: Option<&'a str>,
    pub(super) is_successor: bool,
}

impl Worker {
    /// Starts one.
    pub(super) fn start(start: &Start<'_>) -> io::Result<Self> {
        let mut command = Command::new(start.program);
        command
            .args(start.arguments)
            .env("NOTIFY_SOCKET", &start.notices)
            .env(RESTARTS, &start.restarts)
            // They are for this process.
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("WATCHDOG_PID")
            .env_remove("WATCHDOG_USEC")
            .env_remove(RESTART_CAUSE)
            .env_remove(SUCCESSOR);
        if let Some(cause) = start.cause {
            command.env(RESTART_CAUSE, cause);
        }
        if start.is_successor {
            command.env(SUCCESSOR, "1");
        }
        if !start.sockets.is_empty() {
            let names: Vec<&str> = start.sockets.iter().map(|(name, _)| name.as_str()).collect();
            let mut mappings = Vec::new();
            for ((_, socket), child_fd) in start.sockets.iter().zip(FIRST_DESCRIPTOR..) {
                let parent_fd = socket.try_clone()?;
                mappings.push(FdMapping { parent_fd, child_fd });
            }
            command
                .env("LISTEN_FDS", names.len().to_string())
                .env("LISTEN_FDNAMES", names.join(":"))
                .fd_mappings(mappings)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        }
        Ok(Self {
            child: command.spawn()?,
            ready: None,
            heard: Instant::now(),
            state: State::Starts(FIRST_START),
            limit: FIRST_LIMIT,
            hung: false,
        })
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// It said that it runs.
    pub(super) fn note_alive(&mut self) {
        self.note(State::Runs);
    }

    /// It said that its start gets on.
    pub(super) fn note_progress(&mut self, again_within: Duration) {
        self.note(State::Starts(again_within));
    }

    /// It said that it waits for another one, which may take as long as it likes.
    pub(super) fn note_waiting(&mut self) {
        self.note(State::Waits);
    }

    fn note(&mut self, state: State) {
        (self.heard, self.state) = (Instant::now(), state);
    }

    /// When it is ended unless it is heard of before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let silence = match self.state {
            State::Starts(within) => within,
            State::Waits => return None,
            State::Runs => self.limit,
        };
        // One that was ended may take its time: in a call of the kernel that does not return.
        (!self.hung).then(|| self.heard + silence)
    }

    /// Ends it now: it does not run any more.
    pub(super) fn end(&mut self) {
        self.hung = true;
        self.signal(Signal::KILL);
    }

    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended a moment ago.
        let _gone = kill_process(self.pid(), signal);
    }
}
