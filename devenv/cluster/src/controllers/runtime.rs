//! The loop around a controller: watch, queue, reconcile, back off.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace, warn};

use crate::api::Failure;
use crate::kinds::KindRef;
use crate::store::{Object, Store, StoreError, WatchEvent};

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What a controller works on: one object, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

impl Key {
    /// A key by its parts.
    pub fn new(namespace: &str, name: &str) -> Key {
        Key {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of an object.
    pub fn of(object: &Object) -> Key {
        Key::new(object.namespace(), object.name())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why a reconciliation was not finished; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The store refused a read or a write.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object that the controller wanted to make is refused, as a client's would be.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// An object could not be written as JSON.
    #[error("an object could not be turned into JSON")]
    Json(#[from] serde_json::Error),
    /// Anything else, said in a sentence.
    #[error("{0}")]
    Other(String),
}

/// When to look at a key again without being woken.
pub type Again = Option<Duration>;

/// A controller: from a key to actions.
pub trait Controller: Send {
    /// Name for logs.
    fn name(&self) -> &'static str;
    /// Kinds whose changes may concern it.
    fn kinds(&self) -> Vec<KindRef>;
    /// Keys that a change concerns.
    fn keys(&self, event: &WatchEvent) -> Vec<Key>;
    /// Every key there is: at the start, and when changes were missed.
    fn all(&self) -> Vec<Key>;
    /// Brings one key's objects to where they should be. Must be idempotent.
    fn reconcile(
        &mut self,
        key: &Key,
    ) -> impl Future<Output = Result<Again, ReconcileError>> + Send;
}

/// Runs a controller until `stop`, or until the store is closed.
///
/// # Errors
/// When the store cannot be watched; errors of single keys are logged and tried again.
pub async fn run<C: Controller>(
    store: &Store,
    mut controller: C,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    let kinds = controller.kinds();
    let mut watch = store.watch(&kinds, None)?;
    let mut queue = Queue::default();
    queue.extend(controller.all());
    loop {
        loop {
            match watch.try_next() {
                Ok(Some(event)) => wake(&controller, &mut queue, &event),
                Ok(None) => break,
                Err(StoreError::Gone { .. }) => {
                    debug!(
                        controller = controller.name(),
                        "lagged behind, listing again"
                    );
                    watch = store.watch(&kinds, None)?;
                    queue.extend(controller.all());
                }
                Err(StoreError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if stop.is_cancelled() {
            return Ok(());
        }
        queue.move_due(Instant::now());
        if let Some(key) = queue.pop() {
            match controller.reconcile(&key).await {
                Ok(again) => queue.done(key, again),
                Err(ReconcileError::Store(StoreError::Closed)) => return Ok(()),
                Err(error) => {
                    let delay = queue.failed(key.clone());
                    report(controller.name(), &key, &error, delay);
                }
            }
            // A long queue must not keep the other tasks of this thread waiting.
            tokio::task::yield_now().await;
            continue;
        }
        let due = queue.next_due();
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            event = watch.next() => match event {
                Ok(event) => wake(&controller, &mut queue, &event),
                // `try_next` above says the same again and handles it.
                Err(_) => continue,
            },
            () = sleep_until(due) => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn wake<C: Controller>(controller: &C, queue: &mut Queue, event: &WatchEvent) {
    let keys = controller.keys(event);
    if !keys.is_empty() {
        trace!(
            controller = controller.name(),
            change = ?event.change,
            kind = event.object.kind().kind,
            object = %Key::of(&event.object),
            "woken"
        );
    }
    queue.extend(keys);
}

fn report(controller: &str, key: &Key, error: &ReconcileError, delay: Duration) {
    let raced = matches!(
        error,
        ReconcileError::Store(
            StoreError::Conflict { .. }
                | StoreError::NotFound { .. }
                | StoreError::AlreadyExists { .. }
        )
    );
    let error: &dyn std::error::Error = error;
    if raced {
        debug!(controller, %key, error, "overtaken by another change, trying again");
    } else {
        warn!(controller, %key, error, retry_in = ?delay, "could not reconcile");
    }
}

/// Keys to work on, each at most once; those that failed or asked for it, later.
#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    later: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
}

impl Queue {
    fn extend(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if self.queued.insert(key.clone()) {
                self.ready.push_back(key);
            }
        }
    }

    fn pop(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.forget(&key);
        Some(key)
    }

    fn done(&mut self, key: Key, again: Again) {
        self.failures.remove(&key);
        if let Some(delay) = again {
            self.schedule(key, delay);
        }
    }

    fn failed(&mut self, key: Key) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        *failures += 1;
        let delay = FIRST_RETRY
            .saturating_mul(1 << (*failures - 1).min(20))
            .min(LONGEST_RETRY);
        self.schedule(key, delay);
        delay
    }

    fn schedule(&mut self, key: Key, delay: Duration) {
        self.forget(&key);
        let at = Instant::now() + delay;
        self.due.insert(key.clone(), at);
        self.later.insert((at, key));
    }

    fn forget(&mut self, key: &Key) {
        if let Some(at) = self.due.remove(key) {
            self.later.remove(&(at, key.clone()));
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    fn move_due(&mut self, now: Instant) {
        while let Some((at, _)) = self.later.first()
            && *at <= now
            && let Some((_, key)) = self.later.pop_first()
        {
            self.due.remove(&key);
            self.extend([key]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;
    use crate::kinds;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_queued_once_and_retries_double() {
        let mut queue = Queue::default();
        queue.extend([key("a"), key("b"), key("a")]);
        assert_eq!(queue.pop(), Some(key("a")));
        assert_eq!(queue.pop(), Some(key("b")));
        assert_eq!(queue.pop(), None);
        let delays: Vec<u128> = (0..4).map(|_| queue.failed(key("a")).as_millis()).collect();
        assert_eq!(delays, [5, 10, 20, 40]);
        queue.move_due(Instant::now());
        assert_eq!(queue.pop(), None, "not due yet");
        queue.move_due(Instant::now() + Duration::from_millis(40));
        assert_eq!(queue.pop(), Some(key("a")));
        queue.done(key("a"), None);
        assert_eq!(
            queue.failed(key("a")).as_millis(),
            5,
            "success forgets failures"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn waking_a_waiting_key_takes_it_at_once_and_only_once() {
        let mut queue = Queue::default();
        queue.done(key("a"), Some(Duration::from_secs(9)));
        queue.extend([key("a")]);
        assert_eq!(queue.pop(), Some(key("a")));
        assert_eq!(queue.next_due(), None);
    }

    struct Recording {
        store: Store,
        seen: Arc<Mutex<Vec<String>>>,
        fail_first: bool,
    }

    impl Controller for Recording {
        fn name(&self) -> &'static str {
            "recording"
        }
        fn kinds(&self) -> Vec<KindRef> {
            vec![&kinds::CONFIG_MAP]
        }
        fn keys(&self, event: &WatchEvent) -> Vec<Key> {
            vec![Key::of(&event.object)]
        }
        fn all(&self) -> Vec<Key> {
            self.store
                .list(&kinds::CONFIG_MAP, None)
                .0
                .iter()
                .map(|o| Key::of(o))
                .collect()
        }
        async fn reconcile(&mut self, key: &Key) -> Result<Again, ReconcileError> {
            if std::mem::take(&mut self.fail_first) {
                return Err(ReconcileError::Other("once".into()));
            }
            self.seen
                .lock()
                .expect("not poisoned")
                .push(key.name.clone());
            Ok(None)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sees_what_was_there_what_comes_and_what_a_lag_hid() {
        let store = Store::in_memory();
        let put = |name: &str| {
            let object = json!({"metadata": {"name": name, "namespace": "default"}});
            store.create(&kinds::CONFIG_MAP, object).expect("created");
        };
        put("old");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let controller = Recording {
            store: store.clone(),
            seen: seen.clone(),
            fail_first: true,
        };
        let task = tokio::spawn({
            let (store, stop) = (store.clone(), stop.clone());
            async move { run(&store, controller, stop).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(
            *seen.lock().expect("not poisoned"),
            ["old"],
            "tried again after the failure"
        );
        for n in 0..crate::store::RING + 10 {
            put(&format!("n{n}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let distinct: HashSet<String> =
            seen.lock().expect("not poisoned").iter().cloned().collect();
        assert_eq!(
            distinct.len(),
            crate::store::RING + 11,
            "nothing is lost when the ring overflows"
        );
        stop.cancel();
        task.await.expect("no panic").expect("no error");
    }
}
