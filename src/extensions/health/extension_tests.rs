use super::*;
use crate::extensions::{config::ExtensionBreakerConfig, sandbox::CrashReport};

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000 + ms)
}

fn crash() -> CrashReport {
    CrashReport {
        reason: "unreachable".into(),
        frames: Vec::new(),
    }
}

struct Patient {
    health: ExtensionHealth,
    config: ExtensionsConfig,
}

impl Patient {
    fn new(breaker: bool) -> Self {
        Self {
            health: ExtensionHealth::new(false),
            config: ExtensionsConfig {
                breaker: ExtensionBreakerConfig {
                    enabled: breaker,
                    ..ExtensionBreakerConfig::default()
                },
                quarantine_after: 3,
                quarantine_ms: 1_000,
                max_quarantine_ms: 4_000,
                ..ExtensionsConfig::default()
            },
        }
    }

    fn try_admit(&self, ms: u64) -> Result<Admitted, Blocked> {
        self.health.admit(&self.config, at(ms))
    }

    fn admit(&self, ms: u64) -> Admitted {
        self.try_admit(ms).expect("it may be called")
    }

    fn blocked(&self, ms: u64) -> Option<Blocked> {
        self.try_admit(ms).err()
    }

    fn record(&self, admitted: Admitted, ms: u64, outcome: &CallOutcome<'_>) -> Option<Change> {
        let took = Duration::from_micros(10);
        self.health
            .record(&self.config, (admitted, at(ms)), took, 1, outcome, ("t", "p"))
    }

    fn call(&self, ms: u64, outcome: &CallOutcome<'_>) -> Option<Change> {
        self.record(self.admit(ms), ms, outcome)
    }
}

#[test]
fn crashes_in_a_row_are_quarantined_for_longer_each_time() {
    let patient = Patient::new(false);
    let crash = crash();
    let crashed = CallOutcome::Crash(&crash);
    assert_eq!(patient.call(0, &crashed), None);
    assert_eq!(patient.call(1, &crashed), None);
    let quarantined = |seconds| {
        Some(Change::Quarantined {
            pause: Duration::from_secs(seconds),
        })
    };
    assert_eq!(patient.call(2, &crashed), quarantined(1));
    assert_eq!(patient.blocked(1_001), Some(Blocked::Quarantined));
    // One call is let through after the pause; while it runs, no other is.
    let probe = patient.admit(1_002);
    assert_eq!(patient.blocked(1_003), Some(Blocked::Quarantined));
    assert_eq!(patient.record(probe, 1_004, &crashed), quarantined(2));
    assert_eq!(patient.blocked(3_003), Some(Blocked::Quarantined));
    assert_eq!(patient.call(3_004, &crashed), quarantined(4));
    assert_eq!(
        patient.call(7_004, &crashed),
        quarantined(4),
        "four seconds are the most"
    );
    assert_eq!(
        patient.call(11_004, &CallOutcome::Success),
        Some(Change::Released)
    );
    assert_eq!(patient.call(11_005, &crashed), None, "it begins anew");
}

#[test]
fn a_success_between_crashes_keeps_it_out_of_quarantine() {
    let patient = Patient::new(false);
    let crash = crash();
    for ms in 0..30 {
        let outcome = if ms % 3 == 2 {
            CallOutcome::Success
        } else {
            CallOutcome::Crash(&crash)
        };
        assert_eq!(patient.call(ms, &outcome), None);
    }
}

#[test]
fn a_call_that_is_not_made_gives_its_trial_back() {
    let patient = Patient::new(false);
    let crash = crash();
    for ms in 0..3 {
        patient.call(ms, &CallOutcome::Crash(&crash));
    }
    let probe = patient.admit(2_000);
    patient.health.withdraw(probe);
    patient.admit(2_001);
}

#[test]
fn a_release_ends_a_quarantine() {
    let patient = Patient::new(false);
    let crash = crash();
    for ms in 0..3 {
        patient.call(ms, &CallOutcome::Crash(&crash));
    }
    assert_eq!(patient.blocked(4), Some(Blocked::Quarantined));
    patient.health.release();
    patient.admit(5);
    assert_eq!(patient.health.traps().len(), 3);
}

#[test]
fn failures_in_a_row_open_the_breaker_and_one_success_closes_it() {
    let patient = Patient::new(true);
    for ms in 0..4 {
        assert_eq!(patient.call(ms, &CallOutcome::Failure), None);
    }
    assert_eq!(
        patient.call(4, &CallOutcome::Failure),
        Some(Change::BreakerOpened)
    );
    assert_eq!(patient.blocked(60_003), Some(Blocked::BreakerOpen));
    let trial = patient.admit(60_004);
    patient.admit(60_005);
    patient.admit(60_006);
    assert_eq!(
        patient.blocked(60_007),
        Some(Blocked::BreakerOpen),
        "three are tried"
    );
    assert_eq!(
        patient.record(trial, 60_008, &CallOutcome::Success),
        Some(Change::BreakerClosed)
    );
    assert_eq!(
        patient.call(60_009, &CallOutcome::Failure),
        None,
        "the count begins anew"
    );
}

