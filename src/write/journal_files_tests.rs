//! The journal's files.

use proptest::prelude::*;

use super::{super::entry::Reason, *};

fn base() -> impl Strategy<Value = Base> {
    prop_oneof![
        "[a-f0-9]{1,16}".prop_map(|tag| Base::Document(ETag::parse(&format!("\"{tag}\"")).unwrap())),
        any::<u64>().prop_map(|id| Base::Entry(EntryId(id))),
        Just(Base::Absent),
        Just(Base::Unknown),
        Just(Base::Any),
    ]
}

fn document() -> impl Strategy<Value = Option<PolicyDocument>> {
    let text = |text: String| {
        let document = format!("{{ \"text\":\n{} }}\n", serde_json::json!(text));
        Some(PolicyDocument::parse(document.into()).unwrap())
    };
    prop_oneof![Just(None), ".{0,60}".prop_map(text)]
}

fn left() -> impl Strategy<Value = Option<Left>> {
    let document = |text: String| Some(Left::Document(ETag::of_bytes(text.as_bytes())));
    prop_oneof![Just(None), Just(Some(Left::Nothing)), ".{0,3}".prop_map(document)]
}

fn state() -> impl Strategy<Value = State> {
    let reason = prop_oneof![
        Just(Reason::ChangedInHeir),
        Just(Reason::RefusedByHeir),
        Just(Reason::LostInRestore),
        Just(Reason::Damaged),
    ];
    prop_oneof![
        Just(State::Queued),
        (reason, ".{0,30}").prop_map(|(reason, detail)| State::Conflict { reason, detail }),
    ]
}

fn entry() -> impl Strategy<Value = (Entry, Bytes)> {
    (
        (1..u64::MAX),
        0..3_u64,
        "[a-z0-9_.-]{0,8}x",
        document(),
        (base(), left()),
        ".{1,20}",
        any::<u64>(),
        state(),
    )
        .prop_map(
            |(id, replaced, name, document, (base, on_top_of), idempotency_key, queued_unix_ms, state)| {
                let bytes = document
                    .as_ref()
                    .map_or_else(Bytes::new, |document| document.bytes().clone());
                let mut entry = Entry {
                    id: EntryId(id),
                    key: (TenantId::parse("acme").unwrap(), PolicyId::parse(&name).unwrap()),
                    operation: document.map_or(Operation::Delete, |document| {
                        Operation::Put(Stored {
                            etag: document.etag().clone(),
                            bytes: document.bytes().len(),
                        })
                    }),
                    base,
                    on_top_of,
                    replaces_from: EntryId(id.saturating_sub(replaced)),
                    idempotency_key,
                    queued_unix_ms,
                    state,
                    file_bytes: 0,
                    may_be_in_heir: true,
                    trouble: None,
                };
                entry.file_bytes = (first_line(&entry, &bytes).unwrap().len() + bytes.len()) as u64;
                (entry, bytes)
            },
        )
}

fn write_whole(dir: &Path, (entry, bytes): &(Entry, Bytes)) {
    write(dir, entry.id, &first_line(entry, bytes).unwrap(), bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_and_nothing_else(written in entry(), cut in 0.0..1.0f64, flip in 0.0..1.0f64, bit in 0..8u8) {
        let dir = tempfile::tempdir().unwrap();
        write_whole(dir.path(), &written);
        let path = path_of(dir.path(), written.0.id, "write");
        prop_assert_eq!(&read(&path).unwrap(), &written);
        let whole = fs::read(&path).unwrap();
        let at = |share: f64| (whole.len() as f64 * share) as usize;
        fs::write(&path, &whole[..at(cut)]).unwrap();
        prop_assert!(read(&path).is_err());
        let mut flipped = whole.clone();
        flipped[at(flip)] ^= 1 << bit;
        fs::write(&path, &flipped).unwrap();
        // A flip in the header's own syntax may mean the same; it never means another write.
        prop_assert!(read(&path).is_err() || read(&path).unwrap() == written);
    }

    #[test]
    fn what_changed_about_a_write_is_read_over_it(written in entry(), changed in (base(), left(), state())) {
        let dir = tempfile::tempdir().unwrap();
        write_whole(dir.path(), &written);
        let (base, on_top_of, state) = changed;
        let after = Entry { base, on_top_of, state, idempotency_key: "new".into(), ..written.0.clone() };
        write_state(dir.path(), &after).unwrap();
        let mut expected = after.clone();
        if matches!(expected.base, Base::Entry(_)) && let Some(left) = expected.on_top_of.take() {
            expected.base = left.base();
        }
        let found = open(dir.path()).unwrap();
        prop_assert_eq!(found.entries.into_values().collect::<Vec<_>>(), [expected]);
        // Without it, or where it is damaged, the write is what it was.
        let path = path_of(dir.path(), after.id, "state");
        fs::write(&path, "torn").unwrap();
        let found = open(dir.path()).unwrap();
        prop_assert_eq!(found.refused.len(), 1);
        prop_assert_eq!(&found.entries[&after.id].state, &written.0.state);
        remove(dir.path(), after.id).unwrap();
        prop_assert!(open(dir.path()).unwrap().entries.is_empty());
    }
}
