//! A process's descendants, and the end of this one's.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::reaper::Reaper;

/// How long to wait for a death before looking again.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};
/// When to give up: what is left is out of reach (a set-user-id program) or
/// hangs in the kernel.
const LIMIT: Duration = Duration::from_secs(10);

/// Makes orphans of descendants children of this process.
pub(super) fn adopt_orphans() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Kills every descendant and waits until none is left.
///
/// The end is exact for a child subreaper: each descendant hangs on a child,
/// and an orphan becomes one, so without a child there is no descendant. A
/// process that forks faster than it is found is met again on the next look.
pub(super) fn end(reaper: &Reaper) {
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        for pid in descendants() {
            // It may be dead by now.
            let _ = kill(pid, Signal::SIGKILL);
        }
        if reap_all() {
            return;
        }
        let mut fds = [PollFd::new(reaper, PollFlags::IN)];
        // Interrupted or over, the next look tells.
        let _ = poll(&mut fds, Some(&LOOK));
        let _ = reaper.acknowledge();
    }
}

/// Reaps what is dead; true when no child is left.
fn reap_all() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return false,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return true,
        }
    }
}

/// Every descendant of this process that a look finds, parents before their children.
pub(super) fn descendants() -> Vec<Pid> {
    descendants_of(getpid())
}

/// The same for any process.
pub(crate) fn descendants_of(root: Pid) -> Vec<Pid> {
    walk(root).unwrap_or_else(|_| scan(root).unwrap_or_default())
}

/// By the kernel's lists of children; fails where it was built without them
/// (`CONFIG_PROC_CHILDREN`).
fn walk(root: Pid) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        let children = match children(parent) {
            Ok(children) => children,
            Err(error) if parent == root => return Err(error),
            // It is gone, and its children are the root's now.
            Err(_) => continue,
        };
        for child in children {
            if seen.insert(child) {
                found.push(child);
                next.push(child);
            }
        }
    }
    Ok(found)
}

/// Each thread has the children that it forked itself.
fn children(parent: Pid) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{parent}/task"))? {
        let list = fs::read_to_string(thread?.path().join("children"))?;
        let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
        found.extend(pids.map(Pid::from_raw));
    }
    Ok(found)
}

/// By asking every process for its parent.
fn scan(root: Pid) -> io::Result<Vec<Pid>> {
    let mut of: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        // Gone meanwhile.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        if let Some(parent) = parent_in(&stat) {
            of.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root.as_raw()];
    while let Some(children) = next.pop().map(|parent| of.remove(&parent)) {
        for child in children.into_iter().flatten() {
            found.push(Pid::from_raw(child));
            next.push(child);
        }
    }
    Ok(found)
}

/// The field after the state; the name before that may hold anything.
fn parent_in(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[rstest::rstest]
    #[case("12 (sh) S 7 12 12 0", Some(7))]
    #[case("12 (a) R 1 (x) Z 99 1", Some(99))]
    #[case("12 (sh", None)]
    fn parents(#[case] stat: &str, #[case] parent: Option<i32>) {
        assert_eq!(parent_in(stat), parent);
    }

    #[test]
    fn both_ways_find_a_grandchild() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 1000 & echo $!; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = shell.stdout.take().unwrap();
        io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line).unwrap();
        let grandchild = Pid::from_raw(line.trim().parse().unwrap());
        let child = Pid::from_raw(shell.id().cast_signed());
        for found in [walk(getpid()).unwrap(), scan(getpid()).unwrap()] {
            let at = |pid| found.iter().position(|p| *p == pid);
            assert!(at(child).unwrap() < at(grandchild).unwrap(), "{found:?}");
        }
        kill(grandchild, Signal::SIGKILL).unwrap();
        shell.wait().unwrap();
    }
}
