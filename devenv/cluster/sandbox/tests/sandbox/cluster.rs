//! What the scenarios start from: a cluster, pods, and scripts run in them.

use std::{
    fs::File,
    io::Read,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use devenv_sandbox::{
    Access, Bind, ContainerSpec, Exit, Limits, Netd, NetdOptions, Pod, PodEvent, PodSpec,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;

/// Where the test program appears in containers.
pub const PROGRAM: &str = "/test/program";
/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Cluster {
    pub netd: Netd,
    /// After `netd`, so that it is removed last.
    run_dir: TempDir,
}

pub fn me() -> (u32, u32) {
    (
        nix::unistd::getuid().as_raw(),
        nix::unistd::getgid().as_raw(),
    )
}

pub fn cluster() -> Cluster {
    cluster_of(me())
}

/// A cluster of a checkout that `owner` owns.
pub fn cluster_of(owner: (u32, u32)) -> Cluster {
    let run_dir = tempfile::tempdir().unwrap();
    let options = NetdOptions {
        run_dir: run_dir.path().to_owned(),
        owner_uid: owner.0,
        owner_gid: owner.1,
    };
    Cluster {
        netd: Netd::start(options).unwrap(),
        run_dir,
    }
}

pub fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, n)
}

impl Cluster {
    pub fn run_dir(&self) -> &std::path::Path {
        self.run_dir.path()
    }

    pub fn pod(&self, n: u8) -> Pod {
        let spec = PodSpec {
            hostname: format!("pod-{n}"),
            ip: ip(n),
            files: vec![],
            limits: Limits::default(),
            tmpfs: vec![],
        };
        self.netd.create_pod(&spec).unwrap()
    }
}

/// A container that runs `argv` with a usual PATH; [`PROGRAM`] is there.
pub fn container(argv: &[&str]) -> ContainerSpec {
    ContainerSpec {
        name: "main".into(),
        argv: argv.iter().map(|argument| argument.to_string()).collect(),
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        cwd: "/".into(),
        binds: vec![Bind {
            source: std::env::current_exe().unwrap(),
            target: PROGRAM.into(),
            access: Access::ReadOnly,
        }],
        files: vec![],
        run_as: None,
        hidden: vec![],
        within: None,
        limits: Limits::default(),
    }
}

pub fn shell(script: &str) -> ContainerSpec {
    container(&["sh", "-c", script])
}

#[derive(Debug)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    pub exit: Exit,
}

/// Runs a container to its end.
pub fn run(pod: &Pod, spec: &ContainerSpec) -> Ran {
    let started = pod.start(spec).unwrap();
    let (stdout, stderr) = (collect(started.stdout), collect(started.stderr));
    let exit = match event(pod) {
        PodEvent::Exited {
            container, exit, ..
        } if container == spec.name => exit,
        other => panic!("{other:?}"),
    };
    Ran {
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
        exit,
    }
}

pub fn collect(fd: OwnedFd) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text).unwrap();
        text
    })
}

/// Waits for the pod's next event.
pub fn event(pod: &Pod) -> PodEvent {
    wait_readable(pod.events());
    pod.next_event()
        .unwrap()
        .expect("a readable event channel has an event")
}

pub fn wait_readable(fd: impl AsFd) {
    let timeout = Timespec {
        tv_sec: PATIENCE.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    assert_eq!(
        poll(&mut fds, Some(&timeout)).unwrap(),
        1,
        "nothing came in {PATIENCE:?}"
    );
}

/// Asks again and again until `probe` has an answer.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

pub fn alive(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

pub fn temp() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}
