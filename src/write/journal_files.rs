//! The files of the journal.
//!
//! A write is one file, `NUMBER.write`, which is never changed: a line of JSON, and after it the document of a PUT. What
//! changes, its base and where it stands, is in a small file beside it, `NUMBER.state`, once it has changed. Without that
//! file, as on a disk that was full, the write begins anew after a restart, which HEIR's version then shows to be done
//! or not. Removing a write needs no room.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::entry::{Base, Entry, EntryId, Left, Operation, State, Stored, Unreadable};
use crate::{
    durable_file,
    policy::{ETag, PolicyDocument, PolicyId, TenantId},
};

const FORMAT: u32 = 1;

/// A file's first line; what a PUT stores follows it.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    /// Of the JSON of `write` and the document, in hex.
    sha256: String,
    write: Box<serde_json::value::RawValue>,
}

/// The line of `NUMBER.write`.
#[derive(Debug, Serialize, Deserialize)]
struct Write {
    id: EntryId,
    tenant_id: TenantId,
    policy_id: PolicyId,
    op: Op,
    etag: Option<ETag>,
    base: Base,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_top_of: Option<Left>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces_from: Option<EntryId>,
    idempotency_key: String,
    queued_unix_ms: u64,
    state: State,
}

/// The line of `NUMBER.state`.
#[derive(Debug, Serialize, Deserialize)]
struct Changed {
    id: EntryId,
    base: Base,
    on_top_of: Option<Left>,
    idempotency_key: String,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Put,
    Delete,
}

/// What a directory held.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: BTreeMap<EntryId, Entry>,
    /// The highest number of any file.
    pub(super) last: u64,
    /// Sentences about what could not be used.
    pub(super) refused: Vec<String>,
}

/// Reads a directory. What was half done when an earlier run ended is finished; damaged files are moved aside.
pub(super) fn open(dir: &Path) -> io::Result<Found> {
    let (mut found, mut changed) = (Found::default(), Vec::new());
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') {
            // Left over from a write that was never acknowledged.
            found.remove(&path);
            continue;
        }
        let Some((number, kind)) = name
            .split_once('.')
            .and_then(|(number, kind)| Some((number.parse::<u64>().ok()?, kind)))
        else {
            continue;
        };
        // A number is not used again even if its file is damaged, or was when an earlier run found it.
        found.last = found.last.max(number);
        match kind {
            "write" => match read(&path) {
                Ok((entry, _document)) => {
                    found.entries.insert(entry.id, entry);
                }
                Err(Unreadable::Lost(reason)) => found.move_aside(&path, &reason),
                Err(Unreadable::NotNow(error)) => {
                    found
                        .refused
                        .push(format!("{} cannot be read: {error}", path.display()));
                }
            },
            "state" => changed.push((EntryId(number), path)),
            _ => {}
        }
    }
    for (id, path) in changed {
        let Some(entry) = found.entries.get_mut(&id) else {
            found.remove(&path);
            continue;
        };
        match read_state(&path) {
            Ok(state) if state.id == id => {
                entry.base = state.base;
                entry.on_top_of = state.on_top_of;
                entry.idempotency_key = state.idempotency_key;
                entry.state = state.state;
            }
            Ok(_) => found.move_aside(&path, "it is another write's"),
            Err(reason) => found.move_aside(&path, &reason.to_string()),
        }
    }
    found.finish(dir);
    Ok(found)
}

impl Found {
    fn remove(&mut self, path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            let refused = format!("{} cannot be removed: {error}", path.display());
            self.refused.push(refused);
        }
    }

    fn move_aside(&mut self, path: &Path, reason: &str) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = path.with_file_name(match name.strip_suffix(".write") {
            Some(number) => format!("{number}.damaged"),
            None => format!("{name}.damaged"),
        });
        let moved = fs::rename(path, &aside).map_or_else(
            |error| error.to_string(),
            |()| format!("moved to {}", aside.display()),
        );
        let refused = format!("{} is damaged ({reason}); {moved}", path.display());
        self.refused.push(refused);
    }

    /// Removes writes whose place a later one has taken, and gives those their base whose base was made and removed.
    fn finish(&mut self, dir: &Path) {
        let replaced: Vec<EntryId> = self
            .entries
            .values()
            .flat_map(|later| {
                self.entries
                    .range(later.replaces_from..later.id)
                    .filter(|(_, entry)| entry.key == later.key && entry.state == State::Queued)
                    .map(|(id, _)| *id)
            })
            .collect();
        for id in replaced {
            self.entries.remove(&id);
            if let Err(error) = remove(dir, id) {
                self.refused
                    .push(format!("the replaced write {} cannot be removed: {error}", id.0));
            }
        }
        let known: Vec<EntryId> = self.entries.keys().copied().collect();
        for entry in self.entries.values_mut() {
            let Base::Entry(before) = entry.base else {
                continue;
            };
            if known.binary_search(&before).is_ok() {
                // It was behind that one, and none is sent before its turn.
                entry.may_be_in_heir = false;
            } else if let Some(left) = entry.on_top_of.take() {
                entry.base = left.base();
            }
        }
    }
}

fn path_of(dir: &Path, id: EntryId, kind: &str) -> PathBuf {
    dir.join(format!("{:020}.{kind}", id.0))
}

