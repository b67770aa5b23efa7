use serde_json::json;

use super::*;
use crate::kinds::{CONFIG_MAP, DEPLOYMENT, POD};

fn config(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "data": {"k": "0"}})
}

fn set(store: &Store, name: &str, value: usize) -> Arc<Object> {
    store
        .update(&CONFIG_MAP, "default", name, |v| {
            v["data"]["k"] = json!(value.to_string());
            Ok(())
        })
        .unwrap()
}

#[test]
fn new_objects_are_completed() {
    let store = Store::in_memory();
    let made = store.create(&CONFIG_MAP, config("a")).unwrap();
    assert_eq!(
        (made.namespace(), made.name(), made.kind()),
        ("default", "a", &CONFIG_MAP)
    );
    let metadata = &made.value()["metadata"];
    assert_eq!(
        metadata["resourceVersion"],
        made.resource_version().to_string()
    );
    assert_eq!(metadata["uid"], made.uid());
    assert!(
        metadata["creationTimestamp"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    assert_eq!(metadata.get("generation"), None);
    assert_eq!(made.value()["kind"], "ConfigMap");
    let again = store.create(&CONFIG_MAP, config("a")).unwrap_err();
    assert_eq!(again.to_string(), "configmaps \"a\" already exists");
    let nowhere = store.create(&CONFIG_MAP, json!({"metadata": {"name": "a"}}));
    assert!(matches!(nowhere, Err(StoreError::Invalid { .. })));
    assert!(matches!(
        store.create(&CONFIG_MAP, json!([])),
        Err(StoreError::Invalid { .. })
    ));
}

#[test]
fn names_are_generated() {
    let store = Store::in_memory();
    let long = "x".repeat(80);
    let made = store
        .create(
            &POD,
            json!({"metadata": {"generateName": long, "namespace": "default"}}),
        )
        .unwrap();
    assert_eq!(made.name().len(), 63);
}

#[test]
fn updates_count_versions_and_generations() {
    let store = Store::in_memory();
    let deployment =
        json!({"metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": 1}});
    let made = store.create(&DEPLOYMENT, deployment).unwrap();
    assert_eq!(made.value()["metadata"]["generation"], 1);
    let change = |f: &dyn Fn(&mut Value)| {
        store
            .update(&DEPLOYMENT, "default", "d", |v| {
                f(v);
                Ok(())
            })
            .unwrap()
    };
    let same = change(&|v| v["metadata"]["resourceVersion"] = json!("1"));
    assert!(Arc::ptr_eq(
        &same,
        &store.get(&DEPLOYMENT, "default", "d").unwrap()
    ));
    assert_eq!(same.resource_version(), made.resource_version());
    let scaled = change(&|v| v["spec"]["replicas"] = json!(2));
    assert_eq!(scaled.value()["metadata"]["generation"], 2);
    let labelled = change(&|v| v["metadata"]["labels"] = json!({"a": "b"}));
    assert_eq!(labelled.value()["metadata"]["generation"], 2);
    let stolen = change(&|v| {
        v["metadata"]["uid"] = json!("other");
        v["metadata"]["name"] = json!("other");
        v["kind"] = json!("Other");
        v["spec"]["replicas"] = json!(3);
    });
    assert_eq!((stolen.uid(), stolen.name()), (made.uid(), "d"));
    assert_eq!(stolen.value()["kind"], "Deployment");
    let status = store
        .update_status(&DEPLOYMENT, "default", "d", json!({"replicas": 3}))
        .unwrap();
    assert_eq!(status.value()["metadata"]["generation"], 3);
    assert_eq!(status.value()["status"]["replicas"], 3);
    let refused = store.update(&DEPLOYMENT, "default", "d", |v| {
        v["spec"] = json!(1);
        Err(StoreError::Closed)
    });
    assert!(matches!(refused, Err(StoreError::Closed)));
    assert_eq!(
        store.get(&DEPLOYMENT, "default", "d").unwrap().value()["spec"]["replicas"],
        3
    );
    assert!(matches!(
        store.update(&DEPLOYMENT, "default", "nope", |_| Ok(())),
        Err(StoreError::NotFound { .. })
    ));
}

#[test]
fn deletions_can_wait() {
    let store = Store::in_memory();
    let pod = json!({"metadata": {"name": "p", "namespace": "default", "finalizers": ["a", "b"]}});
    store.create(&POD, pod).unwrap();
    let marked = store.mark_deleted(&POD, "default", "p", 30).unwrap();
    assert_eq!(marked.value()["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(marked.value()["metadata"]["generation"], 2);
    let longer = store.mark_deleted(&POD, "default", "p", 60).unwrap();
    assert_eq!(
        longer.resource_version(),
        marked.resource_version(),
        "only shorter counts"
    );
    let now = store.mark_deleted(&POD, "default", "p", 0).unwrap();
    assert!(now.is_deleting());
    let without = |finalizers: Value| {
        store
            .update(&POD, "default", "p", |v| {
                v["metadata"]["finalizers"] = finalizers;
                v["metadata"]["deletionTimestamp"] = Value::Null;
                Ok(())
            })
            .unwrap()
    };
    assert!(
        without(json!(["b"])).is_deleting(),
        "a deletion cannot be taken back"
    );
    assert!(store.get(&POD, "default", "p").is_some());
    without(json!([]));
    assert!(
        store.get(&POD, "default", "p").is_none(),
        "the last finalizer was what kept it"
    );
}

#[tokio::test]
async fn watches_see_every_change_in_order() {
    let store = Store::in_memory();
    let before = store.resource_version();
    let mut live = store.watch(&[&CONFIG_MAP], None).unwrap();
    let made = store.create(&CONFIG_MAP, config("a")).unwrap();
    store
        .create(
            &POD,
            json!({"metadata": {"name": "p", "namespace": "default"}}),
        )
        .unwrap();
    set(&store, "a", 1);
    let deleted = store.delete(&CONFIG_MAP, "default", "a").unwrap();
    assert!(deleted.resource_version() > made.resource_version());
    let mut late = store.watch(&[&CONFIG_MAP], Some(before)).unwrap();
    for watch in [&mut live, &mut late] {
        let mut seen = Vec::new();
        for _ in 0..3 {
            let event = watch.next().await.unwrap();
            assert_eq!(event.resource_version, event.object.resource_version());
            seen.push((event.change, event.previous.map(|p| p.resource_version())));
        }
        assert_eq!(seen[0], (Change::Added, None));
        assert_eq!(seen[1], (Change::Modified, Some(made.resource_version())));
        assert_eq!(seen[2].0, Change::Deleted);
        assert!(watch.try_next().unwrap().is_none());
    }
    // A change that comes while someone waits wakes them.
    let waiting = tokio::spawn(async move { live.next().await.unwrap().object.name().to_owned() });
    tokio::task::yield_now().await;
    store.create(&CONFIG_MAP, config("b")).unwrap();
    assert_eq!(waiting.await.unwrap(), "b");
}

#[tokio::test]
async fn a_watch_that_lags_is_told() {
    let store = Store::in_memory();
    store.create(&CONFIG_MAP, config("a")).unwrap();
    let start = store.resource_version();
    let mut slow = store.watch(&[&CONFIG_MAP], None).unwrap();
    for i in 1..=RING {
        set(&store, "a", i);
    }
    let mut just = store.watch(&[&CONFIG_MAP], Some(start)).unwrap();
    assert_eq!(just.next().await.unwrap().resource_version, start + 1);
    set(&store, "a", RING + 1);
    assert!(matches!(slow.next().await, Err(StoreError::Gone { oldest }) if oldest == start + 1));
    assert!(matches!(
        store.watch(&[&CONFIG_MAP], Some(start)),
        Err(StoreError::Gone { .. })
    ));
}

#[tokio::test]
async fn watches_end_with_the_store() {
    let store = Store::in_memory();
    let mut closed = store.watch(&[&CONFIG_MAP], None).unwrap();
    store.create(&CONFIG_MAP, config("a")).unwrap();
    store.close().unwrap();
    assert_eq!(
        closed.next().await.unwrap().object.name(),
        "a",
        "what happened before is still told"
    );
    assert!(matches!(closed.next().await, Err(StoreError::Closed)));
    assert!(matches!(
        store.create(&CONFIG_MAP, config("b")),
        Err(StoreError::Closed)
    ));
    let dropped = Store::in_memory();
    let mut watch = dropped.watch(&[&CONFIG_MAP], None).unwrap();
    drop(dropped);
    assert!(matches!(watch.next().await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    assert!(store.get(&crate::kinds::NAMESPACE, "", "default").is_some());
    assert!(matches!(Store::open(&path), Err(StoreError::InUse { .. })));
    for i in 0..50 {
        store.create(&CONFIG_MAP, config(&format!("c{i}"))).unwrap();
    }
    store.delete(&CONFIG_MAP, "default", "c7").unwrap();
    let last = set(&store, "c8", 8);
    store.durable(last.resource_version()).await.unwrap();
    store.close().unwrap();
    store.durable(last.resource_version()).await.unwrap();
    assert!(matches!(
        store.durable(last.resource_version() + 1).await,
        Err(StoreError::Closed)
    ));

    let again = Store::open(&path).unwrap();
    let (objects, rv) = again.list(&CONFIG_MAP, None);
    assert_eq!(objects.len(), 49);
    assert_eq!(rv, last.resource_version(), "a clean end wastes no numbers");
    assert_eq!(
        again.get(&CONFIG_MAP, "default", "c8").unwrap().value(),
        last.value()
    );
    assert!(matches!(
        again.watch(&[&CONFIG_MAP], Some(rv - 1)),
        Err(StoreError::Gone { .. })
    ));
    again.watch(&[&CONFIG_MAP], Some(rv)).unwrap();
}

#[test]
fn damaged_files_are_errors_that_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    for i in 0..50 {
        store.create(&CONFIG_MAP, config(&format!("c{i}"))).unwrap();
    }
    store.close().unwrap();
    let good = std::fs::read(&path).unwrap();

    let check = |what: &str, bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        match Store::open(&path) {
            Err(e @ StoreError::Corrupt { .. }) => {
                assert!(e.to_string().contains("devenv down -v"), "{what}: {e}");
            }
            other => panic!("{what}: {other:?}"),
        }
    };
    check(
        "not a database",
        b"hello, I am a text file and not a database at all",
    );
    check("cut in half", &good[..good.len() / 2]);
    let mut noise = good.clone();
    let length = noise.len();
    for (i, byte) in noise.iter_mut().enumerate().skip(512).take(length - 512) {
        *byte = (i * 31 % 251) as u8;
    }
    check("noise behind the header", &noise);
    // One broken byte inside an object's JSON.
    let mut broken = good.clone();
    let needle = b"\"ConfigMap\"";
    let at = broken
        .windows(needle.len())
        .position(|w| w == needle)
        .unwrap();
    broken[at] = b'{';
    std::fs::write(&path, &broken).unwrap();
    // Found by a checksum or by the parser; or it hit an old page that nothing reads any more.
    if let Err(e) = Store::open(&path) {
        assert!(matches!(e, StoreError::Corrupt { .. }), "{e}");
    }
    let missing = dir.path().join("no/such/folder/store.redb");
    assert!(matches!(Store::open(&missing), Err(StoreError::Io { .. })));
}
