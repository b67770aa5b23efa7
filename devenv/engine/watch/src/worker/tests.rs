//! A worker without its thread, so that events can pile up.

use std::{fs, path::Path};

use super::*;
use crate::{Options, inotify::Queue, poll::Polls, scope::Scope};

fn worker(root: &Path) -> (Worker, Orders) {
    let stop = Arc::new(AtomicBool::new(false));
    let (orders, rx) = Orders::new().unwrap();
    let shared = Shared {
        inbox: Inbox::new(Options::default()),
        mode: Mutex::new(Mode::Events),
        stop: stop.clone(),
        taken: watch::channel(0).0,
    };
    let polls = Polls::new(Duration::from_secs(1));
    let tree = Tree::new(root.to_owned(), Queue::new().map_err(Some), polls, stop);
    let mut worker = Worker::new(tree, Arc::new(shared), rx, orders.clone(), false);
    let scope = Scope::new(0, root.to_owned(), &[], true).unwrap();
    orders.send(Order::Set(Scopes::new(vec![scope])));
    worker.turn();
    (worker, orders)
}

#[tokio::test]
async fn events_that_are_lost_ask_for_a_rescan_and_what_is_new_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let (mut worker, _orders) = worker(dir.path());
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    for i in 0..=most.trim().parse::<usize>().unwrap() / 3 {
        fs::write(dir.path().join(i.to_string()), "x").unwrap();
    }
    // The kernel has no room to tell of this one.
    fs::create_dir_all(dir.path().join("unheard/of")).unwrap();
    worker.turn();
    assert!(worker.shared.inbox.next().await.unwrap().rescan);
    let file = dir.path().join("unheard/of/file");
    fs::write(&file, "x").unwrap();
    worker.turn();
    let burst = worker.shared.inbox.next().await.unwrap();
    assert!(!burst.rescan);
    assert_eq!(burst.owners[&0].iter().collect::<Vec<_>>(), [&file]);
}

#[test]
fn a_rule_that_keeps_changing_does_not_keep_it_busy() {
    let dir = tempfile::tempdir().unwrap();
    let (mut worker, _orders) = worker(dir.path());
    fs::write(dir.path().join(".gitignore"), "a").unwrap();
    worker.turn();
    assert!(!worker.stale);
    // As after a rebuild that took long.
    worker.rested = Instant::now() + Duration::from_secs(3600);
    fs::write(dir.path().join(".gitignore"), "b").unwrap();
    worker.turn();
    assert!(worker.stale);
    worker.rested = Instant::now();
    worker.turn();
    assert!(!worker.stale);
}
