//! Expiry to the second, isolation, the bound, and the order in which a full table forgets.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn tenant(text: &str) -> TenantId {
    TenantId::parse(text).unwrap()
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_ms(seconds * 1_000)
}

fn session<'a>(tenant: &'a TenantId, value: &'a Value) -> Session<'a> {
    Session { tenant, value }
}

fn name(provider: Option<ProviderId>) -> Option<String> {
    provider.map(|provider| provider.to_string())
}

#[test]
fn a_session_whose_expiry_is_now_is_dead() {
    let table = StickyTable::new(10);
    let (t, v) = (tenant("t"), json!("s"));
    let s = session(&t, &v);
    for (now, found) in [(3_699, true), (3_700, false), (3_701, false)] {
        table.store(s, &ProviderId::new("a"), 3_600, at(100));
        assert_eq!(table.peek(s, 3_600, at(now)).is_some(), found, "{now}");
        assert_eq!(table.lookup(s, 3_600, at(now)).is_some(), found, "{now}");
        assert_eq!(table.len(), usize::from(found), "an expired session is forgotten");
    }
    // Whole seconds count, not what lies between them.
    table.store(s, &ProviderId::new("a"), 10, Timestamp::from_unix_ms(100_999));
    assert!(table.peek(s, 10, Timestamp::from_unix_ms(109_999)).is_some());
    assert!(table.peek(s, 10, at(110)).is_none());
}

#[test]
fn a_clock_set_back_does_not_prolong_a_session() {
    let table = StickyTable::new(10);
    let (t, values) = (
        tenant("t"),
        [json!("looked at"), json!("peeked at"), json!("swept")],
    );
    for value in &values {
        table.store(session(&t, value), &ProviderId::new("a"), 60, at(10_000));
    }
    assert!(table.lookup(session(&t, &values[0]), 60, at(5_000)).is_some());
    assert!(table.peek(session(&t, &values[1]), 60, at(5_000)).is_some());
    assert_eq!(table.clear_expired(at(5_000)), 0);
    assert!(table.lookup(session(&t, &values[0]), 60, at(5_060)).is_none());
    assert!(table.peek(session(&t, &values[1]), 60, at(5_060)).is_none());
    assert_eq!(table.clear_expired(at(5_061)), 2);
}

#[test]
fn a_session_that_an_earlier_run_set_at_a_time_to_come_is_not_taken_back() {
    let table = StickyTable::new(10);
    let record = |last_set| SessionRecord {
        tenant: tenant("t"),
        key: format!("s{last_set}").into(),
        provider: ProviderId::new("a"),
        last_set,
        ttl_seconds: 60,
    };
    for (last_set, taken) in [(99, 1), (100, 2), (101, 3), (102, 3), (100_000, 3), (40, 3)] {
        table.restore(&record(last_set), at(100));
        assert_eq!(table.len(), taken, "{last_set}");
    }
}

#[test]
fn the_reader_s_time_bounds_the_age_as_well() {
    let table = StickyTable::new(10);
    let (t, v) = (tenant("t"), json!("s"));
    let s = session(&t, &v);
    table.store(s, &ProviderId::new("a"), 3_600, at(100));
    for ttl in [0, -1, i64::MIN] {
        assert_eq!(table.peek(s, ttl, at(100)), None);
    }
    assert!(table.peek(s, 1, at(100)).is_some());
    assert!(table.peek(s, 1, at(101)).is_none());
    assert!(table.peek(s, i64::MAX, at(3_699)).is_some());
    assert!(table.peek(s, i64::MAX, at(3_700)).is_none());
    assert_eq!(table.lookup(s, 1, at(102)), None);
    assert!(table.is_empty());
    for ttl in [0, -5] {
        table.store(s, &ProviderId::new("a"), ttl, at(100));
    }
    assert!(table.is_empty());
    table.store(s, &ProviderId::new("a"), i64::MAX, at(100));
    assert!(table.peek(s, i64::MAX, at(4_000_000_000)).is_some());
}

#[test]
fn a_time_of_zero_forgets_what_another_policy_stored() {
    let (t, v) = (tenant("t"), json!("s"));
    let s = session(&t, &v);
    for ttl in [0, -1, i64::MIN] {
        let table = StickyTable::new(10);
        table.store(s, &ProviderId::new("a"), 3_600, at(100));
        assert_eq!(table.lookup(s, ttl, at(100)), None);
        assert!(table.is_empty(), "{ttl}");
    }
}

