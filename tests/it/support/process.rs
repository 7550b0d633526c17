//! The program as a process of its own: one that serves can be paused and killed, one that ends says how.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The program, to be run with arguments: the one that was built with the tests, or the one that `BEAMLINE_TEST_PROGRAM` names.
pub(crate) fn program() -> Command {
    let named = beamline_sidecar::config::environment().remove("BEAMLINE_TEST_PROGRAM");
    Command::new(named.as_deref().unwrap_or(env!("CARGO_BIN_EXE_beamline-sidecar")))
}

/// A command that runs another as process 1 of a namespace of its own. Only root may, or a user that may be root of a namespace
/// of users.
pub(crate) fn as_process_1() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}

/// The processes that a process has started.
pub(crate) fn children(of: Pid) -> Vec<Pid> {
    let pid = of.as_raw_nonzero();
    // Each thread has those that it started. One that ends meanwhile has none.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let of_thread = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children"));
    let children: String = threads
        .filter_map(|thread| of_thread(thread.ok()?).ok())
        .collect();
    children
        .split_whitespace()
        .map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap())
        .collect()
}

/// What a command that ends by itself came to.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) errors: String,
}

impl Ended {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::with_input(command, "")
    }

    /// Runs a command to its end, with this on its standard input.
    pub(crate) fn with_input(command: &mut Command, input: &str) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that does not read its input may have ended before.
        let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            errors: text(output.stderr),
        }
    }

    /// What it printed, as JSON.
    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.errors))
    }
}

/// A child that is killed when dropped. Its log, JSON lines on standard error, is kept.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Nothing is read of the log.
    unread: Arc<AtomicBool>,
    heard: mpsc::Receiver<(Vec<String>, Option<SocketAddr>)>,
    /// Addresses named in the line that says what it listens at.
    pub(crate) listen: Vec<String>,
    pub(crate) admin: Option<SocketAddr>,
}

impl Process {
    /// Starts the program and waits until it listens.
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_in(Path::new("."), arguments, environment)
    }

    /// Starts it in a directory, which relative paths of its configuration are in.
    pub(crate) fn start_in(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = program();
        command.args(arguments).current_dir(dir);
        Self::spawn(command, environment)
    }

    /// As [`start`](Self::start), with a hard limit of open files.
    pub(crate) fn start_with_open_files(
        limit: u32,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")])
            .arg(program().get_program())
            .args(arguments);
        Self::spawn(command, environment)
    }

    /// As [`start`](Self::start), with this file in the place of another one that the process sees.
    pub(crate) fn start_with_file(
        file: &Path,
        in_place_of: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind \"$0\" \"$1\" && shift && exec \"$@\"")
            .args([file.as_os_str(), in_place_of.as_ref()])
            .arg(program().get_program())
            .args(arguments);
        Self::spawn(command, environment)
    }

    /// As [`start`](Self::start), with a socket that listens already, as systemd hands it over.
    pub(crate) fn start_with_socket(
        socket: OwnedFd,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = program();
        let mapping = FdMapping {
            parent_fd: socket,
            child_fd: 3,
        };
        command
            .args(arguments)
            .env("LISTEN_FDS", "1")
            .fd_mappings(vec![mapping])
            .unwrap();
        Self::spawn(command, environment)
    }

    /// As [`start`](Self::start), as process 1 of a namespace of its own, as in a container. What is started here is above
    /// it, and ends as it does; the process itself is the only one of [`children`](Self::children).
    pub(crate) fn start_as_process_1(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = as_process_1();
        command.arg(program().get_program()).args(arguments);
        Self::spawn(command, environment)
    }

    /// As [`start`](Self::start), without waiting until it listens.
    pub(crate) fn start_unheard(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = program();
        command.args(arguments);
        Self::spawn_unheard(command, environment)
    }

    /// As [`start`](Self::start), of a command that runs the program somewhere.
    pub(crate) fn start_by(mut command: Command, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        command.args(arguments);
        Self::spawn(command, environment)
    }

    fn spawn(command: Command, environment: &[(&str, &str)]) -> Self {
        let mut process = Self::spawn_unheard(command, environment);
        process.wait_until_it_listens();
        process
    }

    pub(crate) fn wait_until_it_listens(&mut self) {
        let Ok((listen, admin)) = self.heard.recv_timeout(Duration::from_secs(60)) else {
            panic!("it does not listen: {:?}", self.log());
        };
        (self.listen, self.admin) = (listen, admin);
    }

    fn spawn_unheard(mut command: Command, environment: &[(&str, &str)]) -> Self {
        // Most tests are about bytes that arrive as they were sent, whatever they mean.
        command.env("BEAMLINE_WRITES_VALIDATE", "lenient");
        command.envs(environment.iter().copied());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (listening, heard) = mpsc::channel();
        let unread = Arc::new(AtomicBool::new(false));
        let (lines, waits) = (log.clone(), unread.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let parsed: Value = serde_json::from_str(&line).unwrap_or_default();
                while waits.load(SeqCst) {
                    std::thread::park_timeout(Duration::from_millis(5));
                }
                lines.lock().unwrap().push(line);
                if let Some(listen) = parsed["listen"].as_str() {
                    let admin = parsed["admin"].as_str().and_then(|admin| admin.parse().ok());
                    // A second such line is not waited for.
                    let _heard = listening.send((listen.split(',').map(str::to_owned).collect(), admin));
                }
            }
        });
        Self {
            child,
            log,
            unread,
            heard,
            listen: Vec::new(),
            admin: None,
        }
    }

    /// Whether its log is read, as it is from the start; some lines may be on their way here.
    pub(crate) fn read_log(&self, read: bool) {
        self.unread.store(!read, SeqCst);
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The processes that this one has started, those that have ended and were not waited for included.
    pub(crate) fn children(&self) -> Vec<Pid> {
        children(self.pid())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end; the exit code, or none after a signal.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "a failed test shows it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ended = self.child.try_wait();
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("a process of the test ({ended:?}) said:\n{}", log.join("\n"));
        }
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
