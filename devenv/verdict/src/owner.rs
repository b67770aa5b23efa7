//! Whom new files belong to: under sudo, not root but the owner of the folder they are in.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
};

/// Those of `folder` and the folders above it that are not there, the outermost first.
pub(crate) fn missing(folder: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = folder
        .ancestors()
        .take_while(|a| !a.as_os_str().is_empty() && !a.exists())
        .map(Path::to_owned)
        .collect();
    missing.reverse();
    missing
}

/// Gives what root made to the owner of the folder that it is in.
pub(crate) fn hand_over(path: &Path) -> io::Result<()> {
    let Some(folder) = path
        .parent()
        .filter(|_| rustix::process::geteuid().is_root())
    else {
        return Ok(());
    };
    let folder = fs::metadata(folder)?;
    chown(path, Some(folder.uid()), Some(folder.gid()))
}
