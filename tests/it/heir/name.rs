//! HEIR's name: another address for it, and a resolver that is not there. In a namespace of its own, where the system's list
//! of names is the test's.

use std::{fs, net::SocketAddr, process::Command};

use beamline_sidecar::store::Level;

use crate::support::{Heir, QUICK, Sidecar, eventually};

/// The system's list of names, for this process alone.
struct Names(tempfile::TempDir);

impl Names {
    /// `None`: the test has been run once more in a namespace of its own, and has nothing left to do here.
    fn take() -> Option<Self> {
        const INSIDE: &str = "BEAMLINE_TEST_HAS_ITS_OWN_NAMES";
        if std::env::var_os(INSIDE).is_some() {
            let dir = tempfile::tempdir().unwrap();
            let names = Self(dir);
            names.say("");
            fs::write(names.0.path().join("nsswitch.conf"), "hosts: files\n").unwrap();
            for (file, place) in [("hosts", "/etc/hosts"), ("nsswitch.conf", "/etc/nsswitch.conf")] {
                let mounted = Command::new("mount")
                    .arg("--bind")
                    .arg(names.0.path().join(file))
                    .arg(place)
                    .status();
                assert!(mounted.unwrap().success(), "{place} cannot be replaced");
            }
            return Some(names);
        }
        let name = std::thread::current().name().unwrap().to_owned();
        assert!(name.contains("::"), "{name} is not the name of a test");
        let again = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(INSIDE, "1")
            .status();
        assert!(again.is_ok_and(|status| status.success()), "failed inside");
        None
    }

    /// Replaces the content, in place: what is mounted is the file.
    fn say(&self, content: &str) {
        fs::write(self.0.path().join("hosts"), content).unwrap();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_new_address_of_heir_is_followed_while_the_old_one_lives() {
    let Some(names) = Names::take() else { return };
    runtime().block_on(async {
        let old = Heir::start(Level::Changes).await;
        let new = SocketAddr::from(([127, 0, 0, 2], old.address().port()));
        let new = Heir::start_at(Level::Changes, new).await;
        old.client().put_policy("t/a", "{\"v\":1}").await;
        new.client().put_policy("t/a", "{\"v\":2}").await;
        names.say("127.0.0.1 heir.test\n");
        let port = old.address().port();
        let yaml = format!("{QUICK}heir: {{url: 'http://heir.test:{port}', health_interval_ms: 100}}");
        let sidecar = Sidecar::try_start(&yaml).unwrap();
        sidecar.wait_for("live").await;
        let seen = async |text: &str| sidecar.client().policy("t/a").await.text() == text;
        assert!(seen("{\"v\":1}").await);
        names.say("127.0.0.2 heir.test\n");
        eventually("the new one's version is seen", || seen("{\"v\":2}")).await;
        // And its changes, while the old one still answers whoever asks it.
        new.client().put_policy("t/a", "{\"v\":3}").await;
        eventually("the new one's change is seen", || seen("{\"v\":3}")).await;
        assert_eq!(old.client().policy("t/a").await.text(), "{\"v\":1}");
        sidecar.stop().await;
    });
}

#[test]
fn a_name_that_comes_late_or_goes_keeps_no_sidecar_from_heir() {
    let Some(names) = Names::take() else { return };
    runtime().block_on(async {
        let mut heir = Heir::start(Level::Changes).await;
        heir.client().put_policy("t/a", "{\"v\":1}").await;
        let port = heir.address().port();
        let yaml = format!("{QUICK}heir: {{url: 'http://heir.test:{port}', health_interval_ms: 3600000}}");
        let sidecar = Sidecar::try_start(&yaml).unwrap();
        let seen = async |text: &str| sidecar.client().policy("t/a").await.text() == text;
        eventually("it is asked in vain", || async {
            sidecar.metric("beamline_sidecar_heir_breaker_state").await == 1.0
        })
        .await;
        names.say("127.0.0.1 heir.test\n");
        eventually("it is found", || seen("{\"v\":1}")).await;
        // Where nobody knows the name any more, it is where it was.
        names.say("");
        heir.gone().await;
        sidecar.wait_for("degraded").await;
        heir.back().await;
        heir.client().put_policy("t/a", "{\"v\":2}").await;
        eventually("it is found again", || seen("{\"v\":2}")).await;
        sidecar.stop().await;
    });
}
