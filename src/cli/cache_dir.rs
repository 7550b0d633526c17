//! Where commands keep what they compiled.

use std::path::PathBuf;

/// The user's own cache directory, for compiled extensions of the next run: closed to others, with a key that they are
/// signed with. Never a directory beside a project: to load code that came with one is to trust it.
pub(super) fn cache_dir() -> Option<PathBuf> {
    let mut environment = crate::config::environment();
    let mut dir = |name: &str| {
        let path = PathBuf::from(environment.remove(name)?);
        path.is_absolute().then_some(path)
    };
    let cache = dir("XDG_CACHE_HOME").or_else(|| Some(dir("HOME")?.join(".cache")))?;
    Some(cache.join("beamline-sidecar"))
}