#[test]
fn the_first_provider_of_a_session_stays_until_its_time_is_over_or_it_is_given_up() {
    let table = StickyTable::new(10);
    let (t, v) = (tenant("t"), json!("s"));
    let s = session(&t, &v);
    let [a, b] = ["a", "b"].map(ProviderId::new);
    let pin = |provider, keeps, now| table.pin(s, provider, |_| keeps, 10, at(now));
    assert_eq!(pin(&a, true, 100), None);
    assert_eq!(pin(&b, true, 105), Some(a.clone()));
    assert_eq!(pin(&a, true, 105), None, "it is the same");
    assert_eq!(table.peek(s, 10, at(114)), Some(a.clone()), "it lives on");
    assert_eq!(pin(&b, true, 115), None, "its time was over");
    assert_eq!(pin(&a, false, 115), None, "it was given up");
    assert_eq!(table.peek(s, 10, at(115)), Some(a));
}

#[test]
fn hostile_39_the_same_session_in_two_tenants_is_two_sessions() {
    let table = StickyTable::new(10);
    let (a, b, v) = (tenant("t1"), tenant("t2"), json!("s"));
    table.store(session(&a, &v), &ProviderId::new("openai"), 60, at(0));
    assert_eq!(table.peek(session(&b, &v), 60, at(0)), None);
    table.store(session(&b, &v), &ProviderId::new("azure"), 60, at(0));
    assert_eq!(
        name(table.peek(session(&a, &v), 60, at(0))).as_deref(),
        Some("openai")
    );
    assert_eq!(
        name(table.peek(session(&b, &v), 60, at(0))).as_deref(),
        Some("azure")
    );
    assert_eq!(table.clear_tenant(&a), 1);
    assert_eq!(table.peek(session(&a, &v), 60, at(0)), None);
    assert!(table.clear(session(&b, &v)));
    assert!(!table.clear(session(&b, &v)));
    assert!(table.is_empty());
}

#[test]
fn values_of_different_kinds_and_lengths_are_never_equal() {
    let table = StickyTable::new(100);
    let t = tenant("t");
    let long = "x".repeat(1 << 20);
    let digest_of_long = digest(&long);
    let values = [
        json!("1"),
        json!(1),
        json!(1.0),
        json!(true),
        json!("true"),
        json!(null),
        json!("null"),
        json!(["a"]),
        json!("[\"a\"]"),
        json!({"a": 1}),
        json!(""),
        json!("x".repeat(128)),
        json!("x".repeat(129)),
        json!(long),
        json!(digest_of_long),
        json!([long]),
    ];
    for (index, value) in values.iter().enumerate() {
        table.store(
            session(&t, value),
            &ProviderId::new(&format!("p{index}")),
            60,
            at(0),
        );
    }
    assert_eq!(table.len(), values.len());
    for (index, value) in values.iter().enumerate() {
        let found = name(table.peek(session(&t, value), 60, at(0)));
        assert_eq!(found, Some(format!("p{index}")));
    }
    let views = table.list(&t, 100);
    assert_eq!(views.len(), values.len());
    assert!(views.iter().all(|view| view.value.len() <= LONGEST_VALUE));
    assert_eq!(table.list(&t, 3).len(), 3);
    assert_eq!(table.list(&tenant("other"), 3), []);
}

#[test]
fn a_sweep_forgets_what_expired_before_now() {
    let table = StickyTable::new(10_000);
    let t = tenant("t");
    for index in 0..1_000 {
        let value = json!(index);
        table.store(session(&t, &value), &ProviderId::new("a"), 10 + index, at(0));
    }
    assert_eq!(table.clear_expired(at(10)), 0, "one expires now, none before");
    assert_eq!(table.clear_expired(at(11)), 1);
    assert_eq!(table.clear_expired(at(11)), 0);
    assert_eq!(table.clear_expired(at(100_000)), 999);
    assert!(table.is_empty());
}

