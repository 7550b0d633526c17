//! What the ledger remembers, and for how long.

use super::*;
use crate::{
    policy::{PolicyId, TenantId},
    snapshot::{Coverage, Incoming, Position, Scope, SnapshotStore},
};

fn counter() -> IntCounter {
    IntCounter::new("evictions", "evictions").unwrap()
}

fn key(id: &str) -> Key {
    (TenantId::parse("acme").unwrap(), PolicyId::parse(id).unwrap())
}

fn policy(text: &str, revision: u64) -> Policy {
    let document = PolicyDocument::parse(format!("{{\"text\":{text:?}}}").into()).unwrap();
    Policy::new(document, Some(revision))
}

/// A snapshot of HEIR at this revision, with these policies.
fn snapshot(revision: u64, policies: &[(&str, &str, u64)]) -> Arc<Snapshot> {
    let metrics = crate::snapshot::SnapshotMetrics::register(&prometheus::Registry::new(), 10).unwrap();
    let store = SnapshotStore::start(Arc::new(metrics)).unwrap();
    let of_tenant = policies
        .iter()
        .map(|(id, text, revision)| (key(id).1, Arc::new(policy(text, *revision))))
        .collect();
    let position = Position {
        revision: Some(revision),
        chain: None,
    };
    let mut incoming = Incoming::new(Scope::Everything, Coverage::Whole, position);
    incoming.policies.insert(key("a").0, of_tenant);
    store.restore(incoming, &[], std::time::SystemTime::now());
    store.load_full()
}

async fn stored(ledger: &Ledger, id: &str, text: &str, revision: u64) {
    ledger
        .note(&key(id), Some(&policy(text, revision)), Some(revision))
        .await;
}

fn lost_ids(ledger: &Ledger, before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let lost = ledger.lost(before, after);
    lost.iter().map(|lost| lost.key.1.to_string()).collect()
}

#[tokio::test]
async fn a_write_made_since_is_not_forgotten_with_the_lost_one() {
    let ledger = Ledger::in_memory(counter());
    let (before, after) = (snapshot(3, &[("a", "1", 1)]), snapshot(0, &[]));
    stored(&ledger, "a", "1", 1).await;
    let lost = ledger.lost(&before, &after);
    assert_eq!(lost.len(), 1);
    stored(&ledger, "a", "2", 4).await;
    ledger.forget(&lost[0]);
    let lost = ledger.lost(&before, &after);
    assert_eq!(lost[0].effect, Some(policy("2", 0).document.etag().clone()));
    ledger.forget(&lost[0]);
    assert!(ledger.lost(&before, &after).is_empty());
}

#[tokio::test]
async fn the_oldest_leave_first_and_are_counted_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let evictions = counter();
    let (ledger, refused) = Ledger::open_with(dir.path(), 3, evictions.clone());
    assert_eq!(refused, None);
    for (revision, id) in ["a", "b", "c", "a", "d", "e"].into_iter().enumerate() {
        stored(&ledger, id, "x", revision as u64 + 1).await;
    }
    assert_eq!(evictions.get(), 2);
    let nothing = Snapshot::empty();
    assert_eq!(lost_ids(&ledger, &nothing, &nothing), ["a", "d", "e"]);
    drop(ledger);
    let (ledger, refused) = Ledger::open_with(dir.path(), 3, counter());
    assert_eq!(refused, None);
    assert_eq!(lost_ids(&ledger, &nothing, &nothing), ["a", "d", "e"]);
}

#[tokio::test]
async fn documents_are_kept_until_a_disk_snapshot_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path(), counter());
    let long = "x".repeat(700_000);
    stored(&ledger, "a", &long, 1).await;
    stored(&ledger, "c", "c", 2).await;
    ledger.note(&key("d"), None, Some(4)).await;
    stored(&ledger, "b", &long, 5).await;
    let length = || std::fs::metadata(dir.path().join("ledger")).unwrap().len();
    assert!(length() > 1_400_000);
    // The first is in it; another client has overwritten the third; the others came later.
    ledger.compact(&snapshot(3, &[("a", &long, 1), ("c", "theirs", 3)]));
    assert!((700_000..800_000).contains(&length()), "{}", length());
    drop(ledger);
    let (ledger, refused) = Ledger::open(dir.path(), counter());
    assert_eq!(refused, None);
    let before = snapshot(1, &[("a", &long, 1), ("d", "d", 1)]);
    let after = snapshot(0, &[("d", "d", 1)]);
    let lost = ledger.lost(&before, &after);
    let ids: Vec<&str> = lost.iter().map(|lost| lost.key.1.as_str()).collect();
    assert_eq!(ids, ["a", "d", "b"]);
    assert_eq!(ledger.document(&lost[0]).await, None, "the snapshot has it");
    assert_eq!(
        ledger.document(&lost[2]).await.unwrap(),
        policy(&long, 5).document
    );
    // And the file goes on being written to.
    stored(&ledger, "e", "e", 6).await;
    drop(ledger);
    let (ledger, _) = Ledger::open(dir.path(), counter());
    assert_eq!(lost_ids(&ledger, &before, &after), ["a", "d", "b", "e"]);
}

