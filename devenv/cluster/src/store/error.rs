//! What can go wrong with the store.

use std::{path::PathBuf, sync::Arc};

use crate::kinds::KindRef;

/// An operation on the store that was not done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such object.
    #[error("{} \"{name}\" not found", kind.group_resource())]
    NotFound {
        /// Kind that was asked for.
        kind: KindRef,
        /// Name that was asked for.
        name: String,
    },
    /// An object of that name is there already.
    #[error("{} \"{name}\" already exists", kind.group_resource())]
    AlreadyExists {
        /// Kind of the object.
        kind: KindRef,
        /// Its name.
        name: String,
    },
    /// The object was changed by someone else since it was read.
    #[error(
        "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to the latest version and try again",
        kind.group_resource()
    )]
    Conflict {
        /// Kind of the object.
        kind: KindRef,
        /// Its name.
        name: String,
    },
    /// The object cannot be stored.
    #[error("{} \"{name}\" cannot be stored: {reason}", kind.group_kind())]
    Invalid {
        /// Kind of the object.
        kind: KindRef,
        /// Its name, as far as known.
        name: String,
        /// What is wrong with it and what was expected.
        reason: String,
    },
    /// The events that a watch asks for are no longer kept.
    #[error(
        "the events before resourceVersion {oldest} are no longer kept: list again and watch from there"
    )]
    Gone {
        /// The oldest resourceVersion from which a watch can start.
        oldest: u64,
    },
    /// An object does not have the shape that its reader expects.
    #[error("{} \"{name}\" does not have the form of its kind", kind.group_kind())]
    Shape {
        /// Kind of the object.
        kind: KindRef,
        /// Its name.
        name: String,
        /// Which field, and what was expected there.
        source: serde_json::Error,
    },
    /// The store was closed.
    #[error("the object store is closed, because devenv is shutting down")]
    Closed,
    /// The file cannot be opened.
    #[error("cannot open the object store {}: check that its folder exists and is yours to write", path.display())]
    Io {
        /// The store's file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has the file open.
    #[error("the object store {} is in use by another devenv: stop that one with `devenv down`", path.display())]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is not a readable store.
    #[error(
        "the object store {} is damaged ({what}): `devenv down` and remove that file, then `devenv up` applies the manifests again; or `devenv down -v` removes everything, the database's data too",
        path.display()
    )]
    Corrupt {
        /// The store's file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// A write did not reach the disk.
    #[error("the object store {} could not be written: free some space or mend the disk, then start devenv again", path.display())]
    Disk {
        /// The store's file.
        path: PathBuf,
        /// What the database said.
        source: Arc<redb::Error>,
    },
    /// The disk thread could not be started.
    #[error("the object store's disk thread could not be started")]
    Thread(#[source] std::io::Error),
}

impl StoreError {
    /// [`StoreError::NotFound`] for an object.
    pub fn not_found(kind: KindRef, name: &str) -> StoreError {
        StoreError::NotFound {
            kind,
            name: name.to_owned(),
        }
    }
}
