//! Where to listen: `HOST:PORT` or `unix:/path`, bound eagerly so that a taken address is found at the start.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
};

/// Kernel queue of connections not yet accepted.
const BACKLOG: u32 = 1024;

/// A place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is neither IP:PORT, such as 127.0.0.1:8080, nor unix:/absolute/path")]
pub struct InvalidAddress(String);

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path.to_owned()))
            } else {
                Err(invalid())
            };
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let port: u16 = port.parse().map_err(|_not_a_port| invalid())?;
            return Ok(Self::Tcp(SocketAddr::from(([127, 0, 0, 1], port))));
        }
        text.parse().map(Self::Tcp).map_err(|_not_an_address| invalid())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    Unix,
}

impl Peer {
    /// Whether the peer is on this machine.
    pub fn is_local(self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix => true,
        }
    }
}

/// A bound listening socket.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    address: Address,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    /// With the inode of the socket file: a successor may have put its own in the same place.
    Unix(UnixListener, u64),
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
                let address = Address::Tcp(listener.local_addr()?);
                Ok(Self {
                    socket: Socket::Tcp(listener),
                    address,
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
                let inode = fs::metadata(&temporary)?.ino();
                fs::rename(&temporary, path)?;
                Ok(Self {
                    socket: Socket::Unix(listener, inode),
                    address: Address::Unix(path.clone()),
                })
            }
        }
    }

    /// Where this socket really listens: port 0 has become the port that the kernel chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Peer::Tcp(address)))
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Peer::Unix))
            }
        }
    }

    /// Accepts a connection that is already waiting, or none. Asks the kernel itself: the runtime may not have heard
    /// yet of a client that came a moment ago.
    pub(super) fn accept_pending(&self) -> io::Result<Option<(Stream, Peer)>> {
        let accepted = match &self.socket {
            Socket::Tcp(listener) => {
                let listener = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
                listener.accept().and_then(|(stream, address)| {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    Ok((Stream::Tcp(TcpStream::from_std(stream)?), Peer::Tcp(address)))
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
            && fs::metadata(path).is_ok_and(|found| found.ino() == *inode)
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(%error, path = %path.display(), "Could not remove the socket file.");
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// A connection over either kind of socket.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        assert_eq!(
            "127.0.0.1:0".parse::<Address>().unwrap().to_string(),
            "127.0.0.1:0"
        );
        assert_eq!(
            "localhost:8080".parse::<Address>().unwrap().to_string(),
            "127.0.0.1:8080"
        );
        assert_eq!("[::1]:80".parse::<Address>().unwrap().to_string(), "[::1]:80");
        assert_eq!(
            "unix:/run/a.sock".parse::<Address>().unwrap().to_string(),
            "unix:/run/a.sock"
        );
        for bad in [
            "",
            "8080",
            "127.0.0.1",
            "unix:run/a",
            "localhost:",
            "localhost:99999",
            "http://x:1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

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
