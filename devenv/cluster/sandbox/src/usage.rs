//! What a container's run uses: from its control group where it has one, else
//! summed over its processes.
//!
//! The sum knows less. Of a process that has ended it sees what its parent
//! waited for, and a parent that ignores its children (SIGCHLD) loses their
//! time: the CPU time is a lower bound then. Pages that several processes share
//! are split among them (Pss), so that they count once.

use std::{fs, io, os::unix::fs::MetadataExt, time::Duration};

use nix::{time::clock_getcpuclockid, unistd::Pid};
use rustix::param::{clock_ticks_per_second, page_size};

use crate::{cgroup::Group, plain::descendants_of};

/// What a container has used and uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since it was started, of all processors together.
    pub cpu: Duration,
    /// Memory in bytes: of a control group the working set, as the kubelet tells
    /// it; of processes their proportional share (Pss).
    pub memory: u64,
}

/// Tells what one run of a container uses. Reading it costs a few small files,
/// or some for each process where there is no control group.
#[derive(Clone, Debug)]
pub struct Meter {
    group: Group,
    tree: Tree,
}

/// The container's processes.
#[derive(Clone, Copy, Debug)]
struct Tree {
    /// Everything that comes of the container stays below this one: it adopts
    /// the orphans.
    root: Pid,
    /// The container's main process.
    main: Pid,
    /// Whether other containers are below it, too, each with its own mounts.
    shared: bool,
}

impl Meter {
    /// Of a container in the pod whose PID 1 is `init`.
    pub(crate) fn of_pod(group: Group, init: u32, main: u32) -> Meter {
        Meter::of(group, init, main, true)
    }

    /// Of the program of a holder.
    pub(crate) fn of_holder(holder: u32, main: u32) -> Meter {
        Meter::of(Group::default(), holder, main, false)
    }

    fn of(group: Group, root: u32, main: u32, shared: bool) -> Meter {
        let pid = |pid: u32| Pid::from_raw(pid.cast_signed());
        let tree = Tree {
            root: pid(root),
            main: pid(main),
            shared,
        };
        Meter { group, tree }
    }

    /// What it has used and uses now. Blocks for as long as the kernel takes,
    /// which is longer for processes with much memory.
    ///
    /// # Errors
    /// What the system says, above all when the container has ended.
    pub fn read(&self) -> io::Result<Usage> {
        let (cpu, memory) = (self.group.cpu()?, self.group.working_set()?);
        if let (Some(cpu), Some(memory)) = (cpu, memory) {
            return Ok(Usage { cpu, memory });
        }
        let members = self.tree.members()?;
        Ok(Usage {
            cpu: cpu.unwrap_or_else(|| self.tree.cpu(&members)),
            memory: memory.unwrap_or_else(|| members.iter().map(|pid| memory_of(*pid)).sum()),
        })
    }
}

impl Tree {
    fn members(&self) -> io::Result<Vec<Pid>> {
        let below = descendants_of(self.root);
        if !below.contains(&self.main) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !self.shared {
            return Ok(below);
        }
        let Some(own) = mount_namespace(self.main) else {
            return Err(io::ErrorKind::PermissionDenied.into());
        };
        let is_ours = |pid: &Pid| mount_namespace(*pid) == Some(own);
        Ok(below.into_iter().filter(is_ours).collect())
    }

    fn cpu(&self, members: &[Pid]) -> Duration {
        let own: Duration = members.iter().map(|pid| cpu_of(*pid)).sum();
        // Orphans that a holder has reaped were this container's.
        let adopted = match self.shared {
            true => Duration::ZERO,
            false => times(self.root).map_or(Duration::ZERO, |times| times.children),
        };
        own + adopted
    }
}

/// Which mounts a process sees; `None` when it is dead, or that is not ours to know.
fn mount_namespace(pid: Pid) -> Option<u64> {
    let namespace = fs::metadata(format!("/proc/{pid}/ns/mnt")).ok()?;
    Some(namespace.ino())
}

/// CPU time of a process, and of its children that it has waited for; nothing
/// once it is gone.
fn cpu_of(pid: Pid) -> Duration {
    let Some(times) = times(pid) else {
        return Duration::ZERO;
    };
    // To the nanosecond, where the file counts in hundredths of a second.
    let exact = clock_getcpuclockid(pid).and_then(|clock| clock.now());
    exact.map_or(times.own, Duration::from) + times.children
}

/// What `/proc/PID/stat` counts.
#[derive(Debug, PartialEq, Eq)]
struct Times {
    own: Duration,
    /// Of children that were waited for, and theirs.
    children: Duration,
}