#[test]
fn what_a_flood_took_is_given_back_and_the_rest_stays_in_its_order() {
    let table = StickyTable::new(600);
    assert_eq!(table.parts.len(), 2);
    let t = tenant("t");
    let store = |name: String, ttl| {
        let value = json!(name);
        table.store(session(&t, &value), &ProviderId::new(&name), ttl, at(0));
    };
    for index in 0..20 {
        store(format!("kept{index}"), 1_000);
    }
    for index in 0..580 {
        store(format!("flood{index}"), 10);
    }
    assert_eq!((table.clear_expired(at(11)), table.len()), (580, 20));
    let slots: Vec<usize> = table.parts.iter().map(|part| lock(part).entries.len()).collect();
    assert!(slots.iter().sum::<usize>() < 400, "{slots:?}");
    for index in 0..20 {
        let value = json!(format!("kept{index}"));
        let found = name(table.peek(session(&t, &value), 1_000, at(11)));
        assert_eq!(found, Some(format!("kept{index}")));
    }
    for part in &table.parts {
        let part = lock(part);
        let order: Vec<usize> = part
            .iter()
            .map(|(_, entry)| entry.key[5..].parse().unwrap())
            .collect();
        assert!(order.is_sorted_by(|a, b| a > b), "{order:?}");
    }
    // A tenant without sessions leaves no name behind.
    assert_eq!(table.clear_tenant(&t), 20);
    for part in &table.parts {
        let part = lock(part);
        assert!(part.tenants.numbers.is_empty() && part.providers.numbers.is_empty());
    }
    store("again".into(), 10);
    assert_eq!(table.len(), 1);
}

#[test]
fn a_full_table_forgets_the_session_used_longest_ago() {
    let table = StickyTable::new(3);
    let t = tenant("t");
    let values: Vec<Value> = (0..4).map(|index| json!(format!("s{index}"))).collect();
    for value in &values[..3] {
        table.store(session(&t, value), &ProviderId::new("a"), 60, at(0));
    }
    assert!(table.lookup(session(&t, &values[0]), 60, at(0)).is_some());
    assert!(
        table.peek(session(&t, &values[1]), 60, at(0)).is_some(),
        "a look is no use"
    );
    table.store(session(&t, &values[3]), &ProviderId::new("a"), 60, at(0));
    let alive: Vec<bool> = values
        .iter()
        .map(|value| table.peek(session(&t, value), 60, at(0)).is_some())
        .collect();
    assert_eq!(alive, [true, false, true, true]);
    assert_eq!((table.len(), table.evicted()), (3, 1));
}

#[test]
fn hostile_40_a_million_sessions_stay_under_the_bound() {
    let bound = 50_000;
    let table = StickyTable::new(bound);
    let tenants = ["a", "b", "c"].map(tenant);
    let providers = ["openai", "azure"].map(ProviderId::new);
    for index in 0..1_000_000_usize {
        let value = Value::String(format!("session-{index}"));
        let s = session(&tenants[index % 3], &value);
        table.store(s, &providers[index % 2], 3_600, at(index as u64 / 1_000));
        if index % 10_000 == 0 {
            assert!(table.len() <= bound);
        }
    }
    assert_eq!(table.len(), bound, "the bound is used whole");
    assert_eq!(table.evicted(), 950_000);
    let kept: usize = table.parts.iter().map(|part| lock(part).iter().count()).sum();
    assert_eq!(kept, bound);
    let newest = Value::String("session-999999".into());
    assert!(
        table
            .peek(session(&tenants[0], &newest), 3_600, at(1_000))
            .is_some()
    );
    let oldest = Value::String("session-0".into());
    assert!(
        table
            .peek(session(&tenants[0], &oldest), 3_600, at(1_000))
            .is_none()
    );
    // Slots and names are used again: nothing grows but by the sessions there are.
    let slots: usize = table.parts.iter().map(|part| lock(part).entries.len()).sum();
    assert!(slots < bound * 5 / 4, "{slots}");
    assert_eq!(
        table.clear_tenant(&tenants[0])
            + table.list(&tenants[1], bound).len()
            + table.list(&tenants[2], bound).len(),
        bound
    );
}

#[test]
fn threads_never_exceed_the_bound() {
    let table = StickyTable::new(1_000);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let table = &table;
            scope.spawn(move || {
                let t = tenant(&format!("t{}", thread % 4));
                for index in 0..5_000 {
                    let value = json!(index % 1_500);
                    table.store(session(&t, &value), &ProviderId::new("a"), 60, at(index));
                    assert!(table.len() <= 1_000);
                    if index % 7 == 0 {
                        table.clear(session(&t, &value));
                    }
                }
            });
        }
    });
    let kept: usize = table.parts.iter().map(|part| lock(part).iter().count()).sum();
    assert_eq!(kept, table.len());
}

/// Tenant and value; when it was set, for how long, and the provider.
type Known = ((u8, u8), (u64, i64, String));