#[tokio::test]
async fn a_torn_or_damaged_end_costs_itself_only() {
    for (what, cut, flip) in [("torn", Some(5), None), ("damaged", None, Some(20))] {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(dir.path(), counter());
        for (revision, id) in ["a", "b", "c"].into_iter().enumerate() {
            stored(&ledger, id, "x", revision as u64 + 1).await;
        }
        drop(ledger);
        let path = dir.path().join("ledger");
        let mut content = std::fs::read(&path).unwrap();
        if let Some(cut) = cut {
            content.truncate(content.len() - cut);
        }
        if let Some(flip) = flip {
            let at = content.len() - flip;
            content[at] ^= 1;
        }
        std::fs::write(&path, &content).unwrap();
        let (ledger, refused) = Ledger::open(dir.path(), counter());
        assert!(refused.unwrap().contains("is damaged after"), "{what}");
        let nothing = Snapshot::empty();
        assert_eq!(lost_ids(&ledger, &nothing, &nothing), ["a", "b"], "{what}");
        stored(&ledger, "d", "x", 4).await;
        drop(ledger);
        let (ledger, refused) = Ledger::open(dir.path(), counter());
        assert_eq!(refused, None, "{what}");
        assert_eq!(lost_ids(&ledger, &nothing, &nothing), ["a", "b", "d"], "{what}");
        let aside = std::fs::read_dir(dir.path())
            .unwrap()
            .filter(|file| {
                file.as_ref()
                    .unwrap()
                    .path()
                    .to_string_lossy()
                    .contains(".damaged-")
            })
            .count();
        assert_eq!(aside, 1, "{what}");
    }
}

#[tokio::test]
async fn a_snapshot_saved_after_a_restore_hides_no_lost_write() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open_with(dir.path(), 10, counter());
    stored(&ledger, "a", "ours", 5).await;
    stored(&ledger, "b", "ours", 6).await;
    stored(&ledger, "c", "ours", 7).await;
    let before = snapshot(8, &[("a", "ours", 5), ("b", "ours", 6), ("c", "theirs", 8)]);
    // Restored to revision 2, and written to until its revisions are beyond those of the writes that it lost.
    let after = snapshot(9, &[("a", "old", 2), ("d", "new", 9)]);
    ledger.compact(&after);
    assert_eq!(lost_ids(&ledger, &before, &after), ["a", "b"]);
}

#[tokio::test]
async fn what_only_a_write_had_put_into_a_saved_snapshot_keeps_its_document() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open_with(dir.path(), 10, counter());
    stored(&ledger, "a", "ours", 5).await;
    // HEIR was last asked at revision 4.
    ledger.compact(&snapshot(4, &[("a", "ours", 5)]));
    let (before, after) = (snapshot(4, &[]), snapshot(2, &[]));
    let lost = ledger.lost(&before, &after);
    let document = ledger.document(&lost[0]).await;
    assert_eq!(document.as_ref(), Some(&policy("ours", 5).document));
}

#[tokio::test]
async fn a_disk_snapshot_of_an_earlier_history_hides_no_lost_write() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(dir.path(), counter());
    // Saved at revision 20. Then HEIR was restored to 10, acknowledged these, and was restored again while no sidecar ran.
    let saved = snapshot(
        20,
        &[("changed", "1", 5), ("deleted", "1", 5), ("later", "2", 15)],
    );
    stored(&ledger, "changed", "2", 11).await;
    stored(&ledger, "made", "1", 12).await;
    ledger.note(&key("deleted"), None, Some(13)).await;
    stored(&ledger, "later", "1", 14).await;
    drop(ledger);
    let (ledger, refused) = Ledger::open(dir.path(), counter());
    assert_eq!(refused, None);
    let after = snapshot(10, &[("changed", "1", 5), ("deleted", "1", 5)]);
    let lost = ledger.lost(&saved, &after);
    let ids: Vec<_> = lost.iter().map(|lost| lost.key.1.as_str()).collect();
    assert_eq!(ids, ["changed", "made", "deleted"]);
    for (lost, document) in lost.iter().zip(["2", "1"]) {
        assert_eq!(ledger.document(lost).await, Some(policy(document, 0).document));
    }
}
