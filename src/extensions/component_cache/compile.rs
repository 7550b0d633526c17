//! Compiling a module, in a process of its own: the same program, called with a hidden command. What a module makes the
//! compiler do (time, memory, a crash) stays there, and the memory it took goes with it.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::extensions::sandbox::Profile;

/// The hidden command.
pub const COMMAND: &str = "compile-extension";

/// The most that is taken of what the compiler says about a module that it refuses.
const MAX_REASON_BYTES: u64 = 2_048;
/// Compiled code is some five times as large as its module; the largest module is 256 MiB.
const MAX_ARTIFACT_BYTES: u64 = 2 << 30;

/// Starts compilers.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// The path of this program.
    pub program: PathBuf,
    /// How long compiling one module may take.
    pub timeout: Duration,
    /// Memory that the process may use, in bytes.
    pub memory_bytes: u64,
}

/// Why a module was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The process cannot be started.
    #[error("the compiler cannot be started")]
    Start(#[source] io::Error),
    /// It computed for too long.
    #[error("compiling took longer than extensions.compile_timeout_ms ({} ms): it is not an ordinary module", .after.as_millis())]
    Timeout {
        /// The time-out.
        after: Duration,
    },
    /// It got too little of the processor. The module may be compiled another time.
    #[error(
        "compiling was not over after extensions.compile_timeout_ms ({} ms), most of which it waited for the processor; it is tried again with the next reload",
        .after.as_millis()
    )]
    Starved {
        /// The time-out.
        after: Duration,
    },
    /// A signal ended it.
    #[error(
        "compiling ended with signal {signal}; most likely it needed more than extensions.max_compile_memory_bytes ({memory_bytes})"
    )]
    Killed {
        /// Which signal.
        signal: i32,
        /// The memory that it might use.
        memory_bytes: u64,
    },
    /// The module is not valid.
    #[error("{reason}")]
    Refused {
        /// What the compiler reports.
        reason: String,
    },
    /// Its output is empty, or too large.
    #[error("the compiler's answer was cut off")]
    CutOff,
}

/// Compiled code that this process has from its own compiler.
#[derive(Debug)]
pub(super) struct Compiled(pub(super) Vec<u8>);

impl Compiler {
    /// A fuzzer needs the compiler in its own process, and has limits of its own.
    #[cfg(fuzzing)]
    pub(super) fn compile(&self, module: &[u8], profile: Profile) -> Result<Compiled, CompileError> {
        compile(module, profile)
            .map(Compiled)
            .map_err(|reason| CompileError::Refused { reason })
    }

    #[cfg(not(fuzzing))]
    pub(super) fn compile(&self, module: &[u8], profile: Profile) -> Result<Compiled, CompileError> {
        let began = Instant::now();
        let mut child = Command::new(&self.program)
            .arg(COMMAND)
            .args(["--profile", profile.as_str()])
            .args(["--memory-bytes", &self.memory_bytes.to_string()])
            .args(["--seconds", &(self.timeout.as_secs() + 1).to_string()])
            .env_clear()
            // The allocator's first arena, a GiB before anything is limited, would be room within every limit.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(CompileError::Start)?;
        let exchanged = exchange(&mut child, module, self.timeout.saturating_sub(began.elapsed()));
        let used = if exchanged.is_none() {
            let used = processor_time(&child);
            // It may have ended by itself meanwhile.
            let _gone = child.kill();
            used
        } else {
            None
        };
        let status = child.wait().map_err(CompileError::Start)?;
        let Some((artifact, stderr)) = exchanged else {
            // A module is judged by the processor time that it used, not by the time that it waited.
            return Err(match used {
                Some(used) if used < self.timeout / 2 => CompileError::Starved { after: self.timeout },
                _ => CompileError::Timeout { after: self.timeout },
            });
        };
        self.judge(status, artifact, &stderr)
    }

    fn judge(&self, status: ExitStatus, artifact: Vec<u8>, stderr: &[u8]) -> Result<Compiled, CompileError> {
        if let Some(signal) = status.signal() {
            return Err(CompileError::Killed {
                signal,
                memory_bytes: self.memory_bytes,
            });
        }
        if !status.success() {
            let reason = String::from_utf8_lossy(stderr)
                .trim()
                .replace(char::is_control, " ");
            return Err(CompileError::Refused { reason });
        }
        if artifact.is_empty() || artifact.len() as u64 >= MAX_ARTIFACT_BYTES {
            return Err(CompileError::CutOff);
        }
        Ok(Compiled(artifact))
    }
}

/// Hands the module over and takes what comes back; `None` if that takes too long.
fn exchange(child: &mut Child, module: &[u8], timeout: Duration) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut input, output, errors) = (child.stdin.take()?, child.stdout.take()?, child.stderr.take()?);
    let (send, receive) = mpsc::channel();
    let module = module.to_vec();
    // Each ends when the child does, at the latest: its pipes are closed then.
    std::thread::spawn(move || {
        // A compiler that refuses a module need not read all of it.
        let _refused = input.write_all(&module);
    });
    let errors = std::thread::spawn(move || read(errors, MAX_REASON_BYTES));
    std::thread::spawn(move || {
        // After the timeout the receiver is gone.
        let _late = send.send(read(output, MAX_ARTIFACT_BYTES));
    });
    let artifact = receive.recv_timeout(timeout).ok()?;
    Some((artifact, errors.join().unwrap_or_default()))
}

/// The processor time of a child, where the kernel reports it. Its one thread does all the work.
fn processor_time(child: &Child) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{}/schedstat", child.id())).ok()?;
    let nanoseconds = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn read(from: impl Read, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read until then is judged by the exit status.
    let _cut_off = from.take(most).read_to_end(&mut bytes);
    bytes
}

/// The compiler's side: reads a module from standard input, and writes compiled code to standard output.
///
/// # Errors
/// Why it was not compiled, for people.
pub fn compile_here(profile: Profile, memory_bytes: u64, seconds: u64) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, nice, setrlimit};
    let limit = |resource, most: u64| {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).map_err(|error| format!("cannot limit itself: {error}"))
    };
    limit(Resource::Data, memory_bytes)?;
    limit(Resource::Cpu, seconds)?;
    limit(Resource::Core, 0)?;
    // Serving comes first. Where the system does not allow it, compiling has the same priority.
    let _not_allowed = nice(10);
    let mut module = Vec::new();
    io::stdin()
        .read_to_end(&mut module)
        .map_err(|error| format!("cannot read the module: {error}"))?;
    let artifact = compile(&module, profile)?;
    io::stdout()
        .write_all(&artifact)
        .map_err(|error| format!("cannot write the compiled code: {error}"))
}

#[cfg(feature = "compiler")]
fn compile(module: &[u8], profile: Profile) -> Result<Vec<u8>, String> {
    let engine =
        crate::extensions::sandbox::compiling_engine(profile).map_err(|error| format!("{error:#}"))?;
    engine
        .precompile_component(module)
        .map_err(|error| format!("not a valid component: {error:#}"))
}

#[cfg(not(feature = "compiler"))]
fn compile(_: &[u8], _: Profile) -> Result<Vec<u8>, String> {
    Err(
        "this program was built without the compiler; put what another one has compiled into state_dir"
            .into(),
    )
}
