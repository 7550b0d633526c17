//! The state directory: the files of an earlier run, and the task that keeps them current.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use prometheus::IntCounter;

use super::{directories::load_compiled, error::BuildError, tasks::Task};
use crate::{
    config::Config,
    durable_file,
    extensions::ExtensionRecords,
    parent::{Parent, STANDBY},
    refresh::DiskSnapshot,
    snapshot::{Snapshot, SnapshotStore},
    state_lock::{NotTaken, StateLock},
    write::{Amounts, Journal, Ledger, Writer},
};

/// How often it is looked at whether the directory is still the one that is locked.
const LOOK: Duration = Duration::from_secs(1);

/// The directory, this process's alone.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    /// Held for as long as this process uses the directory.
    lock: Arc<StateLock>,
}

impl StateDir {
    /// Takes the directory; `None` where none is configured.
    pub(super) fn take(config: &Config, parent: &Parent) -> Result<Option<Self>, BuildError> {
        let path = &config.state_dir;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            lock: Arc::new(lock(path, parent)?),
            path: path.clone(),
        }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Publishes the snapshot that an earlier run left, and returns the task that writes the later ones.
    pub(super) fn restore_snapshot(&self, store: &Arc<SnapshotStore>, ledger: &Arc<Ledger>) -> Task {
        load_disk(&self.path, store);
        let disk = DiskSnapshot::new(&self.path).locked_by(self.lock.clone());
        let (store, ledger) = (store.clone(), ledger.clone());
        let compact = move |saved: &Snapshot| ledger.compact(saved);
        Task::new("disk", |stop| disk.run(store, compact, stop))
    }

    /// The writes that HEIR had acknowledged to earlier runs.
    pub(super) fn open_ledger(&self, evictions: IntCounter) -> Ledger {
        let (ledger, refused) = Ledger::open(&self.path, evictions);
        if let Some(reason) = refused {
            tracing::error!(
                reason,
                "A part of the ledger of acknowledged writes cannot be read."
            );
        }
        ledger
    }

    /// The journal, with the writes that an earlier run left in it.
    pub(super) fn open_journal(&self) -> Result<Journal, BuildError> {
        Ok(open_journal(&self.path)?.locked_by(self.lock.clone()))
    }

    /// The task that locks the directory again where it is another one than it was, and has what waits written there.
    pub(super) fn keep(&self, writer: Arc<Writer>) -> Task {
        let (path, lock) = (self.path.clone(), self.lock.clone());
        Task::new("state_dir", move |stop| async move {
            stop.run_until_cancelled(keep(&path, &lock, &writer)).await;
        })
    }
}

/// What still holds the lock then, such as a task that waits for the disk, is not to write any more.
impl Drop for StateDir {
    fn drop(&mut self) {
        self.lock.release();
    }
}

async fn keep(path: &Path, lock: &Arc<StateLock>, writer: &Writer) {
    let path = path.display();
    let mut replaced = lock.replaced();
    let mut trouble = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let lock = lock.clone();
        let held = tokio::task::spawn_blocking(move || lock.hold()).await;
        let now = match held {
            Ok(held) => held.err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = now.as_ref().filter(|_| now != trouble) {
            tracing::error!(error, %path, "state_dir cannot be used; nothing is kept in it meanwhile.");
        }
        trouble = now;
        if replaced.has_changed().is_ok_and(|changed| changed) {
            replaced.mark_unchanged();
            tracing::warn!(%path, "state_dir was replaced; what is kept there is written once more.");
            writer.write_journal_again().await;
        }
    }
}

/// The directory is private, and one process's at a time.
fn lock(dir: &Path, parent: &Parent) -> Result<StateLock, BuildError> {
    let failed = |source| BuildError::StateDir {
        path: dir.to_owned(),
        source,
    };
    durable_file::create_dir_all(dir).map_err(failed)?;
    match StateLock::take(dir) {
        Ok(lock) => Ok(lock),
        // The process that has it is to finish once it hears that this one waits.
        Err(NotTaken::InUse(file)) if parent.is_successor() => {
            parent.tell(STANDBY);
            file.lock().map_err(failed)?;
            Ok(StateLock::of(dir, file))
        }
        Err(NotTaken::InUse(_)) => Err(BuildError::StateDirInUse { path: dir.to_owned() }),
        Err(NotTaken::Failed(source)) => Err(failed(source)),
    }
}

fn load_disk(dir: &Path, store: &SnapshotStore) {
    let (loaded, refused) = DiskSnapshot::new(dir).load();
    for reason in refused {
        tracing::error!(reason, "A disk snapshot cannot be used.");
    }
    if let Some(host) = store.extensions() {
        let of_heir = loaded.as_ref().map(|loaded| &loaded.incoming.extensions);
        load_compiled(host, of_heir.unwrap_or(&ExtensionRecords::new()));
    }
    if let Some(loaded) = loaded {
        let (policies, revision) = (loaded.incoming.len(), loaded.incoming.position.revision);
        tracing::info!(policies, revision, "Read the disk snapshot.");
        store.restore(loaded.incoming, &loaded.listed, loaded.confirmed);
    }
}

fn open_journal(dir: &Path) -> Result<Journal, BuildError> {
    let (journal, refused) = Journal::open(dir)?;
    for reason in refused {
        tracing::error!(reason, "A write in the journal cannot be read.");
    }
    let Amounts {
        queued, conflicts, ..
    } = journal.amounts();
    if queued + conflicts > 0 {
        tracing::warn!(queued, conflicts, "The journal holds writes of an earlier run.");
    }
    Ok(journal)
}
