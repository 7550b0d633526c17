//! The supervisor's loop: signals, notices, and the ends of workers.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, WaitOptions, WaitStatus, wait},
};
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR2},
    low_level::pipe,
};

use super::{
    backoff::Backoff,
    notices::{Notice, Notices},
    worker::{Start, Worker},
};
use crate::{listener::InheritedSockets, parent::Parent};

/// After so many workers in a row that never answered, there is no point in another one.
const HOPELESS: u32 = 5;

/// As a shell says that a signal ended a process.
const ENDED_BY_SIGNAL: i32 = 128;

/// A name that begins so is the file of a Unix socket.
const UNIX: &str = "unix";

#[derive(Debug)]
struct Supervisor {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// The process that started this one.
    parent: Parent,
    notices: Notices,
    sockets: Vec<(String, OwnedFd)>,
    worker: Option<Worker>,
    /// Takes over from the worker.
    successor: Option<Worker>,
    /// When the next worker is started.
    start: Option<Instant>,
    backoff: Backoff,
    restarts: Restarts,
    /// Why the last worker ended.
    cause: Option<String>,
    /// Workers in a row that never answered.
    unready: u32,
    was_ready: bool,
    is_stopping: bool,
    /// A successor is wanted as soon as the worker answers.
    is_replacing: bool,
}

/// How often workers were replaced, by cause.
#[derive(Debug, Default)]
struct Restarts {
    signal: u64,
    exit: u64,
    hung: u64,
}

/// What there is to wait for beside notices.
struct Signals(Vec<(Signal, UnixStream)>);

