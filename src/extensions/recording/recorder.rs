//! Chooses the calls that are recorded, and hands them to a thread that writes them.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
};

use super::{
    config::RecordConfig,
    files::Files,
    recorded::{RecordedCall, read_recordings},
};
use crate::{clock::Timestamp, extensions::metrics::ExtensionMetrics};

/// Calls that wait to be written. Each holds its input; further ones are dropped.
const QUEUE: usize = 16;
/// Extensions and tenants whose calls are counted in one second; calls of further ones are not recorded in it.
const MAX_PAIRS: usize = 4_096;

/// Records calls.
#[derive(Debug)]
pub(in crate::extensions) struct Recorder {
    config: RecordConfig,
    queue: SyncSender<RecordedCall>,
    metrics: Arc<ExtensionMetrics>,
    second: Mutex<Second>,
}

/// The calls that were recorded within one second, by the digest of extension and tenant.
#[derive(Debug, Default)]
struct Second {
    number: u64,
    recorded: HashMap<u64, u32>,
}

impl Recorder {
    /// A recorder, where the configuration asks for one and there is a place for it.
    pub(in crate::extensions) fn start(
        config: &RecordConfig,
        state_dir: Option<&Path>,
        metrics: &Arc<ExtensionMetrics>,
    ) -> Option<Arc<Self>> {
        if !config.enabled {
            return None;
        }
        let Some(state_dir) = state_dir else {
            tracing::warn!("Calls of extensions are not recorded: there is no state_dir to write them into.");
            return None;
        };
        let (send, receive) = mpsc::sync_channel(QUEUE);
        let files = Files::new(state_dir.join("recordings"), config.max_bytes);
        let counted = metrics.clone();
        let write = move || write_all(files, &receive, &counted);
        // It ends with the recorder, whose queue is closed then.
        if let Err(error) = thread::Builder::new().name("recordings".into()).spawn(write) {
            tracing::error!(%error, "Calls of extensions are not recorded: their thread cannot be started.");
            return None;
        }
        Some(Arc::new(Self {
            config: config.clone(),
            queue: send,
            metrics: metrics.clone(),
            second: Mutex::default(),
        }))
    }

    /// Whether a call is to be recorded; if so, it counts as recorded.
    pub(in crate::extensions) fn wants(&self, extension: &str, tenant: &str, now: Timestamp) -> bool {
        let lists = |list: &[String], name: &str| list.is_empty() || list.iter().any(|listed| listed == name);
        if !lists(&self.config.extensions, extension) || !lists(&self.config.tenants, tenant) {
            return false;
        }
        let mut hasher = DefaultHasher::new();
        (extension, tenant).hash(&mut hasher);
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let number = now.unix_ms / 1_000;
        if second.number != number {
            second.number = number;
            second.recorded.clear();
        }
        let is_full = second.recorded.len() >= MAX_PAIRS;
        let pair = hasher.finish();
        if is_full && !second.recorded.contains_key(&pair) {
            return false;
        }
        let recorded = second.recorded.entry(pair).or_default();
        *recorded += 1;
        *recorded <= self.config.max_per_second
    }

    /// Records a call, if there is room for it; nothing waits.
    pub(in crate::extensions) fn record(&self, call: RecordedCall) {
        if self.queue.try_send(call).is_err() {
            self.metrics.recorded("dropped");
        }
    }
}

fn write_all(mut files: Files, calls: &Receiver<RecordedCall>, metrics: &ExtensionMetrics) {
    let mut is_failing = false;
    while let Ok(call) = calls.recv() {
        let now_ms = call.at_ms;
        let line = call.into_line();
        // What cannot be read again would take all others of its file along.
        let written = match read_recordings(&format!("{line}\n")) {
            Ok(_) => files.write(&line, now_ms),
            Err(error) => Err(io::Error::other(error)),
        };
        match written {
            Ok(()) => {
                is_failing = false;
                metrics.recorded("written");
            }
            Err(error) => {
                metrics.recorded("failed");
                // Once, until one is written again.
                if !is_failing {
                    tracing::warn!(%error, "A call of an extension was not recorded.");
                }
                is_failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(config: RecordConfig) -> Arc<Recorder> {
        let metrics = ExtensionMetrics::register(&prometheus::Registry::new()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        Recorder::start(&config, Some(dir.path()), &Arc::new(metrics)).unwrap()
    }

    #[test]
    fn only_what_is_listed_is_recorded_and_so_often_in_a_second() {
        let at = Timestamp::from_unix_ms;
        let all = recorder(RecordConfig {
            enabled: true,
            max_per_second: 2,
            ..RecordConfig::default()
        });
        let wanted: Vec<bool> = [0, 1, 2, 999, 1_000, 1_001, 1_002]
            .map(|ms| all.wants("guard", "acme", at(ms)))
            .to_vec();
        assert_eq!(wanted, [true, true, false, false, true, true, false]);
        // Each extension and each tenant has its own share.
        assert!(all.wants("guard", "globex", at(1_003)) && all.wants("other", "acme", at(1_003)));
        let some = recorder(RecordConfig {
            enabled: true,
            extensions: vec!["guard".into()],
            tenants: vec!["acme".into()],
            ..RecordConfig::default()
        });
        assert!(!some.wants("other", "acme", at(0)));
        assert!(!some.wants("guard", "globex", at(0)));
        assert!(some.wants("guard", "acme", at(0)));
    }

    #[test]
    fn nothing_is_recorded_unless_it_is_asked_for_and_has_a_place() {
        let metrics = Arc::new(ExtensionMetrics::register(&prometheus::Registry::new()).unwrap());
        let dir = tempfile::tempdir().unwrap();
        assert!(Recorder::start(&RecordConfig::default(), Some(dir.path()), &metrics).is_none());
        let enabled = RecordConfig {
            enabled: true,
            ..RecordConfig::default()
        };
        assert!(Recorder::start(&enabled, None, &metrics).is_none());
    }
}
