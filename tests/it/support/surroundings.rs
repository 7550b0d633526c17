//! What the kernel gives a process: memory, a network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Pid;

/// A control group of either version. It is removed when dropped; processes that still run are let go. Only root may.
pub(crate) struct ControlGroup {
    dir: PathBuf,
    is_first_version: bool,
}

impl ControlGroup {
    /// For a process that runs already, whose threads are to be limited.
    pub(crate) fn of_threads(pid: Pid) -> Self {
        let group = Self::make("pids");
        let pid = pid.as_raw_nonzero().to_string();
        fs::write(group.dir.join("cgroup.procs"), pid).unwrap();
        group
    }

    /// No thread is made from now on, or any number.
    pub(crate) fn allow_threads(&self, are_allowed: bool) {
        // Below what there are, which stay.
        let most = if are_allowed { "max" } else { "1" };
        fs::write(self.dir.join("pids.max"), most).unwrap();
    }

    fn make(controller: &str) -> Self {
        let name = format!("beamline-test-{}-{:x}", std::process::id(), fastrand::u32(..));
        let first = Path::new("/sys/fs/cgroup").join(controller);
        let is_first_version = first.is_dir();
        let root = if is_first_version {
            first
        } else {
            PathBuf::from("/sys/fs/cgroup")
        };
        let dir = root.join(name);
        fs::create_dir(&dir).unwrap_or_else(|error| panic!("a control group, which root may make: {error}"));
        Self {
            dir,
            is_first_version,
        }
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let above = self.dir.with_file_name("cgroup.procs");
        // Those that have just ended may still be counted.
        for _ in 0..100 {
            let left = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
            for pid in left.lines() {
                // It may end meanwhile.
                let _gone = fs::write(&above, pid);
            }
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
    }
}

/// Runs the test once more in a network of its own, with nothing but its own loopback. `false`: that has been done, and the
/// test has nothing left to do.
pub(crate) fn is_in_a_network_of_its_own() -> bool {
    let is_inside = is_in_its_own("network", &["--user", "--map-root-user", "--net"]);
    if is_inside {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.unwrap().success());
    }
    is_inside
}

/// As [`is_in_a_network_of_its_own`], with mounts of its own: whatever becomes of the test, none is left behind.
pub(crate) fn has_mounts_of_its_own() -> bool {
    is_in_its_own("mounts", &["--user", "--map-root-user", "--mount"])
}

fn is_in_its_own(what: &str, unshared: &[&str]) -> bool {
    let inside = format!("BEAMLINE_TEST_HAS_ITS_OWN_{}", what.to_uppercase());
    if std::env::var_os(&inside).is_some() {
        return true;
    }
    let name = std::thread::current().name().unwrap().to_owned();
    assert!(name.contains("::"), "{name} is not the name of a test");
    let again = Command::new("unshare")
        .args(unshared)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(inside, "1")
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