/// The first line of a write's file.
pub(super) fn first_line(entry: &Entry, document: &[u8]) -> io::Result<Vec<u8>> {
    let (op, etag) = match &entry.operation {
        Operation::Put(stored) => (Op::Put, Some(stored.etag.clone())),
        Operation::Delete => (Op::Delete, None),
    };
    let write = Write {
        id: entry.id,
        tenant_id: entry.key.0.clone(),
        policy_id: entry.key.1.clone(),
        op,
        etag,
        base: entry.base.clone(),
        on_top_of: entry.on_top_of.clone(),
        replaces_from: (entry.replaces_from != entry.id).then_some(entry.replaces_from),
        idempotency_key: entry.idempotency_key.clone(),
        queued_unix_ms: entry.queued_unix_ms,
        state: entry.state.clone(),
    };
    line(&write, document)
}

fn line(about: &impl Serialize, document: &[u8]) -> io::Result<Vec<u8>> {
    let write = serde_json::value::to_raw_value(about)?;
    let header = Header {
        format: FORMAT,
        sha256: checksum(write.get(), document),
        write,
    };
    let mut line = serde_json::to_vec(&header)?;
    line.push(b'\n');
    Ok(line)
}

/// Makes the directory where it has vanished and the one above it is there: a state directory that was taken away and came
/// back is empty. Whether it was made.
pub(super) fn make_again(dir: &Path) -> io::Result<bool> {
    let is_missing = !dir.is_dir() && dir.parent().is_some_and(Path::is_dir);
    if is_missing {
        durable_file::create_dir_all(dir)?;
    }
    Ok(is_missing)
}

/// Writes a write's file. When this returns it is on the disk.
pub(super) fn write(dir: &Path, id: EntryId, first_line: &[u8], document: &[u8]) -> io::Result<()> {
    durable_file::replace(&path_of(dir, id, "write"), ".write", |file| {
        file.write_all(first_line)?;
        file.write_all(document)
    })?;
    Ok(())
}

/// Writes what has changed about a write.
pub(super) fn write_state(dir: &Path, entry: &Entry) -> io::Result<()> {
    let changed = Changed {
        id: entry.id,
        base: entry.base.clone(),
        on_top_of: entry.on_top_of.clone(),
        idempotency_key: entry.idempotency_key.clone(),
        state: entry.state.clone(),
    };
    let line = line(&changed, &[])?;
    durable_file::replace(&path_of(dir, entry.id, "state"), ".state", |file| {
        file.write_all(&line)
    })?;
    Ok(())
}

/// Removes a write's files. One that is not there is removed already.
pub(super) fn remove(dir: &Path, id: EntryId) -> io::Result<()> {
    for kind in ["write", "state"] {
        match fs::remove_file(path_of(dir, id, kind)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(durable_file::sync_directory(dir)?)
}

/// The document of a PUT.
pub(super) fn read_document(dir: &Path, id: EntryId) -> Result<PolicyDocument, Unreadable> {
    let (entry, document) = read(&path_of(dir, id, "write"))?;
    match entry.operation {
        Operation::Put(stored) => Ok(PolicyDocument::trusted(document, Some(stored.etag))),
        Operation::Delete => Err(Unreadable::Lost("it is a deletion".into())),
    }
}

fn checksum(write: &str, document: &[u8]) -> String {
    let mut digest = Sha256::new();
    digest.update(write.as_bytes());
    digest.update(document);
    hex::encode(digest.finalize())
}

/// The header's JSON and what follows it.
fn read_checked(path: &Path) -> Result<(Box<serde_json::value::RawValue>, Bytes, u64), Unreadable> {
    let content = match fs::read(path) {
        Ok(content) => Bytes::from(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Unreadable::Lost("its file has vanished".into()));
        }
        Err(error) => return Err(error.into()),
    };
    let damaged = |reason: &str| Unreadable::Lost(reason.to_owned());
    let end = content.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| damaged("it has no header"))?;
    let header: Header = parse(&content[..end])?;
    if header.format != FORMAT {
        return Err(Unreadable::Lost(format!("format {} is not known", header.format)));
    }
    let document = content.slice(end + 1..);
    if checksum(header.write.get(), &document) != header.sha256 {
        return Err(damaged("its checksum is not that of its content"));
    }
    Ok((header.write, document, content.len() as u64))
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(json).map_err(|error| Unreadable::Lost(error.to_string()))
}

fn read_state(path: &Path) -> Result<Changed, Unreadable> {
    let (changed, _, _) = read_checked(path)?;
    parse(changed.get().as_bytes())
}

fn read(path: &Path) -> Result<(Entry, Bytes), Unreadable> {
    let (write, document, file_bytes) = read_checked(path)?;
    let write: Write = parse(write.get().as_bytes())?;
    let operation = match write.op {
        Op::Put => Operation::Put(Stored {
            etag: write.etag.unwrap_or_else(|| ETag::of_bytes(&document)),
            bytes: document.len(),
        }),
        Op::Delete => Operation::Delete,
    };
    let entry = Entry {
        id: write.id,
        key: (write.tenant_id, write.policy_id),
        operation,
        base: write.base,
        on_top_of: write.on_top_of,
        replaces_from: write.replaces_from.unwrap_or(write.id),
        idempotency_key: write.idempotency_key,
        queued_unix_ms: write.queued_unix_ms,
        state: write.state,
        file_bytes,
        // An earlier run may have sent it.
        may_be_in_heir: true,
        trouble: None,
    };
    Ok((entry, document))
}

#[cfg(test)]
#[path = "journal_files_tests.rs"]
mod tests;