#[test]
fn a_failure_while_half_open_opens_again() {
    let patient = Patient::new(true);
    for ms in 0..5 {
        patient.call(ms, &CallOutcome::Failure);
    }
    assert_eq!(
        patient.call(60_010, &CallOutcome::Failure),
        Some(Change::BreakerOpened)
    );
    assert_eq!(patient.blocked(120_009), Some(Blocked::BreakerOpen));
    patient.admit(120_010);
}

#[test]
fn a_rate_of_failures_opens_only_with_enough_calls_in_the_window() {
    let patient = Patient::new(true);
    for turn in 0..4 {
        assert_eq!(patient.call(turn * 2, &CallOutcome::Success), None);
        assert_eq!(patient.call(turn * 2 + 1, &CallOutcome::Failure), None);
    }
    assert_eq!(patient.call(8, &CallOutcome::Success), None);
    assert_eq!(
        patient.call(9, &CallOutcome::Failure),
        Some(Change::BreakerOpened)
    );

    let patient = Patient::new(true);
    for turn in 0..20 {
        // What lies more than a minute back does not count.
        assert_eq!(patient.call(turn * 40_000, &CallOutcome::Failure), None);
        assert_eq!(patient.call(turn * 40_000 + 1, &CallOutcome::Success), None);
    }
}

#[test]
fn without_a_breaker_failures_alone_block_nothing() {
    let patient = Patient::new(false);
    for ms in 0..100 {
        assert_eq!(patient.call(ms, &CallOutcome::Failure), None);
    }
    let health = patient.health.report("x", at(100));
    assert_eq!((health.status, health.failures), ("unhealthy", 100));
}

#[test]
fn health_is_reported_as_the_platform_does() {
    let patient = Patient::new(false);
    for ms in 0..96 {
        patient.call(ms, &CallOutcome::Success);
    }
    for ms in 96..100 {
        patient.call(ms, &CallOutcome::Failure);
    }
    let health = patient.health.report("x", at(100));
    assert_eq!(health.status, "healthy");
    assert!((health.success_rate - 0.96).abs() < 1e-9);
    assert!(
        health.p50_latency_ms >= 0.01 && health.p99_latency_ms < 0.02,
        "{health:?}"
    );
    // Five minutes later nothing of it is left.
    assert!(patient.health.report("x", at(400_000)).p99_latency_ms.abs() < f64::EPSILON);
}

#[test]
fn lines_are_bounded_by_the_second() {
    let health = ExtensionHealth::new(false);
    assert_eq!(health.may_log(at(0), 32), 32);
    assert_eq!(health.may_log(at(1), 32), 18);
    assert_eq!(health.may_log(at(2), 1), 0);
    assert_eq!(health.may_log(at(1_000), 1), 1);
}

#[test]
fn calls_that_began_before_a_quarantine_neither_end_nor_lengthen_it() {
    let patient = Patient::new(false);
    let crash = crash();
    let crashed = CallOutcome::Crash(&crash);
    let early: Vec<Admitted> = (0..4).map(|ms| patient.admit(ms)).collect();
    for ms in 4..7 {
        patient.call(ms, &crashed);
    }
    for (ms, outcome) in [
        (7, &CallOutcome::Failure),
        (8, &CallOutcome::Success),
        (9, &crashed),
    ] {
        assert_eq!(patient.record(early[0], ms, outcome), None);
        assert_eq!(patient.blocked(ms), Some(Blocked::Quarantined));
    }
    patient.health.withdraw(early[1]);
    let probe = patient.admit(1_006);
    // While the probe is under way as well.
    for outcome in [&CallOutcome::Failure, &CallOutcome::Success, &crashed] {
        assert_eq!(patient.record(early[2], 1_007, outcome), None);
        assert_eq!(patient.blocked(1_007), Some(Blocked::Quarantined));
    }
    patient.health.withdraw(early[3]);
    assert_eq!(patient.blocked(1_008), Some(Blocked::Quarantined));
    assert_eq!(
        patient.record(probe, 1_009, &CallOutcome::Success),
        Some(Change::Released)
    );
}

#[test]
fn only_trials_count_as_trials() {
    let patient = Patient::new(true);
    let early = patient.admit(0);
    for ms in 0..5 {
        patient.call(ms, &CallOutcome::Failure);
    }
    let trials: Vec<Admitted> = (0..3).map(|_| patient.admit(60_004)).collect();
    for _ in 0..100 {
        assert_eq!(patient.blocked(60_005), Some(Blocked::BreakerOpen));
    }
    assert_eq!(patient.record(early, 60_006, &CallOutcome::Failure), None);
    assert_eq!(patient.record(early, 60_006, &CallOutcome::Success), None);
    for trial in trials {
        patient.health.withdraw(trial);
    }
    assert_eq!(
        patient.call(60_007, &CallOutcome::Success),
        Some(Change::BreakerClosed)
    );
}

#[test]
fn moves_to_and_fro_are_news_once_in_ten_minutes() {
    let health = ExtensionHealth::new(false);
    let news = |ms| health.is_news_that_it_moved(at(ms));
    assert!(news(0));
    assert!((1..600).all(|second| !news(second * 1_000)));
    assert!(news(600_000));
    assert!(!news(600_001));
}
