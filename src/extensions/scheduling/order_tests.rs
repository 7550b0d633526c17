//! Threads are played by this test: what each computes, and for how long, is what it says.

use super::*;

const MS: Duration = Duration::from_millis(1);
/// What calls usually take at most here.
const USUAL: Duration = Duration::from_millis(50);

/// A thread, or two of which one extension has one.
struct Played {
    order: Order<Call>,
    /// What each call that has begun needs yet, and what it had.
    begun: BTreeMap<u64, (Call, Duration)>,
    may_pause: bool,
    now: Duration,
    /// Who was done when.
    done: Vec<(&'static str, Duration)>,
    away: Vec<&'static str>,
    runs: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call {
    tenant: &'static str,
    needs: Duration,
}

impl Played {
    fn new() -> Self {
        Self {
            order: Order::new(Room {
                running: 1,
                share: 1,
                begun: 1 + PAUSED + FOR_SHORT,
            }),
            begun: BTreeMap::new(),
            may_pause: true,
            now: Duration::ZERO,
            done: Vec::new(),
            away: Vec::new(),
            runs: None,
        }
    }

    fn push(&mut self, tenant: &'static str, needs: Duration) {
        self.push_of(1, tenant, needs);
    }

    fn push_of(&mut self, extension: usize, tenant: &'static str, needs: Duration) {
        let owner = Owner {
            extension,
            tenant: tenant.into(),
        };
        // As if its last one had been the same.
        let probably = Probably {
            last: Some(needs),
            usual: USUAL,
        };
        self.order.push(owner, probably, Call { tenant, needs });
    }

    fn go_on(&mut self) {
        while let Some(next) = self.order.next(self.may_pause) {
            match next {
                Next::Begins(number, call) => {
                    self.begun.insert(number, (call, Duration::ZERO));
                    assert!(self.runs.replace(number).is_none());
                }
                Next::GoesOn(number) => assert!(self.runs.replace(number).is_none()),
                Next::Leaves(number) => {
                    self.away.push(self.begun.remove(&number).unwrap().0.tenant);
                    self.order.done(number);
                }
            }
        }
    }

    /// One slice. Returns whose.
    fn slice(&mut self) -> &'static str {
        self.go_on();
        let number = self.runs.take().unwrap();
        let (call, ran) = self.begun.get_mut(&number).unwrap();
        let (tenant, needs) = (call.tenant, call.needs);
        let took = SLICE.min(needs - *ran);
        *ran += took;
        self.now += took;
        let ran = *ran;
        self.order.ran(number, ran);
        if ran == needs {
            self.begun.remove(&number);
            self.order.done(number);
            self.done.push((tenant, self.now));
        } else {
            self.order.pause(number);
        }
        tenant
    }

    /// How long a call waits that comes now and needs so much.
    fn wait_of(&mut self, tenant: &'static str, needs: Duration) -> Duration {
        let came = self.now;
        self.push(tenant, needs);
        let had = self.done.len();
        loop {
            self.slice();
            if let Some((_, at)) = self.done[had..].iter().find(|(of, _)| *of == tenant) {
                return *at - came - needs;
            }
        }
    }
}

const HOSTILE: [&str; 40] = [
    "h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8", "h9", "h10", "h11", "h12", "h13", "h14", "h15",
    "h16", "h17", "h18", "h19", "h20", "h21", "h22", "h23", "h24", "h25", "h26", "h27", "h28", "h29", "h30",
    "h31", "h32", "h33", "h34", "h35", "h36", "h37", "h38", "h39",
];
const FOREVER: Duration = Duration::from_secs(3_600);

/// Tenants whose calls never end, each with some that wait.
fn with_hostile(count: usize) -> Played {
    let mut played = Played::new();
    for _ in 0..3 {
        for tenant in &HOSTILE[..count] {
            played.push(tenant, FOREVER);
        }
    }
    played
}

#[test]
fn a_tenant_waits_for_a_slice_however_many_tenants_calls_never_end() {
    for count in [1, 4, 12] {
        let mut played = with_hostile(count);
        for _ in 0..count * 3 {
            played.slice();
        }
        // It asks now and then, less than its part of the time.
        for turn in 0..50 {
            let waited = played.wait_of("good", 3 * MS);
            assert!(waited <= SLICE, "{count} hostile, call {turn}: {waited:?}");
            for _ in 0..count {
                played.slice();
            }
        }
        assert_eq!(played.away, [""; 0], "there was a place for each");
    }
}

#[test]
fn one_that_asks_all_the_time_waits_for_little_more() {
    for count in [1, 4, 12, 40] {
        let mut played = with_hostile(count);
        // Until calls have taken longer than usual.
        for _ in 0..count * 20 {
            played.slice();
        }
        let waits: Vec<Duration> = (0..500).map(|_| played.wait_of("good", 3 * MS)).collect();
        let sum: Duration = waits.iter().sum();
        // Its time counts once, that of each of the others eight times.
        let most = 3 * MS * u32::try_from(count).unwrap() / LONG_COUNTS + SLICE;
        assert!(sum / 500 <= most, "{count}: {:?} > {most:?}", sum / 500);
    }
}

#[test]
fn beyond_the_places_the_longest_calls_make_room() {
    let mut played = with_hostile(HOSTILE.len());
    for _ in 0..13 * 12 {
        played.slice();
    }
    for turn in 0..100 {
        let waited = played.wait_of("good", 3 * MS);
        assert!(waited <= SLICE, "{turn}: {waited:?}");
        // It asks for no more than its part.
        for _ in 0..HOSTILE.len() {
            played.slice();
        }
    }
    // One whose calls take longer waits until one has taken longer than usual.
    let waited = played.wait_of("longer", 20 * MS);
    assert!(waited <= 13 * (USUAL + 5 * SLICE), "{waited:?}");
    // All of them had their part.
    for _ in 0..2_000 {
        played.slice();
    }
    for tenant in HOSTILE {
        assert!(played.away.contains(&tenant), "{tenant}");
    }
}

#[test]
fn no_call_makes_room_that_takes_no_longer_than_usual() {
    let mut played = Played::new();
    for tenant in HOSTILE {
        played.push(tenant, 40 * MS);
    }
    while played.done.len() < HOSTILE.len() {
        played.slice();
    }
    assert_eq!(played.away, [""; 0]);
    assert_eq!(played.now, 40 * MS * 40, "nothing was computed twice");
}

#[test]
fn a_long_call_has_its_part_beside_one_that_asks_all_the_time() {
    let mut played = Played::new();
    played.push("long", 45 * MS);
    for _ in 0..100 {
        played.push("often", 4 * MS);
    }
    while !played.done.iter().any(|(tenant, _)| *tenant == "long") {
        played.slice();
    }
    assert!(played.now <= 2 * 45 * MS + SLICE, "{:?}", played.now);
}

#[test]
fn nothing_is_saved_up_by_waiting() {
    let mut played = Played::new();
    for _ in 0..100 {
        played.push("busy", 4 * MS);
    }
    for _ in 0..50 {
        played.slice();
    }
    // One that comes late has half of the time from now on, and no more.
    for _ in 0..40 {
        played.push("late", 4 * MS);
    }
    let turns: Vec<&str> = (0..40).map(|_| played.slice()).collect();
    let late = turns.iter().filter(|tenant| **tenant == "late").count();
    assert!((19..=21).contains(&late), "{turns:?}");
}

#[test]
fn extensions_share_the_time_whatever_the_number_of_their_tenants() {
    let mut played = Played::new();
    for tenant in &HOSTILE[..12] {
        played.push(tenant, FOREVER);
    }
    played.push_of(2, "good", 1_000 * MS);
    while played.done.is_empty() {
        played.slice();
    }
    assert!(played.now <= 2 * 1_000 * MS + SLICE, "{:?}", played.now);
}

#[test]
fn where_memory_is_short_nothing_begins_that_would_pause() {
    let mut played = with_hostile(4);
    played.may_pause = false;
    for _ in 0..8 {
        assert_eq!(played.slice(), "h0");
    }
    // Until the one that computes has taken longer than usual.
    for _ in 0..4 {
        played.slice();
    }
    assert_eq!(played.slice(), "h1");
    assert_eq!(played.away, ["h0"]);
}

#[test]
fn what_is_over_is_forgotten() {
    let mut played = with_hostile(4);
    played.push("good", 3 * MS);
    for _ in 0..40 {
        played.slice();
    }
    let numbers: Vec<u64> = played.begun.keys().copied().collect();
    for number in numbers {
        played.order.leave(number);
        played.order.done(number);
    }
    let known: Vec<&str> = played.order.extensions[&1]
        .tenants
        .keys()
        .map(|name| &**name)
        .collect();
    assert!(known.len() == 4 && !known.contains(&"good"), "{known:?}");
    let nobody = Owner {
        extension: 1,
        tenant: "none".into(),
    };
    while played.order.push_out(&nobody, 0, true).is_some() {}
    assert_eq!(played.order.waiting(), 4, "the last of each tenant stays");
    assert_eq!((played.order.running, played.order.leaving), (0, 0));
}
