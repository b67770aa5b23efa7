//! Objects, `resourceVersion` and watches.
//!
//! Every object lives in memory as JSON; one lock, held for microseconds,
//! orders all writes. A write gets the next number of one counter, joins a
//! bounded ring of recent events (what watches read) and a queue to the disk
//! thread, which commits whatever has gathered in one transaction. So the file
//! always holds a prefix of the writes, and [`Store::durable`] tells when a
//! given write belongs to it.
//!
//! After a crash the counter starts beyond every number that was ever handed
//! out, durable or not, and the ring is empty: a watcher of the previous run
//! is told [`StoreError::Gone`] and lists again.

mod disk;
mod error;
mod object;
mod watch;

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
};

use serde_json::{Value, json};
use tokio::sync::watch as signal;

use crate::kinds::{self, KindRef};
pub use error::StoreError;
pub use object::Object;
pub(crate) use object::timestamp;
pub use watch::{Change, Watch, WatchEvent};

/// How many events a watch may lag behind before it must list again.
pub const RING: usize = 1024;

/// Letters of generated names: no vowels, no digits that look like letters, as Kubernetes has it.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Length limit of the base of a generated name (63 minus the random part).
const GENERATED_BASE: usize = 58;

/// The cluster's objects; cheap to clone, all clones are the same store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("resource_version", &self.resource_version())
            .finish()
    }
}

struct Shared {
    state: Mutex<State>,
    /// The newest resourceVersion, for watches to wait on. Its sender lives here: when the last
    /// `Store` is dropped, watches end.
    newest: signal::Sender<u64>,
    /// The newest resourceVersion on disk.
    durable: signal::Receiver<disk::Progress>,
    writer: Mutex<Option<JoinHandle<()>>>,
    allocation: Mutex<()>,
}

type Table = BTreeMap<Box<str>, BTreeMap<Box<str>, Arc<Object>>>;

struct State {
    newest: u64,
    tables: Vec<Table>,
    /// Events with the numbers `newest - ring.len() + 1 ..= newest`, without gaps.
    ring: VecDeque<WatchEvent>,
    /// `None` for a store in memory and after `close`.
    disk: Option<mpsc::Sender<disk::Write>>,
    closed: bool,
}

impl State {
    /// The oldest resourceVersion from which a watch can still start.
    fn floor(&self) -> u64 {
        self.newest - self.ring.len() as u64
    }

    fn get(&self, kind: KindRef, ns: &str, name: &str) -> Option<&Arc<Object>> {
        self.tables[kinds::index(kind)].get(ns)?.get(name)
    }

    /// Makes `value` the newest state of an object (or its last, when deleted) and tells everyone.
    fn commit(&mut self, kind: KindRef, mut value: Value, change: Change) -> Arc<Object> {
        self.newest += 1;
        let rv = self.newest;
        value["metadata"]["resourceVersion"] = Value::String(rv.to_string());
        let object = Arc::new(Object::new(kind, rv, value));
        let (ns, name) = (object.namespace(), object.name());
        let table = &mut self.tables[kinds::index(kind)];
        let previous = if change == Change::Deleted {
            let previous = table.get_mut(ns).and_then(|names| names.remove(name));
            if table.get(ns).is_some_and(BTreeMap::is_empty) {
                table.remove(ns);
            }
            previous
        } else {
            table
                .entry(ns.into())
                .or_default()
                .insert(name.into(), object.clone())
        };
        if let Some(disk) = &self.disk {
            let write = disk::Write {
                resource_version: rv,
                object: object.clone(),
                removed: change == Change::Deleted,
            };
            // The disk thread is gone only after it reported a failure, which `check` passes on.
            let _ = disk.send(write);
        }
        if self.ring.len() == RING {
            self.ring.pop_front();
        }
        self.ring.push_back(WatchEvent {
            change,
            object: object.clone(),
            previous,
            resource_version: rv,
        });
        object
    }
}

