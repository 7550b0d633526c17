//! What workers say: datagrams of sd_notify(3), some with a socket.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};

/// Longer than any notice of a worker.
const LONGEST: usize = 4096;

/// Where workers send their notices.
#[derive(Debug)]
pub(super) struct Notices {
    socket: UnixDatagram,
    name: String,
}

/// Something that a worker says.
#[derive(Debug)]
pub(super) enum Notice {
    /// It answers.
    Ready,
    /// It waits for the state directory of the worker that it takes over from.
    Standby,
    /// Its start gets on, and it says so again within this time.
    Progress(Duration),
    /// It runs.
    Alive,
    /// It is broken, and knows it.
    Broken,
    /// It must say `Alive` at least this often.
    Limit(Duration),
    /// A socket to keep.
    Keep(String, OwnedFd),
    /// A socket that is no longer needed.
    Forget(String),
}

impl Notices {
    /// Binds a name in the network namespace: it needs no file, so that the file system may be read-only. In the containers
    /// of one pod, which share that namespace, every supervisor may be process 1.
    pub(super) fn bind() -> io::Result<Self> {
        let name = format!("beamline-sidecar/supervisor/{:016x}", fastrand::u64(..));
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        socket.set_nonblocking(true)?;
        // Every process of the network namespace can send here; only the notices of workers count.
        sockopt::set_socket_passcred(&socket, true)?;
        Ok(Self { socket, name })
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(super) fn address(&self) -> String {
        format!("@{}", self.name)
    }

    /// The next notices, with the id of the process that they are from.
    pub(super) fn receive(&self) -> Option<(i32, Vec<Notice>)> {
        let mut bytes = [0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut beside,
            RecvFlags::CMSG_CLOEXEC,
        )
        .ok()?;
        let (mut sender, mut descriptor) = (0, None);
        for message in beside.drain() {
            match message {
                RecvAncillaryMessage::ScmCredentials(of) => sender = of.pid.as_raw_nonzero().get(),
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptor = descriptors.next(),
                _ => {}
            }
        }
        let text = String::from_utf8_lossy(bytes.get(..received.bytes).unwrap_or_default());
        Some((sender, parse(&text, descriptor)))
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn parse(text: &str, descriptor: Option<OwnedFd>) -> Vec<Notice> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    let mut notices = Vec::new();
    if let Some(limit) = value("WATCHDOG_USEC").and_then(|limit| limit.parse().ok()) {
        notices.push(Notice::Limit(Duration::from_micros(limit)));
    }
    if let Some(within) = value("EXTEND_TIMEOUT_USEC").and_then(|within| within.parse().ok()) {
        notices.push(Notice::Progress(Duration::from_micros(within)));
    }
    match value("WATCHDOG") {
        Some("1") => notices.push(Notice::Alive),
        Some("trigger") => notices.push(Notice::Broken),
        _ => {}
    }
    if value("READY") == Some("1") {
        notices.push(Notice::Ready);
    }
    if value("X_SIDECAR_STANDBY") == Some("1") {
        notices.push(Notice::Standby);
    }
    if let Some(name) = value("FDNAME") {
        match descriptor {
            Some(descriptor) if value("FDSTORE") == Some("1") => {
                notices.push(Notice::Keep(name.to_owned(), descriptor));
            }
            _ if value("FDSTOREREMOVE") == Some("1") => notices.push(Notice::Forget(name.to_owned())),
            _ => {}
        }
    }
    notices
}
