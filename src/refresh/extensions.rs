//! Extensions beside the policies: their modules are had in the background, and each is in the next snapshot once it is
//! there. Policies never wait for them.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    extensions::{ExtensionHost, Look, Supply},
    heir::HeirClient,
    snapshot::{Asked, Coverage, Origin, SnapshotStore},
};

/// The least pause between two snapshots that are published for modules.
const PAUSE: Duration = Duration::from_millis(50);
/// For how long extensions are asked about configurations before what they said is published.
pub(super) const ASKING: Duration = Duration::from_millis(250);
/// How long an answer is waited for: a busy machine may take that long for a tenth of a second of computing.
const PATIENCE: Duration = Duration::from_secs(5);
/// And where a caller waits for all of them.
pub(super) const SHORT: Duration = Duration::from_millis(500);
/// For at most one part in so many of the time.
const ASKING_PART: u32 = 4;
/// When extensions are asked again that could not be asked.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Reads the directory of extensions again, and has modules looked at again. Where everything is looked at, waits until it
/// is done and published.
///
/// # Errors
/// When the directory cannot be read; what was read before stays.
pub async fn reload_extensions(store: &Arc<SnapshotStore>, look: Look) -> io::Result<()> {
    let Some(host) = store.extensions().cloned() else {
        return Ok(());
    };
    let reading = host.clone();
    let read = tokio::task::spawn_blocking(move || reading.read_directory()).await;
    let asked = host.looks().ask(look);
    match look {
        Look::Everything => host.looks().done(asked).await,
        Look::Files => {}
    }
    let asking = store.clone();
    let _asked = tokio::task::spawn_blocking(move || asking.ask_extensions(ASKING, SHORT)).await;
    read?.map(|_| ())
}

/// Gets the modules of extensions, whenever records, files or an operator ask for it, and publishes snapshots with them.
pub async fn supply_extensions(
    store: Arc<SnapshotStore>,
    heir: Option<Arc<HeirClient>>,
    stop: CancellationToken,
) {
    let Some(host) = store.extensions().cloned().filter(|host| host.config().enabled) else {
        return;
    };
    let mut published = store.published();
    let mut supply = Supply::new(host.clone(), heir);
    let mut publisher = Publisher::new(store.clone(), host.clone());
    loop {
        let asked = host.looks().asked();
        published.borrow_and_update();
        let snapshot = store.load_full();
        supply
            .advance(snapshot.extensions(), snapshot.registry(), asked)
            .await;
        let is_idle = supply.is_idle();
        if publisher.publish(is_idle).await {
            continue;
        }
        if is_idle && !host.has_changed(store.load().registry()) {
            publisher.keep_good_state().await;
            supply.settle();
            host.looks().finish(asked);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = published.changed() => {}
            () = host.looks().woken() => {}
            () = supply.progress() => {}
            () = publisher.is_due() => {}
        }
    }
}

/// Asks extensions about the configurations of policies once these are published, whenever there are such that they were not asked
/// about.
pub async fn ask_extensions(store: Arc<SnapshotStore>, stop: CancellationToken) {
    let mut published = store.published();
    loop {
        published.borrow_and_update();
        let (asking, began) = (store.clone(), Instant::now());
        // An extension may take its time.
        let asked = tokio::task::spawn_blocking(move || asking.ask_extensions(ASKING, PATIENCE)).await;
        let pause = match asked {
            Ok(Asked::All) => None,
            Ok(Asked::Some) => Some(began.elapsed() * ASKING_PART),
            Err(error) => {
                tracing::error!(%error, "Extensions could not be asked about configurations.");
                Some(ASK_AGAIN)
            }
        };
        let again = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause.max(ASK_AGAIN)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = again => {}
            _ = published.changed(), if pause.is_none() => {}
        }
    }
}

/// Publishes snapshots with the modules that have come: not one for each, since each costs a look at all policies.
struct Publisher {
    store: Arc<SnapshotStore>,
    host: Arc<ExtensionHost>,
    next: Instant,
    /// Of the snapshot whose good state was written down.
    kept: Option<u64>,
}

impl Publisher {
    fn new(store: Arc<SnapshotStore>, host: Arc<ExtensionHost>) -> Self {
        let now = Instant::now();
        Self {
            store,
            host,
            next: now,
            kept: None,
        }
    }

    fn wants(&self) -> bool {
        self.host.has_changed(self.store.load().registry())
    }

    /// Publishes what has changed, unless it is too early. Returns whether it did.
    async fn publish(&mut self, is_idle: bool) -> bool {
        let now = Instant::now();
        if !self.wants() || (!is_idle && self.next > now) {
            return false;
        }
        let store = self.store.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || store.edit(|_| ())).await {
            tracing::error!(%error, "A snapshot with other extensions could not be made.");
        }
        let took = now.elapsed();
        self.next = Instant::now() + PAUSE.max(took * 10);
        true
    }

    /// Waits until what has changed may be published.
    async fn is_due(&self) {
        let now = Instant::now();
        let is_changed = self.host.has_changed(self.store.load().registry());
        if !is_changed {
            return std::future::pending().await;
        }
        // Never at once: publishing may have failed.
        let at = self.next.max(now + Duration::from_millis(1));
        tokio::time::sleep_until(at.into()).await;
    }

    /// Writes down what can be called, for the next run.
    async fn keep_good_state(&mut self) {
        let snapshot = self.store.load_full();
        if self.kept == Some(snapshot.generation()) {
            return;
        }
        self.kept = Some(snapshot.generation());
        let host = self.host.clone();
        let keep = move || {
            let knows_heir = snapshot.origin() == Origin::Heir || snapshot.coverage() == Coverage::Whole;
            host.keep_good_state(snapshot.registry(), knows_heir);
        };
        if let Err(error) = tokio::task::spawn_blocking(keep).await {
            tracing::error!(%error, "The last good records of extensions could not be written down.");
        }
    }
}
