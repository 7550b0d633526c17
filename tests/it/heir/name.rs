//! HEIR's name: another address for it, and a resolver that is not there. In a namespace of its own, where the system's list
//! of names is the test's.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use beamline_sidecar::store::Level;
use tokio::net::UdpSocket;

use super::coming_back::{FLEET, Lateness, SOON};
use crate::support::{Fault, Faulty, Heir, QUICK, Sidecar, eventually};

/// The system's list of names, for this process alone.
struct Names(tempfile::TempDir);

impl Names {
    /// `None`: the test has been run once more in a namespace of its own, and has nothing left to do here.
    fn take() -> Option<Self> {
        Self::take_with("hosts: files\n", &[], &[])
    }

    /// As [`take`](Self::take), where the system asks a server of names at 127.0.0.53, in a network of its own.
    fn of_a_server() -> Option<Self> {
        // As Kubernetes has it: a name is asked for in several domains before it is asked for as it is.
        const RESOLVER: &str = "nameserver 127.0.0.53\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
        let names = Self::take_with("hosts: dns\n", &[("resolv.conf", RESOLVER)], &["--net"])?;
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.unwrap().success());
        Some(names)
    }

    fn take_with(switch: &str, more: &[(&str, &str)], namespaces: &[&str]) -> Option<Self> {
        const INSIDE: &str = "BEAMLINE_TEST_HAS_ITS_OWN_NAMES";
        if std::env::var_os(INSIDE).is_some() {
            let dir = tempfile::tempdir().unwrap();
            let names = Self(dir);
            let mut files = vec![("hosts", ""), ("nsswitch.conf", switch)];
            files.extend(more);
            for (file, content) in files {
                fs::write(names.0.path().join(file), content).unwrap();
                let place = format!("/etc/{file}");
                let mounted = Command::new("mount")
                    .arg("--bind")
                    .arg(names.0.path().join(file))
                    .arg(&place)
                    .status();
                assert!(mounted.unwrap().success(), "{place} cannot be replaced");
            }
            return Some(names);
        }
        let name = std::thread::current().name().unwrap().to_owned();
        assert!(name.contains("::"), "{name} is not the name of a test");
        let again = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .args(namespaces)
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

/// What a server of names does with a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameService {
    /// HEIR is there.
    At(Ipv4Addr),
    /// It says that it cannot tell.
    Failing,
    /// It says nothing: what asks it waits for as long as the system does.
    Silent,
}

/// A server of names that knows HEIR's.
struct NameServer {
    says: Arc<Mutex<NameService>>,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    async fn start(says: NameService) -> Self {
        let server = Self {
            says: Arc::new(Mutex::new(says)),
            asked: Arc::default(),
        };
        let socket = UdpSocket::bind("127.0.0.53:53").await.unwrap();
        let (says, asked) = (server.says.clone(), server.asked.clone());
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                asked.fetch_add(1, SeqCst);
                let says = *says.lock().unwrap();
                if let Some(answer) = answer(&question[..length], says) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        server
    }

    fn say(&self, says: NameService) {
        *self.says.lock().unwrap() = says;
    }
}

/// An answer in the format of RFC 1035, of a server that knows one name.
fn answer(question: &[u8], says: NameService) -> Option<Vec<u8>> {
    const HEIR: &[u8] = b"\x04heir\x04test\0";
    let name_end = 12 + question[12..].iter().position(|byte| *byte == 0)? + 1;
    let asked = &question[12..name_end + 4];
    let is_address = asked[asked.len() - 4..] == [0, 1, 0, 1];
    let is_known = &asked[..asked.len() - 4] == HEIR;
    let (code, address) = match says {
        NameService::Failing => (2, None),
        NameService::At(address) if is_known => (0, is_address.then_some(address)),
        NameService::At(_) => (3, None),
        NameService::Silent => return None,
    };
    let mut answer = question[..2].to_vec();
    answer.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::from(address.is_some()),
        0,
        0,
        0,
        0,
    ]);
    answer.extend(asked);
    if let Some(address) = address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// Ten sidecars that know HEIR by its name, and a HEIR that goes and comes back elsewhere while no name can be found.
pub(crate) fn a_fleet_without_names(lengths: &[Duration], kinds: &[NameService]) {
    let Some(_names) = Names::of_a_server() else {
        return;
    };
    runtime().block_on(async {
        let heir = Heir::start(Level::Changes).await;
        heir.client().put_policy("t/a", "{\"v\":0}").await;
        let [here, there] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
        let names = NameServer::start(NameService::At(here)).await;
        let first = Faulty::start(heir.address()).await;
        let port = first.address.port();
        let second = Faulty::start_at(heir.address(), (there, port).into()).await;
        let mut fleet = Vec::new();
        for _ in 0..FLEET {
            let yaml = format!("{QUICK}heir: {{url: 'http://heir.test:{port}'}}");
            fleet.push(Sidecar::try_start(&yaml).unwrap());
        }
        for sidecar in &fleet {
            sidecar.wait_for("live").await;
        }
        let (mut old, mut new) = ((here, &first), (there, &second));
        for kind in kinds {
            for length in lengths {
                let asked = names.asked.load(SeqCst);
                names.say(*kind);
                old.1.rule(|_| Fault::Refuse);
                old.1.cut();
                tokio::time::sleep(*length).await;
                let questions = names.asked.load(SeqCst) - asked;
                let lateness = Lateness::measured();
                let (began, before) = (Instant::now(), new.1.seen().len());
                new.1.rule(|_| Fault::None);
                names.say(NameService::At(new.0));
                let text = format!("{{\"v\":{}}}", fastrand::u64(..));
                heir.client().put_policy("t/a", text.clone()).await;
                let mut seen_after = Vec::new();
                for sidecar in &fleet {
                    let client = sidecar.client();
                    eventually("the write is seen", || async {
                        client.policy("t/a").await.text() == text
                    })
                    .await;
                    seen_after.push(began.elapsed());
                }
                let (worst, allowed) = (seen_after[FLEET - 1], SOON + lateness.allows());
                assert!(
                    worst < allowed,
                    "{kind:?} for {length:?}: {seen_after:?}, allowed are {allowed:?}"
                );
                let requests = new.1.seen().len() - before;
                assert!(
                    requests <= FLEET * 6,
                    "{kind:?} for {length:?}: {requests} requests on return"
                );
                // A lookup is eight questions, each of which the system repeats once.
                let most = FLEET as f64 * 16.0 * (6.0 + 2.0 * length.as_secs_f64());
                assert!(
                    (questions as f64) < most,
                    "{kind:?} for {length:?}: {questions} questions for the name meanwhile"
                );
                (old, new) = (new, old);
            }
        }
        for sidecar in fleet {
            sidecar.stop().await;
        }
    });
}

#[test]
fn hostile_58_a_fleet_is_soon_back_after_no_name_was_found() {
    let lengths = [100, 800, 10_000].map(Duration::from_millis);
    a_fleet_without_names(&lengths, &[NameService::Failing]);
}

#[test]
fn hostile_58_a_fleet_is_soon_back_after_the_servers_of_names_were_silent() {
    let lengths = [100, 800, 3_000, 10_000].map(Duration::from_millis);
    a_fleet_without_names(&lengths, &[NameService::Silent]);
}
