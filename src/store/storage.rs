//! Whether what is written reaches the disk, and the file that the store was opened with.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read as _},
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
    /// Its content makes no sense: what is written to it may not be found again.
    is_damaged: AtomicBool,
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
            is_damaged: AtomicBool::new(false),
            trouble: AtomicU8::new(NONE),
        }
    }

    /// Whether the database is still the one that its path names. What is written to a file that was unlinked is gone with
    /// the process; what is written beside one that took its place is not seen by the next start.
    pub(super) fn check_file(&self) -> Result<(), DbError> {
        self.check_place()?;
        if self.is_damaged.load(Relaxed) {
            return Err(DbError::Corrupt);
        }
        Ok(())
    }

    /// Remembers an error that says that the file is damaged, as it is where a backup was copied over it. A connection that
    /// was made while another file was in its place says so, too.
    pub(super) fn note_damage(&self, error: &DbError) {
        if error.is_damage() && self.check_place().is_ok() && !self.is_damaged.swap(true, Relaxed) {
            tracing::error!(
                "The database's file is damaged: nothing is written until it is restored and the store is started again."
            );
        }
    }

    fn check_place(&self) -> Result<(), DbError> {
        let Some(file) = &self.file else { return Ok(()) };
        let is_replaced = !file.is_in_place();
        if self.is_replaced.swap(is_replaced, Relaxed) != is_replaced {
            let path = file.path.display();
            if is_replaced {
                tracing::error!(%path, "The database's file, or its log beside it, was removed, emptied or replaced: nothing is written until it is back or the store is started again.");
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
        let is_full = |path: &Path| fs::metadata(path).is_ok_and(|file| file.len() > 0);
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && is_full(&self.path)
            && !is_emptied(&beside[0].0)
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

/// Whether a log was emptied, and written on: it begins with a hole. What is in it is not found again, however much it is.
///
/// The log alone may be read here: closing the database or its index would take away the locks of this process on them.
fn is_emptied(log: &Path) -> bool {
    const MAGIC: u32 = 0x377f_0682;
    let mut first = [0; 4];
    let read = fs::File::open(log).and_then(|mut log| log.read_exact(&mut first));
    // The last bit says which way its numbers are written.
    read.is_ok() && u32::from_be_bytes(first) & !1 != MAGIC
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
