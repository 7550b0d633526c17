//! The file: written whole, verified before anything of it is believed.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Seek, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::line::{Line, Loaded};
use crate::{
    clock::{self, Timestamp},
    decide::memory::Memory,
    durable_file::{NewFile, ReplaceError},
};

const FORMAT: u32 = 1;
pub(super) const NAME: &str = "decisions";
const TEMPORARY: &str = ".decisions";
/// No entry is longer: its parts are ids, a provider's name, and numbers.
const LONGEST_LINE: u64 = 64 << 10;

/// Why the file is not used, or was not written.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is torn, or was edited.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A later version wrote the file.
    #[error("{path} has format {found}; this version reads {FORMAT}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The format that its header names.
        found: u32,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Trailer {
    sha256: String,
}

/// The content of a file, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written([u8; 32]);

/// Writes the memory into the directory's file.
///
/// # Errors
/// When the file cannot be written; the one before stays.
pub fn save(memory: &Memory, dir: &Path) -> Result<Written, PersistError> {
    save_changed(memory, dir, None)
}

/// As `save`, but leaves the file alone if it has this content.
pub(super) fn save_changed(
    memory: &Memory,
    dir: &Path,
    known: Option<Written>,
) -> Result<Written, PersistError> {
    let path = dir.join(NAME);
    let failed = |error: ReplaceError| PersistError::Write {
        path: path.clone(),
        source: error.into(),
    };
    let mut new = NewFile::create(dir, TEMPORARY).map_err(failed)?;
    let content = |file: &mut File| write(memory, BufWriter::with_capacity(1 << 18, file));
    let written = new.write(content).map_err(failed)?;
    // A state directory that was taken away and came back is empty.
    if known != Some(written) || !path.exists() {
        new.sync().and_then(|new| new.rename_to(&path)).map_err(failed)?;
    }
    Ok(written)
}

fn write(memory: &Memory, out: impl Write) -> io::Result<Written> {
    let mut out = Digesting {
        out,
        digest: Sha256::new(),
    };
    out.line(&Header { format: FORMAT })?;
    // A file is read by another process, which begins with the system's clock as it stands then.
    clock::notice_step();
    let ahead_ms = clock::ahead_ms();
    let mut result = Ok(());
    memory.sticky.records(|record| {
        if result.is_ok() {
            result = out.line(&Line::session(&record, ahead_ms));
        }
    });
    result?;
    for (tenant, provider, record) in memory.breakers.records() {
        out.line(&Line::breaker(&tenant, &provider, &record, ahead_ms))?;
    }
    for (key, record) in memory.buckets.records() {
        out.line(&Line::bucket(&key, &record, ahead_ms))?;
    }
    let written = Written(out.digest.clone().finalize().into());
    out.line(&Trailer {
        sha256: hex::encode(written.0),
    })?;
    out.out.flush()?;
    Ok(written)
}

/// Fills the memory from the directory's file, if there is one.
///
/// # Errors
/// When the file cannot be read or is not whole; nothing was filled in.
pub fn load(memory: &Memory, dir: &Path, now: Timestamp) -> Result<Loaded, PersistError> {
    let path = dir.join(NAME);
    let failed = |source| PersistError::Read {
        path: path.clone(),
        source,
    };
    remove_leftovers(dir);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::default()),
        file => file.map_err(failed)?,
    };
    let mut lines = Lines {
        file: BufReader::with_capacity(1 << 18, file),
        line: Vec::new(),
    };
    verify(&mut lines, &path)?;
    lines.file.rewind().map_err(failed)?;
    let mut loaded = Loaded::default();
    clock::notice_step();
    let ahead_ms = clock::ahead_ms();
    let _header = lines.next().map_err(failed)?;
    while let Some(line) = lines.next().map_err(failed)? {
        // The last line is not an entry; any other line that is not one is skipped.
        if let Ok(line) = serde_json::from_slice::<Line<'_>>(line) {
            line.restore(memory, (now, ahead_ms), &mut loaded);
        }
    }
    Ok(loaded)
}

/// Reads the whole file once, for its format and its checksum.
fn verify(lines: &mut Lines, path: &Path) -> Result<(), PersistError> {
    let failed = |source| PersistError::Read {
        path: path.to_owned(),
        source,
    };
    let damaged = |reason| PersistError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let header = lines.next().map_err(failed)?.unwrap_or_default();
    let Header { format } = serde_json::from_slice(header).map_err(|_invalid| damaged("it has no header"))?;
    if format != FORMAT {
        return Err(PersistError::Format {
            path: path.to_owned(),
            found: format,
        });
    }
    let mut digest = Sha256::new_with_prefix(header);
    let mut before = Vec::new();
    while let Some(line) = lines.next().map_err(failed)? {
        digest.update(&before);
        before.clear();
        before.extend_from_slice(line);
    }
    let Trailer { sha256 } =
        serde_json::from_slice(&before).map_err(|_invalid| damaged("it does not end with a checksum"))?;
    if sha256 == hex::encode(digest.finalize()) {
        Ok(())
    } else {
        Err(damaged("its checksum is not that of its content"))
    }
}

/// Removes what a process that was killed while it wrote has left.
fn remove_leftovers(dir: &Path) {
    for file in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        if file.file_name().to_string_lossy().starts_with(TEMPORARY)
            && let Err(error) = fs::remove_file(file.path())
        {
            tracing::warn!(%error, path = %file.path().display(), "A half-written file stays.");
        }
    }
}

struct Digesting<W> {
    out: W,
    digest: Sha256,
}

impl<W: Write> Digesting<W> {
    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.digest.update(&bytes);
        self.out.write_all(&bytes)
    }
}

struct Lines {
    file: BufReader<File>,
    line: Vec<u8>,
}

impl Lines {
    /// The next line with its end; at most as much of it as a line of ours can have.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let read = io::Read::take(&mut self.file, LONGEST_LINE).read_until(b'\n', &mut self.line)?;
        Ok((read > 0).then_some(&self.line))
    }
}
