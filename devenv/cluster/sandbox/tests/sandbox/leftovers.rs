//! Nothing is left after SIGKILL of the supervisor at any moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use devenv_sandbox::{HostProcess, Limits, Netd, NetdOptions, PodSpec};
use rand::RngExt;

use crate::{
    Scenario,
    cluster::{eventually, ip, me, shell, temp},
    limits,
};

pub const SCENARIOS: &[Scenario] = &[
    (
        "what_a_killed_janitor_left_is_swept",
        what_a_killed_janitor_left_is_swept,
    ),
    (
        "nothing_is_left_after_sigkill",
        nothing_is_left_after_sigkill,
    ),
    ("the_inventory_sees_a_leak", the_inventory_sees_a_leak),
];

/// Environment variable that marks every process of a round.
pub const MARKER: &str = "DEVENV_SANDBOX_TEST";
/// Rounds, for a soak: DEVENV_SANDBOX_ROUNDS=90.
const ROUNDS: &str = "DEVENV_SANDBOX_ROUNDS";
const DEADLINE: Duration = Duration::from_secs(2);

/// The supervisor that is killed: three pods and a build, each with children
/// that do what they can to live on.
pub fn tree(marker: &str, run_dir: &str) {
    let (owner_uid, owner_gid) = me();
    let options = NetdOptions {
        run_dir: run_dir.into(),
        owner_uid,
        owner_gid,
    };
    let netd = Netd::start(options).unwrap();
    let stubborn = "trap '' TERM INT HUP; setsid sleep 987654 & (setsid nohup sleep 987654 >/dev/null 2>&1 &); while :; do sleep 987654; done";
    let env = vec![
        ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
        (MARKER.to_owned(), marker.to_owned()),
    ];
    let mut kept = Vec::new();
    for n in 2..5 {
        let spec = PodSpec {
            hostname: format!("pod-{n}"),
            ip: ip(n),
            files: vec![],
            limits: Limits {
                pids: Some(4096),
                ..Limits::default()
            },
            tmpfs: vec![],
        };
        let pod = netd.create_pod(&spec).unwrap();
        let mut spec = shell(stubborn);
        spec.env = env.clone();
        spec.limits.memory = Some(64 << 20);
        spec.limits.cpu = Some(500);
        kept.push((pod.start(&spec).unwrap(), pod));
    }
    let argv = ["sh", "-c", stubborn].map(str::to_owned).to_vec();
    let process = HostProcess {
        argv,
        env,
        cwd: "/".into(),
        run_as: None,
    };
    let _build = netd.run_host(&process).unwrap();
    println!("up");
    loop {
        thread::park();
    }
}

/// How many rounds to run: as many as asked for, or so many.
pub fn rounds(usual: usize) -> usize {
    let asked = std::env::var(ROUNDS).ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(usual)
}

/// Killed when it goes out of scope, so that a test that fails leaves no tree behind
/// which would keep its output open.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn nothing_is_left_after_sigkill() {
    let rounds = rounds(10);
    let (_dir, run_dir) = temp();
    let machine = Machine::look(&run_dir);
    let mut longest = Duration::ZERO;
    let mut complete = 0;
    for round in 0..rounds {
        let marker = format!("{}-{round}", std::process::id());
        let supervisor = Command::new(std::env::current_exe().unwrap())
            .args(["tree", &marker])
            .arg(&run_dir)
            .env(MARKER, &marker)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut supervisor = Killed(supervisor);
        if round % 5 == 4 {
            // At least these stand when they are killed.
            let mut line = String::new();
            BufReader::new(supervisor.0.stdout.take().unwrap())
                .read_line(&mut line)
                .unwrap();
            assert_eq!(line, "up\n");
            complete += 1;
        } else {
            thread::sleep(Duration::from_micros(rand::rng().random_range(0..90_000)));
        }
        let mut before = Marked::look(&marker);
        if round % 5 == 4 {
            // Supervisor, janitor, cluster-init, cluster-net; three pods of
            // pod-init and a shell; the build's shell; two sleeps for each shell,
            // which they may only just be starting.
            before = eventually("the inventory sees the whole tree", || {
                let seen = Marked::look(&marker);
                (seen.processes.len() >= 4 + 3 * 2 + 1 + 4 * 2).then_some(seen)
            });
            assert_eq!(
                before.networks.len(),
                4,
                "the cluster's and three pods': {before:?}"
            );
            if let Some(name) = &machine.group {
                assert!(!limits::groups_named(name).is_empty(), "no group was made");
            }
        }
        drop(supervisor);

        let begin = Instant::now();
        // A process in the middle of an exec shows no environment for an
        // instant, so one look is not enough.
        let mut clean = 0;
        while clean < 3 {
            let left = Marked::look(&marker);
            let changed = machine.changes(&run_dir, &before.networks);
            if left.processes.is_empty() && changed.is_empty() {
                clean += 1;
            } else {
                clean = 0;
            }
            assert!(
                begin.elapsed() < DEADLINE,
                "round {round}: {DEADLINE:?} after the kill are left: {left:?} {changed:?}"
            );
            thread::sleep(Duration::from_millis(1));
        }
        longest = longest.max(begin.elapsed());
    }
    println!(
        "{rounds} rounds ({complete} with everything up): nothing left after {longest:?} at most"
    );
}

