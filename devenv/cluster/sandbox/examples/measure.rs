//! Prints what the sandbox costs on this machine. Nothing is asserted:
//! figures depend on the machine and on what else it does.
//!
//! ```sh
//! cargo run --release -p devenv-sandbox --example measure
//! ```

use std::{
    error::Error,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use devenv_sandbox::{
    Access, Bind, ContainerSpec, Limits, Netd, NetdOptions, Pod, PodEvent, PodSpec,
};

const ROUNDS: u8 = 50;
const SERVER: &str = "/measure";

fn main() -> Result<(), Box<dyn Error>> {
    devenv_sandbox::run_role_if_asked();
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return serve();
    }
    let run_dir = tempfile::tempdir()?;
    let options = || NetdOptions {
        run_dir: run_dir.path().to_owned(),
        owner_uid: nix::unistd::getuid().as_raw(),
        owner_gid: nix::unistd::getgid().as_raw(),
    };

    let (mut starts, mut ends) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS / 5 {
        let netd = starts.time(|| Netd::start(options()))?;
        ends.time(|| drop(netd));
    }
    starts.print("cluster start");
    ends.print("cluster end, everything dead");

    let netd = Netd::start(options())?;
    let (mut creates, mut launches) = (Samples::default(), Samples::default());
    let (mut answers, mut kills) = (Samples::default(), Samples::default());
    for n in 2..ROUNDS + 2 {
        let ip = Ipv4Addr::new(10, 244, 0, n);
        let spec = PodSpec {
            hostname: "measured".into(),
            ip,
            files: vec![],
            limits: Limits::default(),
            tmpfs: vec![],
        };
        let pod = creates.time(|| netd.create_pod(&spec))?;
        let started = Instant::now();
        let container = launches.time(|| pod.start(&server()))?;
        wait_for_answer(&netd, SocketAddrV4::new(ip, 80))?;
        answers.0.push(started.elapsed());
        kills.time(|| kill_and_wait(&pod))?;
        drop(container);
    }
    creates.print("pod: create");
    launches.print("pod: start a container, executed");
    answers.print("pod: start a container, first TCP accept");
    kills.print("pod: kill, everything dead");

    for count in [1, 64] {
        let mut sockets = Samples::default();
        for _ in 0..200 {
            sockets.time(|| netd.sockets(count))?;
        }
        sockets.print(&format!("hand over {count} socket(s)"));
    }
    let _pod = netd.create_pod(&PodSpec {
        hostname: "idle".into(),
        ip: Ipv4Addr::new(10, 244, 1, 1),
        files: vec![],
        limits: Limits::default(),
        tmpfs: vec![],
    })?;
    for (name, pid) in helpers(netd.pid())? {
        println!("{name:42} {}", memory(pid)?);
    }
    Ok(())
}

fn serve() -> Result<(), Box<dyn Error>> {
    for stream in TcpListener::bind(("0.0.0.0", 80))?.incoming() {
        stream?.write_all(b"x")?;
    }
    Ok(())
}

fn server() -> ContainerSpec {
    let exe = std::env::current_exe().unwrap_or_else(|_| SERVER.into());
    ContainerSpec {
        name: "server".into(),
        argv: vec![SERVER.into(), "serve".into()],
        env: vec![],
        cwd: "/".into(),
        binds: vec![Bind {
            source: exe,
            target: SERVER.into(),
            access: Access::ReadOnly,
        }],
        files: vec![],
        run_as: None,
        hidden: vec![],
        within: None,
        limits: Limits::default(),
    }
}

fn wait_for_answer(netd: &Netd, address: SocketAddrV4) -> Result<(), Box<dyn Error>> {
    loop {
        for socket in netd.sockets(64)? {
            rustix::fs::fcntl_setfl(&socket, rustix::fs::OFlags::empty())?;
            if rustix::net::connect(&socket, &address).is_ok() {
                return Ok(TcpStream::from(socket).read_exact(&mut [0])?);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

fn kill_and_wait(pod: &Pod) -> Result<(), Box<dyn Error>> {
    pod.kill();
    while pod.next_event()? != Some(PodEvent::PodGone) {
        let events = pod.events();
        let mut fds = [rustix::event::PollFd::new(
            &events,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut fds, None)?;
    }
    Ok(())
}

/// The processes below and including `top`, with their roles.
fn helpers(top: u32) -> Result<Vec<(String, u32)>, Box<dyn Error>> {
    let mut found = vec![top];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        found.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
        next += 1;
    }
    let name = |pid: u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command)
            .split('\0')
            .nth(1)
            .unwrap_or("?")
            .to_owned()
    };
    Ok(found.into_iter().map(|pid| (name(pid), pid)).collect())
}

fn memory(pid: u32) -> Result<String, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or("?").trim().to_owned()
    };
    Ok(format!(
        "{} anonymous of {} resident",
        field("RssAnon:"),
        field("VmRSS:")
    ))
}

/// Durations of one thing done many times.
#[derive(Default)]
struct Samples(Vec<Duration>);

impl Samples {
    fn time<T>(&mut self, what: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = what();
        self.0.push(begin.elapsed());
        result
    }

    fn print(&mut self, name: &str) {
        self.0.sort();
        let at = |share: usize| self.0[(self.0.len() - 1) * share / 100];
        println!("{name:42} median {:>9.1?}   p95 {:>9.1?}", at(50), at(95));
    }
}
