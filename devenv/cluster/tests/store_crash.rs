//! SIGKILL at a random moment: what is in the file afterwards is a prefix of the writes and has
//! everything that was reported durable.
//!
//! The test runs itself again as the writer. Rounds: 10, or `DEVENV_CRASH_ROUNDS`.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use devenv_cluster::{kinds::CONFIG_MAP, store::Store};
use serde_json::json;

const WRITER: &str = "DEVENV_CRASH_WRITER";

/// How many objects the writer cycles through.
const OBJECTS: u64 = 40;

fn main() {
    if let Some(path) = std::env::var_os(WRITER) {
        write_for_ever(Path::new(&path));
        return;
    }
    if std::env::args().any(|a| a == "--list") {
        println!("crash: test");
        return;
    }
    let rounds = std::env::var("DEVENV_CRASH_ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(10);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut highest = 0;
    let mut total = 0;
    for round in 0..rounds {
        let (durable, seen) = run_and_kill(&path);
        let store = Store::open(&path).unwrap_or_else(|e| panic!("round {round}: {e}"));
        let reopened_at = store.resource_version();
        assert!(
            reopened_at >= seen,
            "round {round}: {seen} was handed out, now it is {reopened_at}"
        );
        assert!(
            reopened_at >= highest,
            "round {round}: the counter went back"
        );
        highest = reopened_at;
        let written = written(&store)
            .unwrap_or_else(|| panic!("round {round}: the file is no prefix of the writes"));
        assert!(
            written >= durable,
            "round {round}: write {durable} was durable, the file ends at {written}"
        );
        // Numbers go on from round to round.
        total = durable;
        store.close().unwrap();
    }
    println!("crash: {rounds} rounds, {total} writes reported durable, none lost");
}

/// The writer: write `n` sets object `n % OBJECTS` to `n`, or deletes it when `n` is a multiple of
/// seven. Goes on from where the file ends.
fn write_for_ever(path: &Path) {
    let store = Store::open(path).unwrap();
    let mut n = written(&store).expect("the file was checked before") + 1;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel::<(u64, u64)>();
    let reporter = store.clone();
    runtime.spawn(async move {
        let mut out = std::io::stdout();
        while let Some((n, rv)) = rx.recv().await {
            reporter.durable(rv).await.unwrap();
            writeln!(out, "{n} {rv}").unwrap();
        }
    });
    loop {
        let name = format!("c{}", n % OBJECTS);
        let data = json!({"n": n.to_string(), "pad": "x".repeat((n % 300) as usize)});
        let rv = if n.is_multiple_of(7) && store.get(&CONFIG_MAP, "default", &name).is_some() {
            store
                .delete(&CONFIG_MAP, "default", &name)
                .unwrap()
                .resource_version()
        } else if store.get(&CONFIG_MAP, "default", &name).is_some() {
            store
                .update(&CONFIG_MAP, "default", &name, |v| {
                    v["data"] = data;
                    Ok(())
                })
                .unwrap()
                .resource_version()
        } else {
            let value = json!({"metadata": {"name": name, "namespace": "default"}, "data": data});
            store.create(&CONFIG_MAP, value).unwrap().resource_version()
        };
        tx.send((n, rv)).unwrap();
        n += 1;
        if n.is_multiple_of(16) {
            // Not so fast that the queue to the disk only grows.
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}

/// Runs the writer, kills it at a random moment; the last durable write and its number.
fn run_and_kill(path: &Path) -> (u64, u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(WRITER, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The moment is counted from the first durable write, so that there is something to lose.
    let mut last = parse(&lines.next().expect("the writer ended by itself").unwrap());
    let moment = Duration::from_micros(rand::random_range(100..150_000));
    let pid = child.id();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(moment);
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    });
    for line in lines.map_while(Result::ok) {
        // The last line may be cut off by the kill: then it was not reported.
        if line.split_once(' ').is_some_and(|(_, rv)| !rv.is_empty()) {
            last = parse(&line);
        }
    }
    killer.join().unwrap();
    child.wait().unwrap();
    last
}

fn parse(line: &str) -> (u64, u64) {
    let (n, rv) = line.split_once(' ').unwrap();
    (n.parse().unwrap(), rv.parse().unwrap())
}

/// The number of the last write in the file, if every object is as it was right after that write:
/// nothing older, nothing newer. `None` when the file is no prefix of the writes.
fn written(store: &Store) -> Option<u64> {
    let is: BTreeMap<String, u64> = store
        .list(&CONFIG_MAP, None)
        .0
        .iter()
        .map(|o| {
            (
                o.name().to_owned(),
                o.value()["data"]["n"].as_str().unwrap().parse().unwrap(),
            )
        })
        .collect();
    let newest = is.values().copied().max().unwrap_or(0);
    // A write that deletes leaves no number behind, and no two of them follow each other.
    [newest, newest + 1]
        .into_iter()
        .find(|n| state_after(*n) == is)
}

/// The objects after writes 1 to `n`.
fn state_after(n: u64) -> BTreeMap<String, u64> {
    let mut state = BTreeMap::new();
    for i in 1..=n {
        let name = format!("c{}", i % OBJECTS);
        if i.is_multiple_of(7) && state.contains_key(&name) {
            state.remove(&name);
        } else {
            state.insert(name, i);
        }
    }
    state
}
