//! Extensions whose modules or records are read again besides a refresh: those of the local directory, and those that
//! could not be fetched when their records came.

use std::{io, sync::Arc};

use crate::{extensions::Wanted, heir::HeirClient, snapshot::SnapshotStore};

/// Reads the directory of extensions again, gets the modules that are missing, and publishes a snapshot with what has
/// changed.
///
/// # Errors
/// When the directory cannot be read; what was read before stays.
pub async fn reload_extensions(
    store: &Arc<SnapshotStore>,
    heir: Option<&HeirClient>,
    wanted: Wanted,
) -> io::Result<()> {
    let Some(host) = store.extensions().cloned() else {
        return Ok(());
    };
    let reading = host.clone();
    let read = tokio::task::spawn_blocking(move || reading.read_directory()).await;
    let records = store.load().extensions().values().cloned().collect();
    host.obtain(records, heir, wanted).await;
    if host.has_changed(store.load().registry()) {
        // Extensions are asked about their configurations, and may take their time.
        let store = store.clone();
        tokio::task::spawn_blocking(move || store.edit(|_| ())).await?;
    }
    read?.map(|_| ())
}
