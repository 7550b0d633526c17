//! Compiling a module, in a process of its own: the same program, called with a hidden command. What a module makes the
//! compiler do (time, memory, a crash) stays there, and the memory it took goes with it.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use crate::extensions::sandbox::Profile;

/// The hidden command.
pub const COMMAND: &str = "compile-extension";

/// The most that is taken of what the compiler says about a module that it refuses.
const MAX_REASON_BYTES: u64 = 2_048;
/// How often it is looked whether a turn is over.
const LOOK: Duration = Duration::from_millis(50);
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
    /// Whether something more important runs beside it, such as serving.
    pub in_background: bool,
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
        "compiling was not over after extensions.compile_timeout_ms ({} ms), most of which it waited for the processor",
        .after.as_millis()
    )]
    Starved {
        /// The time-out.
        after: Duration,
    },
    /// It needed more memory than it may use.
    #[error("compiling needed more than extensions.max_compile_memory_bytes ({memory_bytes})")]
    Memory {
        /// The memory that it might use.
        memory_bytes: u64,
    },
    /// It crashed.
    #[error("the compiler crashed with signal {signal}: it is not an ordinary module{said}")]
    Crashed {
        /// Which signal.
        signal: i32,
        /// What it said last, after a colon; empty if nothing.
        said: String,
    },
    /// It was ended from outside: by the kernel where memory is short, or by a user. Nothing is known about the module.
    #[error(
        "the compiler was ended from outside by signal {signal}, as the kernel does where the machine or the container has too little memory; it is tried again"
    )]
    Killed {
        /// Which signal.
        signal: i32,
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
    pub(super) fn compile(
        &self,
        module: &[u8],
        profile: Profile,
        _: Duration,
    ) -> Result<Compiled, CompileError> {
        compile(module, profile)
            .map(Compiled)
            .map_err(|reason| CompileError::Refused { reason })
    }

    /// Compiles within this time. Where it is less than the compiler's own, it is that of the processor.
    #[cfg(not(fuzzing))]
    pub(super) fn compile(
        &self,
        module: &[u8],
        profile: Profile,
        timeout: Duration,
    ) -> Result<Compiled, CompileError> {
        let began = Instant::now();
        let mut child = Command::new(&self.program)
            .arg(COMMAND)
            .args(["--profile", profile.as_str()])
            .args(["--memory-bytes", &self.memory_bytes.to_string()])
            .args(["--seconds", &(timeout.as_secs() + 1).to_string()])
            .args(["--parent", &std::process::id().to_string()])
            .args(self.in_background.then_some("--in-background"))
            .env_clear()
            // The allocator's first arena, a GiB before anything is limited, would be room within every limit.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(CompileError::Start)?;
        let id = child.id();
        let left = || self.timeout.saturating_sub(began.elapsed());
        let is_turn = timeout < self.timeout;
        // A turn is over when so much was computed: one that waits for the processor loses nothing by waiting on.
        let is_over = || {
            let used = || processor_time(id).unwrap_or(began.elapsed());
            left().is_zero() || (is_turn && used() >= timeout)
        };
        let exchanged = exchange(&mut child, module, left, is_over);
        let exchanged = exchanged.inspect_err(|_| {
            let _gone = child.kill();
            let _reaped = child.wait();
        });
        let exchanged = exchanged.map_err(CompileError::Start)?;
        let used = if exchanged.is_none() {
            let used = processor_time(id);
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
                Some(used) if used < timeout / 2 => CompileError::Starved { after: timeout },
                _ => CompileError::Timeout { after: timeout },
            });
        };
        self.judge(status, artifact, &stderr, timeout)
    }

    fn judge(
        &self,
        status: ExitStatus,
        artifact: Vec<u8>,
        stderr: &[u8],
        timeout: Duration,
    ) -> Result<Compiled, CompileError> {
        if let Some(signal) = status.signal() {
            return Err(self.ended_by(signal, stderr, timeout));
        }
        if !status.success() {
            return Err(CompileError::Refused {
                reason: one_line(stderr),
            });
        }
        if artifact.is_empty() || artifact.len() as u64 >= MAX_ARTIFACT_BYTES {
            return Err(CompileError::CutOff);
        }
        Ok(Compiled(artifact))
    }

    /// Whose doing it is that a signal ended the compiler. Those that nothing within the process raises came from outside:
    /// its own limit of processor time is another signal.
    fn ended_by(&self, signal: i32, stderr: &[u8], timeout: Duration) -> CompileError {
        use rustix::process::Signal;
        let is = |known: Signal| known.as_raw() == signal;
        if is(Signal::XCPU) {
            return CompileError::Timeout { after: timeout };
        }
        let from_outside = [
            Signal::KILL,
            Signal::TERM,
            Signal::INT,
            Signal::HUP,
            Signal::QUIT,
            Signal::PIPE,
            Signal::ALARM,
        ];
        if from_outside.into_iter().any(is) {
            return CompileError::Killed { signal };
        }
        let said = one_line(stderr);
        if said.contains("memory allocation") {
            return CompileError::Memory {
                memory_bytes: self.memory_bytes,
            };
        }
        CompileError::Crashed {
            signal,
            said: if said.is_empty() {
                said
            } else {
                format!(": {said}")
            },
        }
    }
}

