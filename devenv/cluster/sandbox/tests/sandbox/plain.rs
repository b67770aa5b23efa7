//! Without namespaces: what programs get, and that nothing of them is left.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use devenv_sandbox::{
    Container, Exit, HeldEvent, Holder, HostProcess, NetdOptions, Plain, SandboxError,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::RngExt;
use tempfile::TempDir;

use crate::{
    Scenario,
    cluster::{PATIENCE, alive, collect, eventually, me, temp, wait_readable},
    leftovers::{MARKER, Marked, rounds},
};

pub const SCENARIOS: &[Scenario] = &[
    ("plain_programs_run_as_asked", programs_run_as_asked),
    ("plain_commands_run_beside", commands_run_beside),
    ("plain_programs_cannot_escape", programs_cannot_escape),
    ("plain_listeners_are_found", listeners_are_found),
    ("plain_builds_run", builds_run),
    ("plain_failures_are_named", failures_are_named),
    ("plain_parts_can_be_killed", parts_can_be_killed),
    ("plain_leaves_nothing_after_sigkill", nothing_is_left),
    (
        "plain_sweeps_what_was_left_when_all_was_killed",
        what_was_left_is_swept,
    ),
];

/// Each way out of a process group that programs know, and a main process that waits.
const STUBBORN: &str = "trap '' TERM INT HUP
    setsid sleep 987654 &
    (setsid nohup sleep 987654 >/dev/null 2>&1 &)
    (setsid sh -c 'sh -c \"sleep 987654 & sleep 987654\" & exit') &
    (trap '' TERM; $BARE /bin/sleep 987654 &)
    (setsid $BARE /bin/sleep 987654 &)
    echo up; while :; do sleep 987654; done";
/// Forgets the environment, by which a sweep could know a process.
const BARE: &str = "env -i";

struct Rig {
    plain: Plain,
    /// After `plain`, so that it is removed last.
    _run_dir: TempDir,
}

fn options(run_dir: &Path) -> NetdOptions {
    let (owner_uid, owner_gid) = me();
    NetdOptions {
        run_dir: run_dir.to_owned(),
        owner_uid,
        owner_gid,
    }
}

fn rig() -> Rig {
    let run_dir = tempfile::tempdir().unwrap();
    Rig {
        plain: Plain::start(&options(run_dir.path())).unwrap(),
        _run_dir: run_dir,
    }
}

fn process(argv: &[&str]) -> HostProcess {
    HostProcess {
        argv: argv.iter().map(|word| word.to_string()).collect(),
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        cwd: "/".into(),
        run_as: None,
    }
}

fn shell(script: &str) -> HostProcess {
    process(&["sh", "-c", script])
}

fn event(holder: &Holder) -> HeldEvent {
    wait_readable(holder.events());
    holder
        .next_event()
        .unwrap()
        .expect("a readable channel has an event")
}

/// What a program printed, and how it ended.
fn to_the_end(holder: &Holder, started: Container) -> (String, HeldEvent) {
    let (out, err) = (collect(started.stdout), collect(started.stderr));
    let ended = event(holder);
    (out.join().unwrap() + &err.join().unwrap(), ended)
}

fn stubborn_program(bare: &str) -> HostProcess {
    let mut program = shell(STUBBORN);
    program.env.push(("BARE".into(), bare.into()));
    program
}

/// Waits until a stubborn program says that its children run, and returns their family.
fn stubborn(holder: &Holder) -> Vec<Pid> {
    let started = holder.start(&stubborn_program(BARE)).unwrap();
    let mut line = String::new();
    BufReader::new(std::fs::File::from(started.stdout))
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "up\n");
    eventually("the whole family runs", || {
        let family = family(holder.pid());
        // The shell, its own sleep and the six of the ways out.
        (family.len() >= 8).then_some(family)
    })
}

/// The living processes below one, as the kernel lists them.
fn family(pid: u32) -> Vec<Pid> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children: Vec<u32> = list
        .unwrap_or_default()
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    let mut all: Vec<Pid> = children
        .iter()
        .map(|pid| Pid::from_raw(pid.cast_signed()))
        .collect();
    all.extend(children.iter().flat_map(|pid| family(*pid)));
    all
}

