//! Files that are replaced whole: after a crash at any point a path holds its old content or its new content, on the
//! disk, and never a part of either.
//!
//! The new content is written under a temporary name in the same directory, synced, renamed over the old one, and the
//! directory is synced. Only then has the replacement happened. A file that is given up on the way is removed; one
//! that a killed process left behind has the caller's prefix, for the caller to remove at the next start.

use std::{
    fmt,
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// The steps of a replacement, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Creating the temporary file.
    Create,
    /// Writing the content.
    Write,
    /// Syncing the content to the disk.
    Sync,
    /// Renaming the temporary file over the old one.
    Rename,
    /// Syncing the directory, which makes the new name durable. The new content is visible already.
    SyncDirectory,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "cannot create a temporary file in",
            Self::Write => "cannot write the temporary file",
            Self::Sync => "cannot sync the temporary file",
            Self::Rename => "cannot rename the temporary file to",
            Self::SyncDirectory => "cannot sync the directory",
        })
    }
}

/// Why a file was not replaced.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}: {cause}", path.display())]
pub struct ReplaceError {
    /// The step that failed.
    pub step: Step,
    /// The file or directory that the step worked on.
    pub path: PathBuf,
    /// What the system said. Part of the message, and so not a source of its own.
    pub cause: io::Error,
}

impl ReplaceError {
    fn at(step: Step, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self {
            step,
            path: path.to_owned(),
            cause,
        }
    }
}

/// Keeps the kind of the system's error, so that callers can go on telling a full disk from a read-only one.
impl From<ReplaceError> for io::Error {
    fn from(error: ReplaceError) -> Self {
        Self::new(error.cause.kind(), error)
    }
}

/// New content under a temporary name. Dropped, it is removed. Readable and writable for its owner only.
#[derive(Debug)]
pub struct NewFile(NamedTempFile);

/// New content that is on the disk under its temporary name. Dropped, it is removed.
#[derive(Debug)]
pub struct SyncedFile(NamedTempFile);

impl NewFile {
    /// Creates an empty file in this directory, whose name begins with `prefix`.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn create(dir: &Path, prefix: &str) -> Result<Self, ReplaceError> {
        let created = tempfile::Builder::new().prefix(prefix).tempfile_in(dir);
        created.map(Self).map_err(ReplaceError::at(Step::Create, dir))
    }

    /// Writes, and returns what `write` does.
    ///
    /// # Errors
    /// Whatever error `write` returns.
    pub fn write<R>(&mut self, write: impl FnOnce(&mut File) -> io::Result<R>) -> Result<R, ReplaceError> {
        write(self.0.as_file_mut()).map_err(ReplaceError::at(Step::Write, self.0.path()))
    }

    /// Waits until the content is on the disk.
    ///
    /// # Errors
    /// When the content cannot be synced; the file is removed.
    pub fn sync(self) -> Result<SyncedFile, ReplaceError> {
        let synced = self.0.as_file().sync_all();
        synced.map_err(ReplaceError::at(Step::Sync, self.0.path()))?;
        Ok(SyncedFile(self.0))
    }
}

impl SyncedFile {
    /// Puts the content in place of what `path` holds. `path` must be in the directory that the file was created in.
    ///
    /// # Errors
    /// When the file cannot be renamed, which removes it, or the directory not be synced.
    pub fn rename_to(self, path: &Path) -> Result<(), ReplaceError> {
        let renamed = self.0.persist(path);
        renamed.map_err(|error| ReplaceError::at(Step::Rename, path)(error.error))?;
        sync_directory_of(path)
    }
}

/// Replaces the content of `path` in one go: creates the file with this prefix, writes, syncs and renames it.
///
/// # Errors
/// When a step fails. Unless it was the last, `path` holds what it held.
pub fn replace(
    path: &Path,
    prefix: &str,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), ReplaceError> {
    let mut new = NewFile::create(directory_of(path), prefix)?;
    new.write(write)?;
    new.sync()?.rename_to(path)
}

/// Removes a file, and waits until its removal is on the disk.
///
/// # Errors
/// When there is no such file, it cannot be removed, or the directory not be synced.
pub fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)?;
    Ok(sync_directory_of(path)?)
}

/// Makes a directory and those above it that are missing, for their owner only, and waits until all of them are on the
/// disk: a directory is where the one above it says it is. Returns those that were made, the topmost first.
///
/// # Errors
/// When one cannot be made, or the one above it not be synced.
pub fn create_dir_all(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let above = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty());
    let mut made: Vec<PathBuf> = above
        .take_while(|dir| !dir.is_dir())
        .map(Path::to_owned)
        .collect();
    made.reverse();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for dir in &made {
        sync_directory_of(dir)?;
    }
    Ok(made)
}

/// Waits until what was created, renamed or removed in a directory is on the disk.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_directory(dir: &Path) -> Result<(), ReplaceError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(ReplaceError::at(Step::SyncDirectory, dir))
}

fn sync_directory_of(path: &Path) -> Result<(), ReplaceError> {
    sync_directory(directory_of(path))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_and_is_its_owners_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for content in [&b"one"[..], b"another"] {
            replace(&path, ".new", |file| file.write_all(content)).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
            assert_eq!(names(dir.path()), ["state"]);
        }
        remove(&path).unwrap();
        assert!(names(dir.path()).is_empty());
        assert_eq!(remove(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_failing_write_leaves_the_old_content_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, "old").unwrap();
        let full = |file: &mut File| {
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        };
        let error = replace(&path, ".new", full).unwrap_err();
        assert_eq!(error.step, Step::Write);
        assert!(error.path.starts_with(dir.path()));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["state"]);
    }

    #[test]
    fn a_failing_rename_is_named_and_removes_the_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        // A file cannot take the place of a directory.
        let path = dir.path().join("state");
        fs::create_dir(&path).unwrap();
        let error = replace(&path, ".new", |file| file.write_all(b"new")).unwrap_err();
        assert_eq!((error.step, &error.path), (Step::Rename, &path));
        assert!(
            error
                .to_string()
                .starts_with("cannot rename the temporary file to ")
        );
        assert_eq!(names(dir.path()), ["state"]);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let closed = dir.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::write(closed.join("state"), "old").unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
        // The superuser writes everywhere, but not into a directory that is not there.
        let refused = if File::create(closed.join("probe")).is_err() {
            closed.clone()
        } else {
            closed.join("missing")
        };
        let error = replace(&refused.join("state"), ".new", |_| Ok(())).unwrap_err();
        assert_eq!((error.step, &error.path), (Step::Create, &refused));
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(fs::read(closed.join("state")).unwrap(), b"old");
    }

    #[test]
    fn a_directory_is_made_with_all_above_it_and_each_is_synced_into_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("state/journal");
        let made = create_dir_all(&deep).unwrap();
        assert_eq!(made, [dir.path().join("state"), deep.clone()]);
        for made in &made {
            assert_eq!(fs::metadata(made).unwrap().mode() & 0o7777, 0o700);
        }
        assert!(create_dir_all(&deep).unwrap().is_empty());
        fs::write(dir.path().join("file"), "").unwrap();
        create_dir_all(&dir.path().join("file/below")).unwrap_err();
    }

    #[test]
    fn what_is_given_up_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut new = NewFile::create(dir.path(), ".new").unwrap();
        new.write(|file| file.write_all(b"x")).unwrap();
        assert!(names(dir.path())[0].starts_with(".new"));
        drop(new.sync().unwrap());
        assert!(names(dir.path()).is_empty());
    }
}
