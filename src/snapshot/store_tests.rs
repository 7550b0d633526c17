//! Sharing, the shrink guard, and lost writes.

use std::time::Duration;

use super::*;
use crate::{
    policy::PolicyId,
    snapshot::{ChangeSet, Guarded, Operation, Scope, Withheld, check},
};

fn key(tenant: &str, policy: &str) -> Key {
    (TenantId::parse(tenant).unwrap(), PolicyId::parse(policy).unwrap())
}

fn position(revision: u64) -> Position {
    Position {
        revision: Some(revision),
        chain: None,
    }
}

fn guarded() -> Guarded {
    Guarded {
        max_removed_percent: 50,
        confirm_after: Duration::ZERO,
        confirmed: false,
    }
}

/// Tenants `t0` to `t9` with this many policies each.
fn filled(each: usize) -> SnapshotStore {
    let store = SnapshotStore::start(
        SnapshotMetrics::register(&prometheus::Registry::new(), 100)
            .unwrap()
            .into(),
    )
    .unwrap();
    store
        .activate(store.fetch_start(), full(&store, 1, each), guarded())
        .unwrap();
    store
}

fn full(store: &SnapshotStore, revision: u64, each: usize) -> Incoming {
    let mut incoming = Incoming::new(Scope::Everything, Coverage::Whole, position(revision));
    for tenant in 0..10 {
        for policy in 0..each {
            let key = key(&format!("t{tenant}"), &format!("p{policy}"));
            incoming.take(&store.load(), key, "{}".into(), None, Some(1));
        }
    }
    incoming
}

/// The tenants that two snapshots do not share.
fn copied(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let differs = |tenant: &&TenantId| {
        !before
            .tenants
            .get(*tenant)
            .is_some_and(|old| Arc::ptr_eq(old, &after.tenants[*tenant]))
    };
    after
        .tenants
        .keys()
        .filter(differs)
        .map(ToString::to_string)
        .collect()
}

#[test]
fn one_change_copies_one_tenant() {
    let store = filled(3);
    let before = store.load_full();
    let changed = key("t3", "p1");
    let policy = check(&before, &changed, "{\"v\":2}".into(), None, Some(2)).unwrap();
    let changes = ChangeSet {
        from: position(1),
        to: position(2),
        operations: vec![Operation::Put {
            key: changed.clone(),
            policy: policy.clone(),
        }],
        problems: Default::default(),
    };
    store.apply_changes(changes, guarded()).unwrap();
    let after = store.load_full();
    assert_eq!(copied(&before, &after), ["t3"]);
    assert!(store.apply_write(&key("t4", "p0"), None, Some(3)));
    assert_eq!(copied(&after, &store.load()), ["t4"]);
    // A whole snapshot that differs in one policy copies one tenant as well.
    let before = store.load_full();
    let mut incoming = Incoming::new(Scope::Everything, Coverage::Whole, position(4));
    for (tenant, t) in before.tenants() {
        for (id, found) in t.found() {
            let key = (tenant.clone(), id.clone());
            let text = if tenant.as_str() == "t7" && id.as_str() == "p2" {
                "{\"v\":9}"
            } else {
                std::str::from_utf8(found.policy.document.bytes()).unwrap()
            };
            incoming.take(&before, key, text.to_owned().into(), None, found.policy.revision);
        }
    }
    store.activate(store.fetch_start(), incoming, guarded()).unwrap();
    assert_eq!(copied(&before, &store.load()), ["t7"]);
}

#[test]
fn hostile_32_the_guard_holds_what_removes_too_much() {
    let removing = |store: &SnapshotStore, left: usize, guarded| {
        store.activate(store.fetch_start(), full(store, 2, left), guarded)
    };
    // Half may go at once.
    assert_eq!(removing(&filled(4), 2, guarded()).unwrap().removed, 20);
    let store = filled(4);
    let withheld = Withheld::Shrink {
        removed: 30,
        known: 40,
    };
    assert_eq!(removing(&store, 1, guarded()), Err(withheld.clone()));
    assert_eq!(store.load().heir_count(), 40);
    // Another answer does not confirm the first, and each must come again in its own right.
    assert_eq!(
        removing(&store, 0, guarded()),
        Err(Withheld::Shrink {
            removed: 40,
            known: 40
        })
    );
    assert_eq!(removing(&store, 1, guarded()), Err(withheld.clone()));
    // Nor does the same one that comes too soon.
    let patient = Guarded {
        confirm_after: Duration::from_secs(3600),
        ..guarded()
    };
    assert_eq!(removing(&store, 1, patient), Err(withheld.clone()));
    assert_eq!(removing(&store, 1, guarded()).unwrap().removed, 30);
    // A harmless answer in between takes a pending one back.
    let store = filled(4);
    assert_eq!(removing(&store, 1, guarded()), Err(withheld.clone()));
    assert_eq!(removing(&store, 4, guarded()).unwrap().removed, 0);
    assert_eq!(removing(&store, 1, guarded()), Err(withheld.clone()));
    // An operator's word, and fewer than twenty.
    let confirmed = Guarded {
        confirmed: true,
        ..patient
    };
    assert_eq!(removing(&store, 1, confirmed).unwrap().removed, 30);
    assert_eq!(removing(&store, 0, guarded()).unwrap().removed, 10);
}

#[test]
fn a_write_that_heir_does_not_have_any_more_is_missed() {
    let store = filled(1);
    let before = store.fetch_start();
    assert!(store.apply_write(&key("t0", "new"), None, Some(2)));
    assert!(
        !store.has_writes_beyond(before, &position(1)),
        "asked before the write"
    );
    let after = store.fetch_start();
    assert!(store.has_writes_beyond(after, &position(1)));
    assert!(!store.has_writes_beyond(after, &position(2)));
    assert!(
        !store.has_writes_beyond(after, &Position::default()),
        "HEIR keeps no revisions"
    );
    assert!(
        store
            .activate(after, full(&store, 1, 1), guarded())
            .unwrap()
            .went_back
    );
    assert!(
        !store.has_writes_beyond(store.fetch_start(), &position(1)),
        "and only once"
    );
}
