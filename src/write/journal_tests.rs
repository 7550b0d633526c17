//! The journal's files and order.

use proptest::prelude::*;

use super::*;
use crate::policy::{PolicyId, TenantId};

fn base() -> impl Strategy<Value = Base> {
    prop_oneof![
        "[a-f0-9]{1,16}".prop_map(|tag| Base::Document(ETag::parse(&format!("\"{tag}\"")).unwrap())),
        any::<u64>().prop_map(|id| Base::Entry(EntryId(id))),
        Just(Base::Absent),
        Just(Base::Unknown),
        Just(Base::Any),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let text = |text: String| {
        let document = format!("{{ \"text\":\n{} }}\n", serde_json::json!(text));
        Operation::Put(PolicyDocument::parse(document.into()).unwrap())
    };
    prop_oneof![Just(Operation::Delete), ".{0,60}".prop_map(text)]
}

fn state() -> impl Strategy<Value = State> {
    let reason = prop_oneof![
        Just(Reason::ChangedInHeir),
        Just(Reason::RefusedByHeir),
        Just(Reason::LostInRestore)
    ];
    prop_oneof![
        Just(State::Queued),
        (reason, ".{0,30}").prop_map(|(reason, detail)| State::Conflict { reason, detail }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (
        (1..u64::MAX),
        "[a-z0-9_.-]{0,8}x",
        operation(),
        base(),
        ".{1,20}",
        any::<u64>(),
        state(),
    )
        .prop_map(
            |(id, name, operation, base, idempotency_key, queued_unix_ms, state)| Entry {
                id: EntryId(id),
                key: (TenantId::parse("acme").unwrap(), PolicyId::parse(&name).unwrap()),
                operation,
                base,
                idempotency_key,
                queued_unix_ms,
                state,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_and_nothing_else(entry in entry(), cut in 0.0..1.0f64, flip in 0.0..1.0f64, bit in 0..8u8) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &entry).unwrap();
        let path = path_of(dir.path(), entry.id);
        prop_assert_eq!(&read(&path).unwrap(), &entry);
        let whole = fs::read(&path).unwrap();
        let at = |share: f64| (whole.len() as f64 * share) as usize;
        fs::write(&path, &whole[..at(cut)]).unwrap();
        prop_assert!(read(&path).is_err());
        let mut flipped = whole.clone();
        flipped[at(flip)] ^= 1 << bit;
        fs::write(&path, &flipped).unwrap();
        // A flip in the header's own syntax may mean the same; it never means another write.
        prop_assert!(read(&path).is_err() || read(&path).as_ref() == Ok(&entry));
    }
}

#[tokio::test]
async fn a_damaged_write_costs_itself_and_its_number() {
    let state_dir = tempfile::tempdir().unwrap();
    let key = (TenantId::parse("acme").unwrap(), PolicyId::parse("a").unwrap());
    let (journal, refused) = Journal::open(state_dir.path()).unwrap();
    assert!(refused.is_empty() && journal.is_durable());
    for _ in 0..3 {
        journal
            .append(key.clone(), Operation::Delete, Base::Unknown, "k".into())
            .await
            .unwrap();
    }
    let dir = state_dir.path().join("journal");
    fs::write(path_of(&dir, EntryId(3)), "torn").unwrap();
    fs::write(dir.join(".writeAbCd"), "half").unwrap();
    let (journal, refused) = Journal::open(state_dir.path()).unwrap();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(
        journal
            .entries()
            .iter()
            .map(|entry| entry.id.0)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert!(!dir.join(".writeAbCd").exists());
    // Also for the run after that.
    let (journal, refused) = Journal::open(state_dir.path()).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    let next = journal
        .append(key, Operation::Delete, Base::Unknown, "k".into())
        .await
        .unwrap();
    assert_eq!(next.id, EntryId(4));
    assert!(dir.join("00000000000000000003.damaged").exists());
}

#[tokio::test]
async fn a_resting_write_holds_up_its_own_policy_only() {
    let journal = Journal::in_memory();
    let key = |id| (TenantId::parse("acme").unwrap(), PolicyId::parse(id).unwrap());
    for id in ["a", "a", "b"] {
        journal
            .append(key(id), Operation::Delete, Base::Unknown, "k".into())
            .await
            .unwrap();
    }
    let next = |rests: &[u64]| {
        journal
            .next_queued(|id| rests.contains(&id.0))
            .map(|entry| entry.id.0)
    };
    assert_eq!(next(&[]), Some(1));
    assert_eq!(next(&[1]), Some(3));
    assert_eq!(next(&[1, 3]), None);
    assert_eq!(next(&[2]), Some(1));
}
