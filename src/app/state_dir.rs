//! The state directory: the files of an earlier run, and the task that keeps them current.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
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
    write::{Amounts, Journal, Ledger},
};

/// The directory, this process's alone.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    /// Held for as long as this process uses the directory.
    _lock: File,
}

impl StateDir {
    /// Takes the directory; `None` where none is configured.
    pub(super) fn take(config: &Config, parent: &Parent) -> Result<Option<Self>, BuildError> {
        let path = &config.state_dir;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            _lock: lock(path, parent)?,
            path: path.clone(),
        }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Publishes the snapshot that an earlier run left, and returns the task that writes the later ones.
    pub(super) fn restore_snapshot(&self, store: &Arc<SnapshotStore>, ledger: &Arc<Ledger>) -> Task {
        load_disk(&self.path, store);
        let (disk, store, ledger) = (DiskSnapshot::new(&self.path), store.clone(), ledger.clone());
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
        open_journal(&self.path)
    }
}

/// The directory is private, and one process's at a time.
fn lock(dir: &Path, parent: &Parent) -> Result<File, BuildError> {
    let failed = |source| BuildError::StateDir {
        path: dir.to_owned(),
        source,
    };
    durable_file::create_dir_all(dir).map_err(failed)?;
    let lock = match File::create(dir.join("lock")) {
        Ok(lock) => lock,
        // A disk that is read-only or full can still be read; the directory itself can be locked as well.
        Err(error) if cannot_write(&error) => {
            tracing::error!(%error, path = %dir.display(), "state_dir cannot be written; what is in it is used.");
            File::open(dir).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        // The process that has it is to finish once it hears that this one waits.
        Err(fs::TryLockError::WouldBlock) if parent.is_successor() => {
            parent.tell(STANDBY);
            lock.lock().map_err(failed)?;
            Ok(lock)
        }
        Err(fs::TryLockError::WouldBlock) => Err(BuildError::StateDirInUse { path: dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn cannot_write(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, PermissionDenied, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        FileTooLarge | PermissionDenied | ReadOnlyFilesystem | StorageFull
    )
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