fn until_dead(family: &[Pid]) {
    for pid in family {
        let pid = pid.as_raw().cast_unsigned();
        eventually("all of the family are dead", || (!alive(pid)).then_some(()));
    }
}

fn programs_run_as_asked() {
    let rig = rig();
    let holder = rig.plain.hold(None).unwrap();
    let mut spec = shell(
        "pwd; echo $A; id -u; ls -l /proc/self/fd | wc -l; grep -h SigBlk /proc/self/status; echo problem >&2; exit 3",
    );
    spec.env.push(("A".into(), "b c".into()));
    spec.cwd = "/usr".into();
    let started = holder.start(&spec).unwrap();
    assert!(started.pid > 0);
    let (said, ended) = to_the_end(&holder, started);
    // Standard input and outputs, the listing's own, and the line with the total.
    let expected = format!(
        "/usr\nb c\n{}\n5\nSigBlk:\t0000000000000000\nproblem\n",
        me().0
    );
    assert_eq!((said, ended), (expected, HeldEvent::Ended(Exit::Code(3))));
    assert!(matches!(
        holder.signal(15),
        Err(SandboxError::ClusterGone | SandboxError::NotRunning { .. })
    ));

    let holder = rig.plain.hold(None).unwrap();
    let started = holder
        .start(&shell(
            "trap 'echo told; exit 9' TERM; echo up; sleep 1000 & wait",
        ))
        .unwrap();
    wait_readable(&started.stdout);
    holder.signal(15).unwrap();
    let (said, ended) = to_the_end(&holder, started);
    assert_eq!(
        (said.as_str(), ended),
        ("up\ntold\n", HeldEvent::Ended(Exit::Code(9)))
    );

    if me().0 == 0 {
        let holder = rig.plain.hold(Some((54_322, 54_323))).unwrap();
        let script = "id -u; id -g; id -G; echo again > /dev/stdout; grep -c 0000000000000000 /proc/self/status";
        let started = holder.start(&shell(script)).unwrap();
        let (said, _) = to_the_end(&holder, started);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..4], ["54322", "54323", "54323", "again"], "{said}");
    }
}

fn commands_run_beside() {
    let rig = rig();
    let holder = rig.plain.hold(None).unwrap();
    let main = holder.start(&shell("sleep 1000")).unwrap();
    let ran = holder.exec("one", &shell("echo beside; exit 4")).unwrap();
    let out = collect(ran.stdout);
    let ended = |name: &str, exit| HeldEvent::ExecEnded {
        name: name.into(),
        exit,
    };
    assert_eq!(event(&holder), ended("one", Exit::Code(4)));
    assert_eq!(out.join().unwrap(), "beside\n");
    let hanging = holder
        .exec("hanging", &shell("trap '' TERM; sleep 1000 & wait"))
        .unwrap();
    holder.kill_exec("hanging");
    assert_eq!(event(&holder), ended("hanging", Exit::Signal(9)));
    assert!(!alive(hanging.pid));
    holder.kill_exec("hanging");
    // One that is still running when the program ends goes with it.
    let long = holder.exec("two", &shell("setsid sleep 1000")).unwrap();
    assert!(matches!(
        holder.start(&shell("true")),
        Err(SandboxError::AlreadyRunning { .. })
    ));
    holder.signal(9).unwrap();
    assert_eq!(event(&holder), HeldEvent::Ended(Exit::Signal(9)));
    assert!(!alive(long.pid) && !alive(main.pid));
}

fn programs_cannot_escape() {
    let rig = rig();
    // When the main process ends by itself, the rest is dead before that is told.
    let holder = rig.plain.hold(None).unwrap();
    let family = stubborn(&holder);
    kill(family[0], Signal::SIGKILL).unwrap();
    assert_eq!(event(&holder), HeldEvent::Ended(Exit::Signal(9)));
    for pid in &family {
        assert!(!alive(pid.as_raw().cast_unsigned()));
    }
    // When it is killed, when its handle is dropped, and with the keeper.
    let holder = rig.plain.hold(None).unwrap();
    let family = stubborn(&holder);
    holder.kill();
    assert_eq!(event(&holder), HeldEvent::Ended(Exit::Signal(9)));
    until_dead(&family);
    let holder = rig.plain.hold(None).unwrap();
    let family = stubborn(&holder);
    drop(holder);
    until_dead(&family);
    let holder = rig.plain.hold(None).unwrap();
    let family = stubborn(&holder);
    drop(rig);
    for pid in &family {
        assert!(!alive(pid.as_raw().cast_unsigned()));
    }
    assert_eq!(event(&holder), HeldEvent::Ended(Exit::Signal(9)));
}

