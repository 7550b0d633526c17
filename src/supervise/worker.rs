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

/// A worker that runs, as far as is known.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    /// Since when it answers.
    pub(super) ready: Option<Instant>,
    /// When it last said that it runs; from then on it must go on.
    alive: Option<Instant>,
    pub(super) limit: Duration,
    /// It was ended because it did not say so any more.
    pub(super) hung: bool,
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
            alive: None,
            limit: FIRST_LIMIT,
            hung: false,
        })
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// It said that it runs.
    pub(super) fn note_alive(&mut self) {
        self.alive = Some(Instant::now());
    }

    /// When it is ended unless it says once more that it runs.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.hung).then_some(self.alive? + self.limit)
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
