//! Every transition, the window's edges, the half-open budget under threads, and what a full table forgets.

use proptest::prelude::*;

use super::*;

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn at(unix_ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(unix_ms)
}

/// One breaker with a clock of its own.
struct One {
    all: Breakers,
    now: u64,
}

impl One {
    fn new(settings: BreakerSettings) -> Self {
        let all = Breakers::new(10);
        all.configure(&tenant(), &ProviderId::new("openai"), settings, at(1_000_000));
        Self { all, now: 1_000_000 }
    }

    fn wait(&mut self, ms: u64) {
        self.now += ms;
    }

    /// `F` and `S`, one after the other; the last one's transition.
    fn results(&self, results: &str) -> Option<Trigger> {
        let mut last = None;
        for result in results.chars() {
            let result = if result == 'F' {
                CallResult::Failure
            } else {
                CallResult::Success
            };
            let told = self
                .all
                .record(&tenant(), &ProviderId::new("openai"), result, None, at(self.now));
            last = told.map(|told| told.trigger);
        }
        last
    }

    fn admit(&self) -> (bool, Option<Trigger>) {
        let peeked = self.all.peek(&tenant(), "openai", at(self.now));
        let (admission, told) = self.all.admit(&tenant(), "openai", at(self.now));
        assert_eq!(peeked, admission, "a look says what the question will");
        (admission == Admission::Allowed, told.map(|told| told.trigger))
    }

    fn status(&self) -> BreakerStatus {
        self.all.status(&tenant(), "openai", at(self.now)).unwrap()
    }

    fn state(&self) -> State {
        self.status().state
    }

    fn half_open(mut self) -> Self {
        self.results("FFFFF");
        self.wait(self.status().timeout_ms);
        self.all
            .force_recovery_to_half_open(&tenant(), "openai", at(self.now));
        self
    }
}

fn enabled() -> BreakerSettings {
    BreakerSettings {
        enabled: true,
        ..BreakerSettings::default()
    }
}

#[test]
fn what_is_unknown_is_allowed_and_stays_unknown() {
    let all = Breakers::new(10);
    assert_eq!(all.peek(&tenant(), "openai", at(0)), Admission::Allowed);
    assert_eq!(all.admit(&tenant(), "openai", at(0)), (Admission::Allowed, None));
    assert!(all.is_empty() && all.state(&tenant(), "openai").is_none());
    assert!(all.force_recovery(&tenant(), "openai", at(0)).is_none());
    assert!(
        all.force_recovery_to_half_open(&tenant(), "openai", at(0))
            .is_none()
    );
    assert!(all.reset_recovery_state(&tenant(), "openai", at(0)).is_none());
    let openai = ProviderId::new("openai");
    all.record(&tenant(), &openai, CallResult::Success, None, at(0));
    let status = all.status(&tenant(), "openai", at(0)).unwrap();
    assert_eq!(
        (status.state, status.success_count, status.settings),
        (State::Closed, 1, BreakerSettings::built_in())
    );
    let azure = ProviderId::new("azure");
    all.record(&tenant(), &azure, CallResult::Failure, None, at(0));
    let status = all.status(&tenant(), "azure", at(0)).unwrap();
    assert_eq!(
        (status.state, status.failure_count),
        (State::Closed, 1),
        "one failure is no rate"
    );
    let names: Vec<_> = all
        .list(&tenant(), at(0))
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, [azure, openai]);
}

#[test]
fn what_opens_a_closed_breaker_and_which_reason_goes_first() {
    let one = One::new(BreakerSettings {
        error_rate_threshold: 2.0,
        ..enabled()
    });
    assert_eq!(one.results("FFFFSFFFF"), None, "a success begins the count again");
    assert_eq!(one.results("F"), Some(Trigger::FailureThresholdExceeded));
    assert_eq!(one.status().failure_count, 5);
    for (results, opens) in [
        ("FFFF", false),
        ("FFFFF", true),
        ("FFSFF", true),
        ("SSSFF", false),
        ("SSFFF", true),
        ("SSSFFF", true),
    ] {
        let one = One::new(BreakerSettings {
            failure_threshold: 100,
            ..enabled()
        });
        let trigger = one.results(results);
        assert_eq!(
            trigger,
            opens.then_some(Trigger::ErrorRateThresholdExceeded),
            "{results}"
        );
    }
    let one = One::new(BreakerSettings {
        failure_threshold: 1,
        error_rate_min_requests: 1,
        latency_threshold_ms: Some(100),
        ..enabled()
    });
    let openai = ProviderId::new("openai");
    let slow = one
        .all
        .record(&tenant(), &openai, CallResult::Success, Some(9_999), at(one.now));
    assert_eq!(slow, None, "only a failure opens");
    let told = one
        .all
        .record(
            &tenant(),
            &openai,
            CallResult::Failure,
            Some(101),
            at(one.now + 5),
        )
        .unwrap();
    assert_eq!(
        (told.from, told.to, told.trigger),
        (State::Closed, State::Open, Trigger::LatencyThresholdExceeded)
    );
    assert_eq!(
        (
            told.failure_count,
            told.window_failures,
            told.window_total,
            told.elapsed_ms
        ),
        (1, 1, 2, 5)
    );
    let one = One::new(BreakerSettings {
        failure_threshold: 1,
        error_rate_min_requests: 1,
        latency_threshold_ms: Some(100),
        ..enabled()
    });
    let told = one
        .all
        .record(&tenant(), &openai, CallResult::Failure, Some(100), at(one.now))
        .unwrap();
    assert_eq!(told.trigger, Trigger::FailureThresholdExceeded);
}

