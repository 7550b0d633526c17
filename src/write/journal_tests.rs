//! The journal's order, limits and what a start makes of what an earlier run left.

use std::fs;

use futures_util::future::join_all;

use super::*;
use crate::policy::{ETag, PolicyId, TenantId};

fn key(id: &str) -> Key {
    (TenantId::parse("acme").unwrap(), PolicyId::parse(id).unwrap())
}

fn document(text: &str) -> PolicyDocument {
    PolicyDocument::parse(format!("{{\"text\":{text:?}}}").into()).unwrap()
}

/// A write that may not take the place of another.
fn new(id: &str, text: Option<&str>) -> NewWrite {
    NewWrite {
        key: key(id),
        document: text.map(document),
        base: Base::Unknown,
        idempotency_key: "k".into(),
        replaces: false,
        may_be_in_heir: false,
    }
}

fn replacing(id: &str, text: Option<&str>) -> NewWrite {
    NewWrite {
        replaces: true,
        ..new(id, text)
    }
}

fn ids(journal: &Journal) -> Vec<u64> {
    journal.entries().iter().map(|entry| entry.id.0).collect()
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.join("journal"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_damaged_write_costs_itself_and_its_number() {
    let state_dir = tempfile::tempdir().unwrap();
    let (journal, refused) = Journal::open(state_dir.path()).unwrap();
    assert!(refused.is_empty() && journal.is_durable());
    for _ in 0..3 {
        journal.append(new("a", None)).await.unwrap();
    }
    let dir = state_dir.path().join("journal");
    fs::write(dir.join("00000000000000000003.write"), "torn").unwrap();
    fs::write(dir.join(".writeAbCd"), "half").unwrap();
    let (journal, refused) = Journal::open(state_dir.path()).unwrap();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(ids(&journal), [1, 2]);
    assert!(!dir.join(".writeAbCd").exists());
    // Also for the run after that.
    let (journal, refused) = Journal::open(state_dir.path()).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    let next = journal.append(new("a", None)).await.unwrap();
    assert_eq!(next.id, EntryId(4));
    assert!(dir.join("00000000000000000003.damaged").exists());
}

#[tokio::test]
async fn a_resting_write_holds_up_its_own_policy_only() {
    let journal = Journal::in_memory();
    for id in ["a", "a", "b"] {
        journal.append(new(id, None)).await.unwrap();
    }
    let now = Instant::now();
    let later = |seconds| now + std::time::Duration::from_secs(seconds);
    let rest = |id, until| {
        let trouble = Trouble {
            attempts: 1,
            error: "no".into(),
            rests_until: Some(until),
        };
        journal.note_trouble(EntryId(id), trouble);
    };
    let next = |at| {
        let (entry, end) = journal.next_queued(at);
        (entry.map(|entry| entry.id.0), end)
    };
    assert_eq!(next(now), (Some(1), None));
    rest(1, later(2));
    assert_eq!(next(now), (Some(3), None));
    rest(3, later(1));
    assert_eq!(next(now), (None, Some(later(1))));
    assert_eq!(next(later(1)), (Some(3), Some(later(2))));
    assert_eq!(next(later(2)), (Some(1), None));
    rest(1, later(0));
    rest(1, later(0));
    assert_eq!(next(now), (Some(1), Some(later(1))));
    journal.end_rests();
    assert_eq!(next(now), (Some(1), None));
    // The one that has had less trouble comes first, and one that has had none before both.
    let trouble = Trouble {
        attempts: 2,
        error: "no".into(),
        rests_until: None,
    };
    journal.note_trouble(EntryId(1), trouble);
    assert_eq!(next(now), (Some(3), None));
    journal.append(new("c", None)).await.unwrap();
    assert_eq!(next(now), (Some(4), None));
}

#[tokio::test]
async fn the_limits_hold_for_writes_that_come_at_the_same_time() {
    let state_dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(state_dir.path()).unwrap();
    journal.set_limits(3, 1 << 20);
    let names: Vec<String> = (0..40).map(|number| format!("p{number}")).collect();
    let taken = join_all(names.iter().map(|id| journal.append(new(id, Some("x"))))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = taken.into_iter().partition(Result::is_ok);
    assert_eq!((taken.len(), refused.len()), (3, 37));
    assert!(
        refused
            .iter()
            .all(|error| matches!(error, Err(JournalError::Full(3))))
    );
    assert_eq!(files(state_dir.path()).len(), 3);
    journal.set_limits(1_000, journal.amounts().bytes + 2_500);
    let long = "x".repeat(700);
    let taken = join_all(names.iter().map(|id| journal.append(new(id, Some(&long))))).await;
    assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 2);
    let on_disk: u64 = fs::read_dir(state_dir.path().join("journal"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(journal.amounts().bytes, on_disk);
    // The same is counted by the next run.
    assert_eq!(
        Journal::open(state_dir.path()).unwrap().0.amounts(),
        journal.amounts()
    );
}

#[tokio::test]
async fn writes_of_one_policy_are_folded_however_often_the_process_is_started() {
    let state_dir = tempfile::tempdir().unwrap();
    for run in 1..=5 {
        let (journal, refused) = Journal::open(state_dir.path()).unwrap();
        assert!(refused.is_empty(), "{refused:?}");
        for write in 0..3 {
            let text = format!("{run}.{write}");
            journal.append(replacing("a", Some(&text))).await.unwrap();
        }
        // The first may have been sent by the run before, and the last is what is to be in the end; no run leaves others.
        let kept = journal.entries();
        assert_eq!(kept.len(), if run == 1 { 1 } else { 2 }, "{kept:?}");
        let last = journal.newest_queued(&key("a")).unwrap();
        assert_eq!(
            journal.document(last.id).await.unwrap(),
            document(&format!("{run}.2"))
        );
        assert_eq!(files(state_dir.path()).len(), kept.len());
    }
    // Once the first is done, the other may have been sent as well before this process ended.
    let (journal, _) = Journal::open(state_dir.path()).unwrap();
    let [first, last] = &journal.entries()[..] else {
        panic!("{:?}", journal.entries());
    };
    assert_eq!(last.base, Base::Entry(first.id));
    journal.done(first.id, Base::Absent).await;
    let (journal, _) = Journal::open(state_dir.path()).unwrap();
    journal.append(replacing("a", Some("last"))).await.unwrap();
    assert_eq!(journal.entries().len(), 2);
}

#[tokio::test]
async fn a_write_takes_the_place_of_one_that_heir_cannot_have() {
    let state_dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(state_dir.path()).unwrap();
    let first = NewWrite {
        base: Base::Absent,
        ..replacing("a", Some("1"))
    };
    journal.append(first).await.unwrap();
    journal.append(replacing("b", Some("1"))).await.unwrap();
    for text in [Some("2"), None, Some("3")] {
        journal.append(replacing("a", text)).await.unwrap();
    }
    assert_eq!(ids(&journal), [2, 5]);
    assert_eq!(files(state_dir.path()).len(), 2);
    let newest = journal.newest_queued(&key("a")).unwrap();
    assert_eq!((newest.base, newest.replaces_from), (Base::Absent, EntryId(1)));
    assert_eq!(journal.document(EntryId(5)).await.unwrap(), document("3"));
    // One that was sent stays, and so does one before a precondition.
    journal.note_sent(EntryId(5));
    let sixth = journal.append(replacing("a", Some("4"))).await.unwrap();
    let seventh = journal.append(new("a", Some("5"))).await.unwrap();
    assert_eq!(ids(&journal), [2, 5, 6, 7]);
    assert_eq!(
        (sixth.base, seventh.base),
        (Base::Entry(EntryId(5)), Base::Entry(EntryId(6)))
    );
    // What the last took the place of was the one with the precondition.
    let eighth = journal.append(replacing("a", Some("6"))).await.unwrap();
    assert_eq!(ids(&journal), [2, 5, 6, 8]);
    assert_eq!(
        (eighth.base, eighth.replaces_from),
        (Base::Entry(EntryId(6)), EntryId(7))
    );
}

#[tokio::test]
async fn a_run_that_was_killed_between_two_steps_is_finished_by_the_next() {
    let state_dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(state_dir.path()).unwrap();
    let dir = state_dir.path().join("journal");
    journal.append(replacing("a", Some("1"))).await.unwrap();
    let replaced = fs::read(dir.join("00000000000000000001.write")).unwrap();
    journal.append(replacing("a", Some("2"))).await.unwrap();
    // Killed before the replaced one was removed.
    fs::write(dir.join("00000000000000000001.write"), replaced).unwrap();
    drop(journal);
    let (journal, refused) = Journal::open(state_dir.path()).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!((ids(&journal), files(state_dir.path()).len()), (vec![2], 1));
    // A write on top of one that was made and removed, when nothing else could be written any more.
    let third = journal.append(new("a", None)).await.unwrap();
    assert_eq!(third.base, Base::Entry(EntryId(2)));
    journal.append(new("a", Some("4"))).await.unwrap();
    drop(journal);
    fs::remove_file(dir.join("00000000000000000002.write")).unwrap();
    let (journal, _) = Journal::open(state_dir.path()).unwrap();
    let bases: Vec<Base> = journal.entries().into_iter().map(|entry| entry.base).collect();
    let left = document("2").etag().clone();
    assert_eq!(bases, [Base::Document(left), Base::Entry(EntryId(3))]);
    drop(journal);
    fs::remove_file(dir.join("00000000000000000003.write")).unwrap();
    let (journal, _) = Journal::open(state_dir.path()).unwrap();
    assert_eq!(journal.entries()[0].base, Base::Absent);
}

#[tokio::test]
async fn memory_goes_on_where_the_disk_refuses_and_the_disk_follows() {
    let state_dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(state_dir.path()).unwrap();
    for text in ["1", "2", "3"] {
        journal.append(new("a", Some(text))).await.unwrap();
    }
    let (dir, away) = (state_dir.path().join("journal"), state_dir.path().join("away"));
    fs::rename(&dir, &away).unwrap();
    // Nothing can be written into a file, whoever one is.
    fs::write(&dir, "").unwrap();
    let made = Base::Document(ETag::of_bytes(b"1"));
    journal.done(EntryId(1), made.clone()).await;
    journal
        .set_conflict(EntryId(3), Reason::RefusedByHeir, "no".into())
        .await;
    let lost = journal
        .append_lost(key("b"), Some(document("lost")), "restored".into())
        .await;
    assert!(journal.is_behind());
    assert_eq!(ids(&journal), [2, 3, 4]);
    assert_eq!(journal.entries()[0].base, made);
    assert_eq!(journal.document(lost.id).await.unwrap(), document("lost"));
    journal.catch_up().await;
    assert!(journal.is_behind());
    fs::remove_file(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();
    journal.catch_up().await;
    assert!(!journal.is_behind());
    let known = journal.entries();
    drop(journal);
    let (journal, refused) = Journal::open(state_dir.path()).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    let of_disk = journal.entries();
    let short = |entries: &[Entry]| -> Vec<_> {
        let each = entries.iter();
        each.map(|entry| (entry.id, entry.base.clone(), entry.state.clone()))
            .collect()
    };
    assert_eq!(short(&of_disk), short(&known));
    assert_eq!(journal.document(lost.id).await.unwrap(), document("lost"));
}

#[tokio::test]
async fn a_file_that_vanished_is_removed_already() {
    let state_dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(state_dir.path()).unwrap();
    for id in ["a", "b"] {
        journal.append(new(id, Some("1"))).await.unwrap();
    }
    let dir = state_dir.path().join("journal");
    fs::remove_dir_all(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    journal.done(EntryId(1), Base::Absent).await;
    assert!(!journal.is_behind());
    journal.discard(EntryId(2)).await.unwrap();
    assert!(ids(&journal).is_empty());
}
