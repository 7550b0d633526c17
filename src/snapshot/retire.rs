//! The thread that drops snapshots: freeing ten thousand policies must cost no reader anything.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use super::state::Snapshot;

/// Starts the thread, which ends when the sender is dropped. What is sent is dropped there once no reader has it any
/// more.
pub(super) fn start() -> io::Result<Sender<Arc<Snapshot>>> {
    let (retired, retiring) = mpsc::channel();
    std::thread::Builder::new()
        .name("retire".into())
        .spawn(move || drop_retired(&retiring))?;
    Ok(retired)
}

fn drop_retired(retiring: &Receiver<Arc<Snapshot>>) {
    let mut waiting: Vec<Arc<Snapshot>> = Vec::new();
    loop {
        let next = if waiting.is_empty() {
            retiring.recv().map_err(|_closed| RecvTimeoutError::Disconnected)
        } else {
            retiring.recv_timeout(Duration::from_millis(5))
        };
        match next {
            Ok(snapshot) => waiting.push(snapshot),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        waiting.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }
}