#[test]
fn a_tenant_s_flood_of_sessions_forgets_none_of_another_s() {
    for bound in [10, 2_000, 50_000] {
        let table = StickyTable::new(bound);
        let (small, flood) = (tenant("small"), tenant("flood"));
        let provider = ProviderId::new("a");
        let kept: Vec<Value> = (0..3).map(|index| json!(format!("kept{index}"))).collect();
        for value in &kept {
            table.store(session(&small, value), &provider, 3_600, at(0));
        }
        for index in 0..2 * bound {
            let value = json!(index);
            table.store(session(&flood, &value), &provider, 3_600, at(1));
        }
        for value in &kept {
            assert!(
                table.peek(session(&small, value), 3_600, at(1)).is_some(),
                "{bound}"
            );
        }
        assert_eq!((table.len(), table.list(&flood, bound).len()), (bound, bound - 3));
        // A tenant that comes later takes its room from the one that has most.
        let late = tenant("late");
        for index in 0..bound / 4 {
            let value = json!(index);
            table.store(session(&late, &value), &provider, 3_600, at(2));
        }
        assert_eq!(table.list(&late, bound).len(), bound / 4);
        assert_eq!(table.list(&small, bound).len(), 3);
    }
}

/// Which entry of the model goes for a new one of this tenant.
fn gives_up(model: &[Known], tenant: u8) -> usize {
    let share = |wanted: u8| model.iter().filter(|((t, _), _)| *t == wanted).count();
    let payer = if share(tenant) > 0 && share(tenant) + 1 >= share(1 - tenant) {
        tenant
    } else {
        1 - tenant
    };
    model.iter().position(|((t, _), _)| *t == payer).unwrap()
}

proptest! {
    /// Against a list with the newest at its end.
    #[test]
    fn the_table_is_a_bounded_list_in_the_order_of_use(
        steps in prop::collection::vec((0..4_u8, 0..2_u8, 0..12_u8, 1..20_i64, 0..3_u64), 1..200)
    ) {
        let table = StickyTable::new(8);
        let mut model: Vec<Known> = Vec::new();
        let tenants = [tenant("a"), tenant("b")];
        let mut now = 100;
        for (step, (what, t, v, ttl, passed)) in steps.into_iter().enumerate() {
            now += passed;
            let value = json!(format!("s{v}"));
            let s = session(&tenants[usize::from(t)], &value);
            let found = model.iter().position(|(key, _)| *key == (t, v));
            match what {
                0 | 1 => {
                    let provider = format!("p{}", step % 5);
                    table.store(s, &ProviderId::new(&provider), ttl, at(now));
                    match found {
                        Some(index) => { model.remove(index); }
                        None if model.len() == 8 => { model.remove(gives_up(&model, t)); }
                        None => {}
                    }
                    model.push(((t, v), (now, ttl, provider)));
                }
                2 => {
                    let wanted = found.and_then(|index| {
                        let entry = model.remove(index);
                        let (set, stored, provider) = &entry.1;
                        (set + stored.min(&ttl).unsigned_abs() > now).then(|| {
                            let provider = provider.clone();
                            model.push(entry.clone());
                            provider
                        })
                    });
                    prop_assert_eq!(name(table.lookup(s, ttl, at(now))), wanted);
                }
                _ => {
                    prop_assert_eq!(table.clear(s), found.is_some());
                    if let Some(index) = found { model.remove(index); }
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
        let mut names: BTreeMap<String, u32> = BTreeMap::new();
        for (_, (_, _, provider)) in &model {
            *names.entry(provider.clone()).or_default() += 1;
        }
        let part = lock(&table.parts[0]);
        let held: BTreeMap<String, u32> = part.providers.slots.iter()
            .filter_map(|(name, count)| Some((name.as_ref()?.to_string(), *count)))
            .collect();
        prop_assert_eq!(held, names);
    }
}

#[test]
fn a_restart_brings_back_what_is_alive_and_nothing_else() {
    let before = StickyTable::new(100);
    let t = tenant("t");
    let values = [json!("text"), json!(7), json!("y".repeat(500)), json!("dead")];
    for value in &values {
        let ttl = if *value == json!("dead") { 5 } else { 60 };
        before.store(session(&t, value), &ProviderId::new("a"), ttl, at(100));
    }
    let after = StickyTable::new(100);
    let mut records = Vec::new();
    before.records(|record| records.push(record));
    for record in &records {
        after.restore(record, at(110));
    }
    for bad in ["", "x", "é", "\u{0}a", &format!("s{}", "y".repeat(129))] {
        let record = SessionRecord {
            key: bad.into(),
            ..records[0].clone()
        };
        after.restore(&record, at(110));
    }
    assert_eq!(after.len(), 3);
    for value in &values[..3] {
        assert!(after.peek(session(&t, value), 60, at(159)).is_some(), "{value}");
        assert!(after.peek(session(&t, value), 60, at(160)).is_none(), "{value}");
    }
}
