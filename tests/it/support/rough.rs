//! Clients that are not well behaved: they stop in the middle, do not read, or come from many addresses. What they send is
//! exactly the bytes that a test gives them.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// Sends this and leaves the connection open, without reading.
pub(crate) async fn send(to: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// A connection from this address of the machine, whose own buffer is small: what it does not read stays with the server.
pub(crate) async fn connect_from(address: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Reads until this has come.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "{end} is missing");
    }
    String::from_utf8(read).unwrap()
}

/// A request with a body in chunks of so many bytes, each with an extension, and a trailer after them.
pub(crate) fn chunked(method: &str, path: &str, more: &str, body: &str, size: usize) -> String {
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{more}transfer-encoding: chunked\r\n\r\n");
    for chunk in body.as_bytes().chunks(size) {
        let chunk = std::str::from_utf8(chunk).unwrap();
        request.push_str(&format!("{:x};ignored=1\r\n{chunk}\r\n", chunk.len()));
    }
    request.push_str("0\r\nx-trailer: 1\r\n\r\n");
    request
}
