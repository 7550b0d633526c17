//! The last good snapshot on disk, for a start while HEIR is away.
//!
//! One file: a line of JSON that says what follows, then the policies one after the other. It is written to another
//! name, synced, and renamed, and the one before is kept as well; a file that is torn, edited or of another format
//! is moved aside and never read in part. Its time of modification says when HEIR last confirmed its content.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::{
    policy::{ETag, PolicyDocument, PolicyId, TenantId},
    snapshot::{
        Coverage, ExtensionRecords, Incoming, Origin, Policy, Position, Scope, Snapshot, SnapshotStore,
    },
};

const FORMAT: u32 = 1;
const CURRENT: &str = "snapshot";
const PREVIOUS: &str = "snapshot.previous";
const TEMPORARY: &str = ".snapshot";

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
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
    Damaged { path: PathBuf, reason: String },
    #[error("{path} has format {found}; this version reads {FORMAT}")]
    Format { path: PathBuf, found: u32 },
}

/// The first line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    /// Of the JSON of `about` and everything after this line, in hex.
    sha256: String,
    about: Box<serde_json::value::RawValue>,
}

/// What the first line says in every format.
#[derive(Debug, Deserialize)]
struct Format {
    format: u32,
}

/// What follows the first line.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    revision: Option<u64>,
    chain: Option<String>,
    coverage: Coverage,
    policies: usize,
    extensions: std::collections::BTreeMap<String, String>,
    /// Tenants that are known whole.
    listed: Vec<TenantId>,
}

/// A snapshot as an earlier run left it.
#[derive(Debug)]
pub struct LoadedFromDisk {
    pub incoming: Incoming,
    pub listed: Vec<TenantId>,
    pub confirmed: SystemTime,
}

/// Where the snapshot is kept.
#[derive(Debug)]
pub struct DiskSnapshot {
    dir: PathBuf,
}

impl DiskSnapshot {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Reads the newest file that is whole. Damaged ones are moved aside; what they were is said in sentences.
    pub fn load(&self) -> (Option<LoadedFromDisk>, Vec<String>) {
        let mut refused = Vec::new();
        self.remove_leftovers();
        for name in [CURRENT, PREVIOUS] {
            let path = self.dir.join(name);
            match read(&path) {
                Ok(loaded) => return (Some(loaded), refused),
                Err(DiskError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let aside = move_aside(&path);
                    refused.push(format!("{error}; {aside}"));
                }
            }
        }
        (None, refused)
    }

    /// Removes what a process that was killed while it wrote has left; nobody else would.
    fn remove_leftovers(&self) {
        let Ok(files) = fs::read_dir(&self.dir) else {
            return;
        };
        for file in files.filter_map(Result::ok) {
            if file.file_name().to_string_lossy().starts_with(TEMPORARY)
                && let Err(error) = fs::remove_file(file.path())
            {
                tracing::warn!(%error, path = %file.path().display(), "A half-written snapshot stays.");
            }
        }
    }

