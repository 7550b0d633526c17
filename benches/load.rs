//! A closed-loop HTTP load over TCP or a Unix socket, for `benches/run.py`: wrk has no Unix sockets, and richer
//! generators cost more than what they measure.
//!
//! `load ADDRESS PATH CONNECTIONS SECONDS`, where ADDRESS is `IP:PORT` or `unix:/path`. Each connection sends its next
//! request when it has the whole answer to the last. Prints `{"requests":N,"failed":N,"seconds":S}`.

use std::{
    io,
    process::ExitCode,
    time::{Duration, Instant},
};

use beamline_sidecar::listener::Address;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let [address, path, connections, seconds] = arguments.as_slice() else {
        // `cargo bench` and `cargo test --benches` run it without arguments, to see that it builds.
        return ExitCode::SUCCESS;
    };
    let (Ok(address), Ok(connections), Ok(seconds)) = (
        address.parse::<Address>(),
        connections.parse::<usize>(),
        seconds.parse::<f64>(),
    ) else {
        complain("load ADDRESS PATH CONNECTIONS SECONDS");
        return ExitCode::FAILURE;
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    match run(&address, &request, connections, Duration::from_secs_f64(seconds)) {
        Ok(line) => {
            complain_to(io::stdout(), &line);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn complain(text: &str) {
    complain_to(io::stderr(), text);
}

fn complain_to(mut out: impl io::Write, text: &str) {
    let _closed_pipe = writeln!(out, "{text}");
}

fn run(address: &Address, request: &str, connections: usize, length: Duration) -> io::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let started = Instant::now();
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..connections {
            let (address, request) = (address.clone(), request.to_owned());
            clients.spawn(async move {
                let end = started + length;
                match address {
                    Address::Tcp(address) => {
                        let stream = TcpStream::connect(address).await?;
                        stream.set_nodelay(true)?;
                        converse(stream, &request, end).await
                    }
                    Address::Unix(path) => converse(UnixStream::connect(path).await?, &request, end).await,
                }
            });
        }
        let (mut answered, mut failed) = (0, 0);
        while let Some(client) = clients.join_next().await {
            match client.map_err(io::Error::other)? {
                Ok(requests) => answered += requests,
                Err(_) => failed += 1,
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        Ok(format!(
            "{{\"requests\":{answered},\"failed\":{failed},\"seconds\":{seconds:.3}}}"
        ))
    })
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
    end: Instant,
) -> io::Result<u64> {
    let mut buffer = vec![0; 16 * 1024];
    let mut answered = 0;
    while Instant::now() < end {
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if is_whole(&buffer[..filled])? {
                break;
            }
        }
        answered += 1;
    }
    Ok(answered)
}

/// Whether the bytes are one whole answer, which must be a 200 with a length.
fn is_whole(answer: &[u8]) -> io::Result<bool> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(false);
    };
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let text = std::str::from_utf8(&answer[..head]).map_err(io::Error::other)?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.ok_or(io::ErrorKind::InvalidData)?;
    Ok(answer.len() >= head + 4 + length)
}
