//! Whether what is written reaches the disk, and the file that the store was opened with.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
};

use super::error::{DbError, Trouble};

/// What the last writes came to.
#[derive(Debug)]
pub(super) struct Storage {
    /// SQLite's file; `None` where the data is elsewhere.
    file: Option<DatabaseFile>,
    is_replaced: AtomicBool,
    trouble: AtomicU8,
}

const NONE: u8 = 0;
const FULL: u8 = 1;
const FAILING: u8 = 2;

impl Storage {
    pub(super) fn new(file: Option<DatabaseFile>) -> Self {
        Self {
            file,
            is_replaced: AtomicBool::new(false),
            trouble: AtomicU8::new(NONE),
        }
    }

    /// Whether the database is still the one that its path names. What is written to a file that was unlinked is gone with
    /// the process; what is written beside one that took its place is not seen by the next start.
    pub(super) fn check_file(&self) -> Result<(), DbError> {
        let Some(file) = &self.file else { return Ok(()) };
        let is_replaced = !file.is_in_place();
        if self.is_replaced.swap(is_replaced, Relaxed) != is_replaced {
            let path = file.path.display();
            if is_replaced {
                tracing::error!(%path, "The database's file, or its log beside it, was removed or replaced: nothing is written until it is back or the store is started again.");
            } else {
                tracing::info!(%path, "The database's file is back.");
            }
        }
        if is_replaced {
            Err(DbError::Replaced)
        } else {
            Ok(())
        }
    }

    /// What the last write met.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        match self.trouble.load(Relaxed) {
            FULL => Some(Trouble::Full),
            FAILING => Some(Trouble::Failing),
            _ => None,
        }
    }

    /// Remembers what a write came to.
    pub(super) fn note(&self, trouble: Option<Trouble>) {
        let now = match trouble {
            None => NONE,
            Some(Trouble::Full) => FULL,
            Some(Trouble::Failing) => FAILING,
        };
        let before = self.trouble.swap(now, Relaxed);
        if before != NONE && now == NONE {
            tracing::info!("The disk takes writes again.");
        }
    }
}

/// The device and the number of an inode.
type Identity = (u64, u64);

/// SQLite's file, and those beside it that belong to it for as long as a connection is open: the log, in which the last
/// writes are, and the index of that.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    identity: Identity,
    /// What was last seen of each in its place. The last connection takes them away, and the next makes new ones.
    beside: Mutex<[(PathBuf, Option<Identity>); 2]>,
}

impl DatabaseFile {
    /// The file that is at the path now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let beside = ["-wal", "-shm"].map(|end| {
            let mut beside = OsString::from(&path);
            beside.push(end);
            let identity = identity(beside.as_ref()).ok();
            (PathBuf::from(beside), identity)
        });
        Ok(Self {
            identity: identity(&path)?,
            path,
            beside: Mutex::new(beside),
        })
    }

    fn is_in_place(&self) -> bool {
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && beside.iter_mut().all(|(path, seen)| {
                let now = identity(path).ok();
                // Another one is in order, or none, unless the one before is still written to.
                let in_place = now == *seen || !seen.is_some_and(is_open);
                if in_place {
                    *seen = now;
                }
                in_place
            })
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Whether this process has a file open.
fn is_open(file: Identity) -> bool {
    // Without the list of its descriptors nothing can be said, and the worse is assumed.
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        return true;
    };
    descriptors
        .filter_map(Result::ok)
        .any(|descriptor| identity(&descriptor.path()).is_ok_and(|open| open == file))
}