    /// Writes a snapshot that HEIR confirmed at this time.
    pub fn save(&self, snapshot: &Snapshot, confirmed: SystemTime) -> Result<(), DiskError> {
        let path = self.dir.join(CURRENT);
        let failed = |source| DiskError::Write {
            path: path.clone(),
            source,
        };
        let mut temporary = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.dir)
            .map_err(failed)?;
        write(
            snapshot,
            BufWriter::with_capacity(1 << 20, temporary.as_file_mut()),
        )
        .map_err(failed)?;
        temporary.as_file().set_modified(confirmed).map_err(failed)?;
        temporary.as_file().sync_all().map_err(failed)?;
        match fs::rename(&path, self.dir.join(PREVIOUS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        temporary.persist(&path).map_err(|error| failed(error.error))?;
        sync_dir(&self.dir).map_err(failed)
    }

    /// HEIR has confirmed that the file's content is still what it has.
    pub fn touch(&self, confirmed: SystemTime) -> io::Result<()> {
        File::options()
            .append(true)
            .open(self.dir.join(CURRENT))?
            .set_modified(confirmed)
    }

    /// Keeps the file like the snapshot until told to stop, and once more then.
    pub async fn run(self, store: Arc<SnapshotStore>, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut published = store.published();
        let mut saved = *published.borrow_and_update();
        let mut pause = Duration::from_secs(1);
        let mut touched = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    this.clone().keep(&store, &mut saved, &mut touched).await;
                    return;
                }
                // A change wakes; otherwise only the time of the last confirmation has to be noted.
                _ = published.changed() => {}
                () = tokio::time::sleep(Duration::from_secs(60)) => {}
            }
            let began = Instant::now();
            this.clone().keep(&store, &mut saved, &mut touched).await;
            // Writing must not be most of what this process does, however fast policies change.
            pause = (began.elapsed() * 10)
                .clamp(Duration::from_millis(500), Duration::from_secs(60))
                .max(pause / 2);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn keep(self: Arc<Self>, store: &Arc<SnapshotStore>, saved: &mut u64, touched: &mut Instant) {
        let snapshot = store.load_full();
        let generation = snapshot.generation();
        let (age_ms, _) = store.freshness().at(Instant::now());
        let confirmed = SystemTime::now()
            .checked_sub(Duration::from_millis(age_ms))
            .unwrap_or(SystemTime::UNIX_EPOCH);
        if snapshot.origin() != Origin::Heir {
            return;
        }
        if generation == *saved {
            if touched.elapsed() > Duration::from_secs(30) {
                *touched = Instant::now();
                if let Err(error) = self.touch(confirmed) {
                    tracing::debug!(%error, "The disk snapshot's time could not be set.");
                }
            }
            return;
        }
        match tokio::task::spawn_blocking(move || self.save(&snapshot, confirmed)).await {
            Ok(Ok(())) => {
                *saved = generation;
                *touched = Instant::now();
            }
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "The snapshot could not be written; an older one stays on disk.");
            }
            Err(error) => tracing::error!(%error, "Writing the snapshot failed."),
        }
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn move_aside(path: &Path) -> String {
    let aside = path.with_extension(format!("damaged-{}", super::runner::unix_ms()));
    match fs::rename(path, &aside) {
        Ok(()) => format!("it was moved to {}", aside.display()),
        Err(error) => format!("it could not be moved aside: {error}"),
    }
}

/// A policy is a length of each part, its revision plus one (zero: none), and the parts.
fn write(snapshot: &Snapshot, mut out: impl Write) -> io::Result<()> {
    let mut body = Vec::new();
    let mut policies = 0;
    for (tenant, t) in snapshot.tenants() {
        for (id, entry) in &t.policies {
            let Some(policy) = &entry.heir else { continue };
            let document = &policy.document;
            policies += 1;
            let lengths = [
                tenant.as_str().len(),
                id.as_str().len(),
                document.etag().as_str().len(),
                document.bytes().len(),
            ];
            for length in lengths {
                let length = u32::try_from(length).map_err(|_too_long| io::ErrorKind::InvalidData)?;
                body.extend_from_slice(&length.to_le_bytes());
            }
            body.extend_from_slice(&policy.revision.map_or(0, |revision| revision + 1).to_le_bytes());
            for part in [tenant.as_str(), id.as_str(), document.etag().as_str()] {
                body.extend_from_slice(part.as_bytes());
            }
            body.extend_from_slice(document.bytes());
        }
    }
    let about = About {
        revision: snapshot.position().revision,
        chain: snapshot.position().chain.as_deref().map(str::to_owned),
        coverage: snapshot.coverage(),
        policies,
        extensions: snapshot
            .extensions()
            .iter()
            .map(|(id, record)| (id.clone(), record.to_string()))
            .collect(),
        listed: snapshot
            .tenants()
            .filter(|(_, t)| t.listed)
            .map(|(id, _)| id.clone())
            .collect(),
    };
    let about = serde_json::value::to_raw_value(&about)?;
    let header = Header {
        format: FORMAT,
        sha256: checksum(about.get(), &body),
        about,
    };
    serde_json::to_writer(&mut out, &header)?;
    out.write_all(b"\n")?;
    out.write_all(&body)?;
    out.flush()
}

