//! File descriptors: how many there may be, and how many of them connections of clients may take.
//!
//! A listener that may take them all takes them from everything else: the admin listener, HEIR, the disk.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What all else needs beside the connections of clients: connections to HEIR and of health checks, files of the state,
/// the journal, extensions, the runtime's own.
const RESERVE: u64 = 192;

/// Raises the process's limit as far as it is allowed to, as servers with many connections do. Call once, first of all.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "The limit of open files could not be raised.");
    }
}

/// How many connections each of `listeners` data listeners may have: `wanted`, or as many as descriptors allow beside
/// the `reserved` connections of the admin listener.
pub(super) fn connections(wanted: usize, listeners: usize, reserved: usize) -> usize {
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return wanted;
    };
    let fits = fits(limit, listeners, reserved);
    if wanted <= fits {
        return wanted;
    }
    tracing::warn!(
        wanted,
        connections = fits,
        open_files = limit,
        "limits.max_connections does not fit into the limit of open files; each listener gets fewer. Raise the hard \
         limit: LimitNOFILE= in a unit, `ulimit -Hn` in a shell."
    );
    fits
}

fn fits(limit: u64, listeners: usize, reserved: usize) -> usize {
    let left = usize::try_from(limit.saturating_sub(RESERVE)).unwrap_or(usize::MAX);
    (left.saturating_sub(reserved) / listeners.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everything_else_needs_is_kept_from_the_connections_of_clients() {
        assert_eq!(fits(1_024, 1, 256), 576);
        assert_eq!(fits(1_024, 2, 256), 288);
        assert_eq!(fits(100, 2, 256), 1, "even so, the Router is served");
    }
}
