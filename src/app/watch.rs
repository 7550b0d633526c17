//! Reports that watched files or directories may have changed.
//!
//! The directories that hold the files are watched, because editors and Kubernetes replace a file instead of
//! writing to it: a mounted ConfigMap changes by the renaming of a symbolic link. The watches are set anew after
//! every event, so a directory that was deleted and restored is watched again. A file system that is mounted over one, or
//! taken off it, is no event; so it is looked at, too, whether each is still the directory that it was.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// After an event, wait for the rest of its kind: a change is seldom one event.
const SETTLE: Duration = Duration::from_millis(100);

/// Checks anyway at this interval, in case the system has no watches left.
const FALLBACK: Duration = Duration::from_secs(60);

/// The interval where watching is not possible.
const BLIND: Duration = Duration::from_secs(2);

/// How often it is looked at whether each directory is still the one that is watched.
const LOOK: Duration = Duration::from_secs(1);

/// Files and directories whose changes are reported.
#[derive(Debug)]
pub(super) struct Watched {
    dirs: BTreeSet<PathBuf>,
    trees: BTreeSet<PathBuf>,
}

impl Watched {
    pub(super) fn new<'a>(
        files: impl IntoIterator<Item = &'a Path>,
        trees: impl IntoIterator<Item = &'a Path>,
    ) -> Self {
        let set = |path: &Path| !path.as_os_str().is_empty();
        let dir = |file: &Path| match file.parent() {
            Some(dir) if set(dir) => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        Self {
            dirs: files.into_iter().filter(|file| set(file)).map(dir).collect(),
            trees: trees
                .into_iter()
                .filter(|tree| set(tree))
                .map(Path::to_owned)
                .collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.dirs.is_empty() && self.trees.is_empty()
    }

    /// Sends whenever something may have changed, until the receiver is dropped.
    pub(super) async fn run(self, changed: mpsc::Sender<()>) {
        if self.is_empty() {
            return;
        }
        let this = Arc::new(self);
        let mut complained = false;
        let mut armed = this.clone().armed(None, &mut complained).await;
        // One check finds what changed between the first reading and the first watch.
        if changed.send(()).await.is_err() {
            return;
        }
        loop {
            let pause = if armed.is_blind { BLIND } else { FALLBACK };
            tokio::select! {
                () = changed.closed() => return,
                // Without a watcher there are no events, and the pause decides.
                Some(()) = next(&mut armed.watches) => tokio::time::sleep(SETTLE).await,
                () = this.replaced(&armed.identity) => {}
                () = tokio::time::sleep(pause) => {}
            }
            // Set again before the change is reported, so that a further change during the reload is seen too.
            armed = this.clone().armed(armed.watches, &mut complained).await;
            if changed.send(()).await.is_err() {
                return;
            }
        }
    }

    /// Sets the watches, on a thread that may wait for a file system.
    async fn armed(self: Arc<Self>, before: Option<Watches>, complained: &mut bool) -> Armed {
        let armed = on_a_thread(move || self.arm(before)).await;
        if let Some(error) = &armed.error
            && !std::mem::replace(complained, true)
        {
            tracing::warn!(
                error,
                "Files cannot be watched; they are looked at every two seconds."
            );
        }
        armed
    }

    /// Returns once a directory is another one than it was, is gone, or is there again.
    async fn replaced(self: &Arc<Self>, before: &Identity) {
        loop {
            tokio::time::sleep(LOOK).await;
            let this = self.clone();
            if on_a_thread(move || this.identity()).await != *before {
                return;
            }
        }
    }

    fn identity(&self) -> Identity {
        let paths = || self.dirs.iter().chain(&self.trees);
        let inode = |dir: &PathBuf| {
            let known = fs::metadata(dir).ok()?;
            Some((known.dev(), known.ino()))
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let trees: Vec<PathBuf> = self
            .trees
            .iter()
            .filter_map(|tree| tree.canonicalize().ok())
            .collect();
        Identity {
            inodes: paths().map(inode).collect(),
            mounts: mounts
                .lines()
                .filter(|mount| {
                    let point = mount.split(' ').nth(4).map(Path::new);
                    point.is_some_and(|point| trees.iter().any(|tree| point.starts_with(tree)))
                })
                .map(str::to_owned)
                .collect(),
        }
    }

    /// Sets the watches, in the place of those that were set before.
    fn arm(&self, before: Option<Watches>) -> Armed {
        // Before the watches: what is exchanged in between is seen as another one.
        let identity = self.identity();
        let mut watches = match before.map_or_else(Watches::begin, Ok) {
            Ok(watches) => watches,
            Err(error) => {
                return Armed {
                    watches: None,
                    identity,
                    is_blind: true,
                    error: Some(error),
                };
            }
        };
        let all = || {
            let dirs = self.dirs.iter().map(|dir| (dir, RecursiveMode::NonRecursive));
            dirs.chain(self.trees.iter().map(|tree| (tree, RecursiveMode::Recursive)))
        };
        for (path, _) in all() {
            // It may be another directory by now, or none. What is not watched yet is an error, which means nothing.
            let _gone = watches.watcher.unwatch(path);
        }
        // They are what led here.
        while watches.events.try_recv().is_ok() {}
        let mut is_blind = false;
        for (path, mode) in all() {
            // One that is missing is looked for; where it is there, the system has no watches left.
            is_blind |= watches.watcher.watch(path, mode).is_err() && path.exists();
        }
        Armed {
            watches: Some(watches),
            identity,
            is_blind,
            error: None,
        }
    }
}

/// Returns when something was reported; `None` where nothing can be.
async fn next(watches: &mut Option<Watches>) -> Option<()> {
    watches.as_mut()?.events.recv().await
}

/// Runs what may wait for a file system.
async fn on_a_thread<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // It can only have panicked, or the runtime ends.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_ends) => std::future::pending().await,
        },
    }
}

/// Which directories they are.
#[derive(PartialEq, Eq)]
struct Identity {
    /// The device and the number of each; `None`: there is none.
    inodes: Vec<Option<(u64, u64)>>,
    /// What is mounted somewhere in the trees, as the system lists it.
    mounts: Vec<String>,
}

/// What watches, and what it reports. One does for as long as the process runs: each has a thread of its own, and where the
/// system has none left, it panics when it is used, and when it is dropped.
struct Watches {
    watcher: RecommendedWatcher,
    events: mpsc::Receiver<()>,
}

impl Watches {
    /// The error says why there are none.
    fn begin() -> Result<Self, String> {
        // It would not say so itself.
        let thread = thread::Builder::new().spawn(|| ());
        thread.map_err(|error| format!("the system has no thread for it: {error}"))?;
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let read_only = event.as_ref().is_ok_and(|event| event.kind.is_access());
            if !read_only {
                // Full: a wake-up is on its way already.
                let _pending = sender.try_send(());
            }
        });
        let watcher = watcher.map_err(|error| error.to_string())?;
        Ok(Self { watcher, events })
    }
}

/// Watches that are set.
struct Armed {
    /// `None`: nothing can be watched.
    watches: Option<Watches>,
    /// What they were before they were watched.
    identity: Identity,
    /// Not all that is there could be watched.
    is_blind: bool,
    /// Why nothing can be.
    error: Option<String>,
}