#[test]
fn the_window_begins_with_its_first_second() {
    let mut one = One::new(BreakerSettings {
        failure_threshold: 100,
        error_rate_window_seconds: 30,
        error_rate_min_requests: 2,
        error_rate_threshold: 1.0,
        ..enabled()
    });
    one.results("F");
    one.wait(30_000);
    assert_eq!(one.status().window_total, 1, "still the window's");
    one.wait(1_000);
    assert_eq!(one.status().window_total, 0);
    assert_eq!(one.results("F"), None, "the first one is no longer counted");
    assert_eq!(one.results("F"), Some(Trigger::ErrorRateThresholdExceeded));
}

#[test]
fn an_open_breaker_counts_and_waits() {
    let mut one = One::new(enabled());
    assert!(one.results("FFFFF").is_some());
    let opened = one.status().state_changed_at;
    one.wait(59_999);
    assert_eq!(one.results("FF"), None);
    assert_eq!((one.status().failure_count, one.status().remaining_ms), (7, 1));
    assert_eq!(one.results("S"), None);
    assert_eq!((one.status().failure_count, one.state()), (0, State::Open));
    assert_eq!(one.admit(), (false, None));
    // Settings alone never open it half.
    one.wait(1);
    one.all
        .configure(&tenant(), &ProviderId::new("openai"), enabled(), at(one.now));
    assert_eq!(
        (
            one.state(),
            one.status().state_changed_at,
            one.status().remaining_ms
        ),
        (State::Open, opened, 0)
    );
    assert_eq!(one.admit(), (true, Some(Trigger::TimeoutElapsed)));
    assert_eq!(
        (
            one.state(),
            one.status().half_open_calls_count,
            one.status().failure_count
        ),
        (State::HalfOpen, 1, 0)
    );
    assert_eq!(one.status().window_total, 8, "the window is pruned, not emptied");
}

#[test]
fn a_half_open_breaker_has_a_budget() {
    let mut one = One::new(enabled()).half_open();
    let allowed: Vec<bool> = (0..4).map(|_| one.admit().0).collect();
    assert_eq!(allowed, [true, true, true, false]);
    // Their results never arrive: after another timeout there is a new budget.
    one.wait(59_999);
    assert!(!one.admit().0);
    one.wait(1);
    let allowed: Vec<bool> = (0..4).map(|_| one.admit().0).collect();
    assert_eq!(allowed, [true, true, true, false]);
    // A result lets it wait anew.
    one.wait(30_000);
    one.results("S");
    one.wait(59_999);
    assert!(!one.admit().0);
    one.wait(1);
    assert!(one.admit().0);
    assert_eq!(one.status().success_count, 1);
}

#[test]
fn a_half_open_breaker_closes_on_successes_and_opens_on_any_failure() {
    let mut one = One::new(enabled()).half_open();
    assert_eq!(one.results("SF"), Some(Trigger::HalfOpenFailure));
    let status = one.status();
    assert_eq!(
        (
            status.state,
            status.failure_count,
            status.success_count,
            status.half_open_calls_count
        ),
        (State::Open, 1, 0, 0)
    );
    one.wait(60_000);
    assert_eq!(one.admit(), (true, Some(Trigger::TimeoutElapsed)));
    assert_eq!(one.results("S"), None);
    let told = one
        .all
        .record(
            &tenant(),
            &ProviderId::new("openai"),
            CallResult::Success,
            None,
            at(one.now + 7),
        )
        .unwrap();
    assert_eq!(
        (told.from, told.to, told.trigger),
        (State::HalfOpen, State::Closed, Trigger::SuccessThresholdMet)
    );
    assert_eq!((told.success_count, told.elapsed_ms), (2, 7));
    let status = one.status();
    assert_eq!(
        (status.failure_count, status.success_count, status.window_total),
        (0, 0, 0)
    );
    assert_eq!(one.results("FFFF"), None, "nothing old opens it again");
}

