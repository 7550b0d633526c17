//! Sockets that the process that started this one listens at already: those of a systemd socket unit, or of the process
//! that this one replaces.

use std::{
    env,
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixListener},
};

use listenfd::ListenFd;

use super::address::Address;

/// Inherited sockets that nothing has taken yet.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<Named>);

#[derive(Debug)]
struct Named {
    /// Empty where the parent names none.
    name: String,
    socket: Inherited,
}

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Inherited {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl InheritedSockets {
    /// Those that `LISTEN_FDS` counts. Call once, before there are threads: it removes the variables.
    #[expect(
        clippy::disallowed_methods,
        reason = "the protocol's variables are no configuration"
    )]
    pub fn from_env() -> Self {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut inherited = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..inherited.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let tcp = inherited.take_tcp_listener(index).ok().flatten();
            let socket = match tcp {
                Some(listener) => Some(Inherited::Tcp(listener)),
                None => inherited
                    .take_unix_listener(index)
                    .ok()
                    .flatten()
                    .map(Inherited::Unix),
            };
            match socket {
                Some(socket) => sockets.push(Named { name, socket }),
                None => tracing::warn!(
                    name,
                    "An inherited descriptor is no socket that listens; it is left alone."
                ),
            }
        }
        Self(sockets)
    }

    /// The one for this address. Where the kernel or the process before this one chose a part of the address, only the
    /// name tells.
    pub(super) fn take(&mut self, name: &str, address: &Address) -> Option<Inherited> {
        let fits = |named: &Named| match (&named.socket, address) {
            (Inherited::Tcp(socket), Address::Tcp(address)) => socket.local_addr().is_ok_and(|local| {
                local == *address || (named.name == name && address.port() == 0 && local.ip() == address.ip())
            }),
            (Inherited::Unix(socket), Address::Unix(path)) => {
                let local = socket.local_addr().ok();
                let local = local.as_ref().and_then(|local| local.as_pathname());
                path.exists() && (local == Some(path) || named.name == name)
            }
            _ => false,
        };
        let place = self.0.iter().position(fits)?;
        Some(self.0.swap_remove(place).socket)
    }

    /// All of them, by name, for another process.
    pub fn into_descriptors(self) -> Vec<(String, OwnedFd)> {
        let descriptor = |named: Named| match named.socket {
            Inherited::Tcp(socket) => (named.name, socket.into()),
            Inherited::Unix(socket) => (named.name, socket.into()),
        };
        self.0.into_iter().map(descriptor).collect()
    }

    /// The names of those that nothing has taken, which are closed now.
    pub fn close_others(self) -> Vec<String> {
        self.0.into_iter().map(|named| named.name).collect()
    }
}
