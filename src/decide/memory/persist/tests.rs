//! There and back, damage, later formats, and what changes nothing.

use std::{fs, sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    file::{NAME, save_changed},
    *,
};
use crate::{
    clock::{self, Timestamp},
    decide::memory::{BucketKey, CallResult, Memory, MemoryLimits, Session, State},
    policy::{BreakerSettings, LimitScope, PolicyId, ProviderId, RateLimit, TenantId},
};

const NOW: Timestamp = Timestamp::from_unix_ms(1_000_000_000);

fn empty() -> Memory {
    Memory::new(MemoryLimits {
        sessions: 10_000,
        buckets: 100,
        providers: 100,
    })
}

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn limit() -> RateLimit {
    RateLimit {
        scope: LimitScope::Policy,
        requests_per_second: 1.0,
        burst: 5,
        window_seconds: 1,
    }
}

fn keys() -> [BucketKey; 3] {
    [
        BucketKey::Global,
        BucketKey::Tenant(tenant()),
        BucketKey::Policy(tenant(), PolicyId::parse("chat").unwrap()),
    ]
}

fn filled() -> Memory {
    let memory = empty();
    for index in 0..1_000 {
        let value = json!(format!("user \"{index}\"\n\u{1F600}"));
        let session = Session {
            tenant: &tenant(),
            value: &value,
        };
        memory
            .sticky
            .store(session, &ProviderId::new("open\"ai"), 60 + index, NOW);
    }
    let (openai, built_in) = (ProviderId::new("openai"), BreakerSettings::built_in());
    memory.breakers.configure(&tenant(), &openai, built_in, NOW);
    for _ in 0..5 {
        memory
            .breakers
            .record(&tenant(), &openai, CallResult::Failure, None, NOW);
    }
    for key in keys() {
        memory.buckets.take(&key, &limit(), NOW).unwrap();
    }
    memory
}

fn count(memory: &Memory) -> (usize, usize, usize) {
    (memory.sticky.len(), memory.breakers.len(), memory.buckets.len())
}

#[test]
fn what_was_saved_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load(&empty(), dir.path(), NOW).unwrap(), Loaded::default());
    save(&filled(), dir.path()).unwrap();
    let memory = empty();
    let later = Timestamp::from_unix_ms(NOW.unix_ms + 100_000);
    let loaded = Loaded {
        sessions: 1_000,
        breakers: 1,
        buckets: 3,
    };
    assert_eq!(load(&memory, dir.path(), later).unwrap(), loaded);
    assert_eq!(
        count(&memory),
        (959, 1, 3),
        "sessions of 60 to 100 seconds are over"
    );
    let value = json!("user \"999\"\n\u{1F600}");
    let session = Session {
        tenant: &tenant(),
        value: &value,
    };
    let provider = memory.sticky.lookup(session, 10_000, later);
    assert_eq!(provider, Some(ProviderId::new("open\"ai")));
    let status = memory.breakers.status(&tenant(), "openai", later).unwrap();
    assert_eq!(
        (status.state, status.settings),
        (State::Open, BreakerSettings::built_in())
    );
    assert_eq!(status.state_changed_at, NOW.unix_ms);
    for key in keys() {
        assert_eq!(memory.buckets.status(&key).unwrap().tokens, 4.0);
    }
}

