//! The store's file: a redb database written by one thread.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt as _,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition,
};
use serde_json::Value;
use tokio::sync::watch as signal;

use super::{Object, StoreError};
use crate::kinds;

/// `group/plural`, namespace and name, separated by NUL → the object as JSON.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// Numbers by name: [`FORMAT`], [`NEWEST`], [`RESERVED`].
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// Version of this file's layout.
const FORMAT: (&str, u64) = ("format", 1);
/// The resourceVersion of the newest write in the file.
const NEWEST: &str = "newest";
/// No resourceVersion above this was handed out. After a clean end it equals [`NEWEST`].
const RESERVED: &str = "reserved";

/// How many numbers are reserved at once: more than could ever wait in memory for the disk.
const BLOCK: u64 = 1 << 20;

/// Most writes in one transaction; bounds the time until the first of them is durable.
const BATCH: usize = 512;

/// Page cache of the database: it is only written, objects are read from memory.
const CACHE_BYTES: usize = 1 << 20;

/// One write on its way to the disk.
pub(super) struct Write {
    pub resource_version: u64,
    pub object: Arc<Object>,
    pub removed: bool,
}

/// A failed write; final, the thread ends with it.
#[derive(Clone)]
pub(super) struct Failure {
    path: PathBuf,
    source: Arc<redb::Error>,
}

impl From<Failure> for StoreError {
    fn from(f: Failure) -> StoreError {
        StoreError::Disk {
            path: f.path,
            source: f.source,
        }
    }
}

/// How far the disk is.
pub(super) struct Progress {
    pub resource_version: u64,
    pub failed: Option<Failure>,
}

/// What was in the file.
pub(super) struct Opened {
    pub database: Database,
    pub objects: Vec<Object>,
    pub newest: u64,
    pub reserved: u64,
}

fn key(object: &Object) -> String {
    let kind = object.kind();
    format!(
        "{}/{}\0{}\0{}",
        kind.group,
        kind.plural,
        object.namespace(),
        object.name()
    )
}

/// Opens or makes the file, reads it all, and reserves the numbers that this run may hand out.
pub(super) fn open(path: &Path) -> Result<Opened, StoreError> {
    // A damaged file can trip assertions inside the database as well as return errors.
    std::panic::catch_unwind(AssertUnwindSafe(|| read(path))).unwrap_or_else(|_| {
        Err(StoreError::Corrupt {
            path: path.to_owned(),
            what: "its structure contradicts itself".to_owned(),
        })
    })
}

fn read(path: &Path) -> Result<Opened, StoreError> {
    let corrupt = |what: String| StoreError::Corrupt {
        path: path.to_owned(),
        what,
    };
    let failed = |e: redb::Error| match e {
        redb::Error::Io(source) => StoreError::Io {
            path: path.to_owned(),
            source,
        },
        other => corrupt(other.to_string()),
    };
    // Secrets are in it: its owner's alone from the first byte on.
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| StoreError::Io {
            path: path.to_owned(),
            source,
        })?;
    let database = redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(|e| match e {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
                path: path.to_owned(),
            },
            // How redb reports a file that is not one of its own.
            DatabaseError::Storage(StorageError::Io(e)) if e.kind() == ErrorKind::InvalidData => {
                corrupt("it is not a redb database".to_owned())
            }
            DatabaseError::Storage(StorageError::Io(e)) if e.kind() == ErrorKind::UnexpectedEof => {
                corrupt("it is cut off".to_owned())
            }
            other => failed(other.into()),
        })?;

    let write = database.begin_write().map_err(|e| failed(e.into()))?;
    let mut objects = Vec::new();
    let (newest, reserved);
    {
        let mut numbers = write.open_table(NUMBERS).map_err(|e| failed(e.into()))?;
        let number = |name: &str| -> Result<Option<u64>, StoreError> {
            Ok(numbers
                .get(name)
                .map_err(|e| failed(e.into()))?
                .map(|v| v.value()))
        };
        match number(FORMAT.0)? {
            None => {}
            Some(version) if version == FORMAT.1 => {}
            Some(version) => {
                return Err(corrupt(format!(
                    "its layout has version {version}, this devenv reads version {}",
                    FORMAT.1
                )));
            }
        }
        let on_disk = number(NEWEST)?.unwrap_or(0);
        newest = number(RESERVED)?.unwrap_or(0).max(on_disk);
        reserved = newest + BLOCK;
        numbers
            .insert(FORMAT.0, FORMAT.1)
            .map_err(|e| failed(e.into()))?;
        numbers
            .insert(RESERVED, reserved)
            .map_err(|e| failed(e.into()))?;

        let table = write.open_table(OBJECTS).map_err(|e| failed(e.into()))?;
        for entry in table.iter().map_err(|e| failed(e.into()))? {
            let (key, bytes) = entry.map_err(|e| failed(e.into()))?;
            match parse(key.value(), bytes.value()) {
                Some(Some(object)) => objects.push(object),
                // A kind that a newer devenv stored: left in the file for it.
                Some(None) => {}
                None => {
                    return Err(corrupt(format!(
                        "the object {:?} is not readable",
                        key.value()
                    )));
                }
            }
        }
    }
    write.commit().map_err(|e| failed(e.into()))?;
    // Proves that what was committed can be read again before anyone relies on it.
    database.begin_read().map_err(|e| failed(e.into()))?;
    Ok(Opened {
        database,
        objects,
        newest,
        reserved,
    })
}

