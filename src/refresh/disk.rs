//! The last good snapshot on disk, for a start while HEIR is away.
//!
//! One file: a line of JSON that says what follows, then the policies one after the other. It is written to another
//! name, synced, and renamed, and the one before is kept as well; a file that is torn, edited or of another format
//! is moved aside and never read in part. Its time of modification says when HEIR last confirmed its content.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{wall, wall_time},
    durable_file::{NewFile, ReplaceError, SyncedFile},
    extensions::ExtensionRecords,
    policy::{ETag, PolicyDocument, PolicyId, TenantId},
    snapshot::{Coverage, Incoming, Origin, Policy, PolicyFlags, Position, Scope, Snapshot, SnapshotStore},
    state_lock::StateLock,
};

/// The second format has the last good versions of broken policies, too; the third, what reading each document said.
const FORMAT: u32 = 3;
const FIRST_FORMAT_WITH_FLAGS: u32 = 3;
const OLDEST_FORMAT: u32 = 1;
const CURRENT: &str = "snapshot";
const PREVIOUS: &str = "snapshot.previous";
const TEMPORARY: &str = ".snapshot";
/// The header holds the extension records; nothing else in it is long.
const LONGEST_HEADER: u64 = 256 << 20;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
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
    Damaged { path: PathBuf, reason: String },
    /// A later version wrote the file.
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
    bytes: u64,
    extensions: std::collections::BTreeMap<String, String>,
    /// Tenants that are known whole.
    listed: Vec<TenantId>,
    /// How many last good versions of broken policies follow the policies.
    #[serde(default)]
    last_good: usize,
    /// The program that read the documents: another one may read them otherwise.
    #[serde(default)]
    program: String,
}

/// This program.
const PROGRAM: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("BEAMLINE_COMMIT"));

/// A snapshot as an earlier run left it.
#[derive(Debug)]
pub struct LoadedFromDisk {
    /// What HEIR had.
    pub incoming: Incoming,
    /// Tenants that are known whole.
    pub listed: Vec<TenantId>,
    /// When HEIR last confirmed it.
    pub confirmed: SystemTime,
}

/// Where the snapshot is kept.
#[derive(Debug)]
pub struct DiskSnapshot {
    dir: PathBuf,
    /// What says that the directory is this process's.
    lock: Option<Arc<StateLock>>,
}