#[test]
fn times_are_written_as_the_system_s_clock_says_them() {
    let dir = tempfile::tempdir().unwrap();
    let began = clock::now();
    let memory = empty();
    let (value, openai) = (json!("ada"), ProviderId::new("openai"));
    let session = Session {
        tenant: &tenant(),
        value: &value,
    };
    memory.sticky.store(session, &openai, 3_600, began);
    for _ in 0..5 {
        memory
            .breakers
            .record(&tenant(), &openai, CallResult::Failure, None, began);
    }
    clock::step_wall(-86_400_000);
    save(&memory, dir.path()).unwrap();
    // The next process begins with the clock as it stands, which is what this one has been told.
    let written = fs::read_to_string(dir.path().join(NAME)).unwrap();
    let field = |name: &str| -> u64 {
        let line = written.lines().find(|line| line.contains(name)).unwrap();
        let rest = line.split_once(&format!("\"{name}\":")).unwrap().1;
        rest.split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    let wall = clock::wall().unix_ms;
    assert!((field("last_set") * 1_000).abs_diff(wall) < 60_000);
    assert!(field("changed_at").abs_diff(wall) < 60_000);
    let read = empty();
    load(&read, dir.path(), clock::now()).unwrap();
    assert_eq!(read.sticky.lookup(session, 3_600, clock::now()), Some(openai));
    let status = read.breakers.status(&tenant(), "openai", clock::now()).unwrap();
    assert!(status.elapsed_ms < 60_000, "{}", status.elapsed_ms);
}

#[test]
fn a_damaged_file_or_a_later_one_brings_nothing() {
    let dir = tempfile::tempdir().unwrap();
    save(&filled(), dir.path()).unwrap();
    let path = dir.path().join(NAME);
    let good = fs::read(&path).unwrap();
    let refused = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        let memory = empty();
        let error = load(&memory, dir.path(), NOW).unwrap_err();
        assert_eq!(count(&memory), (0, 0, 0));
        error
    };
    let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
    let mut edited = good.clone();
    edited[good.len() / 2] ^= 1;
    for bad in [
        b"".to_vec(),
        b"\n".to_vec(),
        b"{".to_vec(),
        b"\0".repeat(4_096),
        vec![b'x'; 300_000],
        good[..good.len() - 1_000].to_vec(),
        good[..good.len() / 2].to_vec(),
        lines[..lines.len() - 1].concat(),
        [&lines[..5], &lines[6..]].concat().concat(),
        lines[0].to_vec(),
        [good.clone(), b"more".to_vec()].concat(),
        edited,
    ] {
        let error = refused(&bad);
        assert!(matches!(error, PersistError::Damaged { .. }), "{error}");
    }
    let later = String::from_utf8(good)
        .unwrap()
        .replacen("{\"format\":1}", "{\"format\":2,\"more\":[]}", 1);
    let error = refused(later.as_bytes());
    assert!(matches!(error, PersistError::Format { found: 2, .. }), "{error}");
    // The next save makes it good again.
    save(&filled(), dir.path()).unwrap();
    assert_eq!(load(&empty(), dir.path(), NOW).unwrap().sessions, 1_000);
}

#[test]
fn what_did_not_change_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let memory = filled();
    let written = save(&memory, dir.path()).unwrap();
    let path = dir.path().join(NAME);
    fs::write(&path, "kept").unwrap();
    assert_eq!(save_changed(&memory, dir.path(), Some(written)).unwrap(), written);
    assert_eq!(fs::read(&path).unwrap(), b"kept");
    fs::remove_file(&path).unwrap();
    assert_eq!(save_changed(&memory, dir.path(), Some(written)).unwrap(), written);
    assert!(path.exists(), "but where it has vanished");
    memory.buckets.take(&BucketKey::Global, &limit(), NOW).unwrap();
    assert_ne!(save_changed(&memory, dir.path(), Some(written)).unwrap(), written);
    assert!(path.exists());
    fs::write(dir.path().join(".decisionsXYZ"), "half").unwrap();
    load(&memory, dir.path(), NOW).unwrap();
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing is left over"
    );
    let missing = dir.path().join("missing");
    assert!(matches!(save(&memory, &missing), Err(PersistError::Write { .. })));
}

#[tokio::test]
async fn it_is_kept_while_running_and_once_more_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (memory, stop) = (Arc::new(filled()), CancellationToken::new());
    // Longer than any test: only the stop writes.
    let hour = Duration::from_secs(3_600);
    let running = tokio::spawn(run(memory.clone(), dir.path().to_owned(), hour, stop.clone()));
    memory.sticky.clear_tenant(&tenant());
    stop.cancel();
    running.await.unwrap();
    let loaded = load(&empty(), dir.path(), NOW).unwrap();
    assert_eq!((loaded.sessions, loaded.breakers), (0, 1));
}