/// `Some(None)` for a kind that is not served, `None` when the entry makes no sense.
fn parse(key: &str, bytes: &[u8]) -> Option<Option<Object>> {
    let mut parts = key.split('\0');
    let (group, plural) = parts.next()?.split_once('/')?;
    let (ns, name) = (parts.next()?, parts.next()?);
    let Some(kind) = kinds::ALL
        .into_iter()
        .find(|k| k.group == group && k.plural == plural)
    else {
        return Some(None);
    };
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let rv = value["metadata"]["resourceVersion"]
        .as_str()?
        .parse()
        .ok()?;
    let object = Object::new(kind, rv, value);
    (object.namespace() == ns && object.name() == name).then_some(Some(object))
}

/// The disk thread: commits what has gathered, reports, waits for more. Ends when the store is
/// closed or dropped, or at the first failure.
pub(super) fn run(
    database: Database,
    path: PathBuf,
    mut reserved: u64,
    writes: mpsc::Receiver<Write>,
    progress: signal::Sender<Progress>,
) {
    let mut newest = progress.borrow().resource_version;
    let fail = |source: redb::Error| {
        tracing::error!(path = %path.display(), error = %source, "the object store could not be written");
        let failed = Failure {
            path: path.clone(),
            source: Arc::new(source),
        };
        progress.send_modify(|p| p.failed = Some(failed));
    };
    while let Ok(first) = writes.recv() {
        // Only an object's last state in the batch matters: the batch is one transaction.
        let mut batch = BTreeMap::new();
        let mut gathered = 0;
        for write in std::iter::once(first).chain(writes.try_iter()) {
            newest = write.resource_version;
            batch.insert(key(&write.object), write);
            gathered += 1;
            if gathered == BATCH {
                break;
            }
        }
        if newest + BLOCK / 2 > reserved {
            reserved = newest + BLOCK;
        }
        if let Err(e) = commit(&database, batch, newest, reserved) {
            return fail(e);
        }
        progress.send_modify(|p| p.resource_version = newest);
    }
    // A clean end: the next run counts on from here.
    if let Err(e) = commit(&database, BTreeMap::new(), newest, newest) {
        return fail(e);
    }
    if let Err(e) = database.close() {
        fail(e.into());
    }
}

fn commit(
    database: &Database,
    batch: BTreeMap<String, Write>,
    newest: u64,
    reserved: u64,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for (key, write) in batch {
            if write.removed {
                objects.remove(key.as_str())?;
            } else {
                // JSON in memory always has a JSON form.
                let bytes = serde_json::to_vec(write.object.value()).unwrap_or_default();
                objects.insert(key.as_str(), bytes.as_slice())?;
            }
        }
        let mut numbers = transaction.open_table(NUMBERS)?;
        numbers.insert(NEWEST, newest)?;
        numbers.insert(RESERVED, reserved)?;
    }
    transaction.commit()?;
    Ok(())
}
