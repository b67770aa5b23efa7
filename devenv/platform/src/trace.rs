//! What a system remembers of what it has outside itself, as files of its state folder.

use std::path::Path;
use std::{fs, io};

use serde::{Serialize, de::DeserializeOwned};

/// Reads one; `None`: there is none, or what is there was not written by this.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// Writes one whole or not at all: without it nobody finds what it is about.
pub(crate) fn write(path: &Path, trace: &impl Serialize) -> io::Result<()> {
    let beside = path.with_extension("new");
    let text = serde_json::to_string(trace).map_err(io::Error::other)?;
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}
