//! Processes and the namespaces, cgroups and sockets that they hold, from /proc.

use super::Scope;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

const NAMESPACES: &[&str] = &["net", "mnt", "pid", "ipc", "uts", "user", "cgroup"];

/// A living process.
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    /// Clock ticks after boot: with the pid, an identity that is never used again.
    pub start: u64,
    pub command: String,
    /// The program's file, without the mark of a deleted one.
    pub program: PathBuf,
    /// Everything by which a process may point at a project.
    pointers: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command: String = self.command.chars().take(160).collect();
        write!(f, "pid {} of parent {}: {command}", self.pid, self.parent)
    }
}

/// All living processes that can be read; zombies are left out.
pub fn read_all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return vec![];
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(read)
        .collect()
}

/// Living processes whose command contains the text.
pub fn find_processes(text: &str) -> Vec<Process> {
    let mut all = read_all();
    all.retain(|process| process.command.contains(text));
    all
}

/// Living processes of a user.
pub fn processes_of(user: u32) -> Vec<Process> {
    let mut all = read_all();
    all.retain(|process| {
        fs::metadata(format!("/proc/{}", process.pid)).is_ok_and(|found| found.uid() == user)
    });
    all
}

fn read(pid: u32) -> Option<Process> {
    let folder = format!("/proc/{pid}");
    let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
    // The name in parentheses may contain anything: the fields follow its end.
    let (head, tail) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = tail.split(' ').collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    let words = |name: &str| {
        fs::read(format!("{folder}/{name}"))
            .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
            .unwrap_or_default()
    };
    let link = |name: &str| fs::read_link(format!("{folder}/{name}")).unwrap_or_default();
    let mut command = words("cmdline").trim_end().to_owned();
    let program = link("exe").to_string_lossy().replace(" (deleted)", "");
    let pointers = [
        command.clone(),
        words("environ"),
        program.clone(),
        link("cwd").to_string_lossy().into_owned(),
        link("root").to_string_lossy().into_owned(),
    ]
    .join("\n");
    if command.is_empty() {
        command = head
            .split_once('(')
            .map_or("?", |(_, name)| name)
            .to_owned();
    }
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
        command,
        program: program.into(),
        pointers,
    })
}

/// The process and all below it.
pub fn family(all: &[Process], pid: u32) -> Vec<&Process> {
    let mut pids = BTreeSet::from([pid]);
    loop {
        let before = pids.len();
        for process in all {
            if pids.contains(&process.parent) {
                pids.insert(process.pid);
            }
        }
        if pids.len() == before {
            return all.iter().filter(|p| pids.contains(&p.pid)).collect();
        }
    }
}

/// The processes that are devenv's, by the scope's rules; never this one.
pub fn ours<'a>(all: &'a [Process], scope: &Scope) -> Vec<&'a Process> {
    let project = scope.project.to_string_lossy();
    let own = std::process::id();
    let direct = all.iter().filter(|process| {
        process.pid != own
            && (process.program == scope.binary
                || scope.processes.contains(&(process.pid, process.start))
                || process.pointers.contains(&*project))
    });
    let mut found = BTreeMap::new();
    for process in direct {
        for member in family(all, process.pid) {
            found.insert(member.pid, member);
        }
    }
    found.into_values().collect()
}

/// Every namespace that a living process holds, with its holders.
pub fn namespaces(all: &[Process]) -> BTreeMap<String, BTreeSet<u32>> {
    let mut found: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for process in all {
        for namespace in namespaces_of(&process.pid.to_string()) {
            found.entry(namespace).or_default().insert(process.pid);
        }
    }
    found
}

/// The namespaces of one process (`self` or a pid), as `net:[4026531840]`.
pub fn namespaces_of(process: &str) -> BTreeSet<String> {
    NAMESPACES
        .iter()
        .filter_map(|kind| fs::read_link(format!("/proc/{process}/ns/{kind}")).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

/// The cgroups of one process, as the directories under /sys/fs/cgroup end.
pub fn cgroups_of(process: &str) -> BTreeSet<String> {
    fs::read_to_string(format!("/proc/{process}/cgroup"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .filter(|path| *path != "/")
        .map(str::to_owned)
        .collect()
}

/// The sockets that a process has open, by inode.
pub fn socket_inodes(pid: u32) -> BTreeSet<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            let link = link.to_str()?;
            link.strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse()
                .ok()
        })
        .collect()
}
