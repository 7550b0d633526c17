//! A network of its own for a test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

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
