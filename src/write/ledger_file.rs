//! The ledger's file: one record after the other, each a line of JSON with a checksum, and after it the document if the
//! write stored one. A part at the end that is torn or damaged is moved aside.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write as _},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    clock::wall,
    durable_file,
    policy::{ETag, PolicyDocument, PolicyId, TenantId},
    snapshot::Key,
};

const NAME: &str = "ledger";
const TEMPORARY: &str = ".ledger";

/// A file below this is not rewritten, however little of it is needed.
const WORTH_REWRITING: u64 = 1 << 20;

/// What a record without a document comes to, more or less.
const USUAL_RECORD: u64 = 300;

/// Documents go into the file up to this many bytes; a disk snapshot, which makes most of them superfluous, is due
/// much sooner.
const MOST_BYTES: u64 = 256 << 20;

/// Nothing longer is read as one document; HEIR's answers are smaller.
const LONGEST_DOCUMENT: u64 = 1 << 30;

/// How long a record may be in the system's memory only.
const SYNC: Duration = Duration::from_secs(1);

/// One write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) tenant_id: TenantId,
    pub(super) policy_id: PolicyId,
    /// `None`: it deleted the policy.
    pub(super) etag: Option<ETag>,
    pub(super) revision: Option<u64>,
    /// Of the document, which follows; none does if it is 0.
    pub(super) bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// Of the JSON of `write` and the document, in hex.
    sha256: String,
    write: Box<RawValue>,
}

/// Where a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    at: u64,
    bytes: u64,
}

/// A record and where its document is, if it has one.
pub(super) type Located = (Record, Option<Place>);

/// The file, open to append to.
#[derive(Debug)]
pub(super) struct LedgerFile {
    path: PathBuf,
    /// `None` after a failure; the next rewriting makes it anew.
    file: Option<File>,
    length: u64,
    synced: Instant,
    is_dirty: bool,
}

impl LedgerFile {
    /// Reads what an earlier run left.
    pub(super) fn open(state_dir: &Path) -> (Self, Vec<Located>, Option<String>) {
        let path = state_dir.join(NAME);
        let mut ledger = Self {
            path,
            file: None,
            length: 0,
            synced: Instant::now(),
            is_dirty: false,
        };
        ledger.remove_leftovers(state_dir);
        let opened = File::options()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(&ledger.path)
            // It can be read where nothing can be written.
            .or_else(|_read_only| File::open(&ledger.path));
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                let refused = format!("{} cannot be opened: {error}", ledger.path.display());
                return (ledger, Vec::new(), Some(refused));
            }
        };
        let (records, length, damage) = read_all(&file);
        let refused = damage.map(|reason| {
            let aside = ledger.path.with_extension(format!("damaged-{}", wall().unix_ms));
            let kept = fs::copy(&ledger.path, &aside).map_or_else(
                |error| error.to_string(),
                |_| format!("a copy is {}", aside.display()),
            );
            format!(
                "{} is damaged after {length} bytes ({reason}); {kept}",
                ledger.path.display()
            )
        });
        ledger.length = length;
        // A torn end must not stand before what is appended.
        if refused.is_none() || file.set_len(length).is_ok() {
            ledger.file = Some(file);
        }
        (ledger, records, refused)
    }

    fn remove_leftovers(&self, dir: &Path) {
        let files = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        for file in files.filter(|file| file.file_name().to_string_lossy().starts_with(TEMPORARY)) {
            if let Err(error) = fs::remove_file(file.path()) {
                tracing::warn!(%error, path = %file.path().display(), "A half-written ledger stays.");
            }
        }
    }

    /// Appends a record; where its document is.
    pub(super) fn append(&mut self, mut record: Record, document: Option<PolicyDocument>) -> Option<Place> {
        let document = document.map_or_else(Bytes::new, |document| document.bytes().clone());
        let document = if self.length + document.len() as u64 > MOST_BYTES {
            Bytes::new()
        } else {
            document
        };
        record.bytes = document.len() as u64;
        let line = line(&record, &document).ok()?;
        let file = self.file.as_mut()?;
        let written = file.write_all(&[&line, document.as_ref()].concat());
        if let Err(error) = written {
            tracing::warn!(%error, "The ledger of acknowledged writes cannot be written; memory has them.");
            // What was written of it would hide what comes after.
            if file.set_len(self.length).is_err() {
                self.file = None;
            }
            return None;
        }
        let at = self.length + line.len() as u64;
        self.length = at + record.bytes;
        self.is_dirty = true;
        if self.synced.elapsed() >= SYNC {
            self.sync();
        }
        (record.bytes > 0).then_some(Place {
            at,
            bytes: record.bytes,
        })
    }

    /// Brings to the disk what was appended.
    pub(super) fn sync(&mut self) {
        if !self.is_dirty {
            return;
        }
        if let Some(file) = &self.file
            && let Err(error) = file.sync_data()
        {
            tracing::warn!(%error, "The ledger of acknowledged writes cannot be synced.");
        }
        (self.synced, self.is_dirty) = (Instant::now(), false);
    }

    /// A document that was appended.
    pub(super) fn read(&self, place: Place) -> io::Result<Bytes> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let length = usize::try_from(place.bytes).map_err(|_too_long| io::ErrorKind::InvalidData)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, place.at)?;
        Ok(bytes.into())
    }

    /// Whether most of the file is of no use for so many records, or its path leads to another one by now, or to none.
    pub(super) fn is_worth_rewriting(&self, records: usize) -> bool {
        self.file.is_none()
            || self.file.as_ref().is_some_and(|file| !is_at(file, &self.path))
            || self.length > WORTH_REWRITING.max(2 * USUAL_RECORD * records as u64)
    }

    /// Replaces the file by these records; documents are taken from where they are now. Where they are then.
    pub(super) fn rewrite(&mut self, records: Vec<Located>) -> io::Result<Vec<(Key, u64, Option<Place>)>> {
        let (mut places, mut length) = (Vec::with_capacity(records.len()), 0);
        let old = &*self;
        durable_file::replace(&self.path, TEMPORARY, |file| {
            let mut out = io::BufWriter::with_capacity(1 << 20, file);
            for (mut record, place) in records {
                // One that cannot be read any more is remembered without.
                let document = place.and_then(|place| old.read(place).ok()).unwrap_or_default();
                record.bytes = document.len() as u64;
                let line = line(&record, &document)?;
                out.write_all(&line)?;
                out.write_all(&document)?;
                let at = length + line.len() as u64;
                length = at + record.bytes;
                let place = (record.bytes > 0).then_some(Place {
                    at,
                    bytes: record.bytes,
                });
                places.push(((record.tenant_id, record.policy_id), record.number, place));
            }
            out.flush()
        })?;
        self.file = None;
        self.file = Some(File::options().read(true).append(true).open(&self.path)?);
        (self.length, self.synced, self.is_dirty) = (length, Instant::now(), false);
        Ok(places)
    }
}