impl Store {
    /// Opens the store in the file at `path`, making it when it is not there.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the file is not a readable store, [`StoreError::InUse`] when
    /// another process has it open, [`StoreError::Io`] when it cannot be opened or written.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let opened = disk::open(path)?;
        let (disk, writes) = mpsc::channel();
        let (progress, durable) = signal::channel(disk::Progress {
            resource_version: opened.newest,
            failed: None,
        });
        let mut state = State {
            newest: opened.newest,
            tables: kinds::ALL.iter().map(|_| Table::new()).collect(),
            ring: VecDeque::new(),
            disk: Some(disk),
            closed: false,
        };
        for object in opened.objects {
            state.tables[kinds::index(object.kind())]
                .entry(object.namespace().into())
                .or_default()
                .insert(object.name().into(), Arc::new(object));
        }
        let database = opened.database;
        let path = path.to_owned();
        let writer = std::thread::Builder::new()
            .name("store-disk".to_owned())
            .spawn(move || disk::run(database, path, opened.reserved, writes, progress))
            .map_err(StoreError::Thread)?;
        let store = Store::from_parts(state, durable, Some(writer));
        store.make_default_namespace()?;
        Ok(store)
    }

    /// A store that keeps nothing; every write counts as durable at once.
    pub fn in_memory() -> Store {
        let state = State {
            newest: 0,
            tables: kinds::ALL.iter().map(|_| Table::new()).collect(),
            ring: VecDeque::new(),
            disk: None,
            closed: false,
        };
        let (_, durable) = signal::channel(disk::Progress {
            resource_version: u64::MAX,
            failed: None,
        });
        let store = Store::from_parts(state, durable, None);
        // Nothing is in an empty store that this could collide with.
        let _ = store.make_default_namespace();
        store
    }

    fn from_parts(
        state: State,
        durable: signal::Receiver<disk::Progress>,
        writer: Option<JoinHandle<()>>,
    ) -> Store {
        let (newest, _) = signal::channel(state.newest);
        Store {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                newest,
                durable,
                writer: Mutex::new(writer),
                allocation: Mutex::new(()),
            }),
        }
    }

    fn make_default_namespace(&self) -> Result<(), StoreError> {
        let namespace = json!({
            "metadata": {"name": "default", "labels": {"kubernetes.io/metadata.name": "default"}},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        match self.create(&kinds::NAMESPACE, namespace) {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing leaves the state half-changed when it panics: closures run on a copy.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_for_writing(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        if let Some(failure) = &self.shared.durable.borrow().failed {
            return Err(failure.clone().into());
        }
        let state = self.lock();
        if state.closed {
            Err(StoreError::Closed)
        } else {
            Ok(state)
        }
    }

    /// Wakes the watches; called after the lock is released, so that they find it free.
    fn announce(&self, resource_version: u64) {
        self.shared.newest.send_if_modified(|newest| {
            let newer = resource_version > *newest;
            *newest = (*newest).max(resource_version);
            newer
        });
    }

    /// The number of the newest write.
    pub fn resource_version(&self) -> u64 {
        self.lock().newest
    }

    /// The object as it is now. `ns` is empty for cluster-scoped kinds.
    pub fn get(&self, kind: KindRef, ns: &str, name: &str) -> Option<Arc<Object>> {
        self.lock().get(kind, ns, name).cloned()
    }

    /// All objects of a kind in one namespace, or in all, ordered by namespace and name; with the
    /// resourceVersion at which this was so (what a watch goes on from).
    pub fn list(&self, kind: KindRef, ns: Option<&str>) -> (Vec<Arc<Object>>, u64) {
        let state = self.lock();
        let table = &state.tables[kinds::index(kind)];
        let objects = match ns {
            Some(ns) => table
                .get(ns)
                .into_iter()
                .flat_map(BTreeMap::values)
                .cloned()
                .collect(),
            None => table.values().flat_map(BTreeMap::values).cloned().collect(),
        };
        (objects, state.newest)
    }

    /// Stores a new object. Fills in apiVersion, kind, uid, creationTimestamp, resourceVersion,
    /// `generation: 1` where the kind counts it, and the name from `generateName`.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`]; [`StoreError::Invalid`] without a name, or with a namespace
    /// where the kind has none or the other way round; a failure of the disk.
    pub fn create(&self, kind: KindRef, mut value: Value) -> Result<Arc<Object>, StoreError> {
        let (ns, name) = object::prepare_new(kind, &mut value)?;
        let mut state = self.lock_for_writing()?;
        let name = match name {
            object::Name::Given(name) => name,
            object::Name::Generate(base) => {
                let base: String = base.chars().take(GENERATED_BASE).collect();
                let free = (0..8).find_map(|_| {
                    let name = format!("{base}{}", random_suffix());
                    state.get(kind, &ns, &name).is_none().then_some(name)
                });
                free.ok_or_else(|| StoreError::AlreadyExists { kind, name: base })?
            }
        };
        if state.get(kind, &ns, &name).is_some() {
            return Err(StoreError::AlreadyExists { kind, name });
        }
        value["metadata"]["name"] = Value::String(name);
        let object = state.commit(kind, value, Change::Added);
        drop(state);
        self.announce(object.resource_version());
        Ok(object)
    }

    /// Reads, changes and writes one object under the lock: `f` must not use the store.
    ///
    /// What `f` may not change (identity, resourceVersion, generation, deletion) is put back. If
    /// nothing changed, nothing is written and the resourceVersion stays. A change outside
    /// metadata and status adds one to the generation. If the object is being deleted and `f` took
    /// away its last finalizer, it is removed (the returned object is its last state).
    ///
    /// # Errors
    /// [`StoreError::NotFound`], whatever `f` returns, a failure of the disk.
    pub fn update(
        &self,
        kind: KindRef,
        ns: &str,
        name: &str,
        f: impl FnOnce(&mut Value) -> Result<(), StoreError>,
    ) -> Result<Arc<Object>, StoreError> {
        self.update_with(kind, ns, name, f)
    }

    /// [`Store::update`] for closures with an error of their own.
    ///
    /// # Errors
    /// As [`Store::update`].
    pub fn update_with<E: From<StoreError>>(
        &self,
        kind: KindRef,
        ns: &str,
        name: &str,
        f: impl FnOnce(&mut Value) -> Result<(), E>,
    ) -> Result<Arc<Object>, E> {
        let mut state = self.lock_for_writing()?;
        let current = state
            .get(kind, ns, name)
            .cloned()
            .ok_or_else(|| StoreError::not_found(kind, name))?;
        let mut value = current.value().clone();
        f(&mut value)?;
        if !value.is_object() || !value["metadata"].is_object() {
            let reason = "the object or its metadata is not a JSON object".to_owned();
            return Err(StoreError::Invalid {
                kind,
                name: name.to_owned(),
                reason,
            }
            .into());
        }
        object::keep_identity(current.value(), &mut value);
        if &value == current.value() {
            return Ok(current);
        }
        if kind.has_generation && object::spec_differs(current.value(), &value) {
            object::bump_generation(&mut value);
        }
        let change = if object::lost_last_finalizer(current.value(), &value) {
            Change::Deleted
        } else {
            Change::Modified
        };
        let object = state.commit(kind, value, change);
        drop(state);
        self.announce(object.resource_version());
        Ok(object)
    }

    /// Held by whoever gives out something that no two objects may have, from looking at what is
    /// taken until the object that has it is stored.
    pub(crate) fn allocation(&self) -> MutexGuard<'_, ()> {
        self.shared
            .allocation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces `.status` and nothing else; no generation is counted.
    ///
    /// # Errors
    /// As [`Store::update`].
    pub fn update_status(
        &self,
        kind: KindRef,
        ns: &str,
        name: &str,
        status: Value,
    ) -> Result<Arc<Object>, StoreError> {
        self.update(kind, ns, name, |object| {
            object["status"] = status;
            Ok(())
        })
    }

    /// Removes an object at once, whatever its finalizers and grace period say. Returns its last
    /// state, carrying the resourceVersion of the deletion.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], a failure of the disk.
    pub fn delete(&self, kind: KindRef, ns: &str, name: &str) -> Result<Arc<Object>, StoreError> {
        let mut state = self.lock_for_writing()?;
        let current = state
            .get(kind, ns, name)
            .cloned()
            .ok_or_else(|| StoreError::not_found(kind, name))?;
        let object = state.commit(kind, current.value().clone(), Change::Deleted);
        drop(state);
        self.announce(object.resource_version());
        Ok(object)
    }

    /// Marks an object as being deleted: `deletionTimestamp` (now + grace, as Kubernetes counts it)
    /// and `deletionGracePeriodSeconds`. Marking again can only shorten the grace period.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub fn mark_deleted(
        &self,
        kind: KindRef,
        ns: &str,
        name: &str,
        grace_seconds: i64,
    ) -> Result<Arc<Object>, StoreError> {
        let mut state = self.lock_for_writing()?;
        let current = state
            .get(kind, ns, name)
            .cloned()
            .ok_or_else(|| StoreError::not_found(kind, name))?;
        let mut value = current.value().clone();
        if !object::mark_deleted(kind, &mut value, grace_seconds.max(0)) {
            return Ok(current);
        }
        let object = state.commit(kind, value, Change::Modified);
        drop(state);
        self.announce(object.resource_version());
        Ok(object)
    }

    /// Every change of the given kinds after `from`, or from now on.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the events after `from` are no longer kept: list again.
    pub fn watch(&self, kinds: &[KindRef], from: Option<u64>) -> Result<Watch, StoreError> {
        let state = self.lock();
        let from = from.unwrap_or(state.newest);
        if from < state.floor() {
            return Err(StoreError::Gone {
                oldest: state.floor(),
            });
        }
        drop(state);
        Ok(Watch::new(
            Arc::downgrade(&self.shared),
            self.shared.newest.subscribe(),
            kinds,
            from,
        ))
    }

    /// Waits until the write with this number is on disk.
    ///
    /// # Errors
    /// [`StoreError::Disk`] when the disk refused a write: what is not durable by then never will be.
    pub async fn durable(&self, resource_version: u64) -> Result<(), StoreError> {
        let mut durable = self.shared.durable.clone();
        let reached = durable
            .wait_for(|p| p.resource_version >= resource_version || p.failed.is_some())
            .await
            .map(|p| (p.resource_version, p.failed.clone()));
        match reached {
            Ok((done, _)) if done >= resource_version => Ok(()),
            Ok((_, Some(failure))) => Err(failure.into()),
            Ok((_, None)) => Err(StoreError::Closed),
            // The disk thread ended: what it reported last is final.
            Err(_) if self.shared.durable.borrow().resource_version >= resource_version => Ok(()),
            Err(_) => Err(StoreError::Closed),
        }
    }

    /// Writes out everything and closes the file; blocks until that is done. Later writes fail with
    /// [`StoreError::Closed`], reads still answer, watches end.
    ///
    /// # Errors
    /// [`StoreError::Disk`] when the disk refused a write.
    pub fn close(&self) -> Result<(), StoreError> {
        {
            let mut state = self.lock();
            state.closed = true;
            state.disk = None;
        }
        // Wakes the watches without a new number, so that they see the end.
        self.shared.newest.send_modify(|_| ());
        let writer = self
            .shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            return Err(StoreError::Closed);
        }
        match &self.shared.durable.borrow().failed {
            Some(failure) => Err(failure.clone().into()),
            None => Ok(()),
        }
    }
}

fn random_suffix() -> String {
    use rand::RngExt as _;
    let mut rng = rand::rng();
    (0..5)
        .map(|_| char::from(NAME_LETTERS[rng.random_range(0..NAME_LETTERS.len())]))
        .collect()
}

#[cfg(test)]
mod tests;
