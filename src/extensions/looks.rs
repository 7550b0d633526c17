//! Who asked for modules and records to be looked at again, and how far that has come.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, watch};

/// How thoroughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Files may have changed.
    Files,
    /// And what could not be had is tried again at once.
    Everything,
}

/// Counts the requests, so that each caller can wait until its own is done.
#[derive(Debug)]
pub struct Looks {
    asked: Mutex<Asked>,
    woken: Notify,
    done: watch::Sender<u64>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// How often, in all.
    pub times: u64,
    /// Of these, when last for everything.
    pub everything: u64,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            asked: Mutex::default(),
            woken: Notify::new(),
            done: watch::Sender::new(0),
        }
    }
}

impl Looks {
    /// Asks. Returns what to wait for with [`done`](Self::done).
    pub fn ask(&self, look: Look) -> u64 {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.times += 1;
        if look == Look::Everything {
            asked.everything = asked.times;
        }
        self.woken.notify_one();
        asked.times
    }

    /// What was asked for so far.
    pub fn asked(&self) -> Asked {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once there was a request since the last time.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// What was asked for until then is done.
    pub fn finish(&self, asked: Asked) {
        self.done.send_replace(asked.times);
    }

    /// Waits until what was asked for is done.
    pub async fn done(&self, asked: u64) {
        let mut done = self.done.subscribe();
        // The sender lives as long as this value does.
        let _closed = done.wait_for(|done| *done >= asked).await;
    }
}
