//! The fragment, from a file that may be exchanged while the injector runs.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

use super::metrics::InjectorMetrics;
use crate::inject::Fragment;

/// The fragment that is in use.
#[derive(Debug)]
pub(super) struct FragmentFile {
    path: PathBuf,
    current: ArcSwap<Fragment>,
    /// What the file said last, so that a bad one is said once.
    seen: Mutex<String>,
}

impl FragmentFile {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn open(path: PathBuf) -> Result<Self, String> {
        let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| said(&error))?;
        let fragment = Fragment::parse(&text).map_err(|error| said(&error))?;
        Ok(Self {
            current: ArcSwap::from_pointee(fragment),
            seen: Mutex::new(text),
            path,
        })
    }

    pub(super) fn current(&self) -> Arc<Fragment> {
        self.current.load_full()
    }

    /// Reads it again if its content has changed; by its content, because the kubelet exchanges a link above the file. One
    /// that cannot be used changes nothing.
    pub(super) fn refresh(&self) {
        let Ok(text) = fs::read_to_string(&self.path) else {
            return;
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == text {
            return;
        }
        match Fragment::parse(&text) {
            Ok(fragment) => {
                tracing::info!(
                    version = fragment.version(),
                    sha256 = fragment.digest(),
                    "Pods get another fragment from now on."
                );
                self.current.store(Arc::new(fragment));
            }
            Err(error) => {
                tracing::error!(%error, "The fragment cannot be used; the one before stays in use.");
            }
        }
        *seen = text;
    }

    /// Says which one is in use.
    pub(super) fn report(&self, metrics: &InjectorMetrics) {
        let current = self.current();
        metrics.fragment.reset();
        metrics
            .fragment
            .with_label_values(&[current.version(), current.digest()])
            .set(1);
    }
}
