//! The connections that are open, and which of them makes room where there are too many.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::activity::Activity;

/// The open connections of one listener.
#[derive(Debug, Default)]
pub(super) struct OpenConnections(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Counts connections, in steps of two. A connection notes the count with every request, so the lowest is the one that has been idle for
    /// longest, and a request needs no look at the time.
    clock: Arc<AtomicU64>,
    connections: Mutex<HashMap<u64, Arc<Activity>>>,
}

/// A connection's entry, until it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    table: Arc<Table>,
    number: u64,
    activity: Arc<Activity>,
}

impl Table {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Activity>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnections {
    /// Enters a new connection.
    pub(super) fn enter(&self) -> Entry {
        let number = self.0.clock.fetch_add(2, Relaxed) + 2;
        let activity = Arc::new(Activity::new(self.0.clock.clone()));
        self.0.connections().insert(number, activity.clone());
        Entry {
            table: self.0.clone(),
            number,
            activity,
        }
    }

    /// Tells the connection to close that has been idle for longest. One whose client does not read its answer counts as idle
    /// where no other is.
    pub(super) fn close_idlest(&self) {
        let connections = self.0.connections();
        let idle = connections.values().filter(|activity| activity.may_be_closed());
        if let Some(idlest) = idle.min_by_key(|activity| activity.idleness()) {
            idlest.close();
        }
    }
}

impl Entry {
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.table.connections().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idlest_connection_makes_room_and_a_busy_one_never_does() {
        let open = OpenConnections::default();
        let [first, second, third] = [open.enter(), open.enter(), open.enter()];
        let closed = || [&first, &second, &third].map(|entry| entry.activity.is_told_to_close());
        // The first has had a request since the third came, and the second is busy.
        first.activity.note_request();
        second.activity.active.store(1, Relaxed);
        open.close_idlest();
        assert_eq!(closed(), [false, false, true]);
        open.close_idlest();
        assert_eq!(closed(), [true, false, true]);
        open.close_idlest();
        assert_eq!(closed(), [true, false, true]);
        drop(first);
        assert_eq!(open.0.connections().len(), 2);
    }

    #[test]
    fn a_client_that_does_not_read_comes_after_those_that_are_idle() {
        let open = OpenConnections::default();
        let [stalled, idle] = [open.enter(), open.enter()];
        stalled.activity.note_stall(true);
        open.close_idlest();
        assert!(idle.activity.is_told_to_close() && !stalled.activity.is_told_to_close());
        open.close_idlest();
        assert!(stalled.activity.is_told_to_close());
    }
}
