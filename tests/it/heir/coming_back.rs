//! After an outage, of any kind and length, every sidecar of a fleet sees the next write soon, and HEIR is asked for little
//! on the way.
#![expect(clippy::print_stdout, reason = "a test says what it measured")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use beamline_sidecar::store::Level;

use crate::support::{
    Client, Fault, Faulty, Heir, LostPackets, QUICK, Sidecar, StoreProcess, eventually,
    is_in_a_network_of_its_own,
};

pub(super) const FLEET: usize = 10;

/// What is promised, of a machine that does what it is told.
pub(super) const SOON: Duration = Duration::from_millis(2_500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Connections end without an answer.
    Refused,
    /// Nothing is answered while it lasts, and what was asked then is never answered.
    Hanging,
    /// As `Hanging`, but the connections that there were stay, and what was asked before is answered.
    Swallowing,
    /// 503 to everything, without a word on when to come back.
    Errors,
    /// 503 to everything, and the wish to be asked again after a second.
    Busy,
}

/// How late this process gets to what it has to do: what the machine adds to every wait.
pub(crate) struct Lateness {
    worst_ms: Arc<AtomicU64>,
    running: tokio::task::JoinHandle<()>,
}

impl Lateness {
    pub(crate) fn measured() -> Self {
        const STEP: Duration = Duration::from_millis(10);
        let worst_ms = Arc::new(AtomicU64::new(0));
        let noted = worst_ms.clone();
        let running = tokio::spawn(async move {
            loop {
                let began = Instant::now();
                tokio::time::sleep(STEP).await;
                let late = began.elapsed().saturating_sub(STEP);
                noted.fetch_max(late.as_millis() as u64, SeqCst);
            }
        });
        Self { worst_ms, running }
    }

    pub(crate) fn worst(&self) -> Duration {
        Duration::from_millis(self.worst_ms.load(SeqCst))
    }