fn listeners_are_found() {
    let rig = rig();
    let holder = rig.plain.hold(None).unwrap();
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let program = std::env::current_exe().unwrap();
    let script = format!("{} serve {port} & wait", program.display());
    holder.start(&shell(&script)).unwrap();
    let found = eventually("the server listens", || {
        holder.listening().unwrap().first().copied()
    });
    assert_eq!(found, ([0, 0, 0, 0], port).into());
    // Another container has none of it.
    let other = rig.plain.hold(None).unwrap();
    other.start(&shell("sleep 1000")).unwrap();
    assert_eq!(other.listening().unwrap(), []);
}

fn builds_run() {
    let rig = rig();
    let mut build = rig
        .plain
        .run_host(&shell("echo made; echo problem >&2; exit 4"))
        .unwrap();
    let out = collect(build.stdout.take().unwrap());
    let err = collect(build.stderr.take().unwrap());
    wait_readable(build.events());
    assert_eq!(build.try_wait().unwrap(), Some(Exit::Code(4)));
    assert_eq!(
        (out.join().unwrap(), err.join().unwrap()),
        ("made\n".into(), "problem\n".into())
    );

    let mut build = rig
        .plain
        .run_host(&shell("trap '' TERM; echo; sleep 1000 & wait; wait"))
        .unwrap();
    let pid = build.pid();
    // Not before it has said that it won't hear.
    let mut out = std::fs::File::from(build.stdout.take().unwrap());
    std::io::Read::read_exact(&mut out, &mut [0]).unwrap();
    build.signal(15).unwrap();
    assert!(alive(pid));
    drop(build);
    eventually("a dropped build dies", || (!alive(pid)).then_some(()));

    let build = rig
        .plain
        .run_host(&shell("setsid sleep 1000 & wait"))
        .unwrap();
    let all = eventually("its child runs", || {
        let all = family(build.pid());
        (!all.is_empty()).then_some(all)
    });
    drop(rig);
    assert!(!alive(build.pid()) && !alive(all[0].as_raw().cast_unsigned()));
    assert!(matches!(build.try_wait(), Err(SandboxError::ClusterGone)));
}

fn failures_are_named() {
    let rig = rig();
    let holder = rig.plain.hold(None).unwrap();
    let error = holder.start(&process(&["no-such-program"])).unwrap_err();
    assert!(
        matches!(&error, SandboxError::Exec { argv0, .. } if argv0 == "no-such-program"),
        "{error:?}"
    );
    let mut nowhere = shell("true");
    nowhere.cwd = "/no/dir".into();
    for error in [
        holder.start(&nowhere).unwrap_err(),
        rig.plain.run_host(&nowhere).unwrap_err(),
    ] {
        assert!(matches!(&error, SandboxError::Cwd { .. }), "{error:?}");
    }
    assert!(matches!(
        holder.signal(15),
        Err(SandboxError::NotRunning { .. })
    ));
    // The holder is as good as new.
    let started = holder.start(&shell("exit 0")).unwrap();
    assert_eq!(
        to_the_end(&holder, started).1,
        HeldEvent::Ended(Exit::Code(0))
    );
}

fn parts_can_be_killed() {
    let kill_it = |pid: u32| kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    // A holder: its program dies with it, and the rest with the keeper at the latest.
    let one = rig();
    let holder = one.plain.hold(None).unwrap();
    let family = stubborn(&holder);
    kill_it(holder.pid());
    assert_eq!(event(&holder), HeldEvent::Ended(Exit::Signal(9)));
    until_dead(&family[..1]);
    drop(one);
    for pid in &family {
        assert!(!alive(pid.as_raw().cast_unsigned()));
    }
    // The keeper: its holders end what they hold.
    let two = rig();
    let holder = two.plain.hold(None).unwrap();
    let family = stubborn(&holder);
    kill_it(two.plain.pid());
    until_dead(&family);
    assert!(matches!(
        two.plain.hold(None),
        Err(SandboxError::ClusterGone)
    ));
}

