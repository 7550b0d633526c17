//! The memory that this process may have, and what of it bodies may.

use std::{fs, path::Path};

/// Bodies may have this part of the memory. Besides them there are the program and the policies, and while a body is checked
/// and written it is there several times: as it came, as JSON, as a policy, as a file.
const PART: u64 = 16;

/// What bodies always may have: the least that can be configured.
const LEAST: usize = 1 << 20;

/// Bytes of bodies in memory at one time: what is configured, and no more than the control group's limit bears.
pub(super) fn buffered_bytes(configured: usize) -> usize {
    let Some(limit) = memory_limit(Path::new("/")) else {
        return configured;
    };
    let bytes = within(configured, limit);
    if bytes < configured {
        tracing::info!(
            bytes,
            configured,
            memory_limit = limit,
            "Bodies have less memory than limits.max_buffered_bytes: a sixteenth of the memory limit."
        );
    }
    bytes
}

fn within(configured: usize, limit: u64) -> usize {
    let bearable = usize::try_from(limit / PART).unwrap_or(usize::MAX);
    configured.min(bearable.max(LEAST))
}

/// The lowest limit of this process's control group and those above it; `None`: there is none, or it cannot be seen.
fn memory_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = groups.lines().flat_map(|line| {
        // `0::/path` is the one hierarchy of version 2, `4:memory:/path` one of version 1.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (mount, file) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return Vec::new();
        };
        // In a container the path may be the host's, of which only the container's own group is mounted, at the top.
        Path::new(group.trim_start_matches('/'))
            .ancestors()
            .map(|group| root.join(mount).join(group).join(file))
            .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok())
            .collect()
    });
    // Version 1 says "none" by the largest number of pages.
    limits.filter(|limit| *limit < 1 << 60).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_above_counts_in_either_version() {
        const MIB: u64 = 1 << 20;
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        assert_eq!(memory_limit(root.path()), None);
        write("proc/self/cgroup", "0::/pod/container\n");
        assert_eq!(memory_limit(root.path()), None);
        write("sys/fs/cgroup/pod/container/memory.max", "max\n");
        assert_eq!(memory_limit(root.path()), None);
        write("sys/fs/cgroup/pod/memory.max", "41943040\n");
        assert_eq!(memory_limit(root.path()), Some(40 * MIB));
        write("sys/fs/cgroup/pod/container/memory.max", "20971520\n");
        assert_eq!(memory_limit(root.path()), Some(20 * MIB));
        write(
            "proc/self/cgroup",
            "9:name=systemd:/\n4:cpu,memory:/pod/container\n3:cpuset:/\n0::/\n",
        );
        assert_eq!(memory_limit(root.path()), None);
        write(
            "sys/fs/cgroup/memory/pod/container/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        assert_eq!(memory_limit(root.path()), None);
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "8388608\n");
        assert_eq!(memory_limit(root.path()), Some(8 * MIB));
    }

    #[test]
    fn bodies_have_a_part_of_what_there_is() {
        for (limit_mib, configured_mib, bytes) in [
            (40, 64, 5 << 19),
            (4, 64, 1 << 20),
            (512, 64, 32 << 20),
            (4_096, 64, 64 << 20),
            (40, 2, 2 << 20),
        ] {
            assert_eq!(within(configured_mib << 20, limit_mib << 20), bytes);
        }
    }
}