    /// A way back has some ten waits: for timers, threads and sockets.
    pub(crate) fn allows(&self) -> Duration {
        Duration::from_millis(20 * self.worst_ms.load(SeqCst))
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Ten sidecars with the time-outs that one has by default, each with a proxy of its own to one HEIR.
pub(crate) struct Fleet {
    heir: Heir,
    members: Vec<(Faulty, Sidecar)>,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let heir = Heir::start(Level::Changes).await;
        heir.client().put_policy("t/a", "{\"v\":0}").await;
        let mut members = Vec::new();
        for _ in 0..FLEET {
            let faulty = Faulty::start(heir.address()).await;
            let sidecar = Sidecar::try_start(&format!("{QUICK}heir: {{url: '{}'}}", faulty.url())).unwrap();
            members.push((faulty, sidecar));
        }
        for (_, sidecar) in &members {
            sidecar.wait_for("live").await;
        }
        Self { heir, members }
    }

    fn asked(&self) -> usize {
        self.members.iter().map(|(faulty, _)| faulty.seen().len()).sum()
    }

    /// One outage, and what came of it.
    pub(crate) async fn suffers(&self, outage: Outage, length: Duration) {
        let before = self.asked();
        for (faulty, _) in &self.members {
            faulty.rule(move |_| match outage {
                Outage::Refused => Fault::Refuse,
                Outage::Hanging | Outage::Swallowing => Fault::Silence,
                Outage::Errors => Fault::Say(503, &[], "{}".into()),
                Outage::Busy => Fault::Say(503, &[("retry-after", "1")], "{}".into()),
            });
            if outage != Outage::Swallowing {
                faulty.cut();
            }
        }
        tokio::time::sleep(length).await;
        self.comes_back(outage, length, before, SOON).await;
    }

    /// An outage ends within which each sidecar's long poll was swallowed, a moment ago in the worst case.
    async fn loses_its_polls(&self, promised: Duration) {
        let (before, began) = (self.asked(), Instant::now());
        let polls = || {
            self.members
                .iter()
                .map(|(faulty, _)| faulty.count("GET /api/v1/changes"))
        };
        let polled: Vec<usize> = polls().collect();
        for (faulty, _) in &self.members {
            faulty.rule(|_| Fault::Silence);
        }
        eventually("all polls are swallowed", || async {
            polls().zip(&polled).all(|(now, before)| now > *before)
        })
        .await;
        self.comes_back(Outage::Swallowing, began.elapsed(), before, promised)
            .await;
    }

    async fn comes_back(&self, outage: Outage, length: Duration, before: usize, promised: Duration) {
        let during = self.asked() - before;
        let lateness = Lateness::measured();
        let began = Instant::now();
        for (faulty, _) in &self.members {
            faulty.rule(|_| Fault::None);
        }
        let text = format!("{{\"v\":{}}}", fastrand::u64(..));
        self.heir.client().put_policy("t/a", text.clone()).await;
        let mut seen_after = Vec::new();
        for (_, sidecar) in &self.members {
            let client = sidecar.client();
            eventually("the write is seen", || async {
                client.policy("t/a").await.text() == text
            })
            .await;
            seen_after.push(began.elapsed());
        }
        let (worst, allowed) = (seen_after[FLEET - 1], promised + lateness.allows());
        println!("{outage:?} for {length:?}: {worst:?}");
        assert!(
            worst < allowed,
            "{outage:?} for {length:?}: {seen_after:?}, allowed are {allowed:?}"
        );
        // On the way back each asks what it has missed, once or twice, and waits for more: a few requests each, where
        // seeing a write costs one in any case.
        let after = self.asked() - before - during;
        assert!(
            after <= FLEET * 6,
            "{outage:?} for {length:?}: {after} requests on return"
        );
        // Meanwhile each asks about once a second, after some questions that come sooner.
        let seconds = length.as_secs_f64();
        let bound = FLEET as f64 * (8.0 + 2.0 * seconds);
        assert!(
            (during as f64) < bound,
            "{outage:?} for {length:?}: {during} requests meanwhile"
        );
    }

    pub(crate) async fn stop(self) {
        for (_, sidecar) in self.members {
            sidecar.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_58_a_fleet_is_soon_back_after_connections_were_refused() {
    let fleet = Fleet::start().await;
    for length in [100, 800, 10_000] {
        fleet
            .suffers(Outage::Refused, Duration::from_millis(length))
            .await;
    }
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_58_a_fleet_is_soon_back_after_heir_hung() {
    let fleet = Fleet::start().await;
    for length in [100, 800, 10_000] {
        fleet
            .suffers(Outage::Hanging, Duration::from_millis(length))
            .await;
    }
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_58_a_fleet_is_soon_back_after_heir_answered_errors() {
    let fleet = Fleet::start().await;
    for length in [100, 800, 10_000] {
        fleet.suffers(Outage::Errors, Duration::from_millis(length)).await;
    }
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_58_a_fleet_is_soon_back_after_heir_asked_for_pauses() {
    let fleet = Fleet::start().await;
    for length in [100, 800, 10_000] {
        fleet.suffers(Outage::Busy, Duration::from_millis(length)).await;
    }
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_58_a_fleet_is_soon_back_after_its_long_polls_were_swallowed() {
    let fleet = Fleet::start().await;
    fleet.suffers(Outage::Swallowing, Duration::from_secs(10)).await;
    // A silent poll is a HEIR where nothing happens: it is asked again once its time is over.
    fleet.loses_its_polls(Duration::from_millis(5_500)).await;
    fleet.stop().await;
}

/// Waits until each of the sidecars shows a write that is made now, and asserts that the last one was soon enough. `since`: when
/// HEIR could be reached again.
async fn all_see_a_write(heir: &Client, fleet: &[Sidecar], since: Instant, lateness: Lateness, what: &str) {
    let text = format!("{{\"v\":{}}}", fastrand::u64(..));
    heir.put_policy("t/a", text.clone()).await;
    let mut seen_after = Vec::new();
    for sidecar in fleet {
        let client = sidecar.client();
        eventually("the write is seen", || async {
            client.policy("t/a").await.text() == text
        })
        .await;
        seen_after.push(since.elapsed());
    }
    let (worst, allowed) = (seen_after[fleet.len() - 1], SOON + lateness.allows());
    println!("{what}: {worst:?}");
    assert!(worst < allowed, "{what}: {seen_after:?}, allowed are {allowed:?}");
}

async fn fleet_of(url: &str) -> Vec<Sidecar> {
    let fleet: Vec<Sidecar> = (0..FLEET)
        .map(|_| Sidecar::try_start(&format!("{QUICK}heir: {{url: '{url}'}}")).unwrap())
        .collect();
    for sidecar in &fleet {
        sidecar.wait_for("live").await;
    }
    fleet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_58_a_fleet_is_soon_back_after_heir_stood_still() {
    let folder = tempfile::tempdir().unwrap();
    let heir = StoreProcess::start(&folder.path().join("heir.db"), None).await;
    heir.client().put_policy("t/a", "{\"v\":0}").await;
    let fleet = fleet_of(&format!("http://{}", heir.address())).await;
    for length in [100, 800, 10_000].map(Duration::from_millis) {
        heir.pause();
        tokio::time::sleep(length).await;
        let (lateness, since) = (Lateness::measured(), Instant::now());
        heir.resume();
        let what = format!("stood still for {length:?}");
        all_see_a_write(&heir.client(), &fleet, since, lateness, &what).await;
    }
    for sidecar in fleet {
        sidecar.stop().await;
    }
}

const ELSEWHERE: &str = "127.0.0.2";

/// A HEIR at an address of its own, so that packets to it and from it can be told from all others.
async fn heir_elsewhere() -> Heir {
    let heir = Heir::start_at(Level::Changes, format!("{ELSEWHERE}:0").parse().unwrap()).await;
    heir.client().put_policy("t/a", "{\"v\":0}").await;
    heir
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_58_a_fleet_is_soon_back_after_packets_were_lost() {
    if !is_in_a_network_of_its_own() {
        return;
    }
    let heir = heir_elsewhere().await;
    let fleet = fleet_of(&heir.url()).await;
    for length in [100, 800, 4_000, 10_000].map(Duration::from_millis) {
        let lost = LostPackets::of_address(ELSEWHERE);
        tokio::time::sleep(length).await;
        drop(lost);
        let (lateness, since) = (Lateness::measured(), Instant::now());
        let what = format!("packets lost for {length:?}");
        all_see_a_write(&heir.client(), &fleet, since, lateness, &what).await;
    }
    for sidecar in fleet {
        sidecar.stop().await;
    }
}

/// The ports of this process's ends of its connections to a port.
fn own_ports(port: u16) -> Vec<u16> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let of_line = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let own = u16::from_str_radix(columns[1].rsplit_once(':')?.1, 16).ok()?;
        (columns[3] == "01" && columns[2].ends_with(&format!(":{port:04X}"))).then_some(own)
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_58_a_fleet_is_soon_back_where_its_connections_were_forgotten() {
    if !is_in_a_network_of_its_own() {
        return;
    }
    let heir = heir_elsewhere().await;
    let fleet = fleet_of(&heir.url()).await;
    for length in [100, 800, 3_000].map(Duration::from_millis) {
        // What stands between forgets all connections, as a firewall that was started again: nothing comes through on them,
        // nor does anything end them. New ones can be made.
        let _forgotten = LostPackets::of_ports(&own_ports(heir.address().port()));
        let lost = LostPackets::of_address(ELSEWHERE);
        tokio::time::sleep(length).await;
        drop(lost);
        let (lateness, since) = (Lateness::measured(), Instant::now());
        let what = format!("forgotten, and packets lost for {length:?}");
        let heir = Client::new(heir.address());
        all_see_a_write(&heir, &fleet, since, lateness, &what).await;
    }
    for sidecar in fleet {
        sidecar.stop().await;
    }
}

/// Time-outs that no test waits for.
fn patient(url: &str, more: &str) -> String {
    format!("{QUICK}heir: {{url: '{url}', timeout_ms: 600000, health_interval_ms: 3600000}}\n{more}")
}

#[tokio::test]
async fn a_question_that_heir_has_forgotten_does_not_keep_a_sidecar_from_seeing_that_it_is_back() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("t/a", "{\"v\":0}").await;
    let faulty = Faulty::start(heir.address()).await;
    let sidecar = Sidecar::try_start(&patient(&faulty.url(), "")).unwrap();
    sidecar.wait_for("live").await;
    faulty.rule(|_| Fault::Refuse);
    faulty.cut();
    sidecar.wait_for("degraded").await;
    // What is asked now is never answered, and its time is over long after this test.
    faulty.rule(|_| Fault::Silence);
    eventually("it asks", || async { !faulty.is_idle() }).await;
    faulty.rule(|_| Fault::None);
    heir.client().put_policy("t/a", "{\"v\":1}").await;
    eventually("it has come through", || async {
        sidecar.client().policy("t/a").await.text() == "{\"v\":1}"
    })
    .await;
    sidecar.wait_for("live").await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_long_poll_that_is_never_answered_is_asked_again() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("t/a", "{\"v\":0}").await;
    let faulty = Faulty::start(heir.address()).await;
    let sidecar =
        Sidecar::try_start(&patient(&faulty.url(), "refresh: {long_poll_timeout_ms: 500}")).unwrap();
    sidecar.wait_for("live").await;
    let mut polls = 0;
    faulty.rule(move |seen| {
        let poll = seen.is("GET /api/v1/changes") && seen.path.contains("wait_ms=500");
        polls += usize::from(poll);
        if poll && polls == 2 {
            Fault::Silence
        } else {
            Fault::None
        }
    });
    let before = faulty.count("GET /api/v1/changes");
    eventually("one is left unanswered", || async {
        faulty.count("GET /api/v1/changes") >= before + 2
    })
    .await;
    heir.client().put_policy("t/a", "{\"v\":1}").await;
    eventually("the write is seen", || async {
        sidecar.client().policy("t/a").await.text() == "{\"v\":1}"
    })
    .await;
    // The one that was never answered is the only one: what was asked beside it served.
    assert!(faulty.count("GET /health") >= 1);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_poll_that_waits_at_a_heir_that_failed_others_is_asked_anew() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("t/a", "{\"v\":0}").await;
    let faulty = Faulty::start(heir.address()).await;
    let more = "refresh: {long_poll_timeout_ms: 60000}";
    let yaml = format!(
        "{QUICK}heir: {{url: '{}', timeout_ms: 600000, health_interval_ms: 100}}\n{more}",
        faulty.url()
    );
    let sidecar = Sidecar::try_start(&yaml).unwrap();
    sidecar.wait_for("live").await;
    // The poll waits for ever, and the health check fails and recovers: HEIR was started again, say.
    faulty.rule(|seen| {
        if seen.is("GET /api/v1/changes") {
            Fault::Silence
        } else {
            Fault::None
        }
    });
    let polls = || faulty.count("GET /api/v1/changes");
    heir.client().put_policy("t/a", "{\"v\":1}").await;
    let before = polls();
    eventually("a poll is left unanswered", || async { polls() > before }).await;
    faulty.rule(|seen| {
        if seen.is("GET /health") {
            Fault::Say(503, &[], "{}".into())
        } else {
            Fault::None
        }
    });
    heir.client().put_policy("t/a", "{\"v\":2}").await;
    eventually("HEIR is taken for away", || async {
        sidecar.metric("beamline_sidecar_heir_up").await == 0.0
    })
    .await;
    faulty.rule(|_| Fault::None);
    eventually("the write is seen", || async {
        sidecar.client().policy("t/a").await.text() == "{\"v\":2}"
    })
    .await;
    sidecar.stop().await;
}

/// The state and the timer of this process's connections to a port, as the kernel shows them.
fn timers(port: u16) -> Vec<(String, u64)> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let of_line = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let established = columns[3] == "01";
        let (timer, when) = columns[5].split_once(':')?;
        let when = u64::from_str_radix(when, 16).unwrap();
        (established && columns[2].ends_with(&format!(":{port:04X}"))).then(|| (timer.to_owned(), when))
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

#[tokio::test]
async fn the_system_asks_whether_a_silent_heir_is_still_there() {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    // The long poll's connection says nothing for seconds; where packets are lost it never ends by itself.
    eventually("a timer of keep-alive runs, of a few seconds", || async {
        timers(heir.address().port())
            .iter()
            .any(|(timer, when)| timer == "02" && *when <= 300)
    })
    .await;
    sidecar.stop().await;
}
