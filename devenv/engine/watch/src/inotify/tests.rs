use std::fs;

use super::*;

/// The kernel's limit for one queue.
fn most() -> usize {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    limit.trim().parse().unwrap()
}

#[test]
fn a_queue_that_is_full_says_that_events_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let queue = Queue::new().unwrap();
    queue.watch(dir.path(), true).unwrap();
    // Nobody reads meanwhile; each file is three events.
    for i in 0..=most() / 3 {
        fs::write(dir.path().join(i.to_string()), "x").unwrap();
    }
    let mut events = Vec::new();
    while queue.read(&mut events).unwrap() {}
    let lost = events.iter().filter(|e| matches!(e, Told::Lost)).count();
    assert_eq!(lost, 1);
}

#[test]
fn the_same_folder_by_another_name_is_the_same_watch() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(".", &link).unwrap();
    let queue = Queue::new().unwrap();
    let watch = queue.watch(dir.path(), false).unwrap();
    assert_eq!(queue.watch(&link, true), Ok(watch));
    assert_eq!(queue.watch(&link, false), Ok(watch));
    // Asked for contents once, it keeps telling of them.
    fs::write(dir.path().join("a"), "").unwrap();
    let mut events = Vec::new();
    while queue.read(&mut events).unwrap() {}
    let told: Vec<What> = events
        .into_iter()
        .filter_map(|e| match e {
            Told::Name { what, .. } => Some(what),
            _ => None,
        })
        .collect();
    assert_eq!(told, [What::Came { new: true }, What::Changed]);
}

#[test]
fn what_is_no_folder_is_not_watched() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let queue = Queue::new().unwrap();
    assert_eq!(queue.watch(&file, true), Err(Refused::Gone));
    assert_eq!(
        queue.watch(&dir.path().join("none"), true),
        Err(Refused::Gone)
    );
    queue.unwatch(4711);
}
