//! Listening sockets, bound eagerly so that a taken address is found at the start.

use std::{
    fmt, fs, io,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::PathBuf,
};

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use super::{
    address::{Address, Peer},
    stream::Stream,
};

/// Kernel queue of connections not yet accepted.
const BACKLOG: u32 = 1024;

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
