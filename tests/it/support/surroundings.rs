//! What the kernel gives a process: memory, a network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A control group with a limit of memory, of either version. It is removed when dropped, after its processes have ended.
pub(crate) struct MemoryGroup {
    dir: PathBuf,
    is_first_version: bool,
}

impl MemoryGroup {
    /// `None`, and a word about it, where there are no such groups or this process may not make one.
    #[expect(clippy::print_stderr, reason = "a test that did not run has to say so")]
    pub(crate) fn with_limit(bytes: u64) -> Option<Self> {
        let name = format!("beamline-test-{}-{:x}", std::process::id(), fastrand::u32(..));
        let first = Path::new("/sys/fs/cgroup/memory");
        let is_first_version = first.is_dir();
        let (root, limit) = if is_first_version {
            (first, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let dir = root.join(name);
        let made = fs::create_dir(&dir).and_then(|()| fs::write(dir.join(limit), bytes.to_string()));
        if let Err(error) = made {
            // It may not have been made at all.
            let _none = fs::remove_dir(&dir);
            eprintln!("NOT TESTED: there is no control group with a limit of memory to be had: {error}");
            return None;
        }
        if !is_first_version {
            // Without it memory goes to the disk instead; a machine may have no such place.
            let _no_swap = fs::write(dir.join("memory.swap.max"), "0");
        }
        Some(Self {
            dir,
            is_first_version,
        })
    }

    /// A command that runs a program in the group.
    pub(crate) fn command(&self, program: &std::ffi::OsStr) -> Command {
        // The program itself is in memory before: what a build without optimisations has of it is no part of the question.
        let mut file = fs::File::open(program).unwrap();
        std::io::copy(&mut file, &mut std::io::sink()).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.dir.join("cgroup.procs"))
            .arg(program);
        command
    }

    /// How many of its processes were killed for want of memory.
    pub(crate) fn killed(&self) -> u64 {
        let file = if self.is_first_version {
            "memory.oom_control"
        } else {
            "memory.events"
        };
        let text = fs::read_to_string(self.dir.join(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.unwrap().parse().unwrap()
    }

    /// The most that was used, in KiB, what the system keeps of files included.
    pub(crate) fn peak_kib(&self) -> u64 {
        let file = if self.is_first_version {
            "memory.max_usage_in_bytes"
        } else {
            "memory.peak"
        };
        // Older systems of the second version do not know.
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or_default() >> 10
    }
}

impl Drop for MemoryGroup {
    #[expect(
        clippy::disallowed_methods,
        reason = "a drop cannot await, and the kernel tells nothing when the last process has left"
    )]
    fn drop(&mut self) {
        // Those that have just ended may still be counted.
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Runs the test once more in a network of its own, with nothing but its own loopback. `false`: that has been done, and the
/// test has nothing left to do.
pub(crate) fn is_in_a_network_of_its_own() -> bool {
    const INSIDE: &str = "BEAMLINE_TEST_HAS_ITS_OWN_NETWORK";
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.unwrap().success());
        return true;
    }
    let name = std::thread::current().name().unwrap().to_owned();
    assert!(name.contains("::"), "{name} is not the name of a test");
    let again = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(again.is_ok_and(|status| status.success()), "failed inside");
    false
}

/// Packets that are lost on their way in, until the value is dropped. Only in a network of one's own.
pub(crate) struct LostPackets(Vec<Vec<String>>);

impl LostPackets {
    /// To an address and from it.
    pub(crate) fn of_address(address: &str) -> Self {
        Self::of(&[&["-d", address], &["-s", address]])
    }

    /// Of the connections from these ports, as when what stands between has forgotten them.
    pub(crate) fn of_ports(ports: &[u16]) -> Self {
        let mut lost = Self(Vec::new());
        for port in ports {
            let port = port.to_string();
            for end in ["--sport", "--dport"] {
                lost.lose(&["-p", "tcp", end, &port]);
            }
        }
        lost
    }

    fn of(matches: &[&[&str]]) -> Self {
        let mut lost = Self(Vec::new());
        for one in matches {
            lost.lose(one);
        }
        lost
    }

    fn lose(&mut self, what: &[&str]) {
        let rule: Vec<String> = what.iter().map(|word| (*word).to_owned()).collect();
        iptables("-A", &rule);
        self.0.push(rule);
    }
}

impl Drop for LostPackets {
    fn drop(&mut self) {
        for rule in &self.0 {
            iptables("-D", rule);
        }
    }
}

fn iptables(what: &str, rule: &[String]) {
    let mut command = Command::new("iptables");
    // Other tests have networks of their own, and share nothing with this one but the lock.
    command
        .args(["-w", what, "INPUT"])
        .args(rule)
        .args(["-j", "DROP"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