#[test]
fn an_operator_may_force_it() {
    let one = One::new(enabled());
    one.results("FFFFF");
    assert_eq!(
        one.all.force_recovery(&tenant(), "openai", at(one.now)),
        Some(State::Open)
    );
    let status = one.status();
    assert_eq!(
        (status.state, status.failure_count, status.window_total),
        (State::Closed, 0, 5)
    );
    assert!(one.results("F").is_some(), "the window was kept");
    assert_eq!(
        one.all
            .force_recovery_to_half_open(&tenant(), "openai", at(one.now)),
        Some(State::Open)
    );
    let status = one.status();
    assert_eq!(
        (status.state, status.half_open_calls_count, status.window_total),
        (State::HalfOpen, 0, 0)
    );
    one.admit();
    assert_eq!(
        one.all.reset_recovery_state(&tenant(), "openai", at(one.now)),
        Some(State::HalfOpen)
    );
    let status = one.status();
    assert_eq!(
        (status.state, status.half_open_calls_count, status.total_failures),
        (State::Closed, 0, 0)
    );
}

#[test]
fn a_clock_set_back_does_not_keep_it_open() {
    let mut one = One::new(enabled());
    one.results("FFFFF");
    one.now = 5_000;
    assert!(!one.admit().0);
    one.wait(60_000);
    assert_eq!(one.admit(), (true, Some(Trigger::TimeoutElapsed)));
    assert_eq!(one.status().window_total, 0, "results from the future are none");
}

#[test]
fn a_clock_set_back_does_not_keep_one_open_that_is_only_looked_at() {
    let mut one = One::new(enabled());
    one.now = 1_000_000;
    one.results("FFFFF");
    let peek = |one: &One| one.all.peek(&tenant(), "openai", at(one.now));
    assert_eq!(peek(&one), Admission::Denied);
    one.now -= 500_000;
    assert_eq!(peek(&one), Admission::Denied);
    one.wait(59_999);
    assert_eq!(peek(&one), Admission::Denied);
    one.wait(1);
    assert_eq!(peek(&one), Admission::Allowed);
}

#[test]
fn a_full_table_forgets_closed_ones_first() {
    let all = Breakers::new(3);
    let provider = |index: u64| ProviderId::new(&format!("p{index}"));
    for index in 0..3 {
        all.configure(&tenant(), &provider(index), enabled(), at(index));
    }
    for _ in 0..5 {
        all.record(&tenant(), &provider(0), CallResult::Failure, None, at(0));
    }
    assert_eq!(all.state(&tenant(), "p0"), Some(State::Open));
    all.configure(&tenant(), &provider(3), enabled(), at(9));
    assert_eq!(
        all.state(&tenant(), "p0"),
        Some(State::Open),
        "it is the oldest, but open"
    );
    assert_eq!(all.state(&tenant(), "p1"), None);
    for index in 4..100 {
        all.record(
            &tenant(),
            &provider(index),
            CallResult::Failure,
            None,
            at(index + 10),
        );
    }
    assert_eq!((all.len(), all.state(&tenant(), "p0")), (3, Some(State::Open)));
    // Where all are open, the oldest goes.
    let all = Breakers::new(2);
    for index in 0..3 {
        for _ in 0..5 {
            all.record(&tenant(), &provider(index), CallResult::Failure, None, at(index));
        }
    }
    assert_eq!(
        (all.len(), all.state(&tenant(), "p0"), all.evicted()),
        (2, None, 1)
    );
}

