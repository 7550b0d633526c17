//! The process that started this one, where it cares: systemd, or `run --supervised`. It is told how this process fares,
//! and keeps its sockets while the process is replaced, in the protocol of sd_notify(3).

use std::{
    env,
    ffi::OsStr,
    io::{self, IoSlice},
    os::{
        fd::{AsFd, BorrowedFd},
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// The variable in which `run --supervised` tells a worker how often workers were replaced, by cause: `signal=1,hung=2`.
pub const RESTARTS: &str = "SIDECAR_RESTARTS";
/// The variable in which it tells a worker why the one before it ended.
pub const RESTART_CAUSE: &str = "SIDECAR_RESTART_CAUSE";
/// The variable that tells a worker to take over from one that still runs.
pub const SUCCESSOR: &str = "SIDECAR_SUCCESSOR";

/// A successor waits for the state directory of the worker that it takes over from.
pub const STANDBY: &str = "X_SIDECAR_STANDBY=1";

/// The process that started this one.
#[derive(Debug, Default)]
pub struct Parent {
    /// `None` where it does not want to be told anything.
    socket: Option<UnixDatagram>,
    /// How often workers were replaced, by cause; `None` without a supervisor.
    restarts: Option<Vec<(String, u64)>>,
    cause: Option<String>,
    is_successor: bool,
}

impl Parent {
    /// As the environment says.
    #[expect(
        clippy::disallowed_methods,
        reason = "the protocol's variables are no configuration"
    )]
    pub fn from_env() -> Self {
        let restarts = env::var(RESTARTS).ok().map(|restarts| {
            let counts = restarts.split(',').filter_map(|count| {
                let (cause, count) = count.split_once('=')?;
                Some((cause.to_owned(), count.parse().ok()?))
            });
            counts.collect()
        });
        Self {
            socket: env::var_os("NOTIFY_SOCKET").and_then(|address| connect(&address).ok()),
            restarts,
            cause: env::var(RESTART_CAUSE).ok(),
            is_successor: env::var_os(SUCCESSOR).is_some(),
        }
    }

    /// How often workers of `run --supervised` were replaced, by cause.
    pub fn restarts(&self) -> &[(String, u64)] {
        self.restarts.as_deref().unwrap_or_default()
    }

    /// Why the worker before this one ended.
    pub fn restart_cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Whether `run --supervised` started this process.
    pub fn is_supervisor(&self) -> bool {
        self.restarts.is_some()
    }

    /// Whether this process takes over from one that still runs.
    pub fn is_successor(&self) -> bool {
        self.is_successor
    }

    /// Tells it something: `READY=1`. Whether it hears is its own affair: nothing waits for it.
    pub fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            let _unheard = socket.send(state.as_bytes());
        }
    }

    /// Tells it that the start gets on, and when it will be told so again at the latest.
    pub fn tell_progress(&self, again_within: Duration) {
        self.tell(&format!("EXTEND_TIMEOUT_USEC={}", again_within.as_micros()));
    }

    /// Lets it keep a socket under a name, for the process after this one.
    pub fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) {
        let Some(socket) = &self.socket else { return };
        let state = format!("FDSTORE=1\nFDNAME={name}");
        let descriptors = [descriptor];
        let mut space = [const { std::mem::MaybeUninit::uninit() }; rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if beside.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            let state = [IoSlice::new(state.as_bytes())];
            let _unheard = sendmsg(socket.as_fd(), &state, &mut beside, SendFlags::NOSIGNAL);
        }
    }

    /// Lets it close the socket that it keeps under a name.
    pub fn forget(&self, name: &str) {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(address)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