/// Whether a path leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(found)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (found.dev(), found.ino())
}

fn line(record: &Record, document: &[u8]) -> io::Result<Vec<u8>> {
    let write = serde_json::value::to_raw_value(record)?;
    let sha256 = checksum(write.get(), document);
    let mut line = serde_json::to_vec(&Line { sha256, write })?;
    line.push(b'\n');
    Ok(line)
}

fn checksum(write: &str, document: &[u8]) -> String {
    let mut digest = Sha256::new_with_prefix(write);
    digest.update(document);
    hex::encode(digest.finalize())
}

/// All records up to the first that is damaged, how long they are, and what is wrong with that one.
fn read_all(file: &File) -> (Vec<Located>, u64, Option<String>) {
    let (mut records, mut length) = (Vec::new(), 0);
    let mut reader = BufReader::with_capacity(1 << 18, file);
    if let Err(error) = reader.seek(SeekFrom::Start(0)) {
        return (records, length, Some(error.to_string()));
    }
    loop {
        match read_one(&mut reader, length) {
            Ok(Some((located, end))) => {
                records.push(located);
                length = end;
            }
            Ok(None) => return (records, length, None),
            Err(reason) => return (records, length, Some(reason)),
        }
    }
}

/// A record, and where it ends; `None` at the end of the file.
fn read_one(reader: &mut impl BufRead, start: u64) -> Result<Option<(Located, u64)>, String> {
    let text = |error: io::Error| error.to_string();
    let mut line = Vec::new();
    // A line is short; what is not must not fill the memory.
    let read = reader.by_ref().take(1 << 16).read_until(b'\n', &mut line);
    if read.map_err(text)? == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err("a record breaks off".into());
    }
    let at = start + line.len() as u64;
    let line: Line = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_str(line.write.get()).map_err(|error| error.to_string())?;
    if record.bytes > LONGEST_DOCUMENT {
        return Err("a document is too long".into());
    }
    let mut document = Vec::new();
    let read = reader.by_ref().take(record.bytes).read_to_end(&mut document);
    if read.map_err(text)? as u64 != record.bytes {
        return Err("a document breaks off".into());
    }
    if checksum(line.write.get(), &document) != line.sha256 {
        return Err("a checksum is not that of its record".into());
    }
    let place = (record.bytes > 0).then_some(Place {
        at,
        bytes: record.bytes,
    });
    let end = at + record.bytes;
    Ok(Some(((record, place), end)))
}
