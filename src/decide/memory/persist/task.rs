//! The task that keeps the file like the memory.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::file::save_changed;
use crate::{decide::memory::Memory, telemetry::chain};

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