impl DiskSnapshot {
    /// The files in this directory.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            lock: None,
        }
    }

    /// Nothing is saved unless this says that the directory is this process's, and once more where it is another one.
    #[must_use]
    pub fn locked_by(mut self, lock: Arc<StateLock>) -> Self {
        self.lock = Some(lock);
        self
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

    /// Removes what a process that was killed while it wrote has left.
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
        self.lock
            .as_ref()
            .map_or(Ok(()), |lock| lock.hold())
            .map_err(failed)?;
        let new = self
            .write_new(snapshot, confirmed)
            .map_err(|error| failed(error.into()))?;
        match fs::rename(&path, self.dir.join(PREVIOUS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        new.rename_to(&path).map_err(|error| failed(error.into()))
    }

    fn write_new(&self, snapshot: &Snapshot, confirmed: SystemTime) -> Result<SyncedFile, ReplaceError> {
        let mut new = NewFile::create(&self.dir, TEMPORARY)?;
        new.write(|file| {
            write(snapshot, BufWriter::with_capacity(1 << 20, &mut *file))?;
            file.set_modified(confirmed)
        })?;
        new.sync()
    }

    /// HEIR has confirmed that the file's content is still what it has.
    pub fn touch(&self, confirmed: SystemTime) -> io::Result<()> {
        File::options()
            .append(true)
            .open(self.dir.join(CURRENT))?
            .set_modified(confirmed)
    }

    /// Keeps the file like the snapshot until told to stop, and once more then. `on_saved` hears of each that is on the disk.
    pub async fn run(
        self,
        store: Arc<SnapshotStore>,
        on_saved: impl Fn(&Snapshot) + Send + Sync + 'static,
        stop: CancellationToken,
    ) {
        let mut replaced = self.lock.as_ref().map(|lock| lock.replaced());
        let mut published = store.published();
        let keeper = Arc::new(Keeper {
            disk: self,
            store,
            on_saved: Box::new(on_saved),
            saved: Mutex::new(Saved {
                generation: Some(*published.borrow_and_update()),
                touched: Instant::now(),
            }),
        });
        let mut pause = Duration::from_secs(1);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    keeper.clone().keep().await;
                    return;
                }
                () = changed(&mut replaced) => keeper.forget(),
                // A change wakes; otherwise only the time of the last confirmation has to be noted.
                _ = published.changed() => {}
                () = tokio::time::sleep(Duration::from_secs(60)) => {}
            }
            let began = Instant::now();
            keeper.clone().keep().await;
            // Writing must not be most of what this process does, however fast policies change.
            pause = (began.elapsed() * 10)
                .clamp(Duration::from_millis(500), Duration::from_secs(60))
                .max(pause / 2);
            tokio::select! {
                () = stop.cancelled() => {}
                // What the pause is for is gone: the disk has nothing any more.
                () = changed(&mut replaced) => {
                    keeper.forget();
                    keeper.clone().keep().await;
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Waits until the directory is another one; for ever where nothing tells.
async fn changed(replaced: &mut Option<watch::Receiver<u64>>) {
    let told = match replaced {
        Some(replaced) => replaced.changed().await.is_ok(),
        None => false,
    };
    if !told {
        std::future::pending::<()>().await;
    }
}

/// Keeps the file like the snapshot.
struct Keeper {
    disk: DiskSnapshot,
    store: Arc<SnapshotStore>,
    on_saved: Box<dyn Fn(&Snapshot) + Send + Sync>,
    saved: Mutex<Saved>,
}

struct Saved {
    /// What the file has; `None`: nothing is known of it.
    generation: Option<u64>,
    /// When the file's time was set.
    touched: Instant,
}

impl Keeper {
    fn saved(&self) -> MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        self.saved().generation = None;
    }

    /// Saves what is new, on a thread that may wait for the disk.
    async fn keep(self: Arc<Self>) {
        if let Err(error) = tokio::task::spawn_blocking(move || self.keep_now()).await {
            tracing::error!(%error, "Writing the snapshot failed.");
        }
    }

    fn keep_now(&self) {
        let snapshot = self.store.load_full();
        if snapshot.origin() != Origin::Heir {
            return;
        }
        let (age_ms, _) = self.store.freshness().at(Instant::now());
        let confirmed = wall_time()
            .checked_sub(Duration::from_millis(age_ms))
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let generation = Some(snapshot.generation());
        // A state directory that was taken away and came back is empty.
        if generation == self.saved().generation && self.disk.dir.join(CURRENT).exists() {
            let is_due = self.saved().touched.elapsed() > Duration::from_secs(30);
            if is_due {
                self.saved().touched = Instant::now();
                if let Err(error) = self.disk.touch(confirmed) {
                    tracing::debug!(%error, "The disk snapshot's time could not be set.");
                }
            }
            return;
        }
        match self.disk.save(&snapshot, confirmed) {
            Ok(()) => {
                (self.on_saved)(&snapshot);
                *self.saved() = Saved {
                    generation,
                    touched: Instant::now(),
                };
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "The snapshot could not be written; an older one stays on disk.");
            }
        }
    }
}

fn move_aside(path: &Path) -> String {
    let aside = path.with_extension(format!("damaged-{}", wall().unix_ms));
    match fs::rename(path, &aside) {
        Ok(()) => format!("it was moved to {}", aside.display()),
        Err(error) => format!("it could not be moved aside: {error}"),
    }
}

/// Hands out the bytes after the header: a policy is a length of each part, its revision plus one (zero: none), what
/// reading it said, and the parts. Called to measure the content, to name it, and to write it, so that it need never be in memory twice.
fn each_piece(snapshot: &Snapshot, mut piece: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    for (tenant, t) in snapshot.tenants() {
        for (id, entry) in &t.policies {
            if let Some(policy) = &entry.heir {
                piece_of(tenant, id, policy, &mut piece)?;
            }
        }
    }
    for (tenant, id, policy) in snapshot.last_good() {
        piece_of(tenant, id, policy, &mut piece)?;
    }
    Ok(())
}

fn piece_of(
    tenant: &TenantId,
    id: &PolicyId,
    policy: &Policy,
    mut piece: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let document = &policy.document;
    let parts = [
        tenant.as_str().as_bytes(),
        id.as_str().as_bytes(),
        document.etag().as_str().as_bytes(),
        document.bytes(),
    ];
    for part in parts {
        let length = u32::try_from(part.len()).map_err(|_too_long| io::ErrorKind::InvalidData)?;
        piece(&length.to_le_bytes())?;
    }
    piece(&policy.revision.map_or(0, |revision| revision + 1).to_le_bytes())?;
    piece(&policy.flags().to_bytes())?;
    for part in parts {
        piece(part)?;
    }
    Ok(())
}

fn write(snapshot: &Snapshot, mut out: impl Write) -> io::Result<()> {
    let mut bytes = 0;
    each_piece(snapshot, |piece| {
        bytes += piece.len() as u64;
        Ok(())
    })?;
    let about = About {
        revision: snapshot.position().revision,
        chain: snapshot.position().chain.as_deref().map(str::to_owned),
        coverage: snapshot.coverage(),
        policies: snapshot.heir_count(),
        bytes,
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
        last_good: snapshot.last_good().count(),
        program: PROGRAM.to_owned(),
    };
    let about = serde_json::value::to_raw_value(&about)?;
    let mut digest = Sha256::new_with_prefix(about.get());
    each_piece(snapshot, |piece| {
        digest.update(piece);
        Ok(())
    })?;
    let header = Header {
        format: FORMAT,
        sha256: hex::encode(digest.finalize()),
        about,
    };
    serde_json::to_writer(&mut out, &header)?;
    out.write_all(b"\n")?;
    each_piece(snapshot, |piece| out.write_all(piece))?;
    out.flush()
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
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let confirmed = metadata.modified().map_err(failed)?;
    let hashed = file.try_clone().map_err(failed)?;
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut first = Vec::new();
    file.by_ref()
        .take(LONGEST_HEADER)
        .read_until(b'\n', &mut first)
        .map_err(failed)?;
    let (header, about) = parse_header(path, &first)?;
    // Lengths in the file are not to be believed before its checksum is; its size is.
    if metadata.len() != first.len() as u64 + about.bytes {
        return Err(damaged("it is not as long as its header says"));
    }
    let position = Position {
        revision: about.revision,
        chain: about.chain.as_deref().map(Arc::from),
    };
    let mut incoming = Incoming::new(Scope::Everything, about.coverage, position);
    incoming.extensions = about
        .extensions
        .into_iter()
        .map(|(id, record)| (id, record.into()))
        .collect::<ExtensionRecords>();
    let mut records = Records {
        file,
        left: about.bytes,
        tenant: None,
        has_flags: header.format >= FIRST_FORMAT_WITH_FLAGS,
        trusts_flags: about.program == PROGRAM,
    };
    let mut read_all = || {
        for _ in 0..about.policies {
            let (key, policy) = records.next()?;
            incoming.put(key, Arc::new(policy));
        }
        for _ in 0..about.last_good {
            let (key, policy) = records.next()?;
            incoming.last_good.insert(key, Arc::new(policy));
        }
        Ok(records.left)
    };
    let digest = || digest_of(&hashed, first.len() as u64, header.about.get());
    // A worker that died is waited for: what takes a third of the time is done at the same time.
    let (left, digest) = thread::scope(|scope| {
        let thread = thread::Builder::new().name("digest".into());
        let digesting = thread.spawn_scoped(scope, digest);
        let left = read_all();
        let digest = match digesting {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // The system has no thread for it.
            Err(_) => digest(),
        };
        (left, digest)
    });
    let left = left.map_err(|error: io::Error| damaged(&error.to_string()))?;
    if left != 0 || digest.map_err(failed)? != header.sha256 {
        return Err(damaged("its checksum is not that of its content"));
    }
    Ok(LoadedFromDisk {
        incoming,
        listed: about.listed,
        confirmed,
    })
}

/// The checksum of what the header says and of everything after the header, which ends here.
fn digest_of(file: &File, mut after: u64, about: &str) -> io::Result<String> {
    let mut digest = Sha256::new_with_prefix(about);
    let mut bytes = vec![0; 1 << 20];
    loop {
        match file.read_at(&mut bytes, after) {
            Ok(0) => return Ok(hex::encode(digest.finalize())),
            Ok(read) => {
                digest.update(bytes.get(..read).unwrap_or_default());
                after += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn parse_header(path: &Path, line: &[u8]) -> Result<(Header, About), DiskError> {
    let damaged = |reason: &str| DiskError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let invalid = |error: serde_json::Error| damaged(&error.to_string());
    let line = line
        .strip_suffix(b"\n")
        .ok_or_else(|| damaged("it has no header"))?;
    let Format { format } = serde_json::from_slice(line).map_err(invalid)?;
    if !(OLDEST_FORMAT..=FORMAT).contains(&format) {
        return Err(DiskError::Format {
            path: path.to_owned(),
            found: format,
        });
    }
    let header: Header = serde_json::from_slice(line).map_err(invalid)?;
    let about = serde_json::from_str(header.about.get()).map_err(invalid)?;
    Ok((header, about))
}

/// Reads policies one after the other.
struct Records<R> {
    file: R,
    left: u64,
    /// Of the policy before: most policies are their predecessor's tenant's.
    tenant: Option<TenantId>,
    has_flags: bool,
    trusts_flags: bool,
}

impl<R: Read> Records<R> {
    fn next(&mut self) -> io::Result<((TenantId, PolicyId), Policy)> {
        let mut lengths = [0; 4];
        for length in &mut lengths {
            *length = u64::from(u32::from_le_bytes(self.array()?));
        }
        let revision = u64::from_le_bytes(self.array()?).checked_sub(1);
        let flags = match self.has_flags {
            true => Some(PolicyFlags::from_bytes(self.array()?)).filter(|_| self.trusts_flags),
            false => None,
        };
        let (tenant, id, etag) = (
            self.text(lengths[0])?,
            self.text(lengths[1])?,
            self.text(lengths[2])?,
        );
        let document = self.bytes(lengths[3])?;
        let tenant = match &self.tenant {
            Some(before) if before.as_str() == tenant => before.clone(),
            _ => self
                .tenant
                .insert(TenantId::parse(&tenant).map_err(io::Error::other)?)
                .clone(),
        };
        let id = PolicyId::parse(&id).map_err(io::Error::other)?;
        let document = PolicyDocument::trusted(document.into(), ETag::parse(&etag));
        let policy = match flags {
            Some(flags) => Policy::with_flags(document, revision, flags),
            None => Policy::new(document, revision),
        };
        Ok(((tenant, id), policy))
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, length: u64) -> io::Result<Vec<u8>> {
        if length > self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn text(&mut self, length: u64) -> io::Result<String> {
        String::from_utf8(self.bytes(length)?).map_err(io::Error::other)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact(bytes)?;
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
