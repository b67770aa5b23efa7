//! Where things are kept for all projects of this user (XDG Base Directory Specification).

use std::path::PathBuf;

/// Ours in each of the folders.
const NAME: &str = "devenv-gke";

/// `devenv-gke` in the user's cache folder; `None`: the user has no home.
pub(crate) fn cache() -> Option<PathBuf> {
    folder("XDG_CACHE_HOME", ".cache")
}

/// `devenv-gke` in the user's configuration folder; `None`: the user has no home.
pub(crate) fn config() -> Option<PathBuf> {
    folder("XDG_CONFIG_HOME", ".config")
}

fn folder(variable: &str, in_home: &str) -> Option<PathBuf> {
    let base = std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(in_home)));
    Some(base?.join(NAME))
}
