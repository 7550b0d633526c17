//! `beamline-sidecar probe`.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};

use super::{EXIT_USAGE, complain, say};
use crate::{config, listener::Address};

#[derive(Debug, Args)]
#[command(after_help = "Exits 0 if the answer is 200 and 1 if it is not or none comes.

Examples:
  beamline-sidecar probe ready --config /etc/beamline/sidecar.yaml
  beamline-sidecar probe live --ops 127.0.0.1:9901")]
pub(super) struct ProbeArgs {
    /// What to ask.
    what: What,
    /// Where the ops listener is; else it is read from the configuration.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    ops: Option<Address>,
    /// The sidecar's configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long to wait for the answer, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    Live,
    Ready,
}

pub(super) fn run(args: &ProbeArgs) -> ExitCode {
    let address = match &args.ops {
        Some(address) => address.clone(),
        None => match config::load(args.config.as_deref(), &config::environment()) {
            // A checked configuration has an address here.
            Ok(loaded) => match loaded.config.ops.listen.parse() {
                Ok(address) => address,
                Err(_) => return ExitCode::from(EXIT_USAGE),
            },
            Err(mistakes) => {
                complain(&mistakes.to_string());
                return ExitCode::from(EXIT_USAGE);
            }
        },
    };
    let path = match args.what {
        What::Live => "/live",
        What::Ready => "/ready",
    };
    match ask(&address, path, Duration::from_millis(args.timeout_ms.max(1))) {
        Ok(answer) => {
            say(answer
                .split_once("\r\n\r\n")
                .map_or(&*answer, |(_, body)| body)
                .trim());
            if answer.starts_with("HTTP/1.1 200") {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            complain(&format!("{address} does not answer: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// One request on a connection that the server closes: no client library is needed for that.
fn ask(address: &Address, path: &str, patience: Duration) -> io::Result<String> {
    match address {
        Address::Tcp(address) => {
            let mut stream = TcpStream::connect_timeout(&reachable(*address), patience)?;
            stream.set_read_timeout(Some(patience))?;
            exchange(&mut stream, path)
        }
        Address::Unix(socket) => {
            let mut stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(patience))?;
            exchange(&mut stream, path)
        }
    }
}

/// What listens everywhere is asked on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => address,
        _ => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
    }
}

fn exchange(stream: &mut (impl Read + Write), path: &str) -> io::Result<String> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(64 << 10).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
