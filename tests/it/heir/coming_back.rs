//! After an outage, of any kind and length, every sidecar of a fleet sees the next write soon, and HEIR is asked for little
//! on the way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use beamline_sidecar::store::Level;

use crate::support::{Fault, Faulty, Heir, QUICK, Sidecar, eventually};

pub(super) const FLEET: usize = 10;

/// What is promised, of a machine that does what it is told.
pub(super) const SOON: Duration = Duration::from_millis(2_500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Connections end without an answer.
    Refused,
    /// Nothing is answered while it lasts, and what was asked then is never answered.
    Hanging,
    /// 503 to everything, without a word on when to come back.
    Errors,
}

/// How late this process gets to what it has to do: what the machine adds to every wait.
pub(super) struct Lateness {
    worst_ms: Arc<AtomicU64>,
    running: tokio::task::JoinHandle<()>,
}

impl Lateness {
    pub(super) fn measured() -> Self {
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

    /// A way back has some ten waits: for timers, threads and sockets.
    pub(super) fn allows(&self) -> Duration {
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
                Outage::Hanging => Fault::Silence,
                Outage::Errors => Fault::Say(503, &[], "{}".into()),
            });
            faulty.cut();
        }
        tokio::time::sleep(length).await;
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
        let (worst, allowed) = (seen_after[FLEET - 1], SOON + lateness.allows());
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