fn one_line(said: &[u8]) -> String {
    String::from_utf8_lossy(said)
        .trim()
        .replace(char::is_control, " ")
}

/// Hands the module over and takes what comes back; `None` if that takes too long.
///
/// # Errors
/// When the system has no threads for it.
fn exchange(
    child: &mut Child,
    module: &[u8],
    left: impl Fn() -> Duration,
    is_over: impl Fn() -> bool,
) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut input), Some(output), Some(errors)) = pipes else {
        return Ok(None);
    };
    let thread = || thread::Builder::new().name("compiler-pipe".into());
    let (send, receive) = mpsc::channel();
    let module = module.to_vec();
    // Each ends when the child does, at the latest: its pipes are closed then.
    thread().spawn(move || {
        // A compiler that refuses a module need not read all of it.
        let _refused = input.write_all(&module);
    })?;
    let errors = thread().spawn(move || read(errors, MAX_REASON_BYTES))?;
    thread().spawn(move || {
        // After the timeout the receiver is gone.
        let _late = send.send(read(output, MAX_ARTIFACT_BYTES));
    })?;
    let artifact = loop {
        match receive.recv_timeout(left().min(LOOK)) {
            Ok(artifact) => break artifact,
            Err(RecvTimeoutError::Timeout) if !is_over() => {}
            Err(_) => return Ok(None),
        }
    };
    Ok(Some((artifact, errors.join().unwrap_or_default())))
}

/// The processor time of a child, where the kernel reports it. Its one thread does all the work.
fn processor_time(child: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{child}/schedstat")).ok()?;
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
pub fn compile_here(
    profile: Profile,
    memory_bytes: u64,
    seconds: u64,
    parent: Option<u32>,
    in_background: bool,
) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, nice, setrlimit};
    if let Some(parent) = parent {
        end_with(parent)?;
    }
    let limit = |resource, soft: u64, hard: u64| {
        let limit = Rlimit {
            current: Some(soft),
            maximum: Some(hard),
        };
        setrlimit(resource, limit).map_err(|error| format!("cannot limit itself: {error}"))
    };
    limit(Resource::Data, memory_bytes, memory_bytes)?;
    // At the hard limit the kernel sends the signal that anybody else could have sent; at the soft one, one that says why.
    limit(Resource::Cpu, seconds, seconds + 5)?;
    limit(Resource::Core, 0, 0)?;
    if in_background {
        // Where the system does not allow it, compiling has the same priority.
        let _not_allowed = nice(10);
    }
    let mut module = Vec::new();
    io::stdin()
        .read_to_end(&mut module)
        .map_err(|error| format!("cannot read the module: {error}"))?;
    let artifact = compile(&module, profile)?;
    io::stdout()
        .write_all(&artifact)
        .map_err(|error| format!("cannot write the compiled code: {error}"))
}

/// Ends this process when the one that started it ends, however that happens: what it compiles is not needed then.
fn end_with(parent: u32) -> Result<(), String> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("cannot follow the process that started it: {error}"))?;
    // It may have ended before.
    let still = getppid().is_some_and(|now| u32::try_from(now.as_raw_nonzero().get()) == Ok(parent));
    if still {
        Ok(())
    } else {
        Err("the process that started it is gone".into())
    }
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
