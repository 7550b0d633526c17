//! The lock of a state directory: one process has it at a time, also after the directory was taken away and made again.
//!
//! A lock belongs to a file and not to its name. So where the directory is another one than it was, the process that has it
//! in its configuration locks it anew, before another can, and hears of it: what it kept there is gone.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError as NotNow,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use tokio::sync::watch;

/// The lock of a directory, held for as long as the value lives.
#[derive(Debug)]
pub struct StateLock {
    dir: PathBuf,
    /// `None`: it was given back.
    held: Mutex<Option<File>>,
    is_released: AtomicBool,
    replaced: watch::Sender<u64>,
}

/// Why a directory cannot be locked.
#[derive(Debug)]
pub enum NotTaken {
    /// Another process has it. The file is to be locked once that one has finished.
    InUse(File),
    /// The directory cannot be used.
    Failed(io::Error),
}

impl StateLock {
    /// Locks a directory that is there.
    ///
    /// # Errors
    /// When another process has it, or it cannot be used.
    pub fn take(dir: &Path) -> Result<Self, NotTaken> {
        let file = open(dir).map_err(NotTaken::Failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self::of(dir, file)),
            Err(TryLockError::WouldBlock) => Err(NotTaken::InUse(file)),
            Err(TryLockError::Error(error)) => Err(NotTaken::Failed(error)),
        }
    }

    /// With a file of [`NotTaken::InUse`] that is locked by now.
    pub fn of(dir: &Path, locked: File) -> Self {
        Self {
            dir: dir.to_owned(),
            held: Mutex::new(Some(locked)),
            is_released: AtomicBool::new(false),
            replaced: watch::Sender::new(0),
        }
    }

    /// Makes sure that the directory is this process's, now.
    ///
    /// # Errors
    /// When it is gone, another process has the one that is there instead, or it was given back.
    pub fn hold(&self) -> io::Result<()> {
        let held = self.hold_unreleased();
        if self.is_released.load(SeqCst) {
            // It may have been given back while this looked at the disk.
            self.release();
            return Err(given_back());
        }
        held
    }

    fn hold_unreleased(&self) -> io::Result<()> {
        let mut held = self.held();
        let Some(before) = &*held else {
            return Err(given_back());
        };
        if self.is_at_its_place(before)? {
            return Ok(());
        }
        let file = open(&self.dir)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                let reason = "another process has the state_dir that is there now";
                io::Error::new(io::ErrorKind::ResourceBusy, reason)
            }
            TryLockError::Error(error) => error,
        })?;
        *held = Some(file);
        drop(held);
        self.replaced.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Gives the directory back, for good: another process may have it, and nothing is to be written there any more. Where a
    /// disk keeps another thread in [`hold`](Self::hold), that is not waited for: that thread gives it back.
    pub fn release(&self) {
        self.is_released.store(true, SeqCst);
        match self.held.try_lock() {
            Ok(mut held) => *held = None,
            Err(NotNow::Poisoned(held)) => *held.into_inner() = None,
            Err(NotNow::WouldBlock) => {}
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<File>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when the directory was another one and is locked again: it has none of what was kept in the one before.
    pub fn replaced(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    fn is_at_its_place(&self, held: &File) -> io::Result<bool> {
        let held = held.metadata()?;
        let place = if held.is_dir() {
            self.dir.clone()
        } else {
            file_of(&self.dir)
        };
        match fs::metadata(place) {
            Ok(found) => Ok((held.dev(), held.ino()) == (found.dev(), found.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn given_back() -> io::Error {
    io::Error::other("this process has given state_dir back")
}

fn file_of(dir: &Path) -> PathBuf {
    dir.join("lock")
}

fn open(dir: &Path) -> io::Result<File> {
    match File::create(file_of(dir)) {
        // A disk that is read-only or full can still be read; the directory itself can be locked as well.
        Err(error) if cannot_write(&error) => {
            tracing::error!(%error, path = %dir.display(), "state_dir cannot be written; what is in it is used.");
            File::open(dir)
        }
        opened => opened,
    }
}

fn cannot_write(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, PermissionDenied, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        FileTooLarge | PermissionDenied | ReadOnlyFilesystem | StorageFull
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_made_again_is_locked_again_unless_another_process_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("state");
        fs::create_dir(&dir).unwrap();
        let lock = StateLock::take(&dir).unwrap();
        let mut replaced = lock.replaced();
        assert!(matches!(StateLock::take(&dir), Err(NotTaken::InUse(_))));
        lock.hold().unwrap();
        assert!(!replaced.has_changed().unwrap());
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(lock.hold().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(
            !dir.exists(),
            "it is not made where it may be meant to be mounted"
        );
        fs::create_dir(&dir).unwrap();
        lock.hold().unwrap();
        assert!(replaced.has_changed().unwrap());
        replaced.mark_unchanged();
        assert!(matches!(StateLock::take(&dir), Err(NotTaken::InUse(_))));
        // The file alone is enough: another process would lock the next one.
        fs::remove_file(file_of(&dir)).unwrap();
        let other = StateLock::take(&dir).unwrap();
        assert_eq!(lock.hold().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        assert!(!replaced.has_changed().unwrap());
        drop(other);
        lock.hold().unwrap();
        assert!(replaced.has_changed().unwrap());
        lock.release();
        assert!(lock.hold().is_err());
        assert!(StateLock::take(&dir).is_ok());
    }
}
