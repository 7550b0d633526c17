//! An open-loop HTTP load over TCP, for `benches/run.py`: requests are sent when they are due, whether or not earlier
//! ones are answered, and each is timed from when it was due. One thread that never sleeps, so that what it measures is
//! the server: general generators take longer to notice an answer than the sidecar to give it.
//!
//! `steady IP:PORT PATH CONNECTIONS SECONDS RATE [BODY]`; with a body it is posted. A request that finds no free
//! connection waits for one. Prints `{"requests":N,"p50_us":…,"p99_us":…,"p999_us":…,"slowest_us":…}`.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    time::{Duration, Instant},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    if arguments.is_empty() {
        // `cargo bench` and `cargo test --benches` run it without arguments, to see that it builds.
        return ExitCode::SUCCESS;
    }
    let done = Plan::read(&arguments).and_then(|plan| plan.run());
    let (mut out, mut err) = (io::stdout(), io::stderr());
    // If standard output is closed, there is nowhere to report it.
    let _closed_pipe = match &done {
        Ok(line) => writeln!(out, "{line}"),
        Err(error) => writeln!(err, "{error}"),
    };
    if done.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

struct Plan {
    address: SocketAddr,
    request: Vec<u8>,
    connections: usize,
    length: Duration,
    interval: Duration,
}

struct Connection {
    stream: TcpStream,
    /// When the request that it waits for was due.
    due: Option<Instant>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Plan {
    fn read(arguments: &[String]) -> io::Result<Self> {
        let wrong = || io::Error::other("steady IP:PORT PATH CONNECTIONS SECONDS RATE [BODY]");
        let [address, path, connections, seconds, rate, body @ ..] = arguments else {
            return Err(wrong());
        };
        let number = |text: &str| text.parse::<f64>().map_err(|_| wrong());
        let request = match body.first() {
            None => format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
            Some(body) => format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
        };
        Ok(Self {
            address: address.parse().map_err(|_| wrong())?,
            request: request.into_bytes(),
            connections: connections.parse().map_err(|_| wrong())?,
            length: Duration::from_secs_f64(number(seconds)?),
            interval: Duration::from_secs_f64(1.0 / number(rate)?),
        })
    }

    fn run(&self) -> io::Result<String> {
        let mut connections = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            connections.push(Connection {
                stream,
                due: None,
                buffer: vec![0; 64 * 1024],
                filled: 0,
            });
        }
        let mut taken = Vec::new();
        let start = Instant::now();
        let end = start + self.length;
        let mut due = start;
        loop {
            let mut free = None;
            let mut waiting = 0;
            for (index, connection) in connections.iter_mut().enumerate() {
                if let Some(due) = connection.due {
                    if connection.is_answered()? {
                        taken.push(due.elapsed());
                        connection.due = None;
                    } else {
                        waiting += 1;
                        continue;
                    }
                }
                free = Some(index);
            }
            if due >= end {
                if waiting == 0 {
                    break;
                }
                if due.elapsed() > Duration::from_secs(10) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                continue;
            }
            if let Some(index) = free
                && Instant::now() >= due
            {
                connections[index].ask(&self.request, due)?;
                due += self.interval;
            }
        }
        taken.sort_unstable();
        let at = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "an index into what was measured"
            )]
            let index = (taken.len() as f64 * share) as usize;
            taken[index.min(taken.len() - 1)].as_secs_f64() * 1e6
        };
        Ok(format!(
            "{{\"requests\":{},\"p50_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1},\"slowest_us\":{:.1}}}",
            taken.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        ))
    }
}

impl Connection {
    fn ask(&mut self, request: &[u8], due: Instant) -> io::Result<()> {
        // A request fits into an empty socket's buffer.
        let sent = self.stream.write(request)?;
        if sent < request.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.due = Some(due);
        self.filled = 0;
        Ok(())
    }

    /// Reads what is there; whether it is one whole answer, which must be a 200 with a length.
    fn is_answered(&mut self) -> io::Result<bool> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        let answer = &self.buffer[..self.filled];
        let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(false);
        };
        let text = str::from_utf8(&answer[..head]).map_err(io::Error::other)?;
        if !text.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(text.to_owned()));
        }
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        let length = length.ok_or(io::ErrorKind::InvalidData)?;
        Ok(answer.len() >= head + 4 + length)
    }
}
