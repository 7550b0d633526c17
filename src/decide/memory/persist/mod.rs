//! What decisions remember, kept over a restart: sticky sessions, breakers, buckets. Optional: without the file the
//! sidecar begins with an empty memory, and so it does with one that is torn, edited or of a later format.
//!
//! One file of lines: a header with the format, one JSON value per entry, and a last line with the checksum of all
//! that precedes it. It is written to another name, synced, and renamed; nothing of it is believed before the checksum
//! is. Estimates, health and the breakers' windows are not kept: they are soon known again.

mod line;

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Seek, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use self::line::Line;
use crate::{
    decide::{Timestamp, memory::Memory},
    telemetry::chain,
};
pub use line::Loaded;

const FORMAT: u32 = 1;
const NAME: &str = "decisions";
const TEMPORARY: &str = ".decisions";
/// No entry is longer: its parts are ids, a provider's name, and numbers.
const LONGEST_LINE: u64 = 64 << 10;

/// Why the file is not used, or was not written.
#[derive(Debug, thiserror::Error)]
pub enum RememberError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: &'static str },
    #[error("{path} has format {found}; this version reads {FORMAT}")]
    Format { path: PathBuf, found: u32 },
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
pub fn save(memory: &Memory, dir: &Path) -> Result<Written, RememberError> {
    save_changed(memory, dir, None)
}

/// As `save`, but leaves the file alone if it has this content.
fn save_changed(memory: &Memory, dir: &Path, known: Option<Written>) -> Result<Written, RememberError> {
    let path = dir.join(NAME);
    let failed = |source| RememberError::Write {
        path: path.clone(),
        source,
    };
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(dir)
        .map_err(failed)?;
    let written =
        write(memory, BufWriter::with_capacity(1 << 18, temporary.as_file_mut())).map_err(failed)?;
    if known == Some(written) {
        return Ok(written);
    }
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(&path).map_err(|error| failed(error.error))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    Ok(written)
}

fn write(memory: &Memory, out: impl Write) -> io::Result<Written> {
    let mut out = Digesting {
        out,
        digest: Sha256::new(),
    };
    out.line(&Header { format: FORMAT })?;
    let mut result = Ok(());
    memory.sticky.records(|record| {
        if result.is_ok() {
            result = out.line(&Line::session(&record));
        }
    });
    result?;
    for (tenant, provider, record) in memory.breakers.records() {
        out.line(&Line::breaker(&tenant, &provider, &record))?;
    }
    for (key, record) in memory.buckets.records() {
        out.line(&Line::bucket(&key, &record))?;
    }
    let written = Written(out.digest.clone().finalize().into());
    out.line(&Trailer {
        sha256: hex(&written.0),
    })?;
    out.out.flush()?;
    Ok(written)
}

/// Fills the memory from the directory's file. Where there is none, there is nothing to fill it with; where there is
/// an error, nothing was filled in.
pub fn load(memory: &Memory, dir: &Path, now: Timestamp) -> Result<Loaded, RememberError> {
    let path = dir.join(NAME);
    let failed = |source| RememberError::Read {
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
    let _header = lines.next().map_err(failed)?;
    while let Some(line) = lines.next().map_err(failed)? {
        // The last line is not an entry; any other line that is not one is skipped.
        if let Ok(line) = serde_json::from_slice::<Line<'_>>(line) {
            line.restore(memory, now, &mut loaded);
        }
    }
    Ok(loaded)
}

/// Reads the whole file once, for its format and its checksum.
fn verify(lines: &mut Lines, path: &Path) -> Result<(), RememberError> {
    let failed = |source| RememberError::Read {
        path: path.to_owned(),
        source,
    };
    let damaged = |reason| RememberError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let header = lines.next().map_err(failed)?.unwrap_or_default();
    let Header { format } = serde_json::from_slice(header).map_err(|_invalid| damaged("it has no header"))?;
    if format != FORMAT {
        return Err(RememberError::Format {
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
    if sha256 == hex(&digest.finalize()) {
        Ok(())
    } else {
        Err(damaged("its checksum is not that of its content"))
    }
}

/// Keeps the file like the memory until told to stop, and once more then.
pub async fn run(memory: Arc<Memory>, dir: PathBuf, every: Duration, stop: CancellationToken) {
    let known = Arc::new(Mutex::new(None));
    let mut complained = false;
    loop {
        let last = tokio::select! {
            biased;
            () = stop.cancelled() => true,
            () = tokio::time::sleep(every) => false,
        };
        let (memory, dir, known) = (memory.clone(), dir.clone(), known.clone());
        let saving = tokio::task::spawn_blocking(move || {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            save_changed(&memory, &dir, *known).map(|written| *known = Some(written))
        });
        match saving.await {
            Ok(Ok(())) => complained = false,
            Ok(Err(error)) if !complained || last => {
                complained = true;
                tracing::warn!(
                    error = chain(&error),
                    "What decisions remember could not be written; a restart would forget it."
                );
            }
            Ok(Err(_said_already)) => {}
            Err(error) => tracing::error!(%error, "Writing what decisions remember failed."),
        }
        if last {
            return;
        }
    }
}

/// Removes what a process that was killed while it wrote has left; nobody else would.
fn remove_leftovers(dir: &Path) {
    for file in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        if file.file_name().to_string_lossy().starts_with(TEMPORARY)
            && let Err(error) = fs::remove_file(file.path())
        {
            tracing::warn!(%error, path = %file.path().display(), "A half-written file stays.");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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

#[cfg(test)]
mod tests;