/// Nobody is there to remove the control groups then; the next start does it.
fn what_a_killed_janitor_left_is_swept() {
    let (_dir, run_dir) = temp();
    let machine = Machine::look(&run_dir);
    for round in 0..5 {
        let marker = format!("swept-{}-{round}", std::process::id());
        let mut supervisor = Command::new(std::env::current_exe().unwrap())
            .args(["tree", &marker])
            .arg(&run_dir)
            .env(MARKER, &marker)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(supervisor.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let is_janitor = |command: &String| command.starts_with("devenv netd");
        let all = Marked::look(&marker).processes;
        let janitor = all
            .iter()
            .find(|(_, command)| is_janitor(command))
            .unwrap()
            .0;
        let janitor = nix::unistd::Pid::from_raw(janitor.cast_signed());
        nix::sys::signal::kill(janitor, nix::sys::signal::SIGKILL).unwrap();
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        eventually("the tree is dead", || {
            Marked::look(&marker).processes.is_empty().then_some(())
        });
        if let Some(name) = &machine.group {
            assert!(!limits::groups_named(name).is_empty(), "nothing to sweep");
        }
        Machine::look(&run_dir); // starts and ends
        assert_eq!(
            machine.changes(&run_dir, &BTreeSet::new()),
            Vec::<String>::new()
        );
    }
}

fn the_inventory_sees_a_leak() {
    let marker = format!("leak-{}", std::process::id());
    let mut leak = Command::new("sleep")
        .arg("1000")
        .env(MARKER, &marker)
        .spawn()
        .unwrap();
    let seen = eventually("the inventory sees the leak", || {
        let seen = Marked::look(&marker);
        (!seen.processes.is_empty()).then_some(seen)
    });
    let machine = Machine {
        links: names("/sys/class/net"),
        group: None,
    };
    let networks = machine.changes(Path::new("/none"), &seen.networks);
    leak.kill().unwrap();
    leak.wait().unwrap();
    assert_eq!(seen.processes.len(), 1);
    // Its network is the host's, which processes that are left still use.
    assert!(!networks.is_empty());
    assert!(Marked::look(&marker).processes.is_empty());
}

/// The processes of one round. Zombies do not count: their parent may be slow.
#[derive(Debug)]
pub struct Marked {
    pub processes: BTreeMap<u32, String>,
    /// Network namespaces that only this round made.
    networks: BTreeSet<u64>,
}

impl Marked {
    pub fn look(marker: &str) -> Marked {
        let wanted = format!("{MARKER}={marker}");
        let mut found = Marked {
            processes: BTreeMap::new(),
            networks: BTreeSet::new(),
        };
        for (pid, dir) in processes() {
            let Ok(environment) = fs::read(dir.join("environ")) else {
                continue;
            };
            if environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == wanted.as_bytes())
            {
                let command = fs::read(dir.join("cmdline")).unwrap_or_default();
                found
                    .processes
                    .insert(pid, String::from_utf8_lossy(&command).replace('\0', " "));
                found
                    .networks
                    .extend(fs::metadata(dir.join("ns/net")).map(|meta| meta.ino()));
            }
        }
        if !wanted.contains("leak")
            && let Ok(own) = fs::metadata("/proc/self/ns/net")
        {
            found.networks.remove(&own.ino());
        }
        found
    }
}

fn processes() -> impl Iterator<Item = (u32, std::path::PathBuf)> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, entry.path()))
        })
}

/// What of the machine could keep a trace.
struct Machine {
    links: BTreeSet<String>,
    /// Name of the project's control groups, where it can have some.
    group: Option<String>,
}

impl Machine {
    fn look(run_dir: &Path) -> Machine {
        let (owner_uid, owner_gid) = me();
        let netd = Netd::start(NetdOptions {
            run_dir: run_dir.to_owned(),
            owner_uid,
            owner_gid,
        })
        .unwrap();
        let enforced = netd.limits_missing().is_none();
        let group = limits::recorded(run_dir)
            .first()
            .map(|path| limits::name(path));
        assert!(group.is_some() || !enforced);
        Machine {
            links: names("/sys/class/net"),
            group: group.filter(|_| enforced),
        }
    }

    fn changes(&self, run_dir: &Path, networks: &BTreeSet<u64>) -> Vec<String> {
        let mut changes = Vec::new();
        for link in names("/sys/class/net").difference(&self.links) {
            changes.push(format!("link {link}"));
        }
        let run_dir = run_dir.to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        changes.extend(
            mounts
                .lines()
                .filter(|line| line.contains(run_dir))
                .map(|line| format!("mount {line}")),
        );
        for (pid, dir) in processes() {
            let network = fs::metadata(dir.join("ns/net")).map(|meta| meta.ino());
            if network.is_ok_and(|network| networks.contains(&network)) {
                changes.push(format!("process {pid} in a network of the round"));
            }
        }
        // The sandbox makes one empty folder in the run directory.
        if let Ok(left) = fs::read_dir(Path::new(run_dir).join("root")) {
            changes.extend(
                left.flatten()
                    .map(|entry| format!("file {:?}", entry.path())),
            );
        }
        if let Some(name) = &self.group {
            changes.extend(
                limits::groups_named(name)
                    .iter()
                    .map(|path| format!("control group {}", path.display())),
            );
        }
        changes
    }
}

fn names(dir: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