fn times(pid: Pid) -> Option<Times> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    times_in(&stat, clock_ticks_per_second())
}

/// utime, stime, cutime and cstime: the fields 14 to 17 of proc_pid_stat(5). The
/// name in the second field may hold anything.
fn times_in(stat: &str, ticks_per_second: u64) -> Option<Times> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || {
        let ticks: u64 = fields.next()?.parse().ok()?;
        let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(ticks_per_second.max(1));
        u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
    };
    let (user, system) = (next()?, next()?);
    let (children_user, children_system) = (next()?, next()?);
    Some(Times {
        own: user.checked_add(system)?,
        children: children_user.checked_add(children_system)?,
    })
}

/// Its memory in bytes; nothing once it is gone.
fn memory_of(pid: Pid) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    if let Some(bytes) = rollup.as_deref().and_then(share_in) {
        return bytes;
    }
    // Not ours to know (a set-user-id program), or a kernel before 4.14: what it
    // shares counts in full.
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let page = u64::try_from(page_size()).unwrap_or(4096);
    resident_in(&statm).map_or(0, |pages| pages.saturating_mul(page))
}

/// `Pss` of `smaps_rollup`, in bytes.
fn share_in(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Resident pages: the second field of `statm`.
fn resident_in(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
        time::Instant,
    };

    use nix::sys::signal::{Signal, kill};
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("7 (sh) S 1 7 7 0 -1 4194560 100 200 0 0 150 50 7 3 20 0 1 0", Some((2000, 100)))]
    #[case::odd_name("7 (a) S (b) c) R 1 7 7 0 -1 4194560 1 2 0 0 1 0 0 0 20", Some((10, 0)))]
    #[case::cut("7 (sh) S 1 7 7 0 -1 4194560 100 200 0 0 150", None)]
    #[case::no_number("7 (sh) S 1 7 7 0 -1 4194560 100 200 0 0 150 x 7 3", None)]
    #[case::huge("7 (sh) S 1 7 7 0 -1 4194560 1 2 0 0 18446744073709551615 0 0 0", None)]
    #[case::nothing("", None)]
    fn cpu_times(#[case] stat: &str, #[case] milliseconds: Option<(u64, u64)>) {
        let expected = milliseconds.map(|(own, children)| Times {
            own: Duration::from_millis(own),
            children: Duration::from_millis(children),
        });
        assert_eq!(times_in(stat, 100), expected);
    }

    #[rstest]
    #[case(
        "00400000-7fff [rollup]\nRss:   900 kB\nPss:   123 kB\nPss_Anon: 7 kB\n",
        Some(125_952)
    )]
    #[case("Rss:   900 kB\n", None)]
    #[case("Pss: much\n", None)]
    fn shares(#[case] rollup: &str, #[case] bytes: Option<u64>) {
        assert_eq!(share_in(rollup), bytes);
    }

    #[rstest]
    #[case("2000 300 100 1 0 50 0\n", Some(300))]
    #[case("2000", None)]
    fn resident(#[case] statm: &str, #[case] pages: Option<u64>) {
        assert_eq!(resident_in(statm), pages);
    }

    /// What a program starts is its own; its end is told.
    #[test]
    fn a_tree_is_summed_up() {
        let script = "sh -c 'while :; do :; done' & burner=$!; \
            python3 -c 'import time; m = bytearray(30 << 20); print(\"held\", flush=True); time.sleep(1000)' & \
            echo $burner; wait";
        let mut root = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(root.stdout.take().unwrap()).lines();
        let (held, pids): (Vec<String>, Vec<String>) = lines
            .take(2)
            .map(Result::unwrap)
            .partition(|line| line == "held");
        assert_eq!(held.len(), 1);
        let meter = Meter::of_holder(root.id(), pids[0].parse().unwrap());
        let begin = Instant::now();
        let first = meter.read().unwrap();
        assert!((30 << 20..100 << 20).contains(&first.memory), "{first:?}");
        let used = loop {
            let used = meter.read().unwrap().cpu - first.cpu;
            if used >= Duration::from_millis(20) {
                break used;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{used:?}");
            std::thread::yield_now();
        };
        // One process is busy, and what the others have left to do is little.
        assert!(used <= begin.elapsed() * 2, "{used:?}");
        for pid in descendants_of(Pid::from_raw(root.id().cast_signed())) {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        root.wait().unwrap();
        assert_eq!(meter.read().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
