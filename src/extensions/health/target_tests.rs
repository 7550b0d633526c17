use std::sync::Arc;

use super::*;
use crate::extensions::{config::ExtensionBreakerConfig, health::ExtensionHealth, sandbox::CrashReport};

const QUICK: Duration = Duration::from_micros(10);
const SLOW: Duration = Duration::from_millis(5);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000 + ms)
}

fn crash() -> CrashReport {
    CrashReport {
        reason: "unreachable".into(),
        frames: Vec::new(),
        offsets: Vec::new(),
    }
}

struct Patient {
    extension: ExtensionHealth,
    health: Arc<TargetHealth>,
    config: ExtensionsConfig,
}

impl Patient {
    fn new(breaker: bool) -> Self {
        let extension = ExtensionHealth::default();
        Self {
            health: extension.target("v1", None, false),
            extension,
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

    fn try_admit_of(&self, tenant: &str, ms: u64) -> Result<Admitted, Blocked> {
        self.health.admit(&self.config, at(ms), tenant)
    }

    fn try_admit(&self, ms: u64) -> Result<Admitted, Blocked> {
        self.try_admit_of("t", ms)
    }

    fn admit(&self, ms: u64) -> Admitted {
        self.try_admit(ms).expect("it may be called")
    }

    fn blocked(&self, ms: u64) -> Option<Blocked> {
        self.try_admit(ms).err()
    }

    fn record_of(
        &self,
        tenant: &str,
        admitted: Admitted,
        ms: u64,
        outcome: &CallOutcome<'_>,
    ) -> Option<Change> {
        self.spent(tenant, admitted, ms, QUICK, outcome).change
    }

    fn spent(
        &self,
        tenant: &str,
        admitted: Admitted,
        ms: u64,
        took: Duration,
        outcome: &CallOutcome<'_>,
    ) -> Recorded {
        let cost = Cost {
            took,
            computed: took,
            ran: Some(took),
            memory_bytes: 1,
        };
        self.health
            .record(&self.config, (admitted, at(ms)), cost, outcome, (tenant, "p"))
    }

    fn record(&self, admitted: Admitted, ms: u64, outcome: &CallOutcome<'_>) -> Option<Change> {
        self.record_of("t", admitted, ms, outcome)
    }

    fn call_of(&self, tenant: &str, ms: u64, outcome: &CallOutcome<'_>) -> Option<Change> {
        let admitted = self.try_admit_of(tenant, ms).expect("it may be called");
        self.record_of(tenant, admitted, ms, outcome)
    }

    fn call(&self, ms: u64, outcome: &CallOutcome<'_>) -> Option<Change> {
        self.call_of("t", ms, outcome)
    }

    fn withdraw(&self, admitted: Admitted) {
        self.health.withdraw(admitted, "t");
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
    patient.withdraw(probe);
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
    patient.extension.release();
    patient.admit(5);
    assert_eq!(patient.extension.traps().len(), 3);
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
    for turn in 0..2 {
        assert_eq!(patient.call(turn * 2, &CallOutcome::Success), None);
        assert_eq!(patient.call(turn * 2 + 1, &CallOutcome::Failure), None);
    }
    assert_eq!(
        patient.call(4, &CallOutcome::Failure),
        Some(Change::BreakerOpened),
        "five are enough"
    );

    let mut patient = Patient::new(true);
    patient.config.breaker.error_rate_min_requests = 7;
    for turn in 0..3 {
        assert_eq!(patient.call(turn * 2, &CallOutcome::Success), None);
        assert_eq!(patient.call(turn * 2 + 1, &CallOutcome::Failure), None);
    }
    assert_eq!(
        patient.call(6, &CallOutcome::Failure),
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
    let health = patient.extension.report("x", at(100));
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
    let health = patient.extension.report("x", at(100));
    assert_eq!(health.status, "healthy");
    assert!((health.success_rate - 0.96).abs() < 1e-9);
    assert!(
        health.p50_latency_ms >= 0.01 && health.p99_latency_ms < 0.02,
        "{health:?}"
    );
    // Five minutes later nothing of it is left.
    assert!(patient.extension.report("x", at(400_000)).p99_latency_ms.abs() < f64::EPSILON);
}

#[test]
fn lines_are_bounded_by_the_second() {
    let health = ExtensionHealth::default();
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
    patient.withdraw(early[1]);
    let probe = patient.admit(1_006);
    // While the probe is under way as well.
    for outcome in [&CallOutcome::Failure, &CallOutcome::Success, &crashed] {
        assert_eq!(patient.record(early[2], 1_007, outcome), None);
        assert_eq!(patient.blocked(1_007), Some(Blocked::Quarantined));
    }
    patient.withdraw(early[3]);
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
        patient.withdraw(trial);
    }
    assert_eq!(
        patient.call(60_007, &CallOutcome::Success),
        Some(Change::BreakerClosed)
    );
}

#[test]
fn moves_to_and_fro_are_news_once_in_ten_minutes() {
    let health = ExtensionHealth::default();
    let news = |ms| health.is_news_that_it_moved(at(ms));
    assert!(news(0));
    assert!((1..600).all(|second| !news(second * 1_000)));
    assert!(news(600_000));
    assert!(!news(600_001));
}

#[test]
fn one_tenants_crashes_block_it_for_that_tenant_alone() {
    let patient = Patient::new(true);
    let crash = crash();
    let crashed = CallOutcome::Crash(&crash);
    for ms in 0..3 {
        patient.call_of("bad", ms, &crashed);
    }
    assert_eq!(patient.try_admit_of("bad", 10), Err(Blocked::Quarantined));
    for ms in 3..8 {
        patient.call_of("worse", ms, &CallOutcome::Failure);
    }
    assert_eq!(patient.try_admit_of("worse", 10), Err(Blocked::BreakerOpen));
    assert_eq!(patient.call_of("good", 10, &CallOutcome::Success), None);
    let report = patient.extension.report("x", at(11));
    let mut blocked: Vec<_> = report
        .blocked_tenants
        .iter()
        .map(|one| (&*one.tenant_id, one.breaker, one.quarantined_until.is_some()))
        .collect();
    blocked.sort_unstable();
    assert_eq!(blocked, [("bad", "closed", true), ("worse", "open", false)]);
    assert!(report.quarantined_until.is_some());
    assert_eq!(patient.extension.blocked(at(11)), 2);
}

#[test]
fn crashes_of_several_tenants_block_it_for_those_that_it_never_served() {
    let patient = Patient::new(false);
    let crash = crash();
    let crashed = CallOutcome::Crash(&crash);
    patient.call_of("served", 0, &CallOutcome::Success);
    // Three crashes in a row are enough for one tenant, but for all only where several tenants had them.
    assert_eq!(patient.call_of("a", 1, &crashed), None);
    assert_eq!(patient.call_of("b", 2, &crashed), None);
    assert_eq!(patient.call_of("a", 3, &crashed), None);
    assert_eq!(patient.call_of("b", 4, &crashed), None);
    assert_eq!(
        patient.call_of("c", 5, &crashed),
        Some(Change::QuarantinedForAll {
            pause: Duration::from_secs(1)
        })
    );
    assert_eq!(patient.try_admit_of("new", 6), Err(Blocked::Quarantined));
    assert_eq!(patient.call_of("served", 7, &CallOutcome::Success), None);
    // After the pause one call decides.
    let probe = patient.try_admit_of("new", 1_005).expect("the pause is over");
    assert_eq!(patient.try_admit_of("newer", 1_006), Err(Blocked::Quarantined));
    assert_eq!(
        patient.record_of("new", probe, 1_007, &CallOutcome::Success),
        Some(Change::Released)
    );
    assert_eq!(patient.call_of("newer", 1_008, &CallOutcome::Success), None);
}

#[test]
fn a_success_of_any_tenant_ends_the_row_that_counts_for_all() {
    let patient = Patient::new(false);
    let crash = crash();
    let crashed = CallOutcome::Crash(&crash);
    for (ms, tenant) in [(0, "a"), (2, "b"), (4, "c"), (6, "d"), (8, "e"), (10, "f")] {
        assert_eq!(patient.call_of(tenant, ms, &crashed), None);
        assert_eq!(patient.call_of("good", ms + 1, &CallOutcome::Success), None);
    }
    assert_eq!(patient.call_of("new", 20, &CallOutcome::Success), None);
}

#[test]
fn a_canary_and_the_stable_version_share_no_standing() {
    let patient = Patient::new(false);
    let crash = crash();
    let canary = patient.extension.target("v1", Some("canary"), false);
    for ms in 0..3 {
        let admitted = canary
            .admit(&patient.config, at(ms), "t")
            .expect("it may be called");
        let cost = Cost {
            took: SLOW,
            computed: SLOW,
            ran: Some(SLOW),
            memory_bytes: 1,
        };
        let outcome = CallOutcome::Crash(&crash);
        canary.record(&patient.config, (admitted, at(ms)), cost, &outcome, ("t", "p"));
    }
    assert_eq!(
        canary.admit(&patient.config, at(3), "t"),
        Err(Blocked::Quarantined)
    );
    assert_eq!(patient.call(4, &CallOutcome::Success), None);
    let report = patient.extension.report("x", at(5));
    let versions: Vec<_> = report
        .versions
        .iter()
        .map(|one| (one.instance_id.as_deref(), one.successes, one.failures, one.lane))
        .collect();
    assert_eq!(versions, [(None, 1, 0, "fast"), (Some("canary"), 0, 3, "slow")]);
    assert_eq!((report.successes, report.failures, report.lane), (1, 3, "slow"));
}

#[test]
fn no_more_tenants_are_remembered_than_there_is_room_for_and_the_blocked_ones_last() {
    let patient = Patient::new(false);
    let crash = crash();
    for ms in 0..3 {
        patient.call_of("bad", ms, &CallOutcome::Crash(&crash));
    }
    for number in 0..5_000 {
        let tenant = format!("t-{number}");
        patient.call_of(&tenant, 3 + number % 900, &CallOutcome::Success);
    }
    assert!(patient.health.state().standings.iter().count() <= 1_000);
    assert_eq!(patient.try_admit_of("bad", 950), Err(Blocked::Quarantined));
}

#[test]
fn lines_about_changes_are_bounded_by_the_minute() {
    let health = ExtensionHealth::default();
    let told = (0..1_000).filter(|ms| health.may_tell_change(at(*ms))).count();
    assert_eq!(told, 10);
    assert!(health.may_tell_change(at(60_000)));
}

#[test]
fn slow_calls_of_one_tenant_move_the_calls_of_that_tenant_alone() {
    let patient = Patient::new(false);
    let call = |tenant: &str, took: Duration, outcome: &CallOutcome<'_>| {
        let admitted = patient.try_admit_of(tenant, 0).expect("it may be called");
        (
            admitted.place,
            patient.spent(tenant, admitted, 0, took, outcome).moved,
        )
    };
    for _ in 0..100 {
        assert_eq!(call("quick", QUICK, &CallOutcome::Success), (Place::Fast, None));
    }
    assert_eq!(call("slow", SLOW, &CallOutcome::Success), (Place::Fast, None));
    assert_eq!(
        call("slow", SLOW, &CallOutcome::Success),
        (Place::Fast, Some(Place::Slow))
    );
    assert_eq!(call("slow", SLOW, &CallOutcome::Timeout), (Place::Slow, None));
    assert_eq!(
        call("slow", SLOW, &CallOutcome::Timeout),
        (Place::Slow, Some(Place::Idle))
    );
    assert_eq!(call("slow", SLOW, &CallOutcome::Success).0, Place::Idle);
    assert_eq!(call("quick", QUICK, &CallOutcome::Success), (Place::Fast, None));
    // A tenant that is not known yet begins where the calls of all say, and never with the time-outs of others.
    assert_eq!(call("new", QUICK, &CallOutcome::Success).0, Place::Slow);
}