fn checksum(about: &str, body: &[u8]) -> String {
    let digest = Sha256::new().chain_update(about).chain_update(body).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Result<LoadedFromDisk, DiskError> {
    let failed = |source| DiskError::Read {
        path: path.to_owned(),
        source,
    };
    let damaged = |reason: &str| DiskError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let mut file = File::open(path).map_err(failed)?;
    let confirmed = file
        .metadata()
        .and_then(|metadata| metadata.modified())
        .map_err(failed)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(failed)?;
    let content = Bytes::from(content);
    let end = content
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| damaged("it has no header"))?;
    let line = &content[..end];
    let Format { format } = serde_json::from_slice(line).map_err(|error| damaged(&error.to_string()))?;
    if format != FORMAT {
        return Err(DiskError::Format {
            path: path.to_owned(),
            found: format,
        });
    }
    let header: Header = serde_json::from_slice(line).map_err(|error| damaged(&error.to_string()))?;
    let body = content.slice(end + 1..);
    if checksum(header.about.get(), &body) != header.sha256 {
        return Err(damaged("its checksum is not that of its content"));
    }
    let header: About =
        serde_json::from_str(header.about.get()).map_err(|error| damaged(&error.to_string()))?;
    let position = Position {
        revision: header.revision,
        chain: header.chain.as_deref().map(Arc::from),
    };
    let mut incoming = Incoming::new(Scope::Everything, header.coverage, position);
    incoming.extensions = header
        .extensions
        .into_iter()
        .map(|(id, record)| (id, record.into()))
        .collect::<ExtensionRecords>();
    let mut rest = &body[..];
    let mut tenant: Option<TenantId> = None;
    for _ in 0..header.policies {
        let record = Record::take(&mut rest).ok_or_else(|| damaged("a policy in it is cut off"))?;
        let tenant = match &tenant {
            Some(tenant) if tenant.as_str() == record.tenant => tenant.clone(),
            _ => {
                let parsed = TenantId::parse(record.tenant).map_err(|error| damaged(&error.to_string()))?;
                tenant.insert(parsed).clone()
            }
        };
        let id = PolicyId::parse(record.policy).map_err(|error| damaged(&error.to_string()))?;
        let document =
            PolicyDocument::trusted(Bytes::copy_from_slice(record.document), ETag::parse(record.etag));
        incoming.put(
            (tenant, id),
            Arc::new(Policy {
                document,
                revision: record.revision,
            }),
        );
    }
    Ok(LoadedFromDisk {
        incoming,
        listed: header.listed,
        confirmed,
    })
}

struct Record<'a> {
    tenant: &'a str,
    policy: &'a str,
    etag: &'a str,
    revision: Option<u64>,
    document: &'a [u8],
}

impl<'a> Record<'a> {
    fn take(rest: &mut &'a [u8]) -> Option<Self> {
        let mut lengths = [0usize; 4];
        for length in &mut lengths {
            *length = usize::try_from(u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?)).ok()?;
        }
        let revision = u64::from_le_bytes(*rest.split_off(..8)?.first_chunk()?);
        let mut text = |length: usize| std::str::from_utf8(rest.split_off(..length)?).ok();
        let (tenant, policy, etag) = (text(lengths[0])?, text(lengths[1])?, text(lengths[2])?);
        let document = rest.split_off(..lengths[3])?;
        Some(Self {
            tenant,
            policy,
            etag,
            revision: revision.checked_sub(1),
            document,
        })
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
