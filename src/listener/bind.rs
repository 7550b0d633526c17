//! Listening sockets, bound eagerly so that a taken address is found at the start.

use std::{
    fmt, fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::PathBuf,
    sync::Arc,
};

use arc_swap::ArcSwap;
use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::{
    address::{Address, Peer},
    inherited::{Inherited, InheritedSockets},
    stream::{Stream, TlsStream},
};

/// Kernel queue of connections not yet accepted.
const BACKLOG: u32 = 1024;

/// Bytes of answers that the kernel may keep for a client that does not read, about twice as many with its own book-keeping.
/// Left alone it grows to several megabytes a connection, which no limit of this process would see.
const SEND_BUFFER: usize = 128 << 10;

/// A bound listening socket.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    address: Address,
    tls: Option<TlsSettings>,
}

/// The settings of TLS, which may be exchanged while connections are accepted.
pub type TlsSettings = Arc<ArcSwap<rustls::ServerConfig>>;

#[derive(Debug)]
enum Socket {
    /// And whether another process may listen at the same address.
    Tcp(TcpListener, bool),
    /// With the inode of the socket file, where it is removed in the end: a successor may have put its own in the same
    /// place.
    Unix(UnixListener, Option<u64>),
}

impl Bound {
    /// Binds, creating a Unix socket with `unix_mode`. With `share`, another process may listen at the same
    /// address at the same time, so that a successor can start before its predecessor stops.
    pub fn bind(address: &Address, unix_mode: u32, share: bool) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let socket = if address.is_ipv4() {
                    TcpSocket::new_v4()?
                } else {
                    TcpSocket::new_v6()?
                };
                socket.set_reuseaddr(true)?;
                socket.set_reuseport(share)?;
                socket.bind(*address)?;
                let listener = socket.listen(BACKLOG)?;
                // The connections inherit it.
                SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER)?;
                let address = Address::Tcp(listener.local_addr()?);
                Ok(Self {
                    socket: Socket::Tcp(listener, share),
                    address,
                    tls: None,
                })
            }
            Address::Unix(path) => {
                if !share && std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                // Bound under another name and renamed into place: clients find the old socket or the new one,
                // with its final permissions, and never none.
                let mut temporary = path.clone().into_os_string();
                temporary.push(format!(".{}", std::process::id()));
                let temporary = PathBuf::from(temporary);
                match fs::remove_file(&temporary) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                let listener = UnixListener::bind(&temporary)?;
                fs::set_permissions(&temporary, fs::Permissions::from_mode(unix_mode))?;
                let inode = Some(fs::metadata(&temporary)?.ino());
                fs::rename(&temporary, path)?;
                Ok(Self {
                    socket: Socket::Unix(listener, inode),
                    address: Address::Unix(path.clone()),
                    tls: None,
                })
            }
        }
    }

    /// The process that started this one keeps the socket, and so its file.
    pub fn leave_file(&mut self) {
        if let Socket::Unix(_, inode) = &mut self.socket {
            *inode = None;
        }
    }

    /// Where this socket really listens: port 0 has become the port that the kernel chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Takes a socket that the process that started this one listens at under this name, if there is one for the address.
    ///
    /// # Errors
    /// When the runtime cannot take it.
    pub fn inherit(
        inherited: &mut InheritedSockets,
        name: &str,
        address: &Address,
    ) -> io::Result<Option<Self>> {
        let Some(socket) = inherited.take(name, address) else {
            return Ok(None);
        };
        Ok(Some(match socket {
            Inherited::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER)?;
                let address = Address::Tcp(listener.local_addr()?);
                Self {
                    socket: Socket::Tcp(TcpListener::from_std(listener)?, false),
                    address,
                    tls: None,
                }
            }
            Inherited::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Self {
                    socket: Socket::Unix(UnixListener::from_std(listener)?, None),
                    address: address.clone(),
                    tls: None,
                }
            }
        }))
    }

    /// Encrypts what comes over TCP from now on.
    #[must_use]
    pub fn with_tls(self, settings: TlsSettings) -> Self {
        Self {
            tls: Some(settings),
            ..self
        }
    }

    fn stream(&self, stream: TcpStream) -> Stream {
        match &self.tls {
            None => Stream::Tcp(stream),
            Some(settings) => {
                let acceptor = TlsAcceptor::from(settings.load_full());
                Stream::Tls(Box::new(TlsStream::Handshake(acceptor.accept(stream))))
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.socket {
            Socket::Tcp(listener, _) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((self.stream(stream), Peer::Tcp(address)))
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Peer::Unix))
            }
        }
    }

    /// Leaves new connections to the process that listens at the same address, if one may. The kernel would go on to give this
    /// socket its part of them until it is closed, and reset those that came since the last look.
    pub(super) fn leave_new_ones(&self) {
        /// `BPF_RET | BPF_K`: a filter that passes no bytes of a packet. A client whose packet is dropped sends it again,
        /// and by then only the other socket is there.
        const DROP: SockFilter = SockFilter::new(0x06, 0, 0, 0);
        if let Socket::Tcp(listener, true) = &self.socket
            && let Err(error) = SockRef::from(listener).attach_filter(&[DROP])
        {
            tracing::debug!(%error, "Connections that come while this socket is closed are reset.");
        }
    }

    /// Accepts a connection that is already waiting, or none. Asks the kernel itself: the runtime may not have heard
    /// yet of a client that came a moment ago.
    pub(super) fn accept_pending(&self) -> io::Result<Option<(Stream, Peer)>> {
        let accepted = match &self.socket {
            Socket::Tcp(listener, _) => {
                let listener = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
                listener.accept().and_then(|(stream, address)| {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    Ok((self.stream(TcpStream::from_std(stream)?), Peer::Tcp(address)))
                })
            }
            Socket::Unix(listener, _) => {
                let listener = std::os::unix::net::UnixListener::from(listener.as_fd().try_clone_to_owned()?);
                listener.accept().and_then(|(stream, _)| {
                    stream.set_nonblocking(true)?;
                    Ok((Stream::Unix(UnixStream::from_std(stream)?), Peer::Unix))
                })
            }
        };
        match accepted {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Closes the socket and removes its file, unless a successor has put its own there.
    pub(super) fn remove(self) {
        if let (Address::Unix(path), Socket::Unix(_, inode)) = (&self.address, &self.socket)
            && inode.is_some_and(|inode| fs::metadata(path).is_ok_and(|found| found.ino() == inode))
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(%error, path = %path.display(), "Could not remove the socket file.");
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(listener, _) => listener.as_fd(),
            Socket::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_successor_takes_over_a_unix_socket_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Unix(folder.path().join("s.sock"));
        let first = Bound::bind(&address, 0o600, false).unwrap();
        let mode = fs::metadata(folder.path().join("s.sock"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            Bound::bind(&address, 0o600, false).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        let second = Bound::bind(&address, 0o660, true).unwrap();
        first.remove();
        let _client = UnixStream::connect(folder.path().join("s.sock")).await.unwrap();
        assert!(matches!(second.accept().await.unwrap().1, Peer::Unix));
        second.remove();
        assert!(!folder.path().join("s.sock").exists());
        // A file left behind by a killed process is no obstacle.
        drop(Bound::bind(&address, 0o600, false).unwrap());
        Bound::bind(&address, 0o600, false).unwrap();
    }
}
