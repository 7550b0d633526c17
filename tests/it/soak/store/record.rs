//! What was asked for, when, and what was answered.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

/// One write. Its number is in its document, so that no two are alike.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) number: u64,
    pub(super) key: String,
    pub(super) is_delete: bool,
    pub(super) asked: Instant,
    /// When it was acknowledged, and as which revision; `None` where what became of it is not known.
    pub(super) acknowledged: Option<(Instant, u64)>,
    pub(super) given_up: bool,
}

/// One read that was answered.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) key: String,
    pub(super) asked: Instant,
    pub(super) answered: Instant,
    /// The revision of the document; `None` where there was none.
    pub(super) revision: Option<u64>,
    /// The number in it.
    pub(super) number: Option<u64>,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub(super) struct Record {
    next: AtomicU64,
    writes: Mutex<Vec<Written>>,
    reads: Mutex<Vec<Read>>,
}

impl Record {
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, SeqCst)
    }

    pub(super) fn wrote(&self, written: Written) {
        self.writes.lock().unwrap().push(written);
    }

    pub(super) fn read(&self, read: Read) {
        self.reads.lock().unwrap().push(read);
    }

    pub(super) fn writes(&self) -> Vec<Written> {
        self.writes.lock().unwrap().clone()
    }

    pub(super) fn reads(&self) -> Vec<Read> {
        self.reads.lock().unwrap().clone()
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, usize> {
        let writes = self.writes();
        let count = |which: fn(&Written) -> bool| writes.iter().filter(|write| which(write)).count();
        [
            ("acknowledged writes", count(|write| write.acknowledged.is_some())),
            (
                "writes of unknown outcome",
                count(|write| write.acknowledged.is_none() && !write.given_up),
            ),
            ("writes that were given up", count(|write| write.given_up)),
            ("reads", self.reads().len()),
        ]
        .into()
    }

    pub(super) fn summary(&self) -> String {
        let counts: Vec<_> = self
            .counts()
            .into_iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        counts.join(", ")
    }
}
