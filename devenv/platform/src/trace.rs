//! What a system remembers of what it has outside itself, as files of its state folder.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

/// Reads one; `None`: there is none, or what is there was not written by this.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// Writes one whole or not at all: without it nobody finds what it is about. It is its owner's
/// alone, for it may hold a token.
pub(crate) fn write(path: &Path, trace: &impl Serialize) -> io::Result<()> {
    let beside = path.with_extension("new");
    let text = serde_json::to_string(trace).map_err(io::Error::other)?;
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&beside, path)
}
