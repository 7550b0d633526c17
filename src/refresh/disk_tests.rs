//! The disk snapshot's file.

use proptest::prelude::*;

use bytes::Bytes;

use super::*;
use crate::{snapshot::Guarded, snapshot::SnapshotMetrics};

type Documents = Vec<(String, String, String, Option<u64>)>;

fn store(documents: &Documents) -> SnapshotStore {
    let store = SnapshotStore::start(
        SnapshotMetrics::register(&prometheus::Registry::new(), 10)
            .unwrap()
            .into(),
    )
    .unwrap();
    let position = Position {
        revision: Some(7),
        chain: Some("ab".into()),
    };
    let mut incoming = Incoming::new(Scope::Everything, Coverage::Whole, position);
    incoming.extensions.insert("pii".into(), "{\"module\": 1}".into());
    for (tenant, policy, text, revision) in documents {
        let key = (TenantId::parse(tenant).unwrap(), PolicyId::parse(policy).unwrap());
        let document = serde_json::json!({ "text": text }).to_string();
        incoming.take(&store.load(), key, document.into(), None, *revision);
    }
    let guarded = Guarded {
        max_removed_percent: 50,
        confirm_after: Duration::ZERO,
        confirmed: false,
    };
    store.activate(store.fetch_start(), incoming, guarded).unwrap();
    store
}

type Content = (Bytes, String, Option<u64>, PolicyFlags);

fn content(incoming: &Incoming) -> std::collections::BTreeMap<(String, String), Content> {
    let policies = incoming
        .policies
        .iter()
        .flat_map(|(tenant, p)| p.iter().map(move |(id, policy)| (tenant, id, policy)));
    policies
        .map(|(tenant, id, policy)| {
            let document = &policy.document;
            let value = (
                document.bytes().clone(),
                document.etag().as_str().to_owned(),
                policy.revision,
                policy.flags(),
            );
            ((tenant.to_string(), id.to_string()), value)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_saved_is_loaded(documents in prop::collection::vec(("[a-z]{1,3}", "[a-z0-9_.-]{0,3}x", ".{0,40}", prop::option::of(0..u64::from(u32::MAX))), 0..20)) {
        let store = store(&documents);
        let dir = tempfile::tempdir().unwrap();
        let disk = DiskSnapshot::new(dir.path());
        let confirmed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        disk.save(&store.load(), confirmed).unwrap();
        let (loaded, refused) = disk.load();
        prop_assert_eq!(refused, Vec::<String>::new());
        let loaded = loaded.unwrap();
        prop_assert_eq!(loaded.confirmed, confirmed);
        let saved = store.load_full();
        prop_assert_eq!(&loaded.incoming.position, saved.position());
        prop_assert_eq!(&loaded.incoming.extensions["pii"][..], "{\"module\": 1}");
        let mut expected = Incoming::new(Scope::Everything, Coverage::Whole, Position::default());
        for (tenant, t) in saved.tenants() {
            for (id, found) in t.found() {
                expected.put((tenant.clone(), id.clone()), found.policy.clone());
            }
        }
        prop_assert_eq!(content(&loaded.incoming), content(&expected));
    }
}

#[test]
fn hostile_34_no_cut_and_no_flip_of_a_body_is_taken() {
    let store = store(&vec![("t".into(), "p".into(), "hello".into(), Some(3))]);
    let dir = tempfile::tempdir().unwrap();
    DiskSnapshot::new(dir.path())
        .save(&store.load(), SystemTime::now())
        .unwrap();
    let path = dir.path().join(CURRENT);
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(read(&path).is_err(), "cut at {cut}");
    }
    let body = whole.iter().position(|byte| *byte == b'\n').unwrap();
    for at in body..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            fs::write(&path, &flipped).unwrap();
            assert!(read(&path).is_err(), "bit {bit} of byte {at}");
        }
    }
    fs::write(&path, &whole).unwrap();
    assert!(read(&path).is_ok());
}

#[test]
fn hostile_34_a_flip_in_the_header_is_noticed() {
    let store = store(&vec![("t".into(), "p".into(), "hello".into(), Some(3))]);
    let dir = tempfile::tempdir().unwrap();
    DiskSnapshot::new(dir.path())
        .save(&store.load(), SystemTime::now())
        .unwrap();
    let path = dir.path().join(CURRENT);
    let whole = fs::read(&path).unwrap();
    let header = whole.iter().position(|byte| *byte == b'\n').unwrap();
    for at in 0..header {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            fs::write(&path, &flipped).unwrap();
            assert!(
                read(&path).is_err(),
                "bit {bit} of byte {at}: {}",
                String::from_utf8_lossy(&flipped[..header])
            );
        }
    }
}

/// A file of the second format, or one of another program: made of one that was just written, with one policy.
fn rewritten(whole: &[u8], format: u32, program: &str) -> Vec<u8> {
    let end = whole.iter().position(|byte| *byte == b'\n').unwrap();
    let header: Header = serde_json::from_slice(&whole[..end]).unwrap();
    let mut about: About = serde_json::from_str(header.about.get()).unwrap();
    let mut body = whole[end + 1..].to_vec();
    // Flags that are plainly wrong, or none.
    let flags = 24..28;
    if format < FIRST_FORMAT_WITH_FLAGS {
        body.drain(flags);
        about.bytes -= 4;
    } else {
        body[flags].copy_from_slice(&[7, 0, 9, 0]);
    }
    program.clone_into(&mut about.program);
    let about = serde_json::value::to_raw_value(&about).unwrap();
    let mut digest = Sha256::new_with_prefix(about.get());
    digest.update(&body);
    let header = Header {
        format,
        sha256: hex::encode(digest.finalize()),
        about,
    };
    let mut rewritten = serde_json::to_vec(&header).unwrap();
    rewritten.push(b'\n');
    rewritten.extend(body);
    rewritten
}

#[test]
fn what_another_program_made_of_a_document_is_found_again() {
    let store = store(&vec![("t".into(), "p".into(), "hello".into(), Some(3))]);
    let dir = tempfile::tempdir().unwrap();
    DiskSnapshot::new(dir.path())
        .save(&store.load(), SystemTime::now())
        .unwrap();
    let path = dir.path().join(CURRENT);
    let whole = fs::read(&path).unwrap();
    let flags = |file: &[u8]| {
        fs::write(&path, file).unwrap();
        let loaded = read(&path).unwrap();
        let mut policies = loaded.incoming.policies.values().flat_map(|p| p.values());
        policies.next().unwrap().flags()
    };
    let true_flags = flags(&whole);
    assert_eq!(flags(&rewritten(&whole, 2, "")), true_flags);
    assert_eq!(
        flags(&rewritten(&whole, FORMAT, "0.0.1 of another commit")),
        true_flags
    );
    let wrong = PolicyFlags::from_bytes([7, 0, 9, 0]);
    assert_ne!(wrong, true_flags);
    assert_eq!(wrong.to_bytes(), [7, 0, 9, 0]);
    assert_eq!(
        flags(&rewritten(&whole, FORMAT, PROGRAM)),
        wrong,
        "its own are believed"
    );
}
