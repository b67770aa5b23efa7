//! Where things are kept for all projects of this user.

use std::path::PathBuf;

/// `devenv-gke` in the user's cache folder (XDG Base Directory Specification); `None`: the user
/// has no home.
pub(crate) fn dir() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    Some(base?.join("devenv-gke"))
}