/// The supervisor that is killed: two containers and a build, each stubborn.
pub fn tree(marker: &str, run_dir: &str, bare: &str) {
    let plain = Plain::start(&options(Path::new(run_dir))).unwrap();
    let mut spec = stubborn_program(bare);
    spec.env.push((MARKER.to_owned(), marker.to_owned()));
    let mut kept = Vec::new();
    for _ in 0..2 {
        let holder = plain.hold(None).unwrap();
        kept.push((holder.start(&spec).unwrap(), holder));
    }
    let _build = plain.run_host(&spec).unwrap();
    println!("up");
    loop {
        thread::park();
    }
}

struct Supervisor {
    process: std::process::Child,
    marker: String,
    /// Everything below it once it was seen up.
    family: Vec<Pid>,
}

impl Supervisor {
    fn start(run_dir: &Path, round: usize, until_up: bool, bare: &str) -> Supervisor {
        let marker = format!("plain-{}-{round}", std::process::id());
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["plain-tree", &marker])
            .arg(run_dir)
            .arg(bare)
            .env(MARKER, &marker)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        if until_up {
            let mut line = String::new();
            BufReader::new(process.stdout.take().unwrap())
                .read_line(&mut line)
                .unwrap();
            assert_eq!(line, "up\n");
        } else {
            thread::sleep(Duration::from_micros(rand::rng().random_range(0..60_000)));
        }
        let family = if until_up {
            // Keeper, two holders, and three shells with seven others each.
            eventually("everything runs", || {
                let family = family(process.id());
                (family.len() >= 3 + 3 * 8).then_some(family)
            })
        } else {
            family(process.id())
        };
        Supervisor {
            process,
            marker,
            family,
        }
    }

    fn nothing_left(&self, round: usize) -> Duration {
        let begin = Instant::now();
        // A process in the middle of an exec shows no environment for an
        // instant, so one look is not enough.
        let mut clean = 0;
        while clean < 3 {
            let left = Marked::look(&self.marker);
            let known: Vec<&Pid> = self
                .family
                .iter()
                .filter(|pid| alive(pid.as_raw().cast_unsigned()))
                .collect();
            if left.processes.is_empty() && known.is_empty() {
                clean += 1;
            } else {
                clean = 0;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "round {round}: are left: {left:?} {known:?}"
            );
            thread::sleep(Duration::from_millis(1));
        }
        begin.elapsed()
    }
}

fn nothing_is_left() {
    let (_dir, run_dir) = temp();
    let (mut longest, mut complete) = (Duration::ZERO, 0);
    for round in 0..rounds(20) {
        let until_up = round % 4 == 3;
        complete += usize::from(until_up);
        let mut supervisor = Supervisor::start(&run_dir, round, until_up, BARE);
        supervisor.process.kill().unwrap();
        supervisor.process.wait().unwrap();
        longest = longest.max(supervisor.nothing_left(round));
    }
    println!("({complete} with everything up) nothing left after {longest:?} at most");
}

fn what_was_left_is_swept() {
    let (_dir, run_dir) = temp();
    for round in 0..3 {
        let mut supervisor = Supervisor::start(&run_dir, round, true, "");
        // As `pkill -9 devenv` does: supervisor, keeper and holders in one go.
        let roles: Vec<Pid> = family(supervisor.process.id())
            .into_iter()
            .filter(|pid| {
                std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.starts_with(b"devenv\0"))
            })
            .collect();
        assert_eq!(roles.len(), 3, "keeper and holders");
        for pid in roles {
            kill(pid, Signal::SIGSTOP).unwrap();
            kill(pid, Signal::SIGKILL).unwrap();
        }
        supervisor.process.kill().unwrap();
        supervisor.process.wait().unwrap();
        let left = Marked::look(&supervisor.marker);
        assert!(!left.processes.is_empty(), "there is something to find");
        drop(Plain::start(&options(&run_dir)).unwrap());
        supervisor.nothing_left(round);
    }
}
