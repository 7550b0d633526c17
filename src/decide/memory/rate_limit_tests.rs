//! Ticks, bursts, settings that change, and what a full table forgets.

use proptest::prelude::*;

use super::*;
use crate::policy::LimitScope;

fn limit(requests_per_second: f64, burst: u32) -> RateLimit {
    RateLimit {
        scope: LimitScope::Policy,
        requests_per_second,
        burst,
        window_seconds: 1,
    }
}

fn key(policy: &str) -> BucketKey {
    BucketKey::Policy(TenantId::parse("acme").unwrap(), PolicyId::parse(policy).unwrap())
}

fn at(unix_ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(unix_ms)
}

fn taken(buckets: &Buckets, limit: &RateLimit, attempts: u32, now: Timestamp) -> u32 {
    (0..attempts)
        .filter(|_| buckets.take(&key("chat"), limit, now).is_ok())
        .count() as u32
}

#[test]
fn refill_is_per_whole_second_and_capped() {
    for start in [0, 1_000, 1_000_300, 1_000_999] {
        let buckets = Buckets::new(10);
        let limit = limit(100.0, 5);
        assert_eq!(taken(&buckets, &limit, 5, at(start)), 5);
        assert_eq!(taken(&buckets, &limit, 1, at(start)), 0);
        assert_eq!(taken(&buckets, &limit, 1, at(start + 999)), 0);
        assert_eq!(taken(&buckets, &limit, 6, at(start + 1_000)), 5);
        // Refused or not, the clock runs from the last tick.
        assert_eq!(taken(&buckets, &limit, 6, at(start + 1_999)), 0);
        assert_eq!(taken(&buckets, &limit, 6, at(start + 2_500)), 5);
        assert_eq!(taken(&buckets, &limit, 6, at(start + 3_000)), 5);
        // After a rest no burst is followed by a tick at once.
        assert_eq!(taken(&buckets, &limit, 6, at(start + 60_990)), 5);
        assert_eq!(taken(&buckets, &limit, 6, at(start + 61_010)), 0);
        assert_eq!(taken(&buckets, &limit, 6, at(start + 61_990)), 5);
    }
}

#[test]
fn answers_say_what_is_left_and_when_more_comes() {
    let buckets = Buckets::new(10);
    let slow = limit(1.0, 2);
    let remaining = |tokens, reset_unix_seconds| {
        Ok(Remaining {
            tokens,
            reset_unix_seconds,
        })
    };
    assert_eq!(buckets.peek(&key("chat"), &slow, at(10_500)), remaining(1, 12));
    assert!(buckets.is_empty(), "a look makes no bucket");
    assert_eq!(buckets.take(&key("chat"), &slow, at(10_500)), remaining(1, 12));
    assert_eq!(buckets.peek(&key("chat"), &slow, at(10_600)), remaining(0, 12));
    assert_eq!(buckets.take(&key("chat"), &slow, at(10_600)), remaining(0, 12));
    let refused = Err(Refused {
        retry_after_seconds: 1,
        reset_unix_seconds: 12,
    });
    assert_eq!(buckets.peek(&key("chat"), &slow, at(10_700)), refused);
    assert_eq!(buckets.take(&key("chat"), &slow, at(10_700)), refused);
    assert_eq!(buckets.take(&key("chat"), &slow, at(11_500)), remaining(0, 13));
    let status = buckets.status(&key("chat")).unwrap();
    assert_eq!(
        (status.tokens, status.limit, status.burst, status.last_refill),
        (0.0, 1.0, 2, 11_500)
    );
    assert!(buckets.reset(&key("chat")));
    assert!(!buckets.reset(&key("chat")) && buckets.status(&key("chat")).is_none());
}

#[test]
fn hostile_45_no_caller_is_told_to_wait_for_a_year_or_for_nothing() {
    let buckets = Buckets::new(10);
    for (per_second, wait) in [
        (0.1, 10),
        (1.0 / 86_400.0, 60),
        (0.0, 60),
        (f64::NAN, 60),
        (-1.0, 60),
        (1e6, 1),
    ] {
        let limit = limit(per_second, 1);
        assert!(buckets.take(&key("chat"), &limit, at(0)).is_ok());
        let refused = buckets.take(&key("chat"), &limit, at(0)).unwrap_err();
        assert_eq!(refused.retry_after_seconds, wait, "{per_second}");
        buckets.reset(&key("chat"));
    }
    // A limit per ten seconds: its tenths add up to a whole one.
    let tenth = limit(0.1, 1);
    assert_eq!(taken(&buckets, &tenth, 1, at(0)), 1);
    for second in 1..10 {
        assert_eq!(taken(&buckets, &tenth, 1, at(second * 1_000)), 0, "{second}");
    }
    assert_eq!(taken(&buckets, &tenth, 2, at(10_000)), 1);
}