#[test]
fn results_count_by_their_words() {
    use CallResult::{Failure, Success};
    for (status, code, kind, message, wanted) in [
        ("success", None, None, None, Some(Success)),
        ("success", Some("TIMEOUT"), None, None, Some(Success)),
        ("timeout", None, None, None, Some(Failure)),
        ("cancelled", None, None, Some("timeout"), None),
        ("", None, None, None, None),
        ("error", None, None, None, None),
        ("error", Some("TIMEOUT"), None, None, Some(Failure)),
        ("error", Some("HTTP_5XX"), None, None, Some(Failure)),
        ("error", Some("PROVIDER_UNAVAILABLE"), None, None, Some(Failure)),
        ("error", Some("RATE_LIMITED"), None, None, None),
        ("error", Some("rate_limit_exceeded"), None, Some("503"), None),
        ("error", Some("HTTP_404"), None, Some("connection"), None),
        ("error", Some("4XX"), None, Some("connection"), None),
        (
            "error",
            None,
            Some("validation_error"),
            Some("timeout must be positive"),
            None,
        ),
        ("error", None, Some("connection_error"), None, Some(Failure)),
        ("error", None, Some("5xx"), None, Some(Failure)),
        ("error", None, None, Some("Connection refused"), Some(Failure)),
        (
            "error",
            None,
            None,
            Some("the model is unavailable"),
            Some(Failure),
        ),
        ("error", None, None, Some("HTTP 503"), Some(Failure)),
        ("error", None, None, Some("(599)"), Some(Failure)),
        ("error", None, None, Some("500"), Some(Failure)),
        (
            "error",
            None,
            None,
            Some("5 tokens too many, 1500 or 5000 or a503 or 50x or é4"),
            None,
        ),
        ("error", None, None, Some("bad request 400"), None),
    ] {
        assert_eq!(
            crate::decide::memory::classify(status, code, kind, message),
            wanted,
            "{status} {code:?} {kind:?} {message:?}"
        );
    }
}

#[test]
fn hostile_45_all_recover_together_without_a_stampede() {
    let all = Breakers::new(1_000);
    let providers: Vec<ProviderId> = (0..20)
        .map(|index| ProviderId::new(&format!("p{index}")))
        .collect();
    for provider in &providers {
        all.configure(&tenant(), provider, enabled(), at(0));
        for _ in 0..5 {
            all.record(&tenant(), provider, CallResult::Failure, None, at(0));
        }
        assert_eq!(
            all.peek(&tenant(), provider.as_str(), at(59_999)),
            Admission::Denied
        );
    }
    let (admitted, transitions) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut counts = (0, 0);
                    for _ in 0..20 {
                        for provider in &providers {
                            let (admission, told) = all.admit(&tenant(), provider.as_str(), at(60_000));
                            counts.0 += usize::from(admission == Admission::Allowed);
                            counts.1 += usize::from(told.is_some());
                        }
                    }
                    counts
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    });
    assert_eq!(admitted, 20 * 3, "3 200 asked");
    assert_eq!(transitions, 20, "each told once");
}

proptest! {
    #[test]
    fn the_budget_is_exact_under_threads(budget in 1..20_u32, threads in 2..6_usize, each in 1..30_usize) {
        let all = Breakers::new(10);
        let openai = ProviderId::new("openai");
        all.configure(&tenant(), &openai, BreakerSettings { half_open_max_calls: budget, ..enabled() }, at(0));
        all.force_recovery_to_half_open(&tenant(), "openai", at(0));
        let admitted: usize = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| {
                (0..each).filter(|_| all.admit(&tenant(), "openai", at(1)).0 == Admission::Allowed).count()
            })).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        prop_assert_eq!(admitted, (threads * each).min(budget as usize));
    }

    /// For all events in any order: the counters fit the state, `look` agrees with `admit`, and no request
    /// waits for longer than the timeout.
    #[test]
    fn no_sequence_breaks_it(steps in prop::collection::vec((0..5_u8, 0..70_000_u64), 1..120)) {
        let mut one = One::new(BreakerSettings { error_rate_window_seconds: 10, ..enabled() });
        for (what, passed) in steps {
            match what {
                0 => { one.results("F"); }
                1 => { one.results("S"); }
                2 => { one.admit(); }
                3 => one.wait(passed),
                _ => one.wait(passed / 1_000),
            }
            let status = one.status();
            prop_assert!(status.window_failures <= status.window_total);
            prop_assert!(status.half_open_calls_count <= 3);
            prop_assert!(status.state == State::HalfOpen || status.half_open_calls_count == 0);
            prop_assert!(status.remaining_ms <= 60_000);
            prop_assert!(status.state != State::Closed || status.failure_count < 5);
        }
        one.wait(60_000);
        prop_assert!(one.admit().0);
    }
}

#[test]
fn a_restart_keeps_it_open_for_as_long() {
    let before = One::new(enabled());
    before.results("FFFFF");
    let after = Breakers::new(10);
    for (tenant, provider, record) in before.all.records() {
        after.restore(tenant, provider, record, at(before.now + 1_000));
    }
    assert_eq!(
        after.peek(&tenant(), "openai", at(before.now + 59_999)),
        Admission::Denied
    );
    assert_eq!(
        after.peek(&tenant(), "openai", at(before.now + 60_000)),
        Admission::Allowed
    );
    assert_eq!(
        after
            .status(&tenant(), "openai", at(before.now))
            .unwrap()
            .failure_count,
        5
    );
}