/// Runs a program with these arguments, again and again, until it is told to stop or the program cannot start.
///
/// # Errors
/// When the process cannot get what it needs, or the first worker cannot be started.
pub(super) fn run(program: PathBuf, arguments: Vec<OsString>) -> io::Result<u8> {
    let signals = Signals::receive()?;
    let mut supervisor = Supervisor {
        program,
        arguments,
        parent: Parent::from_env(),
        notices: Notices::bind()?,
        sockets: InheritedSockets::from_env().into_descriptors(),
        worker: None,
        successor: None,
        start: None,
        backoff: Backoff::default(),
        restarts: Restarts::default(),
        cause: None,
        unready: 0,
        was_ready: false,
        is_stopping: false,
        is_replacing: false,
    };
    supervisor.worker = Some(supervisor.start(false)?);
    let code = supervisor.supervise(&signals);
    supervisor.remove_files();
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

impl Supervisor {
    fn start(&self, is_successor: bool) -> io::Result<Worker> {
        let Restarts { signal, exit, hung } = self.restarts;
        Worker::start(&Start {
            program: &self.program,
            arguments: &self.arguments,
            notices: self.notices.address(),
            sockets: &self.sockets,
            restarts: format!("signal={signal},exit={exit},hung={hung}"),
            cause: self.cause.as_deref(),
            is_successor,
        })
    }

    /// The exit status, once there is nothing more to do.
    fn supervise(&mut self, signals: &Signals) -> i32 {
        loop {
            signals.wait(&self.notices, self.until_next());
            for signal in signals.caught() {
                self.obey(signal);
            }
            while let Some((from, notices)) = self.notices.receive() {
                for notice in notices {
                    self.hear(from, notice);
                }
            }
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if let Some(code) = self.ended(pid, status) {
                    return code;
                }
            }
            let now = Instant::now();
            for worker in [&mut self.worker, &mut self.successor].into_iter().flatten() {
                if worker.deadline().is_some_and(|deadline| deadline <= now) {
                    worker.end();
                }
            }
            if self.start.is_some_and(|start| start <= now) {
                self.start = None;
                match self.start(false) {
                    Ok(worker) => self.worker = Some(worker),
                    // The program is being replaced, or there are too many processes.
                    Err(_) => self.start = Some(now + self.backoff.next(None)),
                }
            }
            if self.is_stopping && self.worker.is_none() && self.successor.is_none() {
                return 0;
            }
        }
    }

    /// How long there is nothing to do unless something happens.
    fn until_next(&self) -> Option<Duration> {
        let workers = [&self.worker, &self.successor];
        let deadlines = workers.into_iter().flatten().filter_map(Worker::deadline);
        let next = deadlines.chain(self.start).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn obey(&mut self, signal: Signal) {
        match signal {
            Signal::CHILD => {}
            Signal::USR2 => {
                self.is_replacing = true;
                self.replace();
            }
            _ => {
                if signal != Signal::HUP {
                    self.is_stopping = true;
                    self.start = None;
                }
                for worker in [&self.worker, &self.successor].into_iter().flatten() {
                    worker.signal(signal);
                }
            }
        }
    }

    fn hear(&mut self, from: i32, notice: Notice) {
        let is_from = |worker: &Option<Worker>| {
            worker
                .as_ref()
                .is_some_and(|worker| worker.pid().as_raw_nonzero().get() == from)
        };
        let is_successor = is_from(&self.successor);
        let speaker = if is_successor {
            &mut self.successor
        } else if is_from(&self.worker) {
            &mut self.worker
        } else {
            return;
        };
        let Some(worker) = speaker else { return };
        match notice {
            Notice::Ready => {
                worker.ready = Some(Instant::now());
                worker.note_alive();
                self.unready = 0;
                if !self.was_ready {
                    self.was_ready = true;
                    self.parent.tell("READY=1");
                }
                if is_successor {
                    self.retire();
                } else {
                    self.replace();
                }
            }
            Notice::Standby => {
                worker.note_waiting();
                if is_successor {
                    self.retire();
                }
            }
            Notice::Progress(again_within) => worker.note_progress(again_within),
            Notice::Alive => worker.note_alive(),
            Notice::Broken => worker.end(),
            Notice::Limit(limit) => worker.limit = limit,
            Notice::Keep(name, socket) => {
                self.sockets.retain(|(kept, _)| *kept != name);
                self.sockets.push((name, socket));
            }
            Notice::Forget(name) => self.sockets.retain(|(kept, _)| *kept != name),
        }
    }

    /// Starts a successor where one is wanted and the worker can be taken over from.
    fn replace(&mut self) {
        let is_sound = self.worker.as_ref().is_some_and(|worker| worker.ready.is_some());
        if self.is_replacing && is_sound && self.successor.is_none() && !self.is_stopping {
            self.is_replacing = false;
            self.successor = self.start(true).ok();
        }
    }

    /// Lets the worker finish, now that its successor can go on.
    fn retire(&self) {
        if let Some(worker) = &self.worker {
            worker.signal(Signal::TERM);
        }
    }

    /// A process has ended: a worker, or one that was left to this process. The exit status, if it was the last.
    fn ended(&mut self, pid: Pid, status: WaitStatus) -> Option<i32> {
        if self.successor.as_ref().is_some_and(|worker| worker.pid() == pid) {
            self.successor = None;
            return None;
        }
        if self.worker.as_ref().is_none_or(|worker| worker.pid() != pid) {
            return None;
        }
        let worker = self.worker.take()?;
        if let Some(successor) = self.successor.take() {
            self.worker = Some(successor);
            return None;
        }
        let signal = status.terminating_signal();
        let code = signal.map_or_else(
            || status.exit_status().unwrap_or(1),
            |signal| ENDED_BY_SIGNAL + signal,
        );
        // One that was killed, be it by the kernel for its memory, might have answered.
        if worker.ready.is_none() && (signal.is_none() || worker.hung) {
            self.unready += 1;
        }
        // One that says what it cannot start with is the first to ask.
        let cannot_start = !self.was_ready && signal.is_none();
        if self.is_stopping || cannot_start || self.unready >= HOPELESS {
            return Some(code);
        }
        self.cause = Some(match signal {
            _ if worker.hung => {
                self.restarts.hung += 1;
                "it hung".to_owned()
            }
            Some(signal) => {
                self.restarts.signal += 1;
                format!("signal {signal}")
            }
            None => {
                self.restarts.exit += 1;
                format!("exit status {code}")
            }
        });
        self.start = Some(Instant::now() + self.backoff.next(worker.ready));
        None
    }

    /// Removes the files of Unix sockets: workers leave them to those after them.
    fn remove_files(&self) {
        for (name, _) in &self.sockets {
            if let Some(path) = name.strip_prefix(UNIX) {
                let _gone = fs::remove_file(Path::new(path));
            }
        }
    }
}

impl Signals {
    fn receive() -> io::Result<Self> {
        let mut all = Vec::new();
        for (number, signal) in [
            (SIGTERM, Signal::TERM),
            (SIGINT, Signal::INT),
            (SIGHUP, Signal::HUP),
            (SIGUSR2, Signal::USR2),
            (SIGCHLD, Signal::CHILD),
        ] {
            let (caught, write) = UnixStream::pair()?;
            caught.set_nonblocking(true)?;
            pipe::register(number, write)?;
            all.push((signal, caught));
        }
        Ok(Self(all))
    }

    /// Waits for a signal or a notice, for at most this long.
    fn wait(&self, notices: &Notices, at_most: Option<Duration>) {
        let mut polled: Vec<PollFd<'_>> = Vec::with_capacity(self.0.len() + 1);
        polled.push(PollFd::from_borrowed_fd(notices.as_fd(), PollFlags::IN));
        for (_, caught) in &self.0 {
            polled.push(PollFd::from_borrowed_fd(caught.as_fd(), PollFlags::IN));
        }
        let at_most = at_most.and_then(|at_most| Timespec::try_from(at_most).ok());
        // Interrupted or not: whatever there is, is found.
        let _ready = poll(&mut polled, at_most.as_ref());
    }

    /// The signals since the last call; one that came several times counts once for each.
    fn caught(&self) -> Vec<Signal> {
        let mut signals = Vec::new();
        for (signal, caught) in &self.0 {
            let mut bytes = [0; 16];
            if let Ok(count @ 1..) = (&*caught).read(&mut bytes) {
                signals.extend(std::iter::repeat_n(*signal, count));
            }
        }
        signals
    }
}