#[test]
fn hostile_50_ten_at_once_get_a_burst_of_five() {
    for _ in 0..50 {
        let buckets = Buckets::new(10);
        let limit = limit(100.0, 5);
        let accepted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..10)
                .map(|_| scope.spawn(|| buckets.take(&key("chat"), &limit, at(5_000)).is_ok()))
                .collect();
            threads
                .into_iter()
                .map(|thread| usize::from(thread.join().unwrap()))
                .sum()
        });
        assert_eq!(accepted, 5);
    }
}

#[test]
fn new_settings_are_adopted_and_tokens_clamped() {
    let buckets = Buckets::new(10);
    assert_eq!(taken(&buckets, &limit(10.0, 50), 10, at(0)), 10);
    assert_eq!(taken(&buckets, &limit(10.0, 5), 50, at(0)), 5);
    assert_eq!(
        taken(&buckets, &limit(10.0, 50), 50, at(0)),
        0,
        "a larger burst brings no tokens"
    );
    assert_eq!(taken(&buckets, &limit(20.0, 50), 50, at(1_000)), 20);
    buckets.give_back(&key("chat"));
    assert_eq!(taken(&buckets, &limit(20.0, 50), 50, at(1_000)), 1);
    buckets.reset(&key("chat"));
    assert_eq!(taken(&buckets, &limit(1.0, 1), 1, at(0)), 1);
    for _ in 0..5 {
        buckets.give_back(&key("chat"));
    }
    buckets.give_back(&key("unknown"));
    assert_eq!(
        taken(&buckets, &limit(1.0, 1), 9, at(0)),
        1,
        "never more than the burst"
    );
}

#[test]
fn a_clock_set_back_does_not_refuse_for_as_long() {
    let buckets = Buckets::new(10);
    let limit = limit(1.0, 1);
    assert_eq!(taken(&buckets, &limit, 1, at(100_000_000)), 1);
    assert_eq!(taken(&buckets, &limit, 1, at(1_000)), 0);
    assert_eq!(taken(&buckets, &limit, 1, at(2_000)), 1);
}

#[test]
fn idle_buckets_are_swept_and_a_full_table_forgets_the_oldest() {
    let buckets = Buckets::new(3);
    let limit = limit(1.0, 1);
    for index in 0..4 {
        let _taken = buckets.take(&key(&format!("p{index}")), &limit, at(index * 1_000));
    }
    assert_eq!((buckets.len(), buckets.evicted()), (3, 1));
    assert!(buckets.status(&key("p0")).is_none());
    assert_eq!(buckets.sweep(at(3_601_000)), 0);
    assert_eq!(buckets.sweep(at(3_601_001)), 1);
    let daily = RateLimit {
        window_seconds: 86_400,
        ..limit
    };
    let _taken = buckets.take(&BucketKey::Global, &daily, at(0));
    assert_eq!(
        buckets.sweep(at(80_000_000)),
        2,
        "a bucket outlives its own window"
    );
    assert_eq!(buckets.sweep(at(86_400_001)), 1);
    let _taken = buckets.take(&BucketKey::Global, &limit, at(0));
    let _taken = buckets.take(&key("p1"), &limit, at(0));
    assert_eq!(buckets.list(&TenantId::parse("acme").unwrap(), 10).len(), 1);
    assert_eq!(buckets.prune(&mut |_| false), 1);
    assert!(buckets.status(&BucketKey::Global).is_some(), "it is no tenant's");
}

#[test]
fn a_restart_gives_no_tokens() {
    let before = Buckets::new(10);
    let limit = limit(1.0, 5);
    assert_eq!(taken(&before, &limit, 4, at(10_000)), 4);
    let after = Buckets::new(10);
    for (key, record) in before.records() {
        after.restore(key, record, at(10_500));
    }
    assert_eq!(taken(&after, &limit, 9, at(10_500)), 1);
    assert_eq!(taken(&after, &limit, 9, at(12_000)), 2);
    let hostile = BucketRecord {
        tokens: f64::INFINITY,
        last_tick: at(u64::MAX),
        requests_per_second: 1.0,
        burst: 5,
        window_seconds: 1,
    };
    after.restore(key("chat"), hostile, at(12_000));
    assert_eq!(taken(&after, &limit, 9, at(12_000)), 0);
}

proptest! {
    /// Over any span no more is accepted than the burst and a second's tokens for each tick that the span can hold.
    #[test]
    fn no_span_has_more_than_its_share(
        rate in 1..20_u32, burst in 1..10_u32,
        steps in prop::collection::vec(0..1_500_u64, 1..60), start in 0..1_000_u64,
    ) {
        let buckets = Buckets::new(4);
        let limit = limit(f64::from(rate), burst);
        let mut now = start;
        let mut accepted: Vec<u64> = Vec::new();
        for step in steps {
            now += step;
            accepted.extend((0..taken(&buckets, &limit, 12, at(now))).map(|_| now));
        }
        for (index, from) in accepted.iter().enumerate() {
            for (count, to) in accepted[index..].iter().enumerate() {
                let ticks = (to - from) / 1_000 + 1;
                prop_assert!((count as u64) < u64::from(burst) + ticks * u64::from(rate));
            }
        }
    }
}
